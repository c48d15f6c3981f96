"""The start and the end of an application, by the ASGI lifespan protocol (spec version 2.0): `Lifespan`."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from stickygw.errors import TargetError

log = logging.getLogger("stickygw.app")

LAST_WORD_SECONDS = 1.0
"""An application that said that its start failed may take so long to raise what made it fail."""


class Lifespan:
    """Runs the application's lifespan in one task, from `start` to `stop`: what it opens it can close there.

    `state` is what the application puts there for its requests. An application that raises before it has said anything
    does not speak the protocol and is served without it, as the specification has it.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self.state: dict[str, Any] = {}
        loop = asyncio.get_running_loop()
        self._started: asyncio.Future[None] = loop.create_future()
        self._stopped: asyncio.Future[None] = loop.create_future()
        self._may_stop = asyncio.Event()
        self._failure: str | None = None
        self._has_received = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Return when the application has started, or shown that it has no start.

        Raises `TargetError` when it says that it cannot; what it raised is the error's cause.
        """
        self._task = asyncio.create_task(self._run(), name="lifespan")
        try:
            await asyncio.wait({self._task, self._started}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._task.cancel()
            raise
        if self._failure is not None:
            await asyncio.wait({self._task}, timeout=LAST_WORD_SECONDS)
            cause = self._task.exception() if self._task.done() and not self._task.cancelled() else None
            self._task.cancel()
            last_line = self._failure.strip().rpartition("\n")[2]
            raise TargetError(f"its lifespan failed: {last_line or repr(cause)}") from cause
        if self._task.done():
            self._explain(self._task)

    async def stop(self) -> None:
        """Tell the application to end, and wait until it has. It never raises. Idempotent.

        For an application that does not end, the caller has to bound this wait.
        """
        task, self._task = self._task, None
        if task is None or task.done():
            return
        self._may_stop.set()
        await asyncio.wait({task, self._stopped}, return_when=asyncio.FIRST_COMPLETED)
        if self._failure is not None:
            log.error("the application's lifespan failed at its end: %s", self._failure)
        await asyncio.wait({task}, timeout=LAST_WORD_SECONDS)
        if task.done():
            self._explain(task)
        else:
            task.cancel()

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        await self._app(scope, self._receive, self._send)

    async def _receive(self) -> dict[str, str]:
        if not self._has_received:
            self._has_received = True
            return {"type": "lifespan.startup"}
        await self._may_stop.wait()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind not in ("lifespan.startup.complete", "lifespan.startup.failed",
                        "lifespan.shutdown.complete", "lifespan.shutdown.failed"):  # fmt: skip
            raise RuntimeError(f"{kind!r} is no message of the lifespan protocol")
        answered = self._started if ".startup." in kind else self._stopped
        if answered.done() or (answered is self._stopped and not self._started.done()):
            raise RuntimeError(f"{kind!r} at the wrong time")
        if kind.endswith(".failed"):
            self._failure = message.get("message", "")
        answered.set_result(None)

    def _explain(self, task: asyncio.Task[None]) -> None:
        """Say what `task`, which is over, raised, if it is worth it."""
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        if self._started.done() or self._has_received:
            log.warning("the application's lifespan ended with an error", exc_info=error)
        else:
            log.debug("the application does not speak the lifespan protocol: %r", error)

"""Sessions that are to be looked at soon, because somebody has written to them: `Looks`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from stickygw.errors import SessionUnavailable
from stickygw.types import SessionId

log = logging.getLogger("stickygw.sessions")

LOOKS_AT_ONCE = 8
"""Half of the store's connections, so that the others serve handlers meanwhile."""

PAUSE_SECONDS = 1.0
"""While the store is away, each of those who look waits so long before the next one."""


class Looks:
    """Calls ``look(id, is_named)`` for ids, `LOOKS_AT_ONCE` at a time. `is_named`: something was said of this very
    session, not of all. An id that is added while it waits is looked at once; while it is looked at, once more. An id
    is in it until the look is over.

    So what waits is bounded by the sessions in use. `look` may raise `SessionUnavailable`: that id is looked at again,
    after `PAUSE_SECONDS`. Nothing is looked at before `start` and after `stop`.
    """

    def __init__(self, look: Callable[[SessionId, bool], Awaitable[None]]) -> None:
        self._look = look
        self._is_started = False
        self._waiting: dict[SessionId, bool] = {}
        self._under_way: set[SessionId] = set()
        self._lookers: set[asyncio.Task[None]] = set()

    def __contains__(self, id: SessionId) -> bool:
        return id in self._waiting or id in self._under_way

    def start(self) -> None:
        """Begin."""
        self._is_started = True

    async def stop(self) -> None:
        """End, and forget what waits."""
        self._is_started = False
        self._waiting.clear()
        for looker in self._lookers:
            looker.cancel()
        if self._lookers:
            await asyncio.wait(tuple(self._lookers))
        self._lookers.clear()  # one that had not begun could not leave

    def add(self, ids: Iterable[SessionId], *, is_named: bool) -> None:
        """Look at `ids` soon."""
        if not self._is_started:
            return
        for id in ids:
            self._waiting[id] = is_named or self._waiting.get(id, False)
        # What is looked at already waits for that look, not for another looker: a session that is always written to
        # must not keep them all.
        lookers = len(self._under_way | self._waiting.keys())
        while len(self._lookers) < min(LOOKS_AT_ONCE, lookers):
            self._lookers.add(asyncio.create_task(self._look_on(), name="session looker"))

    async def _look_on(self) -> None:
        try:
            while (id := next((id for id in self._waiting if id not in self._under_way), None)) is not None:
                self._under_way.add(id)
                try:
                    await self._look_at(id, self._waiting.pop(id))
                finally:
                    self._under_way.discard(id)
        finally:
            # Not in a done callback: what is added until that runs would find a looker that looks no more.
            self._lookers.discard(asyncio.current_task())

    async def _look_at(self, id: SessionId, is_named: bool) -> None:
        try:
            await self._look(id, is_named)
        except SessionUnavailable as error:
            log.debug("a session cannot be looked at now: %s", error)
            self._waiting.setdefault(id, False)  # what was said of it is as old as the outage: all may be gone since
            await asyncio.sleep(PAUSE_SECONDS)
        except Exception:
            log.exception("a defect while a session was looked at")

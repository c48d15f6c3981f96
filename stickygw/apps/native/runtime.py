"""What an `App` runs with in one process: sessions, rooms and bridge, and the connections that are open."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING, Any

from stickygw.apps.native.awaitables import DONE, NEXT_TURN, Later
from stickygw.apps.native.drain import SpreadClosing
from stickygw.apps.native.offload import Offload
from stickygw.apps.native.tells import Tells
from stickygw.apps.native.traffic import Traffic
from stickygw.bridge.base import Bridge
from stickygw.bridge.hub import Hub
from stickygw.bridge.rooms import check_room
from stickygw.config.settings import Settings
from stickygw.connections.keepalive import KeepAlive
from stickygw.connections.transport import Flusher
from stickygw.observability.counters import Counters
from stickygw.routing.cookie import CookieKeys
from stickygw.sessions.registry import Sessions
from stickygw.types import GatewayId, Slot
from stickygw.wire.prepared import PreparedMessage

if TYPE_CHECKING:
    from stickygw.apps.native.app import App
    from stickygw.apps.native.connection import Connection

log = logging.getLogger("stickygw.app")

_PACKAGE = str(Path(__file__).parents[2])

PUBLISHES_PER_TURN = 64
"""An awaited publish lets the loop turn after so many, so that outboxes can empty."""

BRIDGE_BACKLOG = 1000
"""With more than this on its way to the bridge, an awaited publish waits until it is sent."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Which worker this is."""

    slot: Slot
    generation: int
    workers: int
    gateway: GatewayId


class Runtime:
    """One process's half of an application. Built by the worker; `start` and `stop` run the application's own hooks."""

    def __init__(
        self,
        app: App,
        *,
        identity: Identity,
        settings: Settings,
        sessions: Sessions,
        hub: Hub,
        bridge: Bridge,
        cookie_keys: CookieKeys,
        counters: Counters,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.app = app
        self.identity = identity
        self.settings = settings
        self.sessions = sessions
        self.hub = hub
        self.bridge = bridge
        self.cookie_keys = cookie_keys
        self.counters = counters
        self.flusher = Flusher(self.loop)
        self.keep_alive = KeepAlive(
            self.loop,
            ping_interval=settings.ping_interval,
            ping_timeout=settings.ping_timeout,
            outbox_seconds=settings.outbox_seconds,
            counters=counters,
        )
        self.tells = Tells(app.handlers.tell, spawn=self.spawn, counters=counters)
        self.offload = Offload(size=settings.offload_processes, queue=settings.offload_queue)
        self.connections: set[Connection] = set()
        self.is_stopping = False
        """Whether new handshakes are refused."""
        self._draining: SpreadClosing[Connection] | None = None
        self._ended = Traffic()  # of connections that are over
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle: asyncio.Future[None] | None = None
        self._published = 0

    async def start(self) -> None:
        """Run ``on_start``. What it raises is the caller's: the application cannot start."""
        self.app.run_with(self)
        try:
            for function in self.app.handlers.start:
                await settled(function())
        except BaseException:
            self.offload.stop()  # else the process's end waits for it
            raise

    async def stop(self, *, code: int, reason: str, close_within: float) -> None:
        """`close_all`, then `finish`."""
        self.close_all(code, reason, within=close_within)
        await self.finish()

    def drain(self, code: int, reason: str, *, within: float, spread_seconds: float) -> None:
        """Close every connection with `code`, one after the other over `spread_seconds`.

        Those too whose handshake is under way: refusing them would tell clients of a change that is none of theirs.
        `within`: as for `close_all`, which may come before it is done.
        """

        def close(connection: Connection) -> None:
            connection.send_away(code, reason, within=within)

        self.tells.stop()
        self._draining = SpreadClosing(
            self.loop, self.connections, spread_seconds=spread_seconds, random=SystemRandom(), close=close
        )

    def close_all(self, code: int, reason: str, *, within: float) -> None:
        """Close every connection with `code` now, or when its handlers are done, and refuse new handshakes.

        Handlers and the clients' side of the closing handshake have `within` seconds.
        """
        self.is_stopping = True
        self.tells.stop()
        if self._draining is not None:
            self._draining.cancel()
        for connection in tuple(self.connections):
            connection.send_away(code, reason, within=within)

    async def finish(self) -> None:
        """Wait for the connections' ends and their handlers, then run ``on_stop``.

        For handlers that do not end, the caller has to bound this wait.
        """
        try:
            await self.wait_idle()
            self.keep_alive.stop()
            for function in self.app.handlers.stop:
                try:
                    await settled(function())
                except Exception:
                    log.exception("on_stop raised")
        finally:
            self.offload.stop()
            self.tells.disconnect()
        self.app.run_with(None)

    def resize(self, workers: int) -> None:
        """The gateway has `workers` slots now."""
        self.identity = replace(self.identity, workers=workers)

    def traffic(self) -> Traffic:
        """The messages of all WebSockets, ended ones too. It looks at every open one: for once a second."""
        traffic = Traffic(self._ended.received, self._ended.sent)
        for connection in self.connections:
            connection.receiver.count_into(traffic)
        return traffic

    async def wait_idle(self) -> None:
        """Return when no connection is open and no handler runs. One caller at a time."""
        if self._tasks or self.connections:
            self._idle = self.loop.create_future()
            await self._idle

    def running(self) -> str:
        """The handlers that run now, for the log."""
        names = sorted({_place(task) for task in self._tasks})
        return f"{len(self._tasks)} handlers running: {', '.join(names) or 'none'}"

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `coroutine` as a task that this runtime owns: `stop` waits for it, and its death is logged."""
        task = self.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of the application died", exc_info=error)
        self._check_idle()

    def opened(self, connection: Connection) -> None:
        """`connection` is open."""
        self.connections.add(connection)
        if self._draining is not None:
            self._draining.add(connection)

    def closed(self, connection: Connection) -> None:
        """`connection` is over, its last handler too."""
        self.connections.discard(connection)
        connection.receiver.count_into(self._ended)
        self.sessions.release(connection.session)
        self._check_idle()

    def _check_idle(self) -> None:
        if self._idle is not None and not self._idle.done() and not self._tasks and not self.connections:
            self._idle.set_result(None)

    def publish(self, room: str, message: PreparedMessage, exclude: Connection | None) -> Awaitable[None]:
        """Deliver to the local members at once, to all others through the bridge."""
        check_room(room)
        self.hub.deliver(room, message, exclude)
        self.bridge.publish(room, message)
        self._published += 1
        if self._published == 1:
            self.loop.call_soon(self._next_turn)
        if self.bridge.backlog > BRIDGE_BACKLOG:
            return Later(self.bridge.wait_sent)
        return NEXT_TURN if self._published % PUBLISHES_PER_TURN == 0 else DONE

    def _next_turn(self) -> None:
        self._published = 0


async def settled(result: Any) -> Any:
    """The result of a ``def`` or ``async def`` function."""
    return await result if inspect.isawaitable(result) else result


def _place(task: asyncio.Task[None]) -> str:
    """Where a task waits: the application's coroutines from its handler inwards; ours if it runs none of them."""
    ours: list[str] = []
    theirs: list[str] = []
    coroutine: Any = task.get_coro()
    while hasattr(coroutine, "cr_code"):
        (ours if coroutine.cr_code.co_filename.startswith(_PACKAGE) else theirs).append(coroutine.__qualname__)
        coroutine = coroutine.cr_await
    return " > ".join(theirs or ours[-1:])

"""What an `App` runs with in one process: sessions, rooms and bridge, and the connections that are open."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
from collections import ChainMap
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING, Any, Protocol

from stickygw.apps.asgi.registrar import Registrar
from stickygw.apps.native.audience import Audience, Target
from stickygw.apps.native.drain import SpreadClosing
from stickygw.apps.native.gaps import Gaps
from stickygw.apps.native.keyed import Keys
from stickygw.apps.native.offload import Offload
from stickygw.apps.native.own_redis import OwnRedis
from stickygw.apps.native.schedule import Schedule
from stickygw.apps.native.tells import Tells
from stickygw.apps.native.traffic import Traffic
from stickygw.bridge.base import Bridge
from stickygw.bridge.claims import Claims, MemoryClaims
from stickygw.bridge.hub import Hub
from stickygw.config.settings import Settings
from stickygw.connections.flow import Flusher
from stickygw.connections.keepalive import KeepAlive
from stickygw.errors import TargetError
from stickygw.observability.counters import Counters
from stickygw.routing.cookie import CookieKeys
from stickygw.routing.keys import parse_key
from stickygw.routing.learning import parse_learn
from stickygw.sessions.in_use import in_use
from stickygw.sessions.registry import Sessions
from stickygw.types import GatewayId, Slot
from stickygw.wire.tell import SESSIONS_IN_USE

if TYPE_CHECKING:
    from stickygw.apps.asgi.host import AsgiHost
    from stickygw.apps.native.app import App
    from stickygw.apps.native.coming_keys import ComingKeys
    from stickygw.apps.native.connection import Connection
    from stickygw.apps.native.leaving_keys import LeavingKeys

log = logging.getLogger("stickygw.app")

_PACKAGE = str(Path(__file__).parents[2])


@dataclass(frozen=True, slots=True)
class Identity:
    """Which worker this is."""

    slot: Slot
    generation: int
    workers: int
    gateway: GatewayId


class Served(Target, Protocol):
    """A connection that is counted and closed here: a native `Connection`, or one of an ASGI application."""

    @property
    def is_websocket(self) -> bool:
        """Whether it is one, not a plain HTTP connection."""

    @property
    def is_open(self) -> bool:
        """Whether it has not ended, and is not about to."""

    def count_into(self, traffic: Traffic) -> None:
        """Add its messages so far, and those that wait."""


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
        claims: Claims | None = None,
        own_redis: OwnRedis | None = None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.app = app
        self.identity = identity
        self.settings = settings
        self.sessions = sessions
        self.hub = hub
        hub.policy_of = partial(app.room_rules.slow_consumer, default=settings.slow_consumer)
        self.bridge = bridge
        self.cookie_keys = cookie_keys
        self.counters = counters
        self.own_redis = own_redis or OwnRedis(None, prefix=settings.redis.prefix, timeout=settings.redis.timeout)
        """What the application keeps in the store; whoever gave it closes it."""
        self.flusher = Flusher(self.loop)
        self.keep_alive = KeepAlive(
            self.loop,
            ping_interval=settings.ping_interval,
            ping_timeout=settings.ping_timeout,
            outbox_seconds=settings.outbox_seconds,
            counters=counters,
        )
        own: dict[str, Callable[[Any], Any]] = {SESSIONS_IN_USE: partial(in_use, sessions)}
        self.tells = Tells(ChainMap(own, app.handlers.tell), spawn=self.spawn, counters=counters)
        self.offload = Offload(size=settings.offload_processes, queue=settings.offload_queue)
        self.connections: set[Served] = set()
        self.is_stopping = False
        """Whether new handshakes are refused."""
        self._draining: SpreadClosing[Served] | None = None
        self._ended = Traffic()  # of connections that are over
        self.tasks: set[asyncio.Task[None]] = set()
        """What runs: handlers, and an ASGI application's requests."""
        self._empty: asyncio.Future[None] | None = None
        """Done when the last connection has ended, while somebody waits for that."""
        self.keys = Keys(
            is_kept=bool(app.handlers.key_out or app.handlers.key_in),
            linger_seconds=settings.key_linger,
            now=self.loop.time,
        )
        """The affinity keys that the application may keep something for."""
        self.coming_keys: set[ComingKeys] = set()
        """The moves that may bring another worker's."""
        self.leaving_keys: set[LeavingKeys] = set()
        """The moves that have taken keys away."""
        self.audience = Audience(hub, bridge, targets=lambda: self.connections, random_bytes=os.urandom)
        """Whom messages are for."""
        self.schedule = Schedule(
            app.handlers.every,
            claims=claims or MemoryClaims(),
            gateway=identity.gateway,
            counters=counters,
            spawn=self.spawn,
        )
        self.gaps = Gaps(app.handlers.gap, has_members=hub.has_members, spawn=self.spawn)
        self.registrar = Registrar(counters=counters)
        self.asgi: AsgiHost | None = _asgi_host(app.http, self) if app.http is not None else None
        """What serves the rest of the application's requests."""

    def missed(self, addresses: list[str]) -> None:
        """For the bridge: something may have been missed there."""
        self.audience.gap(addresses)
        self.gaps.add(addresses)

    async def start(self) -> None:
        """Run ``on_start``, then the ASGI application's lifespan.

        What they raise is the caller's: the application cannot start.
        """
        self.app.run_with(self)
        try:
            await self.audience.start()
            for function in self.app.handlers.start:
                await settled(function())
            if self.asgi is not None:
                await self.asgi.start()
            self.schedule.start()
        except BaseException:
            self.offload.stop()  # else the process's end waits for it
            self.app.run_with(None)
            raise

    async def stop(self, *, code: int, reason: str, close_within: float) -> None:
        """`close_all`, then `finish`."""
        self.close_all(code, reason, within=close_within)
        await self.finish()

    def retire(self) -> None:
        """The slot is another's: what comes for it, and is done in its name, comes and is done there. Idempotent."""
        self.tells.stop()
        self.schedule.stop()

    def drain(self, code: int, reason: str, *, within: float, spread_seconds: float) -> None:
        """Close every connection with `code`, one after the other over `spread_seconds`.

        Those too whose handshake is under way: refusing them would tell clients of a change that is none of theirs.
        Plain requests finish, and quiet HTTP connections are closed at once: their clients do not mind.
        `within`: as for `close_all`, which may come before it is done.
        """

        def close(connection: Served) -> None:
            connection.send_away(code, reason, within=within)

        self.retire()
        if self.asgi is not None:
            self.asgi.end()
        self._draining = SpreadClosing(
            self.loop, self.connections, spread_seconds=spread_seconds, random=SystemRandom(), close=close
        )

    def close_all(self, code: int, reason: str, *, within: float) -> None:
        """Close every connection with `code` now, or when its handlers are done, and refuse new handshakes.

        Handlers and the clients' side of the closing handshake have `within` seconds.
        """
        self.is_stopping = True
        self.tells.stop()
        self.schedule.stop()
        if self._draining is not None:
            self._draining.cancel()
        if self.asgi is not None:
            self.asgi.end()
            self.asgi.refuse_openings()
        for connection in tuple(self.connections):
            connection.send_away(code, reason, within=within)

    async def finish(self) -> None:
        """Wait for the connections' ends and their handlers, then end the ASGI application and run ``on_stop``.

        For handlers that do not end, the caller has to bound this wait.
        """
        try:
            await self.wait_idle()
            self.keep_alive.stop()
            if self.asgi is not None:
                await self.asgi.stop()
            for function in self.app.handlers.stop:
                try:
                    await settled(function())
                except Exception:
                    log.exception("on_stop raised")
        finally:
            self.offload.stop()
            self.tells.disconnect()
            self.registrar.disconnect()
            self.app.run_with(None)

    def resize(self, workers: int) -> None:
        """The gateway has `workers` slots now."""
        self.identity = replace(self.identity, workers=workers)

    def traffic(self) -> Traffic:
        """The messages of all WebSockets, ended ones too. It looks at every open one: for once a second."""
        traffic = Traffic(self._ended.received, self._ended.sent)
        for connection in self.connections:
            connection.count_into(traffic)
        return traffic

    async def wait_idle(self) -> None:
        """Return when no connection is open and no handler runs. One caller at a time."""
        while self.tasks or self.connections:
            if self.tasks:
                await asyncio.wait(tuple(self.tasks))
            else:
                self._empty = self.loop.create_future()
                await self._empty

    def running(self) -> str:
        """The handlers that run now, for the log."""
        names = sorted({_place(task) for task in self.tasks})
        return f"{len(self.tasks)} handlers running: {', '.join(names) or 'none'}"

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `coroutine` as a task that this runtime owns: `stop` waits for it, and its death is logged."""
        task = self.loop.create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of the application died", exc_info=error)
        self.tasks.discard(task)

    def opened(self, connection: Served) -> None:
        """`connection` is open."""
        self.connections.add(connection)
        if self._draining is not None:
            self._draining.add(connection)

    def closed(self, connection: Connection) -> None:
        """`connection` is over, its last handler too."""
        self.sessions.release(connection.session)
        self.keys.ended(connection.affinity_key, connection)
        self.ended(connection)

    def moved(self, connection: Connection) -> None:
        """Another worker has `connection`, and counts what it has had here."""
        self.sessions.moved(connection.session)
        self.keys.ended(connection.affinity_key, connection)
        self._forget(connection)

    def ended(self, connection: Served) -> None:
        """`connection` is over, and holds nothing of ours."""
        connection.count_into(self._ended)
        self._forget(connection)

    def _forget(self, connection: Served) -> None:
        self.connections.discard(connection)
        if not self.connections and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)


def _asgi_host(app: Any, runtime: Runtime) -> AsgiHost:
    try:
        from stickygw.apps.asgi.host import AsgiHost
    except ImportError as error:
        raise TargetError(f"ASGI applications need the extra: pip install 'stickygw[asgi]' ({error})") from None
    from stickygw.apps.asgi.learner import Learner

    settings = runtime.settings
    learn = [parse_learn(text) for text in settings.learn]
    keys = [parse_key(text) for text in settings.keys]
    is_proxied = bool(settings.trusted_proxies)
    return AsgiHost(Learner(app, learn, keys, register=runtime.registrar.register, is_proxied=is_proxied), runtime)


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

"""Wires a worker: link, application, store, bridge. Start reading here.

A worker waits for its `Configure`, starts the application, says `Ready`, and serves what it is offered until it is told
to stop. If its primary dies it serves on, and looks for the next one.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import math
import os
import signal
import socket
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from stickygw.apps.loader import load_target
from stickygw.apps.native.coming import Coming
from stickygw.apps.native.leaving import Outcome
from stickygw.apps.native.moving_out import MovingOut
from stickygw.apps.native.runtime import Identity, Runtime
from stickygw.config.settings import Settings
from stickygw.connections.sending import CLOSE_SECONDS
from stickygw.errors import ExitCode, OperatorError
from stickygw.ipc.lasting_link import LastingLink
from stickygw.observability.counters import Counters
from stickygw.observability.logs import restore_own_logs, set_up_logs
from stickygw.routing.cookie import CookieKeys
from stickygw.supervision.spread import spread_for_rest
from stickygw.types import Slot
from stickygw.wire.link import (
    Answered,
    Configure,
    Deliver,
    Drain,
    Exits,
    Failed,
    Hold,
    Learnt,
    Message,
    Moved,
    MoveIn,
    MoveOut,
    Offer,
    Orphan,
    Ready,
    Resize,
    Stop,
    Stream,
)
from stickygw.worker.heart import Heart
from stickygw.worker.intake import Intake
from stickygw.worker.leaving import OrphanWatch, leave_after
from stickygw.worker.reunion import Reunion, orphan
from stickygw.worker.stores import Stores
from stickygw.worker.streams import leave_dead_streams, take_stream

log = logging.getLogger("stickygw.worker")

Order = TypeVar("Order", Drain, Stop)

STOP_MARGIN = 0.25
"""A worker that can't end in time says so before its primary cuts it, by this share of its time, within these bounds:
on a busy machine a process takes a while to end."""

LEAST_MARGIN_SECONDS = 0.2
MOST_MARGIN_SECONDS = 1.0

GIVING_UP_SECONDS = 5.0
"""When no primary is there to end it: an application whose start is given up has so long to close what it opened, and
any other so long beyond the time in which it was to stop."""

ORPHAN_STOP_SECONDS = CLOSE_SECONDS * 2
"""The stop of a worker that no primary has adopted may take so long."""

PRIMARYS_SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)
"""They are sent to the primary, but a terminal, or ``systemctl kill``, may send them to all of its processes."""

COME_BACK_SECONDS = 1.0
"""Over how long a client that a drain closes is asked to spread its return; the drain itself spreads them all."""


def run(link: socket.socket) -> int:
    """Serve as a worker on `link` until the end; the process's exit status."""
    faulthandler.enable()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return int(runner.run(_serve(link)))


async def _serve(link: socket.socket) -> ExitCode:
    return await Worker(link).serve()


class Worker:
    """One worker's life, from its link to its exit status. Made on the running loop."""

    def __init__(self, link: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._counters = Counters()
        self._intake: Intake | None = None
        self._runtime: Runtime | None = None
        self._configured: asyncio.Future[Configure] = self._loop.create_future()
        self._drain: asyncio.Future[Drain] = self._loop.create_future()
        self._move_links: dict[Slot, socket.socket] = {}  # to the workers that take over
        self._coming: set[Coming] = set()
        self._stop: asyncio.Future[Stop] = self._loop.create_future()
        self._resized: int | None = None
        self._orphaned = asyncio.Event()
        """The primary is gone, and the application has not started."""
        self._orphan_watch: OrphanWatch | None = None
        self._told_of_move: asyncio.Future[None] | None = None
        """Done when the primary knows what became of a move, or is gone."""
        self._link = LastingLink(link, on_message=self._received, on_closed=self._link_closed)
        self._reunion = Reunion(self._link, on_message=self._received, on_closed=self._link_closed)

    async def serve(self) -> ExitCode:
        """Everything, in order."""
        code = await self._serve()
        self._link.send(Exits(code))
        return code

    async def _serve(self) -> ExitCode:
        orphaned = asyncio.ensure_future(self._orphaned.wait())
        await _first_of(self._configured, orphaned)
        if not self._configured.done():
            return ExitCode.OK  # the primary ended before it told us anything
        configure = self._configured.result()
        settings = Settings.from_wire(configure.settings)
        set_up_logs(
            "worker",
            settings.log_level,
            settings.log_format,
            slot=configure.slot,
            generation=configure.generation,
            access_log=settings.access_log,
        )
        self._orphan_watch = OrphanWatch(
            self._link.is_peer_gone,
            seconds=settings.worker_orphan_timeout + ORPHAN_STOP_SECONDS + GIVING_UP_SECONDS,
        )
        self._orphan_watch.start()
        self._loop.add_signal_handler(signal.SIGTERM, self._ask_to_end, self._stop, Stop(settings.stop_timeout, 0.0))
        for number in PRIMARYS_SIGNALS:
            self._loop.add_signal_handler(number, lambda: None)
        # The last heartbeat comes behind the stores' end: what is lost there is counted in it.
        with ExitStack() as at_end:
            async with Stores(settings, self._counters) as stores:
                starting = asyncio.ensure_future(self._start(configure, settings, stores))
                await _first_of(starting, self._drain, self._stop, orphaned)
                if not starting.done():  # nobody waits for an application that has not started
                    starting.cancel()
                    # An application that will not be cancelled is killed by the primary; without one we end ourselves.
                    await _first_of(starting, orphaned)
                    if orphaned.done():
                        self._reunion.let_go()
                        leave_after(GIVING_UP_SECONDS)
                        await asyncio.wait([starting])
                    return ExitCode.OK
                try:
                    runtime = starting.result()
                except Exception as error:  # noqa: BLE001 - whatever the application raises at its start
                    return self._fail(error)
                self._intake = Intake(self._link, runtime)
                heart = Heart(self._link, runtime, self._intake)
                self._say_ready()
                at_end.callback(heart.stop)
                heart.start()
                orphaned.cancel()
                at_end.callback(self._reunion.close)
                if self._orphaned.is_set():  # in the moment in which the application was ready
                    self._link_closed()
                log.debug("ready: slot %d, generation %d, pid %d", configure.slot, configure.generation, os.getpid())
                await _first_of(self._drain, self._stop)
                return await self._end(runtime)

    async def _start(self, configure: Configure, settings: Settings, stores: Stores) -> Runtime:
        try:
            app = load_target(
                configure.target, directory=Path.cwd(), app_dir=settings.app_dir, is_factory=settings.factory
            )
        finally:
            restore_own_logs()
        runtime = Runtime(
            app,
            identity=Identity(
                configure.slot, configure.generation, self._resized or configure.workers, configure.gateway
            ),
            settings=settings,
            sessions=stores.sessions,
            hub=stores.hub,
            bridge=stores.bridge,
            claims=stores.claims,
            own_redis=stores.own_redis,
            cookie_keys=CookieKeys([secret.get_secret_value().encode() for secret in settings.secret]),
            counters=self._counters,
        )
        self._runtime = runtime
        runtime.tells.connect(self._link)
        runtime.registrar.connect(self._link)
        stores.on_publication, stores.on_gap = runtime.audience.received, runtime.missed
        await stores.bridge.start()
        try:
            await runtime.start()
        finally:
            restore_own_logs()
        return runtime

    def _say_ready(self) -> None:
        # At once, or when the link has room: `on_start` may have filled it with what it tells others.
        if not self._link.send(Ready()):
            self._link.wait_writable(self._say_ready)

    def _fail(self, error: Exception) -> ExitCode:
        reason = str(error) if isinstance(error, OperatorError) else f"{type(error).__name__}: {error}"
        shown = error.__cause__ if isinstance(error, OperatorError) else error
        log.error("the application cannot start: %s", reason, exc_info=shown)
        # A file's name in it may have bytes that are not UTF-8.
        self._link.send(Failed(reason[:1000].encode("utf-8", "backslashreplace").decode()))
        return ExitCode.TARGET

    def _received(self, message: Message, fd: int) -> None:
        match message:
            case Offer() if self._intake is not None:
                self._intake.offered(message, fd)
            case Deliver() | Answered() if self._runtime is not None:
                self._runtime.tells.received(message)
            case Learnt() if self._runtime is not None:
                self._runtime.registrar.received(message)
            case Configure() if not self._configured.done():
                self._configured.set_result(message)
            case Hold() if fd >= 0:
                self._reunion.hold(socket.socket(fileno=fd))
            case Stream(number) if fd >= 0:
                take_stream(number, fd)
            case Resize():
                self._resize(message.workers)
            case MoveIn(slot) if fd >= 0 and self._runtime is not None and self._intake is not None:
                self._take_over(self._runtime, self._intake, socket.socket(fileno=fd), slot)
            case MoveOut(slot) if fd >= 0 and slot not in self._move_links and not self._drain.done():
                self._move_links[slot] = socket.socket(fileno=fd)
            case Drain():
                self._ask_to_end(self._drain, message)
            case Stop():
                self._ask_to_end(self._stop, message)
            case _:
                log.error("link: a %s where none belongs", type(message).__name__)
                if fd >= 0:
                    os.close(fd)

    def _link_closed(self) -> None:
        if self._orphan_watch is not None:
            self._orphan_watch.count_anew()
        self._is_told_of_move()
        if self._runtime is not None:
            self._runtime.tells.disconnect()
            self._runtime.registrar.disconnect()
        if self._intake is None:
            self._orphaned.set()
        elif self._runtime is not None and not self._stop.done():
            self._reunion.begin(self._runtime, self._intake, self._who, on_given_up=self._give_up)
        self._leave_if_alone()
        leave_dead_streams()

    def _who(self) -> Orphan:
        assert self._runtime is not None
        slots = self._runtime.identity.workers
        return orphan(self._configured.result(), slots=slots, is_draining=self._drain.done())

    def _give_up(self) -> None:
        self._ask_to_end(self._stop, Stop(ORPHAN_STOP_SECONDS, 0.0))

    def _take_over(self, runtime: Runtime, intake: Intake, link: socket.socket, slot: Slot) -> None:
        self._coming.add(
            Coming(
                runtime,
                link,
                admit=intake.came,
                on_over=self._coming.discard,
                is_same_slot=slot == runtime.identity.slot,
            )
        )

    async def _move(self, runtime: Runtime, intake: Intake, drain: Drain) -> Outcome:
        """Give away what can move, unless the gateway stops meanwhile, and tell the primary."""
        within_seconds = drain.grace_seconds / 2
        moving = MovingOut(
            runtime,
            self._move_links,
            grace_seconds=min(within_seconds, runtime.settings.move_grace),
            within_seconds=within_seconds,
            on_moved=intake.gave_away,
        )
        running = asyncio.ensure_future(moving.run())
        await _first_of(running, self._stop)
        if not running.done():
            running.cancel()
        elif (error := running.exception()) is not None:
            log.error("the move failed; the connections that are left are closed", exc_info=error)
        outcome = moving.outcome
        log.debug("moved %d connections, %d were refused, %d left", outcome.moved, outcome.refused, outcome.left)
        self._told_of_move = self._loop.create_future()
        self._say_moved(Moved(outcome.moved, outcome.refused, outcome.left))
        return outcome

    def _say_moved(self, moved: Moved) -> None:
        # At once, or when the link has room, be it that to the next primary.
        if self._link.send(moved):
            self._is_told_of_move()
        else:
            self._link.wait_writable(partial(self._say_moved, moved))

    def _is_told_of_move(self) -> None:
        if self._told_of_move is not None and not self._told_of_move.done():
            self._told_of_move.set_result(None)

    def _ask_to_end(self, asked: asyncio.Future[Order], order: Order) -> None:
        if self._intake is not None:
            self._intake.stop()  # now: an offer may lie right behind the order
        self._reunion.let_go()
        if not asked.done():
            asked.set_result(order)
            self._leave_if_alone()

    def _leave_if_alone(self) -> None:
        """What a primary does with a worker that is told to stop and does not end."""
        if self._stop.done() and self._link.is_closed:
            if self._orphan_watch is not None:
                self._orphan_watch.stop()  # a stop that is under way has its own time
            leave_after(self._stop.result().grace_seconds + GIVING_UP_SECONDS)

    def _resize(self, workers: int) -> None:
        self._resized = workers
        if self._runtime is not None:
            self._runtime.resize(workers)

    async def _end(self, runtime: Runtime) -> ExitCode:
        """Drain, or stop, or drain until a stop comes. What is left when the time is up is cut."""
        assert self._intake is not None
        self._intake.stop()
        ending = asyncio.ensure_future(runtime.finish())
        what, deadline = "drain", math.inf
        try:
            if self._drain.done():
                drain = self._drain.result()
                deadline = self._loop.time() + _without_margin(drain.grace_seconds)
                runtime.retire()
                outcome = await self._move(runtime, self._intake, drain)
                total = outcome.moved + outcome.refused + outcome.left
                spread_seconds = spread_for_rest(drain.spread_seconds, left=outcome.left, total=total)
                self._begin_drain(runtime, deadline - self._loop.time(), spread_seconds)
                await _first_of(ending, self._stop, timeout=deadline - self._loop.time())
            if self._stop.done():
                what, deadline = "stop", min(deadline, self._begin_stop(runtime, self._stop.result()))
                await _first_of(ending, timeout=deadline - self._loop.time())
            if ending.done():
                ending.result()
                if self._told_of_move is not None and not self._link.is_closed:
                    await _first_of(self._told_of_move, timeout=max(0.0, deadline - self._loop.time()))
                return ExitCode.OK
            log.error("cut at the %s: %d connections, %s", what, len(runtime.connections), runtime.running())
            return ExitCode.FORCED_STOP
        finally:
            ending.cancel()
            log.debug("counters: %s", self._counters)

    def _begin_drain(self, runtime: Runtime, seconds: float, spread_seconds: float) -> None:
        """Close one connection after the other, in so many seconds."""
        close_within = min(CLOSE_SECONDS, seconds / 2)
        # The last one, too, has time for its closing handshake.
        spread_seconds = min(spread_seconds, max(0.0, seconds - close_within))
        log.debug("draining: %d connections over %.1f s", len(runtime.connections), spread_seconds)
        reason = f"restarting; come back within {COME_BACK_SECONDS:.1f} s"
        runtime.drain(1012, reason, within=close_within, spread_seconds=spread_seconds)

    def _begin_stop(self, runtime: Runtime, stop: Stop) -> float:
        """Close all connections; until when (the loop's time) that may take."""
        reason = f"gateway stopping; come back within {stop.spread_seconds:.1f} s"
        runtime.close_all(1001, reason, within=min(CLOSE_SECONDS, stop.grace_seconds / 2))
        return self._loop.time() + _without_margin(stop.grace_seconds)


def _without_margin(grace_seconds: float) -> float:
    margin = min(MOST_MARGIN_SECONDS, max(LEAST_MARGIN_SECONDS, STOP_MARGIN * grace_seconds))
    return max(0.1, grace_seconds - margin)


async def _first_of(*futures: asyncio.Future[Any], timeout: float | None = None) -> None:
    """Return when one of them is done, or after `timeout` seconds."""
    await asyncio.wait(futures, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)

"""Wires a worker: link, application, store, bridge. Start reading here.

A worker waits for its `Configure`, starts the application, says `Ready`, and serves what it is offered until it is told
to stop, or its primary is gone and its last connection over.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import signal
import socket
from pathlib import Path
from typing import Any

import uvloop

from stickygw.apps.loader import load_target
from stickygw.apps.native.app import App
from stickygw.apps.native.runtime import Identity, Runtime
from stickygw.config.settings import Settings
from stickygw.connections.websocket import CLOSE_SECONDS
from stickygw.errors import ExitCode, OperatorError
from stickygw.ipc.link import Link
from stickygw.observability.counters import Counters
from stickygw.observability.logs import set_up_logs
from stickygw.routing.cookie import CookieKeys
from stickygw.wire.link import Configure, Failed, Message, Offer, Ready, Stop
from stickygw.worker.intake import Intake
from stickygw.worker.stores import Stores

log = logging.getLogger("stickygw.worker")

STOP_MARGIN_SECONDS = 0.2
"""A worker that can't end in time says so this much before its primary cuts it."""


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
        self._configured: asyncio.Future[Configure] = self._loop.create_future()
        self._stop: asyncio.Future[Stop] = self._loop.create_future()
        self._orphaned = asyncio.Event()
        self._link = Link(link, on_message=self._received, on_closed=self._orphaned.set)

    async def serve(self) -> ExitCode:
        """Everything, in order."""
        orphaned = asyncio.ensure_future(self._orphaned.wait())
        await _first_of(self._configured, orphaned)
        if not self._configured.done():
            return ExitCode.OK  # the primary ended before it told us anything
        configure = self._configured.result()
        settings = Settings.from_wire(configure.settings)
        set_up_logs(f"worker {configure.slot}", settings.log_level)
        self._loop.add_signal_handler(signal.SIGTERM, self._ask_stop, Stop(settings.stop_timeout, 0.0))
        self._loop.add_signal_handler(signal.SIGINT, lambda: None)  # Ctrl-C is the primary's
        async with Stores(settings, self._counters) as stores:
            starting = asyncio.ensure_future(self._start(configure, settings, stores))
            await _first_of(starting, self._stop, orphaned)
            if not starting.done():  # nobody waits for an application that has not started
                starting.cancel()
                await asyncio.wait([starting])  # an application that will not be cancelled is killed by the primary
                return ExitCode.OK
            try:
                runtime = starting.result()
            except Exception as error:  # noqa: BLE001 - whatever the application raises at its start
                return self._fail(error)
            self._intake = Intake(self._link, runtime)
            self._link.send(Ready())
            log.debug("ready: slot %d, generation %d, pid %d", configure.slot, configure.generation, os.getpid())
            await _first_of(self._stop, orphaned)
            if not self._stop.done():
                await self._serve_orphaned(runtime, settings.worker_orphan_timeout)
            orphaned.cancel()
            return await self._end(runtime, self._stop.result())

    async def _start(self, configure: Configure, settings: Settings, stores: Stores) -> Runtime:
        app = load_target(configure.target, directory=Path.cwd())
        assert isinstance(app, App), "load_target gives nothing else"
        runtime = Runtime(
            app,
            identity=Identity(configure.slot, configure.generation, configure.workers, configure.gateway),
            settings=settings,
            sessions=stores.sessions,
            hub=stores.hub,
            bridge=stores.bridge,
            cookie_keys=CookieKeys([secret.get_secret_value().encode() for secret in settings.secret]),
            counters=self._counters,
        )
        await stores.bridge.start()
        await runtime.start()
        return runtime

    def _fail(self, error: Exception) -> ExitCode:
        reason = str(error) if isinstance(error, OperatorError) else f"{type(error).__name__}: {error}"
        shown = error.__cause__ if isinstance(error, OperatorError) else error
        log.error("the application cannot start: %s", reason, exc_info=shown)
        self._link.send(Failed(reason[:1000]))
        return ExitCode.TARGET

    def _received(self, message: Message, fd: int) -> None:
        match message:
            case Offer() if self._intake is not None:
                self._intake.offered(message, fd)
            case Configure() if not self._configured.done():
                self._configured.set_result(message)
            case Stop():
                self._ask_stop(message)
            case _:
                log.error("link: a %s where none belongs", type(message).__name__)
                if fd >= 0:
                    os.close(fd)

    def _ask_stop(self, stop: Stop) -> None:
        if not self._stop.done():
            self._stop.set_result(stop)

    async def _serve_orphaned(self, runtime: Runtime, timeout: float) -> None:
        """The primary is gone: connections that were handed over live on until the last one ends, or `timeout`."""
        log.warning("the primary is gone; serving %d connections for at most %g s", len(runtime.connections), timeout)
        idle = asyncio.ensure_future(runtime.wait_idle())
        await _first_of(self._stop, idle, timeout=timeout)
        idle.cancel()
        self._ask_stop(Stop(CLOSE_SECONDS * 2, 0.0))

    async def _end(self, runtime: Runtime, stop: Stop) -> ExitCode:
        assert self._intake is not None
        self._intake.stop()
        reason = f"gateway stopping; come back within {stop.spread_seconds:.1f} s"
        close_within = min(CLOSE_SECONDS, stop.grace_seconds / 2)
        try:
            async with asyncio.timeout(max(0.1, stop.grace_seconds - STOP_MARGIN_SECONDS)):
                await runtime.stop(code=1001, reason=reason, close_within=close_within)
        except TimeoutError:
            log.error("cut at the stop: %d connections, %s", len(runtime.connections), runtime.running())
            return ExitCode.FORCED_STOP
        finally:
            log.debug("counters: %s", self._counters)
        return ExitCode.OK


async def _first_of(*futures: asyncio.Future[Any], timeout: float | None = None) -> None:
    """Return when one of them is done, or after `timeout` seconds."""
    await asyncio.wait(futures, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)

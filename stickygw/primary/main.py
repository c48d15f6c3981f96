"""The primary's life, from its settings to its exit status. Start reading here.

In the order of `Primary._start`: the ground (addresses, directories, store), the gateway's parts (the way of a
connection, the fleet of workers, the control socket), the workers. Connections are accepted once a worker is ready;
until then they wait in the kernel's queue.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import uvloop

from stickygw.config.cpus import excess_workers
from stickygw.config.settings import Settings
from stickygw.errors import CommandError, ExitCode, OperatorError, TargetError
from stickygw.observability.logs import set_up_logs
from stickygw.primary.gateway import Gateway
from stickygw.primary.ground import Ground
from stickygw.primary.notify import Notifier
from stickygw.primary.signals import Signals
from stickygw.primary.upgrade import hold_signals, receive_signals
from stickygw.primary.valkey import EmbeddedValkey
from stickygw.primary.watch import watched_folders
from stickygw.supervision.spread import CLIENTS_PER_SECOND

log = logging.getLogger("stickygw.primary")

CTRL_C_SECONDS = 1.5
"""Who presses Ctrl-C waits for the prompt: so long at most for the workers."""
CTRL_C_STORE_SECONDS = 0.3
STORE_SECONDS = 5.0
KILL_SECONDS = 1.0
"""The kernel has so long to end a worker that was killed at the end of the stop."""
SIGNAL_TURNS = 5
"""Turns of the loop, in which a signal that has come is told: it wakes the loop, is read, and its handler is called."""
REPLY_SECONDS = 2.0
"""Who asked for the stop with a command has so long to take the answer."""


def run(settings_fd: int, target: str) -> int:
    """Run a gateway with what is in the file `settings_fd`, the settings and the arguments of the command that wrote
    it, until it is stopped; the process's exit status."""
    with os.fdopen(settings_fd, encoding="utf-8") as file:
        given = json.load(file)
    settings = Settings.from_wire(given["settings"])
    set_up_logs("primary", settings.log_level, settings.log_format, access_log=settings.access_log)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return int(runner.run(_serve(settings, target, given["arguments"])))
    except OperatorError as error:
        for line in str(error).splitlines():
            log.error("%s", line)
        return int(error.exit_code)
    except Exception:  # the last resort, and it tells all
        log.critical("a defect in stickygw", exc_info=True)
        return int(ExitCode.INTERNAL)


async def _serve(settings: Settings, target: str, arguments: list[str]) -> ExitCode:
    return await Primary(settings, target, arguments).serve()


class Primary:
    """One gateway's life. Made on the running loop."""

    def __init__(self, settings: Settings, target: str, arguments: list[str]) -> None:
        """`arguments`: of the ``stickygw`` command that became this process."""
        self._target = target
        self._arguments = arguments
        self._loop = asyncio.get_running_loop()
        self._started_at = self._loop.time()
        self._notifier = Notifier()
        self._signals = Signals(self._reload_asked, self._scale_asked, self._upgrade_signalled)
        receive_signals()
        self._configured = settings
        self._ground = Ground(settings)
        self._gateway: Gateway | None = None
        self._failed: asyncio.Future[str] = self._loop.create_future()
        """Why the application cannot start."""
        self._commanded: asyncio.Future[None] = self._loop.create_future()
        """Done when a command asks to stop."""
        self._upgrading: asyncio.Task[None] | None = None  # asked for by a signal
        self._prepared = asyncio.Event()
        """The process can be executed anew."""
        self._stopped: asyncio.Future[ExitCode] = self._loop.create_future()
        """How the stop has ended."""
        if (excess := excess_workers(settings.workers)) is not None:
            log.warning("%s", excess)

    async def serve(self) -> ExitCode:
        """Everything, in order. Raises `OperatorError`."""
        with ExitStack() as at_end:  # on every way out: children never outlive us
            at_end.callback(self._notifier.close)
            at_end.callback(self._ground.close)
            starting = asyncio.ensure_future(self._start(at_end))
            await _first_of(starting, self._signals.asked)
            if not starting.done():
                starting.cancel()
                await asyncio.gather(starting, return_exceptions=True)
                await self._end_orphans()
                return ExitCode.OK
            gateway = starting.result()
            await self._wait_for_the_end(gateway)
            if self._failed.done():
                raise TargetError(f"{self._target} cannot be started: {self._failed.result()}")
            exit_code = await self._stop(gateway)
            self._stopped.set_result(exit_code)
            await gateway.control.drain(REPLY_SECONDS)
            return exit_code

    async def _wait_for_the_end(self, gateway: Gateway) -> None:
        while True:
            prepared = asyncio.ensure_future(self._prepared.wait())
            await _first_of(self._failed, self._signals.asked, self._commanded, prepared)
            prepared.cancel()
            if self._is_to_stop():
                return
            await self._become_anew(gateway)

    def _is_to_stop(self) -> bool:
        return self._failed.done() or self._signals.asked.done() or self._commanded.done()

    async def _become_anew(self, gateway: Gateway) -> None:
        self._prepared.clear()
        await gateway.control.drain(REPLY_SECONDS)
        hold_signals()
        try:
            for _ in range(SIGNAL_TURNS):  # what came before is heard
                await asyncio.sleep(0)
            if self._is_to_stop():
                why = "no upgrade: the gateway is to stop"
                log.warning("%s", why)
                gateway.give_up_upgrade(why)
                await gateway.control.start()
                return
            self._notifier.reloading()
            log.info("upgrading: %d connections stay with their workers", gateway.hand_overs.connections)
            gateway.become_anew({**os.environ, **self._notifier.environment})
        except OSError as error:
            why = f"the upgrade failed, and this code goes on: {error}"
            log.critical("%s", why)
            gateway.give_up_upgrade(why)
            await gateway.control.start()
            self._notifier.ready()
        finally:
            receive_signals()

    async def _start(self, at_end: ExitStack) -> Gateway:
        await self._ground.prepare()
        settings = self._ground.settings
        gateway = self._gateway = Gateway(
            settings,
            self._target,
            self._ground.listeners,
            self._ground.orphans,
            arguments=self._arguments,
            configured=self._configured,
            notifier=self._notifier,
            started_at=self._started_at,
            on_ready=self._say_ready,
            on_failed=self._fail,
            stop=self._stop_asked,
            upgrade=self._upgrade_asked,
        )
        at_end.callback(gateway.close)
        await gateway.control.start()
        gateway.start()
        if settings.watch:
            own = (settings.runtime_dir, settings.state_dir)
            ignored = [folder for folder in own if folder is not None]
            gateway.steering.watch(watched_folders(self._target, Path.cwd()), ignored=ignored)
        return gateway

    # --- what happens meanwhile ---------------------------------------------------------------------------------------

    def _fail(self, reason: str) -> None:
        if not self._failed.done():
            self._failed.set_result(reason)

    def _say_ready(self) -> None:
        log.info("the workers of all slots are ready")
        self._notifier.ready()
        try:
            # One write, unbuffered as well: workers write to the same stream.
            print("ready: " + " ".join(listener.url for listener in self._ground.listeners) + "\n", end="", flush=True)
        except OSError as error:  # whoever started us has closed our standard output
            log.debug("nobody reads standard output: %s", error)

    def _reload_asked(self) -> None:
        if self._gateway is not None:
            self._gateway.steering.reload()

    def _scale_asked(self, step: int) -> None:
        if self._gateway is not None:
            self._gateway.steering.scale_by(step)

    def _upgrade_signalled(self) -> None:
        if self._upgrading is None or self._upgrading.done():
            self._upgrading = asyncio.ensure_future(self._upgrade_by_signal())

    async def _upgrade_by_signal(self) -> None:
        try:
            await self._upgrade_asked(lambda text: log.info("upgrade: %s", text))
        except CommandError as error:
            log.error("no upgrade: %s", error)

    async def _upgrade_asked(self, on_progress: Callable[[str], None]) -> None:
        if self._gateway is None:
            raise CommandError("the gateway has not started yet")
        await self._gateway.upgrade.prepare(on_progress)
        self._prepared.set()

    async def _stop_asked(self) -> ExitCode:
        """A command asks to stop; how that ended."""
        if not self._commanded.done():
            self._commanded.set_result(None)
        return await asyncio.shield(self._stopped)

    # --- stop ---------------------------------------------------------------------------------------------------------

    async def _stop(self, gateway: Gateway) -> ExitCode:
        """Take no more, let the workers end, then the store. A second signal ends all waiting."""
        by = self._signals.asked.result() if self._signals.asked.done() else None
        is_ctrl_c = by is signal.SIGINT
        stop_timeout = self._ground.settings.stop_timeout
        seconds = min(CTRL_C_SECONDS, stop_timeout) if is_ctrl_c else stop_timeout
        connections = gateway.hand_overs.connections
        log.info("stopping (%s): %d connections have %g s", by.name if by else "command", connections, seconds)
        self._notifier.stopping()
        if self._upgrading is not None:
            self._upgrading.cancel()
        self._ground.orphans.door.close()
        await gateway.steering.close()
        gateway.acceptor.close()
        gateway.intake.close()
        gateway.hand_overs.stop()
        spread = min(seconds, connections / CLIENTS_PER_SECOND)
        gateway.supervisor.stop(grace_seconds=seconds, spread_seconds=spread)
        self._ground.orphans.stragglers.terminate()
        await self._wait_for_workers(gateway, seconds + KILL_SECONDS)
        fleet = gateway.supervisor.fleet
        is_forced = fleet.was_forced or bool(fleet.members) or bool(self._ground.orphans.stragglers.pids)
        gateway.supervisor.kill()
        self._ground.orphans.stragglers.kill()
        if self._ground.valkey is not None and not self._signals.insisted.done():
            await self._stop_valkey(self._ground.valkey, CTRL_C_STORE_SECONDS if is_ctrl_c else STORE_SECONDS)
        log.debug("counters: %s", gateway.counters)
        if fleet.has_crashed:
            return ExitCode.FORCED_STOP
        if is_ctrl_c and not self._signals.insisted.done():
            return ExitCode.OK  # Ctrl-C promises no drain, so a short one is no failure
        return ExitCode.FORCED_STOP if is_forced else ExitCode.OK

    async def _wait_for_workers(self, gateway: Gateway, seconds: float) -> None:
        stragglers = self._ground.orphans.stragglers
        gone = asyncio.gather(gateway.supervisor.wait_gone(), stragglers.wait_gone())
        await _first_of(gone, self._signals.insisted, timeout=seconds)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)

    async def _end_orphans(self) -> None:
        """The stop has come before the end of the start: nobody else will end the workers of the primary before. Raises
        `RuntimeDirError`: one lives on all the same."""
        stop_timeout = self._ground.settings.stop_timeout
        is_ctrl_c = self._signals.asked.result() is signal.SIGINT
        ending = asyncio.ensure_future(
            self._ground.end_orphans(min(CTRL_C_SECONDS, stop_timeout) if is_ctrl_c else stop_timeout)
        )
        await _first_of(ending, self._signals.insisted)
        if ending.done():
            ending.result()
            return
        ending.cancel()
        await asyncio.gather(ending, return_exceptions=True)

    async def _stop_valkey(self, valkey: EmbeddedValkey, seconds: float) -> None:
        stopping = asyncio.ensure_future(valkey.stop(seconds))
        await _first_of(stopping, self._signals.insisted)
        if not stopping.done():
            stopping.cancel()  # it is killed on the way out
            await asyncio.wait([stopping])
            return
        stopping.result()


async def _first_of(*futures: asyncio.Future[Any], timeout: float | None = None) -> None:
    """Return when one of them is done, or after `timeout` seconds."""
    await asyncio.wait(futures, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)

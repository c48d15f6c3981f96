"""Wires the primary: addresses, directories, store, routing, workers. Start reading here.

In the order of `Primary._start`: bind, lock the directories, see to a store, build the way of a connection (acceptor →
intake → hand-overs), start the workers. Connections are accepted once a worker is ready; until then they wait in the
kernel's queue.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import signal
import traceback
from contextlib import ExitStack
from typing import Any

import uvloop
from pydantic import SecretStr

from stickygw.config.cpus import available_cpus
from stickygw.config.settings import Settings
from stickygw.errors import ExitCode, OperatorError, SettingsError, TargetError
from stickygw.observability.counters import Counters
from stickygw.observability.logs import set_up_logs
from stickygw.primary.acceptor import Acceptor
from stickygw.primary.hand_over import HandOvers
from stickygw.primary.intake import Intake
from stickygw.primary.limits import connections_within, pending_within, raise_descriptor_limit
from stickygw.primary.listener import Listener, bind
from stickygw.primary.refusal import Refusals
from stickygw.primary.runtime_dir import open_runtime_dir, open_state_dir, own_gateway_id, own_secret, port_name
from stickygw.primary.stop_signals import StopSignals
from stickygw.primary.supervisor import Supervisor
from stickygw.primary.valkey import EmbeddedValkey, find_binary
from stickygw.routing.cookie import CookieKeys
from stickygw.routing.forwarded import TrustedProxies
from stickygw.routing.keys import parse_key
from stickygw.routing.router import Router
from stickygw.routing.table import KeyTable
from stickygw.types import GatewayId, Slot
from stickygw.wire.link import Configure

log = logging.getLogger("stickygw.primary")

CTRL_C_SECONDS = 1.5
"""Who presses Ctrl-C waits for the prompt: so long at most for the workers."""
CTRL_C_STORE_SECONDS = 0.3
STORE_SECONDS = 5.0
CLIENTS_PER_SECOND = 500
"""So many are asked to come back in each second of the spread."""
FIRST_GENERATION = 1


def run(settings_fd: int, target: str) -> int:
    """Run a gateway with the settings in the file `settings_fd` until it is stopped; the process's exit status."""
    with os.fdopen(settings_fd, encoding="utf-8") as file:
        settings = Settings.from_wire(json.load(file))
    set_up_logs("primary", settings.log_level)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return int(runner.run(_serve(settings, target)))
    except OperatorError as error:
        log.error("%s", error)
        return int(error.exit_code)
    except Exception:  # noqa: BLE001 - the last resort, and it tells all
        log.critical("a defect in stickygw:\n%s", traceback.format_exc())
        return int(ExitCode.INTERNAL)


async def _serve(settings: Settings, target: str) -> ExitCode:
    return await Primary(settings, target).serve()


class Primary:
    """One gateway's life, from its settings to its exit status. Made on the running loop."""

    def __init__(self, settings: Settings, target: str) -> None:
        self._settings = settings
        self._target = target
        self._workers = available_cpus() if settings.workers == "auto" else settings.workers
        self._counters = Counters()
        self._signals = StopSignals()
        self._failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._valkey: EmbeddedValkey | None = None
        self._at_end = ExitStack()
        """Whatever must be undone on every way out, the last first: children never outlive us."""

    async def serve(self) -> ExitCode:
        """Everything, in order. Raises `OperatorError`."""
        with self._at_end:
            starting = asyncio.ensure_future(self._start())
            await _first_of(starting, self._signals.asked)
            if not starting.done():
                starting.cancel()
                await asyncio.gather(starting, return_exceptions=True)
                return ExitCode.OK
            starting.result()
            await _first_of(self._failed, self._signals.asked)
            if self._failed.done():
                raise TargetError(f"{self._target} cannot be started: {self._failed.result()}")
            return await self._stop(self._signals.asked.result())

    # --- start --------------------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        descriptors = raise_descriptor_limit()
        self._listeners = bind(self._settings.bind)
        for listener in self._listeners:
            self._at_end.callback(listener.close)
        self._open_directories(self._listeners[0])
        if self._settings.redis.url is None:
            await self._start_valkey()
        self._settings = self._with(
            max_connections=connections_within(descriptors, self._settings.max_connections),
            max_pending=pending_within(descriptors, self._settings.max_pending),
        )
        self._build()
        self._supervisor.start()

    def _open_directories(self, first: Listener) -> None:
        """Lock the directories, and complete the settings by what is kept in them."""
        settings = self._settings
        name = port_name(first.port, first.path)
        runtime = open_runtime_dir(settings.runtime_dir, port_name=name)
        self._at_end.callback(runtime.close)
        self._settings = self._with(runtime_dir=runtime.path)
        if settings.redis.url is not None and not settings.secret:
            raise SettingsError("secret: needed with redis.url, since all gateways at one Redis must share it")
        if settings.redis.url is not None and settings.gateway_id is not None:
            return  # nothing is to be kept
        state = open_state_dir(settings.state_dir, port_name=name)
        self._at_end.callback(state.close)
        self._settings = self._with(
            state_dir=state.path,
            secret=settings.secret or (SecretStr(own_secret(state)),),
            gateway_id=settings.gateway_id or own_gateway_id(state),
        )

    async def _start_valkey(self) -> None:
        settings = self._settings
        assert settings.runtime_dir is not None
        assert settings.state_dir is not None
        self._valkey = EmbeddedValkey(
            binary=find_binary(), runtime_dir=settings.runtime_dir, state_dir=settings.state_dir
        )
        self._at_end.callback(self._valkey.kill)
        await self._valkey.start()
        self._settings = self._with(redis=settings.redis.model_copy(update={"url": SecretStr(self._valkey.url)}))

    def _build(self) -> None:
        settings = self._settings
        router = self._router()
        self._refusals = Refusals(counters=self._counters)
        self._at_end.callback(self._refusals.close)
        self._hand_overs = HandOvers(
            self._workers,
            router=router,
            refusals=self._refusals,
            counters=self._counters,
            slot_wait=settings.slot_wait,
            slot_queue=settings.slot_queue,
            max_connections=settings.max_connections,
            on_hung=lambda slot, seconds: self._supervisor.hung(slot, seconds),
        )
        self._at_end.callback(self._hand_overs.close)
        self._intake = Intake(
            router=router,
            trusted=TrustedProxies(settings.trusted_proxies),
            hand_overs=self._hand_overs,
            refusals=self._refusals,
            counters=self._counters,
            header_timeout=settings.header_timeout,
            max_pending=settings.max_pending,
            max_pending_per_address=settings.max_pending_per_address,
        )
        self._at_end.callback(self._intake.close)
        self._acceptor = Acceptor(self._listeners, on_accepted=self._intake.accepted, counters=self._counters)
        self._at_end.callback(self._acceptor.close)
        self._supervisor = Supervisor(
            self._configure,
            slots=self._workers,
            hand_overs=self._hand_overs,
            start_timeout=settings.start_timeout,
            on_first_ready=self._acceptor.start,
            on_all_ready=self._say_ready,
            on_failed=self._fail,
        )
        self._at_end.callback(self._supervisor.kill)

    def _router(self) -> Router:
        settings = self._settings
        assert settings.gateway_id is not None
        return Router(
            gateway=GatewayId(settings.gateway_id),
            keys=[parse_key(text) for text in settings.keys],
            first_visit=settings.first_visit,
            cookie_name=settings.cookie.name,
            cookie_keys=CookieKeys([secret.get_secret_value().encode() for secret in settings.secret]),
            cookie_lifetime=settings.session.lifetime,
            table=KeyTable(linger=settings.key_linger),
            random=random.randrange,
        )

    def _configure(self, slot: Slot) -> Configure:
        settings = self._settings
        assert settings.gateway_id is not None
        gateway = GatewayId(settings.gateway_id)
        return Configure(slot, FIRST_GENERATION, self._workers, gateway, self._target, settings.to_wire())

    def _with(self, **changes: Any) -> Settings:
        return self._settings.model_copy(update=changes)

    def _fail(self, reason: str) -> None:
        if not self._failed.done():
            self._failed.set_result(reason)

    def _say_ready(self) -> None:
        line = "ready: " + " ".join(listener.url for listener in self._listeners)
        log.info("%d workers are ready", self._workers)
        try:
            print(line, flush=True)
        except OSError as error:  # whoever started us has closed our standard output
            log.debug("nobody reads standard output: %s", error)

    # --- stop ---------------------------------------------------------------------------------------------------------

    async def _stop(self, by: signal.Signals) -> ExitCode:
        """Take no more, let the workers end, then the store. A second signal ends all waiting."""
        is_ctrl_c = by is signal.SIGINT
        seconds = min(CTRL_C_SECONDS, self._settings.stop_timeout) if is_ctrl_c else self._settings.stop_timeout
        connections = self._hand_overs.connections
        log.info("stopping (%s): %d connections have %g s", by.name, connections, seconds)
        self._acceptor.close()
        self._intake.close()
        self._hand_overs.stop()
        spread = min(seconds, connections / CLIENTS_PER_SECOND)
        self._supervisor.stop(grace_seconds=seconds, spread_seconds=spread)
        await self._wait_for_workers(seconds)
        self._supervisor.kill()
        if self._valkey is not None and not self._signals.insisted.done():
            await self._stop_valkey(self._valkey, CTRL_C_STORE_SECONDS if is_ctrl_c else STORE_SECONDS)
        log.debug("counters: %s", self._counters)
        if self._supervisor.has_crashed:
            return ExitCode.FORCED_STOP
        if is_ctrl_c and not self._signals.insisted.done():
            return ExitCode.OK  # Ctrl-C promises no drain, so a short one is no failure
        return ExitCode.FORCED_STOP if self._supervisor.was_forced else ExitCode.OK

    async def _wait_for_workers(self, seconds: float) -> None:
        gone = asyncio.ensure_future(self._supervisor.wait_gone())
        await _first_of(gone, self._signals.insisted, timeout=seconds)
        gone.cancel()

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

"""The parts of a running gateway, put together from complete settings."""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import random
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NoReturn

from stickygw.config.cpus import worker_count
from stickygw.config.places import CONTROL_SOCKET
from stickygw.config.settings import Settings
from stickygw.errors import ExitCode
from stickygw.ipc.control import ControlServer
from stickygw.observability.counters import Counters
from stickygw.primary.acceptor import Acceptor
from stickygw.primary.adoption import FoundWorker
from stickygw.primary.control import Control
from stickygw.primary.hand_over import HandOvers
from stickygw.primary.intake import Intake
from stickygw.primary.learning import Learning
from stickygw.primary.listener import Listener
from stickygw.primary.notify import Notifier
from stickygw.primary.orphans import Orphans
from stickygw.primary.refusal import Refusals
from stickygw.primary.status import Facts, StatusReport
from stickygw.primary.steering import Steering
from stickygw.primary.supervisor import Supervisor
from stickygw.primary.tells import Tells
from stickygw.primary.upgrade import Upgrade
from stickygw.routing.cookie import CookieKeys
from stickygw.routing.forwarded import TrustedProxies
from stickygw.routing.keys import parse_key
from stickygw.routing.learning import parse_learn
from stickygw.routing.load import parse_balance
from stickygw.routing.router import Router
from stickygw.routing.table import KeyTable
from stickygw.supervision import events as to
from stickygw.supervision.fleet import Fleet
from stickygw.supervision.roster import Limits
from stickygw.types import GatewayId, Slot, WorkerId
from stickygw.wire.link import Configure
from stickygw.wire.status import RoomStorePlace, SessionStorePlace

log = logging.getLogger("stickygw.adoption")


class Gateway:
    """What a connection meets, what supervises the workers, and what steers both. Nothing runs before it is started.

    `on_ready()` is called when every slot has had a ready worker, `on_failed(reason)` when the application cannot
    start; `stop()` and `upgrade(on_progress)` are what the commands of these names wait for. `arguments`
    and `configured`: see `Upgrade`.
    """

    def __init__(
        self,
        settings: Settings,
        target: str,
        listeners: Sequence[Listener],
        orphans: Orphans,
        *,
        arguments: Sequence[str],
        configured: Settings,
        notifier: Notifier,
        started_at: float,
        on_ready: Callable[[], None],
        on_failed: Callable[[str], None],
        stop: Callable[[], Awaitable[ExitCode]],
        upgrade: Callable[[Callable[[str], None]], Awaitable[None]],
    ) -> None:
        assert settings.runtime_dir is not None
        self._settings = settings
        self._target = target
        self._listeners = listeners
        self._orphans = orphans
        self._is_started = False
        self._at_end = ExitStack()
        self.counters = Counters()
        self._build_the_way_in(listeners)
        self._build_the_fleet([listener.sock for listener in listeners], on_ready, on_failed)
        self.steering = Steering(self.supervisor, notifier)
        self.upgrade = Upgrade(
            arguments,
            configured,
            supervisor=self.supervisor,
            acceptor=self.acceptor,
            intake=self.intake,
            hand_overs=self.hand_overs,
        )
        self.caught_up: asyncio.Future[to.Finished] | None = None
        """Adopted workers are being replaced, since they run something else; done when they are. Also what became of
        an upgrade that came to nothing."""
        control = Control(
            supervisor=self.supervisor,
            steering=self.steering,
            hand_overs=self.hand_overs,
            router=self._router,
            tells=self.tells,
            status=self._status_report(listeners, started_at),
            session_store=self._session_store(),
            room_store=self._room_store(),
            stop=stop,
            upgrade=upgrade,
            caught_up=lambda: self.caught_up,
        )
        self.control = ControlServer(settings.runtime_dir / CONTROL_SOCKET, control.handle)
        self._at_end.callback(self.control.close)

    def start(self) -> None:
        """Adopt the workers that a killed primary has left, and start the others. Adopted ones that run something else
        are replaced then."""
        self._is_started = True
        orphans = self._orphans
        found, orphans.found = orphans.found, []
        orphans.stragglers.on_changed = self._write_roll
        for worker in found:
            worker.close_listeners()  # of those that came after the first
            self._learning.learn(worker.known.slot, worker.learnt)
        self.supervisor.start(found, drained=orphans.drained)
        orphans.door.on_known = self._adopt_late
        orphans.stragglers.end_after(self._settings.heartbeat_timeout)
        for listener in self._listeners:
            listener.keeps_file = False  # the workers are ours, and end with us
        if found:
            self._catch_up(found)

    def _adopt_late(self, worker: FoundWorker) -> None:
        worker.close_listeners()
        self._learning.learn(worker.known.slot, worker.learnt)
        self.supervisor.adopt(worker)
        self._orphans.stragglers.discard(worker.pid)
        self._catch_up([worker])

    def _catch_up(self, found: Sequence[FoundWorker]) -> None:
        """Have the slots and the code that this gateway is to have, and not the one before it. Who drains, or is about
        to be replaced, makes no difference."""
        staying = self._staying_pids()
        adopted = [worker.known for worker in found if worker.pid in staying]
        if not adopted:
            return
        ours = _comparable(self._settings)
        changed = {name for who in adopted for name, value in ours.items() if who.settings.get(name) != value}
        if any(who.target != self._target for who in adopted):
            changed.add("TARGET")
        if len({who.generation for who in adopted}) > 1:
            changed.add("generation")  # a reload that was not finished
        if self._orphans.has_lost_listeners:
            self._orphans.has_lost_listeners = False
            changed.add("listening socket")
        if "workers" in changed:
            self.supervisor.ask(to.Scale(worker_count(self._settings.workers)))
        if changed:
            log.info("the adopted workers run with another %s: reloading", ", ".join(sorted(changed)))
        if changed or self._orphans.is_upgrade:
            self._orphans.is_upgrade = False
            self.caught_up = self.steering.reload()

    def _staying_pids(self) -> set[int | None]:
        """The processes that own their slots, for as long as nothing else is asked."""
        records = self.supervisor.fleet.slots
        owners = [record.owner for record in records if record.owner is not None and record.coming is None]
        return {self.supervisor.pid_of(owner.id) for owner in owners}

    def become_anew(self, environment: Mapping[str, str]) -> NoReturn:
        """Execute the newest code, once `upgrade` is prepared. Raises OSError; then `give_up_upgrade` is to follow."""
        self._write_roll(is_upgrade=True)
        self._orphans.door.close()  # or workers would come back to the old code, in its last moment
        try:
            self.upgrade.become_anew(environment)
        except OSError:
            self._orphans.door.open()
            self._write_roll()
            raise

    def give_up_upgrade(self, why: str) -> None:
        """After it was prepared: go on with this code. Who asked for the upgrade, and asks what became of it, is told
        `why`."""
        self.upgrade.cancel()
        self.caught_up = asyncio.get_running_loop().create_future()
        self.caught_up.set_result(to.Finished(0, why, is_well=False))

    def close(self) -> None:
        """Close what is open and kill what runs, the last first. Idempotent."""
        self._at_end.close()

    # --- what a connection meets --------------------------------------------------------------------------------------

    def _build_the_way_in(self, listeners: Sequence[Listener]) -> None:
        settings = self._settings
        self._router = self._new_router()
        refusals = Refusals(counters=self.counters)
        self._at_end.callback(refusals.close)
        self.hand_overs = HandOvers(
            router=self._router,
            refusals=refusals,
            counters=self.counters,
            slot_wait=settings.slot_wait,
            slot_queue=settings.slot_queue,
            max_connections=settings.max_connections,
            lag_limit=settings.lag_limit,
            slow_start=settings.slow_start,
        )
        self._at_end.callback(self.hand_overs.close)
        self.intake = Intake(
            router=self._router,
            trusted=TrustedProxies(settings.trusted_proxies),
            hand_overs=self.hand_overs,
            refusals=refusals,
            counters=self.counters,
            header_timeout=settings.header_timeout,
            max_pending=settings.max_pending,
            max_pending_per_address=settings.max_pending_per_address,
        )
        self._at_end.callback(self.intake.close)
        self.acceptor = Acceptor(listeners, on_accepted=self.intake.accepted, counters=self.counters)
        self._at_end.callback(self.acceptor.close)

    def _new_router(self) -> Router:
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
            balance=parse_balance(settings.balance_by),
            learnt=[parse_learn(text).key for text in settings.learn],
            reads_token=settings.session.token,
        )

    # --- the workers --------------------------------------------------------------------------------------------------

    def _build_the_fleet(
        self, listeners: Sequence[socket.socket], on_ready: Callable[[], None], on_failed: Callable[[str], None]
    ) -> None:
        fleet = Fleet(self._slots_at_first(), limits=self._limits(), random=random.random)
        self._at_end.callback(self._end_stragglers)
        self.supervisor = Supervisor(
            fleet,
            self._configure,
            hand_overs=self.hand_overs,
            on_first_ready=self.acceptor.start,
            on_all_ready=on_ready,
            on_failed=on_failed,
            on_tell=lambda worker, slot, message: self.tells.received(worker, slot, message),
            on_learn=lambda worker, slot, message: self._learning.received(worker, slot, message),
            on_gone=self._worker_gone,
            on_changed=self._write_roll,
            counters=self.counters,
            listeners=listeners,
        )
        self._at_end.callback(self.supervisor.kill)
        self.tells = Tells(
            owners=self.supervisor.owners,
            least_loaded=lambda: self._router.least_loaded(self.hand_overs.views),
            send=self.supervisor.send,
            wait_writable=self.supervisor.wait_writable,
            counters=self.counters,
        )
        self._at_end.callback(self.tells.close)
        self._learning = Learning(
            self._router,
            send=self.supervisor.send,
            wait_writable=self.supervisor.wait_writable,
            counters=self.counters,
        )

    def _slots_at_first(self) -> int:
        """As many as there were: clients belong to them."""
        found = [worker.known.workers for worker in self._orphans.found]
        return max(found) if found else worker_count(self._settings.workers)

    def _end_stragglers(self) -> None:
        """Nobody is left, since all are killed. Before the start nobody was ours."""
        if self._is_started:
            self._orphans.stragglers.kill()
            self._orphans.roll.remove()

    def _write_roll(self, *, is_upgrade: bool = False) -> None:
        drained = [record.slot for record in self.supervisor.fleet.slots if record.is_drained]
        pids = [*self.supervisor.pids, *self._orphans.stragglers.pids]
        self._orphans.roll.write(pids, drained, is_upgrade=is_upgrade)

    def _worker_gone(self, worker: WorkerId) -> None:
        self.tells.gone(worker)
        self._learning.gone(worker)

    def _limits(self) -> Limits:
        settings = self._settings
        return Limits(
            start_timeout=settings.start_timeout,
            drain_timeout=settings.drain_timeout,
            drain_spread=settings.drain_spread,
            heartbeat_timeout=settings.heartbeat_timeout,
            max_age=settings.max_age,
            max_served=settings.max_served,
            max_rss=settings.max_rss,
        )

    def _configure(self, slot: Slot, generation: int, slots: int) -> Configure:
        settings = self._settings
        assert settings.gateway_id is not None
        gateway = GatewayId(settings.gateway_id)
        return Configure(slot, generation, slots, gateway, self._target, settings.to_wire())

    def _session_store(self) -> SessionStorePlace:
        settings = self._settings
        assert settings.redis.url is not None, "the ground has filled in that of the embedded Valkey"
        return {
            "url": settings.redis.url.get_secret_value(),
            "prefix": settings.redis.prefix,
            "lifetime": settings.session.lifetime,
        }

    def _room_store(self) -> RoomStorePlace:
        settings = self._settings
        assert settings.redis.url is not None, "the ground has filled in that of the embedded Valkey"
        return {
            "url": settings.redis.url.get_secret_value(),
            "prefix": settings.redis.prefix,
            "secret": settings.secret[0].get_secret_value() if settings.redis.sign else None,
        }

    def _status_report(self, listeners: Sequence[Listener], started_at: float) -> StatusReport:
        facts = Facts(
            version=importlib.metadata.version("stickygw"),
            target=self._target,
            addresses=[listener.url for listener in listeners],
            runtime_dir=str(self._settings.runtime_dir),
            started_at=started_at,
        )
        return StatusReport(
            facts,
            supervisor=self.supervisor,
            hand_overs=self.hand_overs,
            intake=self.intake,
            counters=self.counters,
        )


def _comparable(settings: Settings) -> dict[str, Any]:
    """The settings that make a difference to a worker. The addresses are compared on their own: a port may be any."""
    return {name: value for name, value in settings.to_wire().items() if name not in ("bind", "adopt")}

"""Carries out what `stickygw.supervision.fleet` decides, and tells it what happens. It decides nothing itself."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import assert_never

from stickygw.errors import ExitCode
from stickygw.observability.counters import Counters
from stickygw.primary.adoption import FoundWorker
from stickygw.primary.hand_over import HandOvers
from stickygw.primary.moves import Moves
from stickygw.primary.vitals import Vitals
from stickygw.primary.worker_process import Begin, Command, WorkerProcess, adopted, launched, worker_command
from stickygw.routing.load import Load
from stickygw.supervision import events as to
from stickygw.supervision.fleet import Fleet
from stickygw.supervision.lifecycle import Order
from stickygw.types import Slot, WorkerId
from stickygw.wire.link import (
    Answer,
    Blocked,
    Came,
    Configure,
    Declined,
    Drain,
    Ended,
    Failed,
    Heartbeat,
    Learn,
    Message,
    Moved,
    Ready,
    Resize,
    Stop,
    Stream,
    Taken,
    Tell,
)

log = logging.getLogger("stickygw.supervisor")

TICK_SECONDS = 0.5
"""The clock is looked at so often even when no deadline is near: a pause of this process shows by it."""

STREAMS = (1, 2)
"""Standard output and error: adopted workers get ours."""

PAUSE_SECONDS = 0.4
"""A tick so much too late means that this process stood still (stopped, starved): its workers are not to blame.

A tick and a pause that goes unnoticed, after a heartbeat that is a second old, are less than any `heartbeat_timeout`.
"""

Configurator = Callable[[Slot, int, int], Configure]
"""A worker's first message, for its slot, its generation and the number of slots."""


class Supervisor:
    """The worker processes of all slots.

    `on_first_ready` and `on_all_ready` are called once each. `on_failed(reason)` is called when a worker ends before
    any was ever ready: the application cannot start. `on_tell` gets what workers say to each other, `on_learn` the ids
    that they mint, `on_gone` each worker that has ended. `on_changed()`: which workers live has changed, or which slots
    are drained. What workers count is added to `counters`. Each worker gets copies of `listeners`.
    """

    def __init__(
        self,
        fleet: Fleet,
        configure: Configurator,
        *,
        hand_overs: HandOvers,
        on_first_ready: Callable[[], None],
        on_all_ready: Callable[[], None],
        on_failed: Callable[[str], None],
        on_tell: Callable[[WorkerId, Slot, Tell | Answer], None],
        on_learn: Callable[[WorkerId, Slot, Learn], None],
        on_gone: Callable[[WorkerId], None],
        on_changed: Callable[[], None],
        counters: Counters,
        listeners: Sequence[socket.socket] = (),
        command: Command = worker_command,
    ) -> None:
        self.fleet = fleet
        self.vitals = Vitals(counters)
        self._configure = configure
        self._command = command
        self._hand_overs = hand_overs
        self._on_first_ready = on_first_ready
        self._on_all_ready = on_all_ready
        self._on_failed = on_failed
        self._on_tell = on_tell
        self._on_learn = on_learn
        self._on_gone = on_gone
        self._on_changed = on_changed
        self._listeners = listeners
        self._loop = asyncio.get_running_loop()
        self._processes: dict[WorkerId, WorkerProcess] = {}
        self._events: deque[to.Event] = deque()
        self._is_handling = False
        self._timer: asyncio.TimerHandle | None = None
        self._due_at: float | None = None
        """When the timer was to go off. The handle does not tell: uvloop's has no `when()` if that was at once."""
        self._tickets = count(1)
        self._asked: dict[int, tuple[asyncio.Future[to.Finished], Callable[[str], None]]] = {}
        self._moves = Moves(hand_overs.takers, counters)
        self._all_gone = asyncio.Event()
        self._is_closed = False
        self._held_by = ""
        """Why commands are refused; "": they are not."""

    # --- for the primary ----------------------------------------------------------------------------------------------

    def start(self, found: Iterable[FoundWorker] = (), *, drained: tuple[Slot, ...] = ()) -> None:
        """Adopt the workers that were `found`, and start one in every slot that has none and is not `drained`."""
        for record in self.fleet.slots:
            self._hand_overs.open_slot(record.slot)
        for worker in found:
            self.adopt(worker)
        self._tell(to.Begun(drained))

    def adopt(self, found: FoundWorker) -> None:
        """Have a worker whose primary was killed. One that comes when its slot is another's gives that one what it
        has."""
        who = found.known
        worker = self.fleet.new_id()
        try:
            process = self._process(adopted(found), worker, who.slot)
        except OSError as error:  # it is gone again, or there is no descriptor to watch it with
            log.error("a worker of slot %d cannot be adopted: %s", who.slot, error)
            found.close()
            return
        connections = found.connections
        self._hand_overs.takers.adopt(worker, who.slot, process.link, connections, is_draining=who.is_draining)
        log.info("adopted worker slot=%d pid=%d: %d connections", who.slot, process.pid, len(connections))
        try:
            for number in STREAMS:
                process.send(Stream(number), number)
        except OSError as error:  # no descriptor to be had now
            log.warning("slot=%d: what it writes goes where it went: %s", who.slot, error)
        self._tell(to.Found(worker, who.slot, who.generation, who.is_draining))

    def ask(self, command: to.Command, on_progress: Callable[[str], None] | None = None) -> asyncio.Future[to.Finished]:
        """Have `command` carried out; done with what became of it. Each of its steps has a deadline."""
        ticket = next(self._tickets)
        finished: asyncio.Future[to.Finished] = self._loop.create_future()
        if self._is_closed or self._held_by:
            why = self._held_by or "the gateway has stopped"
            log.error("refused: %s", why)
            finished.set_result(to.Finished(ticket, why, is_well=False))
            return finished
        self._asked[ticket] = finished, on_progress or (lambda text: None)
        self._count()
        self._tell(to.Asked(ticket, command))
        return finished

    def hold(self, why: str) -> None:
        """Refuse every command until `release`, with `why`; recycle nobody. What is under way goes on."""
        self._held_by = why
        self.fleet.is_held = True

    def release(self) -> None:
        """Carry out commands again. Idempotent."""
        self._held_by = ""
        self.fleet.is_held = False

    def stop(self, *, grace_seconds: float, spread_seconds: float) -> None:
        """Ask all workers to end within `grace_seconds`; those that are not ready yet are ended at once."""
        self._tell(to.StopAsked(grace_seconds, spread_seconds))

    async def wait_gone(self) -> None:
        """Return when no worker is left after `stop`. The fleet's deadlines end this wait."""
        await self._all_gone.wait()

    def kill(self) -> None:
        """SIGKILL all that is left, with what they started, and wait for it. Idempotent."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        for process in self._processes.values():
            process.kill_now()
        self._processes.clear()
        self._all_gone.set()

    def pid_of(self, worker: WorkerId) -> int | None:
        """The process id of a worker that is not gone."""
        process = self._processes.get(worker)
        return process.pid if process is not None else None

    @property
    def pids(self) -> list[int]:
        """The process ids of all workers that are not gone."""
        return [process.pid for process in self._processes.values()]

    def owners(self) -> dict[Slot, WorkerId]:
        """The workers that own their slots."""
        return {record.slot: record.owner.id for record in self.fleet.slots if record.owner is not None}

    def send(self, worker: WorkerId, message: Message) -> bool:
        """Send a worker a message; False: its link is full or gone, nothing was sent."""
        process = self._processes.get(worker)
        return process is not None and process.link.send(message)

    def wait_writable(self, worker: WorkerId, callback: Callable[[], None]) -> None:
        """Call `callback` once, when the worker's link takes a message again; never if it is gone."""
        process = self._processes.get(worker)
        if process is not None:
            process.link.wait_writable(callback)

    # --- the fleet ----------------------------------------------------------------------------------------------------

    def _tell(self, event: to.Event) -> None:
        """Tell the fleet, and carry out what it answers; what happens in doing so is told after it."""
        if self._is_closed:
            return
        self._events.append(event)
        if self._is_handling:
            return
        self._is_handling = True
        try:
            self._notice_a_pause()
            while self._events:
                for action in self.fleet.handle(self._events.popleft(), self._loop.time()):
                    self._carry_out(action)
        finally:  # whatever a step met, the clock goes on
            self._is_handling = False
            self._set_timer()

    def _count(self) -> None:
        """Before workers may be retired: over how long their clients are sent away depends on how many they are."""
        for worker in self.owners().values():
            self._tell(to.WorkerCounted(worker, self._hand_overs.connections_of(worker)))

    def _notice_a_pause(self) -> None:
        if self._due_at is not None:
            late = self._loop.time() - self._due_at
            if late > PAUSE_SECONDS:
                log.warning("the primary itself stood still for %.1f s", late)
                self._events.appendleft(to.Resumed(late + TICK_SECONDS))

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._is_closed:
            return
        tick = self._loop.time() + TICK_SECONDS
        deadline = self.fleet.next_deadline
        self._due_at = tick if deadline is None else min(tick, deadline)
        self._timer = self._loop.call_at(self._due_at, self._tell, to.Tick())

    def _carry_out(self, action: to.Action) -> None:
        match action:
            case to.Launch():
                self._launch(action)
            case to.GiveSlot(worker, slot):
                self._hand_overs.worker_is_up(worker, slot, self._processes[worker].link)
            case to.Do():
                self._order(action)
            case to.OpenSlot(slot):
                self._hand_overs.open_slot(slot)
                self._tell_how_many()
            case to.CloseSlot(slot):
                self._hand_overs.close_slot(slot)
                self._tell_how_many()
            case to.SetDrained(slot, is_drained):
                self._hand_overs.set_drained(slot, is_drained)
                self._on_changed()
            case to.Note(text, is_error):
                log.log(logging.ERROR if is_error else logging.INFO, "%s", text)
            case to.Progress() | to.Finished():
                self._answer(action)
            case to.FirstReady():
                self._on_first_ready()
            case to.AllReady():
                self._on_all_ready()
            case to.GiveUp(reason):
                self._on_failed(reason)
            case to.AllGone():
                self._all_gone.set()
            case _:
                assert_never(action)

    def _answer(self, news: to.Progress | to.Finished) -> None:
        is_well = isinstance(news, to.Progress) or news.is_well
        log.log(logging.INFO if is_well else logging.ERROR, "%s", news.text)
        if news.ticket not in self._asked:
            return  # nobody asked: the fleet replaced a worker by itself
        finished, on_progress = self._asked[news.ticket]
        if isinstance(news, to.Progress):
            on_progress(news.text)
        else:
            del self._asked[news.ticket]
            if not finished.done():
                finished.set_result(news)

    # --- processes ----------------------------------------------------------------------------------------------------

    def _launch(self, launch: to.Launch) -> None:
        configure = self._configure(launch.slot, launch.generation, len(self.fleet.slots))
        try:
            process = self._process(launched(configure, self._listeners, self._command), launch.worker, launch.slot)
        except OSError as error:  # no process or descriptor to be had now
            self._tell(to.WorkerFailed(launch.worker, f"cannot start a process: {error}"))
            self._tell(to.WorkerGone(launch.worker, "nothing", is_clean=False, is_forced=False))
            return
        log.debug("worker started slot=%d generation=%d pid=%d", launch.slot, launch.generation, process.pid)

    def _process(self, begin: Begin, worker: WorkerId, slot: Slot) -> WorkerProcess:
        """Raises OSError."""
        process = self._processes[worker] = WorkerProcess(
            begin, worker, slot, on_message=self._said, on_cut_off=self._cut_off, on_gone=self._gone
        )
        self._on_changed()
        return process

    def _order(self, do: to.Do) -> None:
        process = self._processes.get(do.worker)
        if process is None:
            return
        match do.order:
            case Order.DRAIN:
                self._moves.begin(process, ((slot, self._processes.get(worker)) for slot, worker in do.successors))
                process.send(Drain(do.grace_seconds, do.spread_seconds))
            case Order.STOP:
                process.send(Stop(do.grace_seconds, do.spread_seconds))
            case Order.TERMINATE:
                process.signal(signal.SIGTERM)
            case Order.ABORT:
                process.abort()
            case Order.KILL:
                process.kill()
            case _:
                assert_never(do.order)

    def _tell_how_many(self) -> None:
        for process in self._processes.values():
            process.send(Resize(len(self.fleet.slots)))

    def _said(self, process: WorkerProcess, message: Message) -> None:
        worker = process.worker
        match message:
            case Taken() | Ended() | Declined() | Came():
                self._hand_overs.received(worker, message)
            case Heartbeat():
                self.vitals.heard(worker, message, self._loop.time())
                self._hand_overs.heard(worker, Load(message.lag, message.queued, message.cpu, message.rss))
                self._tell(to.WorkerHeard(worker, message.connections, message.served, message.rss))
            case Tell() | Answer():
                self._on_tell(worker, process.slot, message)
            case Learn():
                self._on_learn(worker, process.slot, message)
            case Ready():
                self._count()
                self._tell(to.WorkerReady(worker))
            case Failed(reason):
                self._tell(to.WorkerFailed(worker, reason))
            case Moved(moved, refused, left):
                self._tell(self._moves.said(worker, moved, refused, left))
            case Blocked(where, _):
                self._tell(to.WorkerBlocked(worker, where))
            case _:
                log.error("slot=%d: a worker does not send %s", process.slot, type(message).__name__)

    def _cut_off(self, process: WorkerProcess) -> None:
        moved = self._moves.cut_off(process.worker)
        if moved is not None:
            self._tell(moved)
        # Every acknowledgement has been counted until here, so what is still in flight was not taken.
        self._hand_overs.worker_is_down(process.worker)
        self._tell(to.WorkerCutOff(process.worker))

    def _gone(self, process: WorkerProcess, status: int | None) -> None:
        del self._processes[process.worker]
        self._on_changed()
        self.vitals.forget(process.worker)
        self._on_gone(process.worker)
        is_forced = status == ExitCode.FORCED_STOP
        self._tell(to.WorkerGone(process.worker, _in_words(status), is_clean=status == 0, is_forced=is_forced))


def _in_words(status: int | None) -> str:
    if status is None:
        return "a status that nobody knows: it was no child of this primary"
    if status >= 0:
        return f"status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:  # a real-time signal
        return f"signal {-status}"

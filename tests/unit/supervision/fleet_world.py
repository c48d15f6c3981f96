"""The outer world of a fleet in virtual time: processes, what they say, how they end, and the primary's clock."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from math import inf

from fleet_judge import Judge

from stickygw.supervision import events as to
from stickygw.supervision.fleet import Fleet
from stickygw.supervision.lifecycle import Order
from stickygw.supervision.roster import Limits
from stickygw.types import Slot, WorkerId

LIMITS = Limits(start_timeout=30.0, drain_timeout=30.0, drain_spread=None, heartbeat_timeout=10.0)


@dataclass(frozen=True)
class Character:
    """How a process will behave. Seconds; None: never."""

    ready_after: float | None = 0.5
    """So long after its start it says that it is ready, or, if it `is_broken`, why it cannot start."""
    is_broken: bool = False
    lives: float | None = None
    """Seconds from its start to its death."""
    obeys_after: float | None = 0.1
    aborts_after: float | None = 0.1
    closes_link_before: float = 0.0
    is_forced: bool = False
    connections: int = 0
    moves_after: float | None = None
    """Asked to drain, it says so long after it what has moved."""
    refused: int = 0
    left: int = 0
    """Of its connections, those that the other refused, and those that cannot move; at most `connections` together."""
    serves: int = 0
    """Connections between two heartbeats."""
    grows: int = 0
    """Bytes between two heartbeats."""


GOOD = Character()


@dataclass(eq=False)
class Process:
    """One worker process, as it really is."""

    id: WorkerId
    slot: Slot
    generation: int
    character: Character
    orders: list[to.Do] = field(default_factory=list)
    is_gone: bool = False
    is_cut: bool = False
    is_silent: bool = False
    served: int = 0
    rss: int = 50 << 20


class World:
    """Plays everything but the fleet: `tell` gives it an event, `run` lets time pass, and the judge listens."""

    def __init__(self, slots: int = 2, *, limits: Limits = LIMITS, seed: int = 0, beat_seconds: float = 1.0) -> None:
        self.fleet = Fleet(slots, limits=limits, random=random.Random(seed).random)
        self.judge = Judge(self.fleet, slots, limits)
        self.now = 1000.0
        self.beat_seconds = beat_seconds
        self.said: list[to.Action] = []
        """All actions so far."""
        self.processes: dict[WorkerId, Process] = {}
        """Those that are not gone."""
        self.characters: list[Character] = []
        """Of the next processes; those after them have `character`."""
        self.character = GOOD
        self.is_kind = False
        """Whether nothing bad happens any more: processes start, live and obey."""
        self.is_sound = True
        self._tickets = count(1)
        self._order = count()
        self._agenda: list[tuple[float, int, Callable[[], object]]] = []

    # --- telling ------------------------------------------------------------------------------------------------------

    def tell(self, event: to.Event) -> list[to.Action]:
        """Let the fleet handle it, and do what it says."""
        self.is_sound = False  # until everything below has held
        self.judge.hears(event, self.now)
        actions = self.fleet.handle(event, self.now)
        self.judge.sees(actions)
        self.said += actions
        for action in actions:
            self._carry_out(action)
        self.is_sound = True
        return actions

    def ask(self, command: to.Command) -> int:
        """An operator's command; its ticket."""
        ticket = next(self._tickets)
        self.tell(to.Asked(ticket, command))
        return ticket

    def find(self, slot: int, generation: int = 1, *, is_draining: bool = False) -> Process:
        """A worker that served before we did comes: before `Begun`, or late."""
        process = Process(self.fleet.new_id(), Slot(slot), generation, self._next_character())
        self.processes[process.id] = process
        self.tell(to.Found(process.id, process.slot, generation, is_draining))
        self.later(self.beat_seconds, lambda: self._beat(process))
        if is_draining:
            self._ordered(process, Order.DRAIN)
        return process

    def run(self, seconds: float, *, late: float = 0.0) -> None:
        """Let time pass; the primary's ticks come `late` seconds after their time."""
        end = self.now + seconds
        while True:
            due = self.fleet.next_deadline
            tick_at = inf if due is None else due + late
            event_at = self._agenda[0][0] if self._agenda else inf
            if min(tick_at, event_at) > end:
                break
            self.now = max(self.now, min(tick_at, event_at))
            if event_at <= tick_at:
                heappop(self._agenda)[2]()
            else:
                self.tell(to.Tick())
        self.now = end

    def pause_primary(self, seconds: float) -> None:
        """The primary stands still, and its workers do not."""
        self.now += seconds
        self.tell(to.Resumed(seconds))
        self.run(0.0)

    # --- what processes do --------------------------------------------------------------------------------------------

    def die(self, process: Process, status: str = "SIGSEGV", *, is_clean: bool = False) -> None:
        """Its process ends now: first its link, some time before if it is of that character."""
        if process.is_gone:
            return
        if process.character.closes_link_before and not process.is_cut:
            self.cut(process)
            self.later(process.character.closes_link_before, lambda: self.die(process, status, is_clean=is_clean))
            return
        process.is_gone = True
        del self.processes[process.id]
        is_forced = process.character.is_forced and is_clean
        self.tell(to.WorkerGone(process.id, status, is_clean and not is_forced, is_forced))

    def cut(self, process: Process) -> None:
        """Its link is closed."""
        if not process.is_gone and not process.is_cut:
            process.is_cut = True
            self.tell(to.WorkerCutOff(process.id))

    def block(self, process: Process, where: str = "") -> None:
        """Its event loop stands still from now on; with `where`, its own watch says so."""
        process.is_silent = True
        if where:
            self.tell(to.WorkerBlocked(process.id, where))

    def later(self, seconds: float, act: Callable[[], object]) -> None:
        """Do something in so many seconds."""
        heappush(self._agenda, (self.now + seconds, next(self._order), act))

    def _carry_out(self, action: to.Action) -> None:
        match action:
            case to.Launch():
                self._launch(action)
            case to.Do():
                process = self.processes[action.worker]
                process.orders.append(action)
                self._ordered(process, action.order)
                if action.order is Order.DRAIN and process.character.moves_after is not None:
                    self.later(process.character.moves_after, lambda: self._moved(process))
            case to.GiveUp():
                self.later(0.01, lambda: self.tell(to.StopAsked(5.0, 0.0)))

    def _launch(self, launch: to.Launch) -> None:
        character = self._next_character()
        process = self.processes[launch.worker] = Process(launch.worker, launch.slot, launch.generation, character)
        if character.ready_after is not None:
            self.later(character.ready_after, lambda: self._start(process))
        if character.lives is not None:
            self.later(character.lives, lambda: None if self.is_kind else self.die(process))

    def _next_character(self) -> Character:
        return GOOD if self.is_kind else self.characters.pop(0) if self.characters else self.character

    def _start(self, process: Process) -> None:
        if process.is_gone or process.is_cut or process.is_silent:
            return
        if process.character.is_broken and not self.is_kind:
            self.tell(to.WorkerFailed(process.id, "ImportError: no module named 'app'"))
            self.later(0.02, lambda: self.die(process, "status 1"))
        else:
            self.tell(to.WorkerReady(process.id))
            self._beat(process)

    def _beat(self, process: Process) -> None:
        if process.is_gone or process.is_cut or process.is_silent:
            return
        process.served += process.character.serves
        process.rss += process.character.grows
        self.later(self.beat_seconds, lambda: self._beat(process))
        self.tell(to.WorkerHeard(process.id, process.character.connections, process.served, process.rss))

    def _moved(self, process: Process) -> None:
        if process.is_gone or process.is_cut or process.is_silent:
            return
        of = process.character
        refused = min(of.refused, of.connections)
        left = min(of.left, of.connections - refused)
        self.tell(to.WorkerMoved(process.id, of.connections - refused - left, refused, left))

    def _ordered(self, process: Process, order: Order) -> None:
        if order is Order.KILL:
            self.later(0.01, lambda: self.die(process, "SIGKILL"))
            return
        character = GOOD if self.is_kind else process.character
        if order is Order.ABORT:
            if character.aborts_after is not None:
                self.later(character.aborts_after, lambda: self.die(process, "SIGABRT"))
        elif character.obeys_after is not None and not process.is_silent:
            is_clean = order is not Order.TERMINATE
            status = "status 0" if is_clean else "SIGTERM"
            self.later(character.obeys_after, lambda: self.die(process, status, is_clean=is_clean))

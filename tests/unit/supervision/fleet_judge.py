"""What must hold of a fleet at every moment: a judge that hears all events and actions, and fails at a fault."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from stickygw.supervision import events as to
from stickygw.supervision.backoff import FIRST_DELAY_SECONDS, LEAST_SHARE, LONGEST_DELAY_SECONDS, QUIET_SECONDS
from stickygw.supervision.fleet import Fleet
from stickygw.supervision.lifecycle import Order, State
from stickygw.supervision.roster import CUT_SECONDS, ENDING_SECONDS, GIVING_UP_SECONDS, Limits
from stickygw.types import Slot, WorkerId


@dataclass(eq=False)
class Seen:
    """One living worker; `is_found`: it served before we did. By `ends_by` and `silent_by` something must have been
    done about it, and nothing before."""

    slot: Slot
    ends_by: float
    silent_by: float = inf
    says_ready: bool = False
    is_found: bool = False
    has_had_slot: bool = False
    is_ending: bool = False
    orders: list[Order] = field(default_factory=list)


@dataclass
class Budget:
    """The restarts that one slot had because of deaths."""

    restarts: int = 0
    last: float = -inf
    last_due: float = -inf
    """A quiet minute begins when the restart is due, even if a pause of the primary delays it."""

    def spend(self, now: float, due: float) -> None:
        """A restart: not before the back-off allows it."""
        if now - self.last_due >= QUIET_SECONDS:
            self.restarts = 0
        if self.restarts:
            least = LEAST_SHARE * min(FIRST_DELAY_SECONDS * 2 ** (self.restarts - 1), LONGEST_DELAY_SECONDS)
            assert now - self.last >= least - 1e-6, f"restart {self.restarts} after {now - self.last:.3f} s"
        self.restarts += 1
        self.last, self.last_due = now, due


class Judge:
    """Keeps its own books and compares."""

    def __init__(self, fleet: Fleet, slots: int, limits: Limits) -> None:
        self.fleet = fleet
        self.limits = limits
        self.now = 0.0
        self.living: dict[WorkerId, Seen] = {}
        self.slots: dict[WorkerId, Slot] = {}
        """Of all workers that ever were."""
        self.owners: dict[Slot, WorkerId] = {}
        self.open = {Slot(slot) for slot in range(slots)}
        self.drained: set[Slot] = set()
        self.budgets: dict[Slot, Budget] = {}
        self.restarts_due: dict[Slot, float] = {}
        self.unfinished: set[int] = set()
        self.finished: set[int] = set()
        self.moved: dict[int, tuple[int, int]] = {}
        """Connections that moved, and that were closed, in each operation that has told of any, by its ticket."""
        self.giving: set[WorkerId] = set()
        """Workers that give connections to other slots, and have not said what became of it."""
        self.stop: to.StopAsked | None = None
        self.stop_by = inf
        self.once: list[type] = []
        """Which of FirstReady, AllReady, GiveUp, AllGone have come, in order."""

    @property
    def has_given_up(self) -> bool:
        return to.GiveUp in self.once

    # --- what happens -------------------------------------------------------------------------------------------------

    def hears(self, event: to.Event, now: float) -> None:
        """Before the fleet handles it."""
        self.now = now
        match event:
            case to.Asked():
                self.unfinished.add(event.ticket)
            case to.StopAsked() if self.stop is None:
                self.stop, self.stop_by = event, now + event.grace_seconds
                for seen in self.living.values():
                    seen.ends_by = min(seen.ends_by, self.stop_by)
            case to.Resumed():
                for seen in self.living.values():
                    seen.ends_by += event.seconds
                    if seen.silent_by < inf:
                        seen.silent_by = now + self.limits.heartbeat_timeout
            case to.Found():
                self._hears_found(event)
            case to.WorkerMoved():
                self._hears_moved(event)
            case to.WorkerReady() | to.WorkerFailed() | to.WorkerHeard() | to.WorkerCutOff() | to.WorkerGone():
                if event.worker in self.living:
                    self._hears_worker(self.living[event.worker], event)

    def _hears_found(self, event: to.Found) -> None:
        silent_by = self.now + self.limits.heartbeat_timeout
        seen = self.living[event.worker] = Seen(event.slot, inf, silent_by, says_ready=True, is_found=True)
        self.slots[event.worker] = event.slot
        if event.is_draining:
            seen.has_had_slot = True
            seen.ends_by = self.now + self.limits.drain_timeout + CUT_SECONDS

    def _hears_moved(self, event: to.WorkerMoved) -> None:
        operation = self.fleet._operations.current
        if operation is not None and event.worker in operation.leaving:
            moved, closed = self.moved.get(operation.ticket, (0, 0))
            self.moved[operation.ticket] = moved + event.moved, closed + event.refused + event.left
            self.giving.discard(event.worker)

    def _hears_worker(self, seen: Seen, event: to.WorkerEvent) -> None:
        match event:
            case to.WorkerReady():
                seen.says_ready = True
            case to.WorkerFailed() if not (seen.is_found or seen.has_had_slot or seen.is_ending):
                seen.is_ending, seen.ends_by = True, self.now + GIVING_UP_SECONDS
            case to.WorkerHeard() if seen.silent_by < inf:
                seen.silent_by = self.now + self.limits.heartbeat_timeout
            case to.WorkerCutOff() if not seen.is_ending:
                seen.is_ending, seen.ends_by, seen.silent_by = True, self.now + ENDING_SECONDS, inf
            case to.WorkerGone():
                del self.living[event.worker]
                self.giving.discard(event.worker)

    # --- what is done -------------------------------------------------------------------------------------------------

    def sees(self, actions: list[to.Action]) -> None:
        """After the fleet has answered."""
        for number, action in enumerate(actions):
            self._sees(action)
            if isinstance(action, to.Do) and action.order is Order.DRAIN:
                self._drains(action, actions[number + 1 :])
        self._compare()

    def _drains(self, do: to.Do, later: list[to.Action]) -> None:
        """Who takes its connections is told before anybody else may come to them; `later` is done after it."""
        slot = self.slots[do.worker]
        if self.living[do.worker].is_found and self.owners.get(slot) != do.worker:
            heir = self._heir(do.worker, self.living[do.worker])
            assert dict(do.successors) == (self._heirs(slot) if heir is None else {slot: heir})
            return
        taken_by = {action.worker for action in later if isinstance(action, to.GiveSlot) and action.slot == slot}
        if taken_by:
            assert do.successors == tuple((slot, worker) for worker in taken_by)
            return
        is_left = to.CloseSlot(slot) in later or to.SetDrained(slot, True) in later
        assert is_left, "the slot is left empty"
        assert dict(do.successors) == self._heirs(slot)
        assert not self.giving, "two give to the same others at once"
        self.giving.add(do.worker)

    def _heirs(self, slot: Slot) -> dict[Slot, WorkerId]:
        """Who takes what is in a slot that is not in service: the owners of those that are."""
        return {
            record.slot: self.owners[record.slot]
            for record in self.fleet.slots
            if record.owner is not None and record.slot not in self.drained and record.slot != slot
        }

    def _sees(self, action: to.Action) -> None:
        match action:
            case to.Launch():
                self._launched(action)
            case to.GiveSlot(worker, slot):
                seen = self.living[worker]
                assert slot == seen.slot
                assert slot in self.open
                assert seen.says_ready
                assert not seen.is_ending
                assert not seen.has_had_slot
                self.owners[slot] = worker
                seen.has_had_slot = True
                if seen.is_found:
                    self.budgets.setdefault(slot, Budget())  # the slot needs no first one
                seen.ends_by, seen.silent_by = inf, self.now + self.limits.heartbeat_timeout
            case to.Do():
                self._ordered(action.worker, self.living[action.worker], action)
            case to.OpenSlot(slot):
                assert slot not in self.open
                self.open.add(slot)
            case to.CloseSlot(slot):
                self.open.remove(slot)
                self.drained.discard(slot)
                self.budgets.pop(slot, None)  # if it comes again, it is another one
            case to.SetDrained(slot, is_drained):
                (self.drained.add if is_drained else self.drained.discard)(slot)
            case to.Progress(ticket):
                assert ticket == 0 or ticket in self.unfinished
            case to.Finished(ticket, text):
                self._tells_of_moves(ticket, text)
                if ticket:
                    self.unfinished.remove(ticket)
                    self.finished.add(ticket)
            case to.FirstReady() | to.AllReady() | to.GiveUp() | to.AllGone():
                self._noted_once(type(action))

    def _tells_of_moves(self, ticket: int, text: str) -> None:
        moved, closed = self.moved.pop(ticket, (0, 0))
        if self.stop is not None or self.has_given_up:
            return  # it did not come to its end
        words = f"; {moved} connection{'s' * (moved != 1)} moved, {closed} closed"
        assert text.endswith(words) if moved or closed else " moved, " not in text, (moved, closed, text)

    def _noted_once(self, kind: type) -> None:
        assert kind not in self.once
        self.once.append(kind)
        match kind:
            case to.AllReady:
                assert to.FirstReady in self.once
            case to.FirstReady | to.GiveUp:
                assert not {to.FirstReady, to.GiveUp} <= set(self.once)
            case to.AllGone:
                assert self.stop is not None
                assert not self.living

    def _launched(self, launch: to.Launch) -> None:
        assert self.stop is None
        assert not self.has_given_up
        assert launch.worker not in self.living
        self.living[launch.worker] = Seen(launch.slot, self.now + self.limits.start_timeout)
        self.slots[launch.worker] = launch.slot
        operation = self.fleet._operations.current
        if launch.slot not in self.budgets:
            self.budgets[launch.slot] = Budget()  # the slot's first one
        elif operation is None or operation.successor != launch.worker:
            self.budgets[launch.slot].spend(self.now, self.restarts_due.get(launch.slot, self.now))

    def _ordered(self, worker: WorkerId, seen: Seen, do: to.Do) -> None:
        assert not do.successors or do.order is Order.DRAIN
        match do.order:
            case Order.DRAIN:
                assert seen.is_found or self.owners[seen.slot] == worker
                assert 0 <= do.spread_seconds <= do.grace_seconds == self.limits.drain_timeout
                seen.ends_by = self.now + self.limits.drain_timeout + CUT_SECONDS
            case Order.STOP:
                assert self.stop is not None
                seen.ends_by, seen.silent_by = self.stop_by, inf
            case Order.TERMINATE:
                assert not seen.has_had_slot
                seen.is_ending = True
                given_up = self.now + GIVING_UP_SECONDS
                seen.ends_by = min(given_up, self.stop_by) if self.stop else given_up
            case Order.ABORT:
                assert self.now >= (seen.silent_by if seen.has_had_slot or seen.is_found else seen.ends_by)
                seen.is_ending, seen.ends_by, seen.silent_by = True, self.now + ENDING_SECONDS, inf
            case Order.KILL:
                assert self.now >= seen.ends_by
                seen.is_ending, seen.ends_by, seen.silent_by = True, self.now + ENDING_SECONDS, inf
        seen.orders.append(do.order)

    def _heir(self, worker: WorkerId, seen: Seen) -> WorkerId | None:
        """Who has the slot of a worker that drains, if another has it. A slot may be empty when a late one is found."""
        owner = self.owners.get(seen.slot)
        if not seen.is_found:
            assert owner is not None
        heir = None if owner is None else self.living.get(owner)
        is_there = heir is not None and not heir.is_ending and not heir.orders
        return owner if owner != worker and (is_there or not seen.is_found) else None

    # --- what is ------------------------------------------------------------------------------------------------------

    def _compare(self) -> None:
        fleet = self.fleet
        assert {member.id for member in fleet.members} == self.living.keys()
        assert [record.slot for record in fleet.slots] == list(range(len(fleet.slots)))
        assert {record.slot for record in fleet.slots if record.is_open} == self.open
        assert {record.slot for record in fleet.slots if record.is_drained} == self.drained
        assert len(self.drained) < len(fleet.slots)
        for seen in self.living.values():
            assert min(seen.ends_by, seen.silent_by) > self.now, f"nothing is done about {seen}"
        for slot in {member.slot for member in fleet.members}:
            there = [member for member in fleet.members if member.slot == slot]
            states = [member.state for member in there if not self.living[member.id].is_found]
            assert len(states) <= 2
            assert states.count(State.STARTING) <= 1
            assert [member.state for member in there].count(State.READY) <= 1
        for record in fleet.slots:
            if record.owner is not None:
                assert record.owner.state is State.READY
                assert self.owners[record.slot] == record.owner.id
            assert record.restart_at is None or (record.is_empty and record.coming is None)
        self.restarts_due = {record.slot: record.restart_at for record in fleet.slots if record.restart_at is not None}
        due = fleet.next_deadline
        assert due is None or due > self.now, "a busy loop"
        if self.stop is not None:
            assert not self.unfinished
            assert (to.AllGone in self.once) == (not self.living)

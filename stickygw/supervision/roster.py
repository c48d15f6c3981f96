"""Who is there: the slots, the workers in them, and the steps of one worker's life."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count

from stickygw.supervision import events as to
from stickygw.supervision.lifecycle import TRANSITIONS, Order, Sign, State
from stickygw.supervision.member import Member, SlotRecord
from stickygw.supervision.spread import spread_for
from stickygw.types import Slot, WorkerId

ENDING_SECONDS = 1.0
"""A worker that is ending has so long after each order, and after its link is closed; then it is killed."""

GIVING_UP_SECONDS = 5.0
"""The same for one that was told to end before it was ready, or says that it cannot start: it closes what it opened."""

CUT_SECONDS = 1.0
"""A draining worker cuts what is left after `drain_timeout` itself; this much later it is killed."""

EXPIRY_JITTER = 0.1
"""Workers expire up to a tenth before their limits, so that those started together do not expire together."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The settings of the same names, in seconds, connections and bytes."""

    start_timeout: float
    drain_timeout: float
    drain_spread: float | None
    heartbeat_timeout: float
    max_age: float | None = None
    max_served: int | None = None
    max_rss: int | None = None


class Roster:
    """Slots and workers. What is to be done piles up in `actions`; `now` is set before each event."""

    def __init__(self, slots: int, *, limits: Limits, random: Callable[[], float]) -> None:
        self.limits = limits
        self.random = random
        self.slots = {Slot(slot): SlotRecord(Slot(slot), 1) for slot in range(slots)}
        self.members: dict[WorkerId, Member] = {}
        self.now = 0.0
        self.stop: to.StopAsked | None = None
        self.stop_deadline = 0.0
        self.was_forced = False
        self.actions: list[to.Action] = []
        self._ids = count(1)

    def new_id(self) -> WorkerId:
        """The next worker's."""
        return WorkerId(next(self._ids))

    @property
    def wanted(self) -> list[SlotRecord]:
        """The slots there are to be, in order."""
        return [record for record in self.slots.values() if record.is_wanted]

    @property
    def generation(self) -> int:
        """The newest generation of code that a worker was ready with."""
        return max(record.generation for record in self.slots.values())

    def note(self, text: str, *, is_error: bool = False) -> None:
        """Put a line into the log."""
        self.actions.append(to.Note(text, is_error))

    # --- one worker ---------------------------------------------------------------------------------------------------

    def launch(self, record: SlotRecord, generation: int) -> Member:
        """Start another worker in a slot that has room."""
        deadline = self.now + self.limits.start_timeout
        member = Member(self.new_id(), record.slot, generation, State.STARTING, self.now, deadline)
        self.members[member.id] = member
        record.members.append(member)
        record.restart_at = None
        self.actions.append(to.Launch(member.id, member.slot, generation))
        return member

    def adopt(self, found: to.Found) -> Member:
        """Have a worker that ran before we did. It may be the third one in its slot."""
        record = self.slots.get(found.slot)
        if record is None:
            record = SlotRecord(found.slot, found.generation, is_wanted=False, is_open=False)
            self._add(record)
        member = Member(found.worker, found.slot, found.generation, State.STARTING, self.now, None, is_adopted=True)
        member.heard_at = self.now
        if found.is_draining:
            member.state, member.is_retired, member.ready_at = State.DRAINING, True, self.now
            member.deadline = self._deadline(member, Sign.IS_RETIRED, None)
        self.members[member.id] = member
        record.members.append(member)
        return member

    def apply(self, member: Member, sign: Sign, *, successors: Iterable[Member] = ()) -> bool:
        """Go where the table says. Whether it says anything. `successors` take what a retired one can give away."""
        found = TRANSITIONS.get((member.state, sign))
        if found is None:
            return False
        member.state, order = found
        record = self.slots[member.slot]
        if record.owner is member and member.state is not State.READY:
            record.owner = None
        member.is_retired |= sign is Sign.IS_RETIRED
        member.deadline = self._deadline(member, sign, order)
        if order is not None:
            self._order(member, order, successors)
        return True

    def own(self, member: Member) -> Member | None:
        """Give its slot to a worker that is ready. The one that had it, which is retired."""
        record = self.slots[member.slot]
        member.ready_at = member.heard_at = self.now
        self._set_expiry(member)
        previous = record.owner
        if previous is not None:  # first: that connections come to it, it is told before new ones do
            self.apply(previous, Sign.IS_RETIRED, successors=(member,))
        record.owner, record.generation, record.restart_at = member, member.generation, None
        if not record.is_open:
            record.is_open = True
            self.actions.append(to.OpenSlot(record.slot))
        self.actions.append(to.GiveSlot(member.id, record.slot))
        return previous

    def forget(self, member: Member) -> None:
        """Its process is gone; and so is its slot, if it was the last one in a slot that is not wanted."""
        self.apply(member, Sign.IS_GONE)
        del self.members[member.id]
        record = self.slots[member.slot]
        record.members.remove(member)
        if not record.is_wanted and not record.members:
            del self.slots[record.slot]

    def add(self, slot: Slot) -> None:
        """Have one more slot. Clients cannot belong to it before its first worker is ready."""
        record = self.slots.get(slot)
        if record is None:
            self._add(SlotRecord(slot, self.generation, is_open=False))
        else:  # one that was adopted still drains there
            record.generation, record.is_wanted, record.is_open, record.is_drained = self.generation, True, False, False

    def _add(self, record: SlotRecord) -> None:
        self.slots[record.slot] = record
        self.slots = dict(sorted(self.slots.items()))

    def drain(self, record: SlotRecord) -> set[WorkerId]:
        """Have the slot, but nobody in it. The workers that must end."""
        record.is_drained, record.restart_at = True, None
        leaving = self._retire_all(record)
        self.actions.append(to.SetDrained(record.slot, True))
        return leaving

    def remove(self, record: SlotRecord) -> set[WorkerId]:
        """Have the slot no more. The workers that must end."""
        record.is_wanted, record.restart_at = False, None
        leaving = self._retire_all(record)
        if record.is_open:
            self.actions.append(to.CloseSlot(record.slot))
        if not record.members:
            del self.slots[record.slot]
        return leaving

    def heirs(self) -> list[Member]:
        """The owners of the slots in service, to whom the connections of one go that is not."""
        return [record.owner for record in self.wanted if not record.is_drained and record.owner is not None]

    def _retire_all(self, record: SlotRecord) -> set[WorkerId]:
        """Retire every worker in the slot, whose connections go to the slots in service. Those that must end."""
        heirs = self.heirs()
        for member in record.members:
            self.apply(member, Sign.IS_RETIRED, successors=heirs)
        return {member.id for member in record.members}

    def _deadline(self, member: Member, sign: Sign, order: Order | None) -> float | None:
        match member.state:
            case State.DRAINING:
                return self.now + self.limits.drain_timeout + CUT_SECONDS
            case State.STOPPING:
                return self.stop_deadline
            case State.ENDING if order is Order.TERMINATE or sign is Sign.CANNOT_START:
                given_up = self.now + GIVING_UP_SECONDS
                return given_up if self.stop is None else min(given_up, self.stop_deadline)
            case State.ENDING if sign is Sign.IS_STOPPED and member.deadline is not None:
                return min(member.deadline, self.stop_deadline)
            case State.ENDING:
                return self.now + ENDING_SECONDS
            case _:
                return None

    def _order(self, member: Member, order: Order, successors: Iterable[Member]) -> None:
        grace = spread = 0.0
        if order is Order.DRAIN:
            limits = self.limits
            grace = limits.drain_timeout
            spread = member.spread_seconds = spread_for(
                member.connections, drain_spread=limits.drain_spread, drain_timeout=limits.drain_timeout
            )
        elif order is Order.STOP and self.stop is not None:
            grace, spread = self.stop.grace_seconds, self.stop.spread_seconds
        elif order in (Order.ABORT, Order.KILL):
            member.is_killed = True
        if order is Order.KILL:
            self.was_forced |= self.stop is not None
            self.note(f"worker killed slot={member.slot}: it did not end when it was asked to", is_error=True)
        heirs = tuple((heir.slot, heir.id) for heir in successors) if order is Order.DRAIN else ()
        self.actions.append(to.Do(member.id, order, grace, spread, heirs))

    def _set_expiry(self, member: Member) -> None:
        share = 1.0 - EXPIRY_JITTER * self.random()
        limits = self.limits
        member.expires_at = None if limits.max_age is None else self.now + limits.max_age * share
        member.expires_served = None if limits.max_served is None else max(1, int(limits.max_served * share))
        member.expires_rss = None if limits.max_rss is None else int(limits.max_rss * share)

    # --- the clock ----------------------------------------------------------------------------------------------------

    def deadlines(self) -> Iterator[float]:
        """When each worker's wait is over."""
        for member in self.members.values():
            if member.deadline is not None:
                yield member.deadline
            if member.is_heard:
                yield member.heard_at + self.limits.heartbeat_timeout

    def look_at_the_clock(self) -> None:
        """Do what is due for each worker."""
        for member in tuple(self.members.values()):
            if member.deadline is not None and self.now >= member.deadline:
                if member.state is State.STARTING:
                    member.failure = f"not ready in {self.limits.start_timeout:g} s (start_timeout)"
                self.apply(member, Sign.IS_OVERDUE)
            elif member.is_heard and self.now >= member.heard_at + self.limits.heartbeat_timeout:
                self._is_silent(member)

    def forgive(self, seconds: float) -> None:
        """The primary stood still for so long: what the workers said meanwhile is still to be read."""
        for member in self.members.values():
            member.heard_at = self.now
            if member.deadline is not None:
                member.deadline += seconds

    def _is_silent(self, member: Member) -> None:
        where = f", in {member.blocked_in}" if member.blocked_in else ""
        member.failure = f"its event loop stood still for {self.now - member.heard_at:.1f} s{where}"
        self.note(
            f"worker hung slot={member.slot}: {member.failure}; it is ended, and its traceback shows what blocks it",
            is_error=True,
        )
        self.apply(member, Sign.IS_SILENT)

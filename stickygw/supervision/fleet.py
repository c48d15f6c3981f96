"""Decides which workers are started, retired, replaced and ended: `Fleet`.

It is told what happened and answers what is to be done; it never looks at a clock or a process itself. A slot keeps its
owner until the next worker is ready, so a replacement never leaves it empty. A worker that dies is replaced at once, or
after its slot's back-off, beside whatever operation is under way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import assert_never

from stickygw.supervision import events as to
from stickygw.supervision.lifecycle import Sign, State
from stickygw.supervision.member import Member, SlotRecord
from stickygw.supervision.operations import Operations
from stickygw.supervision.roster import Limits, Roster
from stickygw.types import Slot, WorkerId


class Fleet:
    """The workers of one gateway. `now` (monotonic seconds) never goes back; `random()` is from 0 to 1."""

    def __init__(self, slots: int, *, limits: Limits, random: Callable[[], float]) -> None:
        self._roster = Roster(slots, limits=limits, random=random)
        self._operations = Operations(self._roster)
        self._unready = set(self._roster.slots)
        self._is_begun = False
        """From `Begun` to `GiveUp`."""
        self._has_served = False
        self._found: list[Member] = []
        """Workers that were found and serve, until `Begun`."""
        self.is_held = False
        """Whether nothing is begun that nobody has asked for, as recycling."""
        self.has_crashed = False
        """Whether, in the stop, a worker that had been ready ended in any other way than with status 0."""

    def handle(self, event: to.Event, now: float) -> list[to.Action]:
        """What is to be done about `event`, in this order."""
        roster = self._roster
        roster.now = now
        self._take_in(event)
        roster.look_at_the_clock()
        if roster.stop is None and self._is_begun:
            self._note_if_all_ready()
            self._operations.advance(is_held=self.is_held)
            self._start_what_is_missing()
        actions, roster.actions = roster.actions, []
        return actions

    def new_id(self) -> WorkerId:
        """For a worker that is `Found`."""
        return self._roster.new_id()

    @property
    def next_deadline(self) -> float | None:
        """When `Tick` is due at the latest; None: nothing waits for time."""
        return min(self._deadlines(), default=None)

    # --- for those who look -------------------------------------------------------------------------------------------

    @property
    def slots(self) -> list[SlotRecord]:
        """The slots there are to be, in order."""
        return self._roster.wanted

    @property
    def members(self) -> list[Member]:
        """The workers that are not gone, by slot."""
        return sorted(self._roster.members.values(), key=lambda member: (member.slot, member.id))

    @property
    def generation(self) -> int:
        """The newest generation of code that a worker was ready with."""
        return self._roster.generation

    @property
    def doing(self) -> str:
        """What is under way, in words; "" when nothing is."""
        if self._roster.stop is not None:
            return "stopping"
        return str(self._operations.current or "")

    @property
    def was_forced(self) -> bool:
        """Whether, in the stop, a worker was killed or said that it cut what was left."""
        return self._roster.was_forced

    # --- events -------------------------------------------------------------------------------------------------------

    def _take_in(self, event: to.Event) -> None:
        match event:
            case to.Found():
                self._is_found(event)
            case to.Begun():
                self._begin(event)
            case to.Asked():
                self._asked(event)
            case to.StopAsked():
                self._stop_all(event)
            case to.Resumed():
                self._roster.forgive(event.seconds)
            case to.Tick():
                pass  # the clock is looked at after every event
            case _:
                member = self._roster.members.get(event.worker)
                if member is not None:
                    self._told(member, event)

    def _is_found(self, found: to.Found) -> None:
        member = self._roster.adopt(found)
        self._operations.has_generation(found.generation)
        if found.is_draining:
            return
        if self._is_begun:
            self._take_up(member)
        else:
            self._found.append(member)

    def _begin(self, begun: to.Begun) -> None:
        self._is_begun = True
        newest = max((member.generation for member in self._found), default=1)
        for record in self._roster.slots.values():
            record.generation = max(record.generation, newest)
        wanted = self._roster.wanted
        drained = [record for record in wanted if record.slot in begun.drained]
        for record in drained if len(drained) < len(wanted) else ():
            record.is_drained = True
            self._roster.actions.append(to.SetDrained(record.slot, True))
        # The newest first: all others of its slot give it what they have. Those in slots that are not in service come
        # last: by then their heirs are known.
        for member in sorted(self._found, key=self._turn):
            self._take_up(member)
        self._found.clear()

    def _take_up(self, member: Member) -> None:
        """Give a worker that was found its slot, or what it has to who owns that.

        In a slot that is drained, or not wanted, what it has goes to the others. One that comes late replaces nobody:
        what we have started runs newer code, whatever its number.
        """
        record = self._roster.slots[member.slot]
        if not self._roster.apply(member, Sign.IS_READY):
            return
        owner = record.owner
        if record.is_empty:
            self._is_ready(member)
        else:
            member.ready_at = self._roster.now
            heirs = self._roster.heirs() if owner is None else [owner]
            self._roster.apply(member, Sign.IS_RETIRED, successors=heirs)

    def _turn(self, found: Member) -> tuple[bool, Slot, int]:
        """When, among those that were found, it is taken up."""
        record = self._roster.slots[found.slot]
        is_in_service = record.is_wanted and not record.is_drained
        return not is_in_service, found.slot, -found.generation

    def _told(self, member: Member, event: to.WorkerEvent) -> None:
        match event:
            case to.WorkerReady():
                if self._is_begun and self._roster.apply(member, Sign.IS_READY):
                    self._is_ready(member)
            case to.WorkerFailed():
                # One that was found has started long ago, whatever it says.
                if not member.is_adopted and self._roster.apply(member, Sign.CANNOT_START):
                    member.failure = event.reason
            case to.WorkerHeard():
                self._heard(member, event)
            case to.WorkerCounted():
                member.connections = event.connections
            case to.WorkerBlocked():
                member.blocked_in = event.where
            case to.WorkerMoved():
                self._operations.is_moved(member, event)
            case to.WorkerCutOff():
                self._roster.apply(member, Sign.IS_CUT_OFF)
            case to.WorkerGone():
                self._is_gone(member, event)
            case _:
                assert_never(event)

    def _heard(self, member: Member, event: to.WorkerHeard) -> None:
        if not member.rss and member.expires_rss is not None and event.rss >= member.expires_rss:
            # Its successors would be as large, and replace each other without end.
            member.expires_rss = None
            self._roster.note(
                f"max_rss too low slot={member.slot}: a fresh worker has {event.rss >> 20} MiB, and is kept",
                is_error=True,
            )
        member.heard_at, member.blocked_in = self._roster.now, ""
        member.connections, member.served, member.rss = event.connections, event.served, event.rss

    def _asked(self, asked: to.Asked) -> None:
        if self._roster.stop is not None:
            self._roster.actions.append(to.Finished(asked.ticket, "the gateway stops", is_well=False))
        elif not self._has_served:
            self._roster.actions.append(to.Finished(asked.ticket, "the gateway has not started yet", is_well=False))
        else:
            self._operations.ask(asked)

    def _is_ready(self, member: Member) -> None:
        previous = self._roster.own(member)
        if not self._has_served:
            self._has_served = True
            self._roster.actions.append(to.FirstReady())
        self._operations.is_replaced(member, previous)

    def _note_if_all_ready(self) -> None:
        if self._unready:
            # A slot that an operator takes away or drains meanwhile is not waited for.
            self._unready &= {record.slot for record in self._roster.wanted if record.is_empty}
            if not self._unready:
                self._roster.actions.append(to.AllReady())

    def _is_gone(self, member: Member, event: to.WorkerGone) -> None:
        record = self._roster.slots[member.slot]
        self._roster.forget(member)
        if member in self._found:
            self._found.remove(member)
        why = member.failure or f"exited with {event.status}"
        if self._roster.stop is not None:
            self._ended_in_the_stop(member, event)
        elif not self._has_served:
            if self._is_begun and not member.is_adopted:  # else nothing is known of our own application
                self._is_begun = False
                self._roster.actions.append(to.GiveUp(why))
        else:
            self._operations.is_gone(member, why)
            if record.is_empty and record.coming is None and not member.is_retired:
                self._schedule_restart(record, why)
            elif not event.is_clean and not member.is_killed:
                self._roster.note(f"worker died slot={record.slot}: {why}", is_error=True)

    def _schedule_restart(self, record: SlotRecord, why: str) -> None:
        delay = record.backoff.delay(now=self._roster.now, jitter=self._roster.random())
        record.restart_at = self._roster.now + delay
        record.restarts += 1
        record.last_failure = why
        self._roster.note(f"worker died slot={record.slot}: {why}; another is started in {delay:.1f} s", is_error=True)

    def _stop_all(self, stop: to.StopAsked) -> None:
        if self._roster.stop is not None:
            return
        self._roster.stop = stop
        self._roster.stop_deadline = self._roster.now + stop.grace_seconds
        self._operations.refuse_all("the gateway stops")
        for member in self.members:
            self._roster.apply(member, Sign.IS_STOPPED)
        self._note_if_all_gone()

    def _ended_in_the_stop(self, member: Member, event: to.WorkerGone) -> None:
        if event.is_forced:
            self._roster.was_forced = True
        elif member.ready_at is not None and not event.is_clean and not member.is_killed:
            self.has_crashed = True
            self._roster.note(f"worker died slot={member.slot} in the stop: exited with {event.status}", is_error=True)
        self._note_if_all_gone()

    def _note_if_all_gone(self) -> None:
        if not self._roster.members:
            self._roster.actions.append(to.AllGone())

    # --- the clock ----------------------------------------------------------------------------------------------------

    def _deadlines(self) -> Iterator[float]:
        yield from self._roster.deadlines()
        if self._roster.stop is None and self._is_begun:
            yield from self._operations.deadlines()
            for record in self._roster.slots.values():
                if record.restart_at is not None and record.wants_worker and record.is_open:  # else for an event
                    yield record.restart_at

    def _start_what_is_missing(self) -> None:
        for record in self._roster.wanted:
            if not (record.wants_worker and record.is_open):
                continue
            if record.restart_at is None and any(member.state is State.ENDING for member in record.members):
                continue  # how long the next one waits is decided when it is gone
            if record.restart_at is None or self._roster.now >= record.restart_at:
                self._roster.launch(record, record.generation)

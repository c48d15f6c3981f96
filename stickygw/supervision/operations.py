"""What is done to the fleet slot by slot: reload, scale, drain, restart, recycle. One at a time; commands wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import assert_never

from stickygw.observability.words import counted
from stickygw.supervision import events as to
from stickygw.supervision.lifecycle import State
from stickygw.supervision.member import Member, SlotRecord
from stickygw.supervision.operation import Kind, Operation
from stickygw.supervision.roster import Roster
from stickygw.supervision.spread import spread_for_rest
from stickygw.types import MAX_SLOTS, Slot, WorkerId

MAX_WAITING_COMMANDS = 8
"""Commands that may wait for the operation that is under way; more are refused."""

RECYCLE_AGAIN_SECONDS = 60.0
"""After a replacement that could not start, an expired worker serves on so long before another is tried."""


class Operations:
    """The operation under way, and the commands that wait for it.

    A replacement starts the slot's next worker, waits until it is ready and owns the slot, and goes on to the next slot
    when the clients of the worker before it have had their time to come over. Slots are taken away one by one, the
    last one first, each when the one before has given its connections to the others. An operation is over when the last
    worker that it retired is gone. Each of its waits ends with a deadline of a worker.
    """

    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        self._generation = 1
        self._commands: deque[to.Asked] = deque()
        self._recycle_not_before = 0.0
        self.current: Operation | None = None

    def has_generation(self, generation: int) -> None:
        """A worker runs code of this generation: the next one is newer."""
        self._generation = max(self._generation, generation)

    def ask(self, asked: to.Asked) -> None:
        """Carry out a command now, or when those before it are over."""
        if len(self._commands) >= MAX_WAITING_COMMANDS:
            self._finish(asked.ticket, f"{MAX_WAITING_COMMANDS} commands wait already", is_well=False)
            return
        if self.current is not None:
            self._progress(asked.ticket, f"waits for the end of: {self.current}")
        self._commands.append(asked)

    def refuse_all(self, why: str) -> None:
        """Nothing is carried out any more."""
        tickets = [asked.ticket for asked in self._commands]
        if self.current is not None and self.current.kind is not Kind.RECYCLE:
            tickets.insert(0, self.current.ticket)
        self.current = None
        self._commands.clear()
        for ticket in tickets:
            self._finish(ticket, why, is_well=False)

    def advance(self, *, is_held: bool) -> None:
        """Do what can be done now. `is_held`: nobody is recycled."""
        self._step()
        while self.current is None and self._commands:
            asked = self._commands.popleft()
            self._begin(asked)
            self._step()
        if self.current is None and not is_held:
            self._begin_recycling()
            self._step()

    def deadlines(self) -> Iterator[float]:
        """When something can be done at the latest."""
        now, current = self._roster.now, self.current
        if current is None:
            for record in self._roster.wanted:
                if record.owner is not None and record.owner.expires_at is not None:
                    due = max(record.owner.expires_at, self._recycle_not_before)
                    if due > now:  # else it waits for an event: for a slot that is empty
                        yield due
        elif current.successor is None and current.todo and current.not_before > now:
            yield current.not_before

    def is_replaced(self, member: Member, previous: Member | None) -> None:
        """`member` owns its slot; `previous`, if there was one, drains."""
        operation = self.current
        if operation is None or operation.successor != member.id:
            return
        operation.successor = None
        text = f"slot {member.slot}: generation {member.generation} is ready"
        if previous is not None:
            operation.leaving.add(previous.id)
            operation.not_before = self._roster.now + previous.spread_seconds
            if previous.connections:
                text += f"; {counted(previous.connections, 'connection')} to come over"
        self._progress(operation.ticket, text)

    def is_moved(self, member: Member, moved: to.WorkerMoved) -> None:
        """`member` has given away what it could: only the clients of the rest come over by themselves."""
        operation = self.current
        if operation is None or member.id not in operation.leaving:
            return
        if operation.giving == member.id:
            operation.giving = None
        total = moved.moved + moved.refused + moved.left + moved.lost
        spread = spread_for_rest(member.spread_seconds, left=moved.left, total=total)
        operation.not_before = self._roster.now + spread
        operation.moved += moved.moved
        operation.closed += moved.refused + moved.left
        operation.lost += moved.lost
        text = f"slot {member.slot}: {counted(moved.moved, 'connection')} moved"
        if moved.refused:
            text += f", {moved.refused} refused by the new code and closed"
        if moved.left:
            text += f", {moved.left} that cannot move to be closed over {spread:.1f} s"
        if moved.lost:
            text += f", at most {moved.lost} lost with the worker"
        if total:
            self._progress(operation.ticket, text)

    def is_gone(self, member: Member, why: str) -> None:
        """`member`'s process is gone."""
        operation = self.current
        if operation is None:
            return
        operation.leaving.discard(member.id)
        if operation.giving == member.id:
            operation.giving = None
        if operation.successor == member.id:
            self._give_up(operation, member, why)

    # --- steps --------------------------------------------------------------------------------------------------------

    def _step(self) -> None:
        operation = self.current
        if operation is None:
            return
        if operation.successor is None and operation.todo and self._roster.now >= operation.not_before:
            record = self._roster.slots[operation.todo[0]]
            coming = record.coming
            if coming is not None and operation.generation is None:
                operation.todo.popleft()
                operation.successor = coming.id  # one is on its way
            elif record.has_room:
                operation.todo.popleft()
                operation.successor = self._roster.launch(record, operation.generation or record.generation).id
        while operation.removing and operation.giving is None:
            record = self._roster.slots[operation.removing.popleft()]
            self._leave(operation, record, self._roster.remove)
        if operation.successor is None and not operation.todo and not operation.leaving:
            self.current = None
            text = operation.failure or operation.when_done
            if operation.moved or operation.closed or operation.lost:
                text += f"; {counted(operation.moved, 'connection')} moved, {operation.closed} closed"
            if operation.lost:
                text += f", at most {operation.lost} lost"
            self._finish(
                operation.ticket, text, is_well=not operation.failure, is_target_broken=bool(operation.failure)
            )

    def _leave(self, operation: Operation, record: SlotRecord, leave: Callable[[SlotRecord], set[WorkerId]]) -> None:
        """Have the slot's worker give its connections to the others."""
        owner = record.owner
        operation.leaving |= leave(record)
        if owner is not None and owner.state is State.DRAINING:
            operation.giving = owner.id
            if owner.connections:
                text = f"slot {record.slot}: {counted(owner.connections, 'connection')} to go to other slots"
                self._progress(operation.ticket, text)

    def _give_up(self, operation: Operation, member: Member, why: str) -> None:
        """The slot's next worker did not become ready: nothing more is begun."""
        operation.successor = None
        replaced = operation.total - len(operation.todo) - 1
        operation.todo.clear()
        operation.failure = f"slot {member.slot} got no new worker: {why}"
        if operation.kind is Kind.SCALE:
            operation.removing.extend(reversed(operation.added))
            before = len(self._roster.wanted) - len(operation.added)
            operation.failure += f"; the gateway has {counted(before, 'slot')} as before"
        elif self._roster.slots[member.slot].owner is not None:
            operation.failure += "; the one before it serves on"
        if operation.kind is Kind.RELOAD:
            slots = counted(operation.total, "slot")
            operation.failure += f"; {replaced} of {slots} run generation {operation.generation}"
        if operation.kind is Kind.RECYCLE:
            self._recycle_not_before = self._roster.now + RECYCLE_AGAIN_SECONDS

    # --- beginnings ---------------------------------------------------------------------------------------------------

    def _begin(self, asked: to.Asked) -> None:
        match asked.command:
            case to.Reload():
                self._begin_reload(asked.ticket)
            case to.Scale(slots):
                self._begin_scale(asked.ticket, slots)
            case to.ScaleBy(step):
                self._begin_scale(asked.ticket, len(self._roster.wanted) + step)
            case to.DrainSlot(slot):
                self._begin_drain(asked.ticket, slot)
            case to.RestartSlot(slot):
                self._begin_restart(asked.ticket, slot)
            case _:
                assert_never(asked.command)

    def _begin_reload(self, ticket: int) -> None:
        self._generation += 1
        todo = deque(record.slot for record in self._roster.wanted if not record.is_drained)
        done = f"generation {self._generation} runs in {counted(len(todo), 'slot')}"
        self.current = Operation(ticket, Kind.RELOAD, self._generation, todo, len(todo), done)

    def _begin_scale(self, ticket: int, slots: int) -> None:
        roster = self._roster
        have = len(roster.wanted)
        if not 1 <= slots <= MAX_SLOTS:
            self._finish(ticket, f"a gateway has 1 to {MAX_SLOTS} slots, not {slots}", is_well=False)
            return
        if slots < have and all(record.owner is None for record in roster.wanted[:slots]):
            self._finish(ticket, f"none of the first {slots} slots serves", is_well=False)
            return
        added = [Slot(slot) for slot in range(have, slots)]
        done = f"{slots} slots, {have} before"
        operation = self.current = Operation(ticket, Kind.SCALE, None, deque(added), len(added), done, added=added)
        for slot in added:
            roster.add(slot)
        operation.removing.extend(record.slot for record in reversed(roster.wanted[slots:]))

    def _begin_drain(self, ticket: int, slot: Slot) -> None:
        record = self._roster.slots.get(slot)
        if record is None or not record.is_wanted:  # in one that is not, an adopted worker may still drain
            self._finish(ticket, self._no_such(slot), is_well=False)
            return
        if not any(other.owner is not None and other is not record for other in self._roster.wanted):
            self._finish(ticket, f"slot {slot} is the last one that serves", is_well=False)
            return
        operation = self.current = Operation(ticket, Kind.DRAIN, None, deque(), 0, f"slot {slot} is drained")
        self._leave(operation, record, self._roster.drain)

    def _begin_restart(self, ticket: int, slot: Slot) -> None:
        record = self._roster.slots.get(slot)
        if record is None or not record.is_wanted:  # in one that is not, an adopted worker may still drain
            self._finish(ticket, self._no_such(slot), is_well=False)
            return
        if record.is_drained:
            record.is_drained, record.generation = False, self._roster.generation
            self._roster.actions.append(to.SetDrained(slot, False))
        self.current = Operation(ticket, Kind.RESTART, None, deque([slot]), 1, f"slot {slot} has a fresh worker")

    def _begin_recycling(self) -> None:
        records = self._roster.wanted
        if self._roster.now < self._recycle_not_before or any(record.is_empty for record in records):
            return  # a slot is empty: no time to keep another one busy
        for record in records:
            if record.owner is not None and (why := record.owner.expiry(self._roster.now)):
                self._roster.note(f"worker recycled slot={record.slot}: {why}")
                done = f"slot {record.slot} is recycled"
                self.current = Operation(0, Kind.RECYCLE, None, deque([record.slot]), 1, done)
                return

    # --- words --------------------------------------------------------------------------------------------------------

    def _no_such(self, slot: Slot) -> str:
        return f"there is no slot {slot}: there are {len(self._roster.wanted)}, from 0"

    def _progress(self, ticket: int, text: str) -> None:
        self._roster.actions.append(to.Progress(ticket, text))

    def _finish(self, ticket: int, text: str, *, is_well: bool, is_target_broken: bool = False) -> None:
        self._roster.actions.append(to.Finished(ticket, text, is_well, is_target_broken))

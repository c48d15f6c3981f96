"""Who is in which room on this worker, and the delivery to them: `Hub`.

Other workers are the bridge's business.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby, islice
from operator import attrgetter

from stickygw.bridge.addresses import check_address
from stickygw.bridge.room import Entry, Member, Room
from stickygw.observability.counters import Counters
from stickygw.types import SlowConsumer
from stickygw.wire.prepared import Batch, PreparedMessage

__all__ = ["Hub", "Member"]

log = logging.getLogger("stickygw.hub")

MEMBERS_PER_TURN = 64
"""So many members are given what waits for them before the loop turns: about 0.3 ms, at the price of a write."""

MEMBERS_AT_A_TIME = 32
"""So many of one room, before the next room: a small one does not wait for a large one."""

MAX_UNDELIVERED = 1024
"""Messages of one room that are kept for those who have not been given them; who publishes one more delivers them."""

MAX_UNDELIVERED_BYTES = 4 * 1024 * 1024
"""The same in bytes of payload. Framed, and joined for those who get several, they take up to three times as much."""


def _disconnect(_address: str) -> SlowConsumer:
    return "disconnect"


class Hub:
    """Rooms and their local members, in both directions, so that a member can leave all its rooms at once.

    What is published in one turn of the loop is delivered at its end, each member's share in one write. A member gets
    the messages of its rooms in the order in which they were published here. Whatever else is sent to a member, or
    changes where it is, comes behind what was published before: that is what `catch_up` is for.

    Within a delivery anything may happen: a connection is found ended and leaves everything, or takes messages again
    that it was too slow for, whose handlers join, leave and publish. So who is where is changed first, and what was
    published before is given afterwards.

    `policy_of` tells by its address what a room does about slow members; it is asked when the room gets its first.
    """

    def __init__(self, counters: Counters, policy_of: Callable[[str], SlowConsumer] = _disconnect) -> None:
        self._counters = counters
        self.policy_of = policy_of
        self._rooms: dict[str, Room] = {}
        # A dict serves as a set that keeps the order of joining.
        self._rooms_of: dict[Member, dict[Room, None]] = {}
        self._unsettled: dict[Room, None] = {}  # in the order in which they are looked at
        self._giving: dict[Member, deque[Batch]] = {}  # what goes out next, of a delivery that is under way
        self._is_scheduled = False
        self._published = 0

    # Membership

    def join(self, room: str, member: Member) -> bool:
        """Add `member` to `room`; joining twice changes nothing. True: it is the room's first.

        Raises `RoomNameError`.
        """
        check_address(room)
        joined = self._rooms.get(room)
        is_first = joined is None
        if joined is None:
            joined = self._rooms[room] = Room(room, self.policy_of(room))
        if member not in joined.members:
            taken = self._take(member)
            joined.join(member)
            self._rooms_of.setdefault(member, {})[joined] = None
            self._give(member, taken)
        return is_first

    def leave(self, room: str, member: Member) -> bool:
        """Take `member` out of `room`, where it may not be. True: that has left nobody in it."""
        left = self._rooms.get(room)
        if left is None or member not in left.members:
            return False
        taken = self._take(member)
        self._remove(left, member)
        self._give(member, taken)
        return room not in self._rooms

    def leave_all(self, member: Member) -> list[str]:
        """Take `member` out of all its rooms; the rooms that it has left nobody in."""
        taken = self._take(member)
        rooms = tuple(self._rooms_of.get(member, ()))
        for room in rooms:
            self._remove(room, member)
        self._give(member, taken)
        return [room.name for room in rooms if room.name not in self._rooms]

    def _remove(self, room: Room, member: Member) -> None:
        del room.members[member]
        rooms = self._rooms_of[member]
        del rooms[room]
        if not rooms:
            del self._rooms_of[member]
        if not room.members:
            del self._rooms[room.name]
            self._unsettled.pop(room, None)

    def rooms_of(self, member: Member) -> tuple[str, ...]:
        """Where `member` is, in the order of joining."""
        return tuple(room.name for room in self._rooms_of.get(member, ()))

    def has_members(self, room: str) -> bool:
        """Whether anybody is in `room`."""
        return room in self._rooms

    def members_of(self, room: str) -> tuple[Member, ...]:
        """Who is in `room`, in the order of joining."""
        return tuple(self._rooms[room].members) if room in self._rooms else ()

    @property
    def addresses(self) -> tuple[str, ...]:
        """The rooms that have members."""
        return tuple(self._rooms)

    # Delivery

    def publish(
        self,
        room: str,
        message: PreparedMessage,
        *,
        exclude: Member | None = None,
        unless: Iterable[str] = (),
        given: frozenset[Member] = frozenset(),
    ) -> None:
        """Give `message` to each member of `room` at the end of this turn, but not to `exclude`, nor to members of the
        rooms `unless`, nor to who is in `given`. Never waits. Who joins later gets the next message."""
        self.make_place(room)
        published = self._rooms.get(room)
        if published is None:
            return
        self._published += 1
        others = tuple(self._rooms[other] for other in unless if other in self._rooms)
        published.add(Entry(self._published, message, exclude, others, given, published.policy))
        self._unsettled[published] = None
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._take_turn)

    def make_place(self, room: str) -> None:
        """Deliver within `room`, if so much waits there that `publish` would have to do it."""
        full = self._rooms.get(room)
        if full is not None and (
            full.undelivered >= MAX_UNDELIVERED or full.undelivered_bytes >= MAX_UNDELIVERED_BYTES
        ):
            self._settle(full)

    def catch_up(self, member: Member) -> None:
        """Give `member` now what was published in its rooms."""
        if self._unsettled or self._giving:
            self._give(member, self._take(member))

    def give(self, member: Member, batch: Batch) -> None:
        """Give `member` messages that are for it alone, behind what was published in its rooms."""
        self.catch_up(member)
        self._deliver(member, batch)

    def has_waiting(self, member: Member) -> bool:
        """Whether `member` has not been given all that was published in its rooms."""
        return member in self._giving or any(
            room in self._unsettled and room.members[member] < room.end for room in self._rooms_of.get(member, ())
        )

    def give_missed(self, member: Member, messages: Iterable[tuple[str, PreparedMessage]]) -> None:
        """Give `member` these now, each with the room that it was published in: what it missed before it came here.
        Nothing that is published here later goes before them."""
        entries = [
            Entry(0, message, policy=self._rooms[room].policy if room in self._rooms else "disconnect")
            for room, message in messages
        ]
        self._give(member, entries)

    def _take(self, member: Member) -> Sequence[Entry]:
        """What waits for `member`, in order; the caller gives it, when who is where is settled."""
        if not self._unsettled:
            return ()
        entries = [
            entry
            for room in self._rooms_of.get(member, ())
            if room in self._unsettled
            for entry in room.take_entries(member)
        ]
        entries.sort(key=attrgetter("number"))
        return entries

    def _give(self, member: Member, entries: Sequence[Entry]) -> None:
        """Within a delivery to `member` the rest of that one goes first: nothing overtakes it."""
        if not entries and member not in self._giving:
            return
        waiting = self._giving.setdefault(member, deque())
        for policy, run in groupby(entries, key=attrgetter("policy")):
            waiting.append(Batch([entry.message for entry in run], policy))
        while waiting:
            self._deliver(member, waiting.popleft())
        self._giving.pop(member, None)

    def _settle(self, room: Room) -> None:
        """Deliver all that was published in `room`, at once."""
        while room in self._unsettled and not room.is_settled:
            if self._deliver_some(room) < MEMBERS_AT_A_TIME:
                room.end_round()

    def _take_turn(self) -> None:
        left = MEMBERS_PER_TURN
        while self._unsettled and left > 0:
            room = next(iter(self._unsettled))
            looked_at = self._deliver_some(room)
            if looked_at < MEMBERS_AT_A_TIME:
                room.end_round()
            if self._unsettled.pop(room, room) is None and not room.is_settled:  # else its last member has left
                self._unsettled[room] = None
            left -= looked_at
        self._is_scheduled = bool(self._unsettled)
        if self._is_scheduled:
            asyncio.get_running_loop().call_soon(self._take_turn)

    def _deliver_some(self, room: Room) -> int:
        """Look at the next `MEMBERS_AT_A_TIME` members of the room's round; how many there were."""
        rooms_of, unsettled, giving, take, count = self._rooms_of, self._unsettled, self._giving, room.take, 0
        for member in islice(room.begin_round(), MEMBERS_AT_A_TIME):
            count += 1
            if giving or (len(unsettled) > 1 and len(rooms_of.get(member, ())) > 1):
                self.catch_up(member)
                continue
            batch = take(member)
            if batch is not None:
                try:  # `_deliver`, without its call: this is done for each delivery
                    member.deliver(batch)
                except Exception as error:  # noqa: BLE001 - `_failed` logs it
                    self._failed(error)
        return count

    def _deliver(self, member: Member, batch: Batch) -> None:
        try:
            member.deliver(batch)
        except Exception as error:  # noqa: BLE001 - `_failed` logs it
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        """A member did not take what is its; the others don't notice."""
        log.error("a member of a room failed to take a message", exc_info=error)
        self._counters.add("deliver_failed", type(error).__name__)

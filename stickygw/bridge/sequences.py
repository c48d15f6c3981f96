"""Sequence numbers of bridged messages: giving them (`Numbering`) and judging them (`Order`). Pure."""

from __future__ import annotations

from enum import Enum

MAX_NUMBERED_ROOMS = 65_536
"""Rooms whose last number a sender keeps."""

MAX_ORIGINS_PER_ROOM = 256
"""Senders whose last number a receiver keeps for each room; the one longest silent is forgotten first. A
forgotten sender's next message is taken as it comes, like a new sender's."""

MAX_ORIGINS = 65_536
"""The same for all rooms together, some 10 MB. When that is reached, a room that hears of another sender keeps
`FEW_ORIGINS`."""

FEW_ORIGINS = 16


class Verdict(Enum):
    """What a message's number says."""

    NEXT = "next"
    """It follows the last one, or is the first from this sender here."""
    HOLE = "hole"
    """It is newer, and at least one before it never came."""
    OLD = "old"
    """It has been here, or a newer one has: dropped, so that nothing comes twice or out of order."""


class Numbering:
    """The numbers of one sender, rising by one in each room.

    A room that was forgotten goes on above every number ever forgotten: receivers then see a hole that is
    none, which is safe; starting again at 1 would make them drop everything as old.
    """

    def __init__(self, *, max_rooms: int = MAX_NUMBERED_ROOMS) -> None:
        self._last: dict[bytes, int] = {}
        self._max_rooms = max_rooms
        self._floor = 0

    def last(self, channel: bytes) -> int:
        """The number of the last message on `channel`; no smaller one, if that is forgotten. At least 1."""
        return max(1, self.position(channel))

    def position(self, channel: bytes) -> int:
        """The number of the last message on `channel`, 0 before the first; a higher one below the next, if that is
        forgotten."""
        return self._last.get(channel, self._floor)

    def next(self, channel: bytes) -> int:
        """The number of the next message on `channel`."""
        number = self._last.pop(channel, self._floor) + 1
        self._last[channel] = number  # last in the dict's order: the most recently used
        if len(self._last) > self._max_rooms:
            self._floor = max(self._floor, self._last.pop(next(iter(self._last))))
        return number


class Order:
    """The last number seen of each sender in each room."""

    def __init__(self, *, max_origins: int = MAX_ORIGINS_PER_ROOM, max_in_all: int = MAX_ORIGINS) -> None:
        self._last: dict[str, dict[bytes, int]] = {}
        self._max_origins = max_origins
        self._max_in_all = max_in_all
        self._count = 0

    def judge(self, room: str, origin: bytes, sequence: int) -> Verdict:
        """Judge one message and remember its number, unless it is old."""
        origins = self._last.setdefault(room, {})
        last = origins.pop(origin, None)
        if last is not None and sequence <= last:
            origins[origin] = last
            return Verdict.OLD
        origins[origin] = sequence
        if last is None:
            self._count += 1
            most = self._max_origins if self._count <= self._max_in_all else min(FEW_ORIGINS, self._max_origins)
            while len(origins) > most:
                del origins[next(iter(origins))]
                self._count -= 1
        return Verdict.NEXT if last is None or sequence == last + 1 else Verdict.HOLE

    def position(self, room: str) -> dict[bytes, int]:
        """The last number of each sender in `room`. Senders that were forgotten are not in it."""
        return dict(self._last.get(room, ()))

    def forget(self, room: str) -> None:
        """Forget a room without members."""
        self._count -= len(self._last.pop(room, ()))

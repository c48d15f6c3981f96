"""One room on this worker: its members, what was published, and who has been given how much of it. `Room`. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Protocol

from stickygw.types import SlowConsumer
from stickygw.wire.prepared import Batch, PreparedMessage


class Member(Hashable, Protocol):
    """Something that can be in a room: a connection."""

    def deliver(self, batch: Batch) -> None:
        """Take the messages; never wait. ``batch.policy`` says what a slow client means."""

    def send_away(self, code: int, reason: str, *, within: float) -> None:
        """Close in good order, within so many seconds. Idempotent."""


class Target(Member, Protocol):
    """A connection that a message can be meant for."""

    def is_meant(self, to: str) -> bool:
        """Whether `to`, ``session:ID`` or ``connection:ID``, names it."""


@dataclass(slots=True, eq=False)
class Entry:
    """A message in a room. `number` rises with each publish on this worker, whatever the room.

    `exclude` does not get it, nor do members of the rooms in `unless`, for they get it there, nor those in `given`, who
    have it already.
    """

    number: int
    message: PreparedMessage
    exclude: Member | None = None
    unless: tuple[Room, ...] = ()
    given: frozenset[Member] = frozenset()
    policy: SlowConsumer = "disconnect"

    def is_for(self, member: Member) -> bool:
        """Whether `member`, of the entry's room, gets it."""
        return (
            member is not self.exclude
            and member not in self.given
            and not any(member in room.members for room in self.unless)
        )

    @property
    def is_for_all(self) -> bool:
        """Whether every member gets it."""
        return self.exclude is None and not self.unless and not self.given


class Room:
    """Members with their positions: how many of the room's messages each has been given, ever.

    What somebody has not been given is kept in a log. Who is given things goes by rounds, each over all members, so
    that a member costs no object of its own: those of one round share position and `Batch`. `policy` is for members
    that do not keep up.
    """

    __slots__ = ("_base", "_batch", "_batch_end", "_batch_start", "_is_for_all", "_log", "_round", "_round_end",
                 "members", "name", "policy", "undelivered_bytes")  # fmt: skip

    def __init__(self, name: str, policy: SlowConsumer = "disconnect") -> None:
        self.name = name
        self.policy: SlowConsumer = policy
        self.members: dict[Member, int] = {}  # in the order of joining
        self._log: list[Entry] = []
        self._base = 0  # the position of the log's first entry
        self._round: Iterator[Member] = iter(())  # whom the round has not looked at
        self._round_end = 0  # where the log ended when the round began
        self._batch = Batch((), policy)
        self._batch_start = self._batch_end = 0
        self._is_for_all = True
        self.undelivered_bytes = 0
        """The payloads of `undelivered`."""

    @property
    def end(self) -> int:
        """The position of who has been given everything."""
        return self._base + len(self._log)

    @property
    def is_settled(self) -> bool:
        """Whether everybody has been given everything."""
        return not self._log

    @property
    def undelivered(self) -> int:
        """How many messages somebody has, perhaps, not been given."""
        return len(self._log)

    def add(self, entry: Entry) -> None:
        """Publish it."""
        self._log.append(entry)
        self.undelivered_bytes += len(entry.message.payload)

    def join(self, member: Member) -> None:
        """`member`, who is not in it, gets what is published from now on."""
        self.members[member] = self.end

    def begin_round(self) -> Iterator[Member]:
        """All members, to be given what is theirs; the round that has begun, if there is one."""
        if self._round_end == self._base:
            self._round, self._round_end = iter(tuple(self.members)), self.end
        return self._round

    def end_round(self) -> None:
        """The round has looked at everybody: what was there when it began is needed no more."""
        count = self._round_end - self._base
        self.undelivered_bytes -= sum(len(entry.message.payload) for entry in self._log[:count])
        del self._log[:count]
        self._base = self._round_end

    def take(self, member: Member) -> Batch | None:
        """What `member` has not been given, and the caller gives it now; None: nothing."""
        end = self._base + len(self._log)
        position = self.members.get(member, end)  # `end`: it has left
        if position == end:
            return None
        self.members[member] = end
        if self._batch_start != position or self._batch_end != end:
            self._cut(position, end)
        if self._is_for_all:
            return self._batch
        messages = [entry.message for entry in self._log[position - self._base :] if entry.is_for(member)]
        return Batch(messages, self.policy) if messages else None

    def take_entries(self, member: Member) -> list[Entry]:
        """`take`, one by one: to be put in order with those of other rooms."""
        end = self._base + len(self._log)
        position = self.members[member]
        self.members[member] = end
        return [entry for entry in self._log[position - self._base :] if entry.is_for(member)]

    def _cut(self, start: int, end: int) -> None:
        entries = self._log[start - self._base :]
        self._batch_start, self._batch_end = start, end
        self._batch = Batch([entry.message for entry in entries], self.policy)
        self._is_for_all = all(entry.is_for_all for entry in entries)

"""Hundreds of room members in one process, which publish numbered messages and keep account of what they miss.

They speak to `integration/apps/gapped.py`: messages are binary, and what the application itself says is text.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from websockets.frames import Opcode

from support.raw import frame, upgrade
from support.waiting import wait_until

DEADLINE = 20.0
"""Seconds for one answer; many times what it takes."""

A_SECOND = 10
"""So many messages each member publishes in a second."""

TOLD_SECONDS = 1.0
"""A gap is told with the message behind it; so long after that it must have come."""

STEP_SECONDS = 0.002
MESSAGE = struct.Struct("!HI")  # the sender, and its number, from 1
TEXT_FRAME = 0x80 | Opcode.TEXT
BINARY_FRAME = 0x80 | Opcode.BINARY


@dataclass(frozen=True, slots=True)
class Missed:
    """What `receiver` has not got from `sender`: up to `number`; the next one came at `next_at`, None: none came."""

    receiver: Member
    sender: Member
    number: int
    next_at: float | None

    def is_told(self) -> bool:
        """Whether the receiver saw a gap after the last of the lost messages was sent, and soon after the next came."""
        earliest = self.sender.sent_at[self.number - 1]
        latest = float("inf") if self.next_at is None else self.next_at + TOLD_SECONDS
        return any(earliest <= gap <= latest for gap in self.receiver.gaps)

    def __repr__(self) -> str:
        where = "at the end" if self.next_at is None else f"before {self.next_at:.3f}"
        return f"<{self.receiver} misses up to {self.number} of {self.sender}, {where}; gaps {self.receiver.gaps}>"


class Member(asyncio.Protocol):
    """One client, known to the others of its room by its index in `crowd`."""

    def __init__(self, crowd: list[Member], room: str) -> None:
        self._crowd = crowd
        self.index = len(crowd)
        self.room = room
        self.slot = -1
        self.is_quiet = False
        self.sent_at: list[float] = []
        self.gaps: list[float] = []
        self.last: dict[int, int] = {}  # the last number of each sender
        self.missed: list[Missed] = []  # between messages that came
        self.repeated: list[tuple[int, int]] = []  # came twice or out of order: sender and number
        self.entered = asyncio.Event()
        self.is_lost = False
        self._read = b""
        self._is_open = False
        self._loop = asyncio.get_running_loop()

    def __repr__(self) -> str:
        return f"{self.index}@{self.slot} in {self.room}"

    @property
    def sent(self) -> int:
        """How many it has published."""
        return len(self.sent_at)

    def publish(self) -> None:
        """Publish the next number."""
        self.sent_at.append(self._loop.time())
        self._transport.write(frame(MESSAGE.pack(self.index, self.sent), Opcode.BINARY))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for a WebSocket."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        transport.write(upgrade(f"/in/{self.room}"))

    def connection_lost(self, exc: Exception | None) -> None:
        """No member leaves before the end."""
        self.is_lost = True

    def data_received(self, data: bytes) -> None:
        """Take all whole frames; each has a header of two bytes."""
        data = self._read + data
        if not self._is_open:
            head, separator, rest = data.partition(b"\r\n\r\n")
            if not separator:
                self._read = data
                return
            assert head.startswith(b"HTTP/1.1 101 "), head
            self._is_open, data = True, rest
        start, size = 0, len(data)
        while start + 2 <= size and start + 2 + data[start + 1] <= size:
            end = start + 2 + data[start + 1]
            self._take(data[start], data[start + 2 : end])
            start = end
        self._read = data[start:]

    def _take(self, kind: int, payload: bytes) -> None:
        if kind == BINARY_FRAME:
            self._heard(*MESSAGE.unpack(payload))
        elif payload == b"gap":
            self.gaps.append(self._loop.time())
        elif kind == TEXT_FRAME:
            self.slot = int(payload.removeprefix(b"slot "))
            self.entered.set()

    def _heard(self, sender: int, number: int) -> None:
        last = self.last.get(sender, 0)
        if number <= last:
            self.repeated.append((sender, number))
            return
        self.last[sender] = number
        if number > last + 1:
            self.missed.append(Missed(self, self._crowd[sender], number - 1, self._loop.time()))

    def close(self) -> None:
        """End without a closing handshake."""
        self._transport.abort()


class Crowd:
    """`size` members, dealt in pairs, one on each of two workers, to `rooms` rooms. First visits have to go round.

    On entering the context all have heard all others of their room, and go on to publish.
    """

    def __init__(self, port: int, *, size: int, rooms: int) -> None:
        self._port = port
        self._size = size
        self.rooms = [f"r{number}" for number in range(rooms)]
        self.members: list[Member] = []
        self._publishing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        for index in range(self._size):
            await self._enter(self.rooms[index // 2 % len(self.rooms)], slot=index % 2)
        by_room = {room: [member for member in self.members if member.room == room] for room in self.rooms}
        self._together = {member: by_room[member.room] for member in self.members}
        self._others = {
            member: [other for other in together if other.slot != member.slot]
            for member, together in self._together.items()
        }
        await self.publish_last()
        assert not self.missed()
        assert not any(member.gaps for member in self.members)
        self._publishing = asyncio.create_task(self._publish())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()
        for member in self.members:
            member.close()

    async def wait_crossed(self) -> None:
        """Return when, in each room that is not quiet, each member has got from the other worker what was published
        after this call."""
        before = {member: member.sent for member in self.members}

        def is_across() -> bool:
            return all(
                any(member.last[other.index] > before[other] for other in others)
                for member, others in self._others.items()
                if not member.is_quiet
            )

        await wait_until(is_across, seconds=3 * DEADLINE)

    def hush(self, rooms: Iterable[str]) -> None:
        """From now on nobody publishes in `rooms`."""
        for member in self.members:
            if member.room in rooms:
                member.is_quiet = True

    async def wait_published(self) -> None:
        """Return when each member has got its own last message: it is out of its worker's hands then, or lost."""
        await wait_until(lambda: all(member.last[member.index] == member.sent for member in self.members))

    async def publish_last(self) -> None:
        """Stop publishing, but for one last message of each member that is not quiet; return when all have these."""
        await self._stop()
        for member in self.members:
            if not member.is_quiet:
                member.publish()
        await wait_until(
            lambda: all(
                member.last.get(sender.index) == sender.sent
                for member, together in self._together.items()
                for sender in together
                if not sender.is_quiet
            ),
            seconds=DEADLINE,
        )

    async def wait_told(self) -> None:
        """Return when there is no `untold` loss, or after a deadline."""
        with suppress(TimeoutError):
            await wait_until(lambda: not self.untold(), seconds=DEADLINE / 2)

    def missed(self) -> list[Missed]:
        """All that somebody has not got, up to now."""
        between = [missed for member in self.members for missed in member.missed]
        at_the_end = [
            Missed(member, sender, sender.sent, None)
            for member, together in self._together.items()
            for sender in together
            if member.last.get(sender.index, 0) < sender.sent
        ]
        return between + at_the_end

    def untold(self) -> list[Missed]:
        """Losses of which the receiver was not told."""
        return [missed for missed in self.missed() if not missed.is_told()]

    async def _enter(self, room: str, slot: int) -> None:
        async with asyncio.timeout(DEADLINE):  # the turns pass by a worker that lags
            while (member := await self._visit(room)).slot != slot:
                member.close()
        self.members.append(member)

    async def _visit(self, room: str) -> Member:
        member = Member(self.members, room)
        await asyncio.get_running_loop().create_connection(lambda: member, "127.0.0.1", self._port)
        await member.entered.wait()
        return member

    async def _publish(self) -> None:
        clock = asyncio.get_running_loop().time
        began, turn = clock(), 0
        while True:
            due = (clock() - began) * A_SECOND * self._size
            while turn < due:
                member = self.members[turn % self._size]
                if not member.is_quiet:
                    member.publish()
                turn += 1
            await asyncio.sleep(STEP_SECONDS)

    async def _stop(self) -> None:
        if self._publishing is not None:
            self._publishing.cancel()
            await asyncio.wait({self._publishing})
            self._publishing = None

"""What waits for a client that does not read, while some of it may still be dropped: `HeldBack`."""

from __future__ import annotations

from collections.abc import Iterable

from stickygw.connections.backlog import Backlog, cost_of
from stickygw.connections.flow import HIGH_WATER_BYTES
from stickygw.connections.transport import SocketTransport
from stickygw.observability.counters import Counters
from stickygw.types import SlowConsumer


class HeldBack:
    """Frames behind those in `transport`'s outbox, which nobody can drop any more.

    With the outbox they take `max_bytes` of memory, about: what is above that is dropped, as the room's policy says.
    What no policy drops is kept, and whoever adds it looks at `is_too_much` then. Each method that writes gives the
    number of messages that it wrote. While the transport is frozen none is written, and what is dropped is counted by
    the first `release` after it: if the transport is let go, that is another process's loss, or none.
    """

    __slots__ = ("_backlog", "_counters", "_dropped", "_max_bytes", "_transport")

    def __init__(self, transport: SocketTransport, counters: Counters, *, max_bytes: int) -> None:
        self._transport = transport
        self._counters = counters
        self._max_bytes = max_bytes
        self._backlog = Backlog()
        self._dropped: dict[str, int] = {}  # not counted yet

    def __len__(self) -> int:
        return len(self._backlog)

    @property
    def cost(self) -> int:
        """What it takes in memory, in bytes, about."""
        return self._backlog.cost

    @property
    def is_high(self) -> bool:
        """Whether so much of it must be kept that the client's messages should wait."""
        return self._backlog.kept_cost > HIGH_WATER_BYTES

    @property
    def is_too_much(self) -> bool:
        """Whether more must be kept than there is room for."""
        kept = self._backlog.kept_cost
        return kept > 0 and self._transport.outbox_cost + kept > self._max_bytes

    def add(self, frames: Iterable[bytes], policy: SlowConsumer) -> int:
        """Hold `frames` back, and drop what is too much."""
        written = 0
        for frame in frames:
            excess = self._excess_with(frame)
            if excess > 0 and self._transport.blocked_since is None:
                written += self.release()
                if not self._backlog and self._transport.blocked_since is None and not self._transport.is_closed:
                    self._transport.write_now(frame)  # nothing is before it: however long it is, it may go
                    written += 1
                    continue
                excess = self._excess_with(frame)
            if self._transport.is_closed:  # which was noticed in writing
                break
            if excess > 0 and policy == "drop_newest":
                self._drop("newest", 1)
                continue
            self._backlog.add(frame, is_droppable=policy != "disconnect")
            if excess > 0:
                self._drop("oldest", self._backlog.drop_oldest(excess))
        return written

    def frames(self) -> tuple[tuple[bytes, bool], ...]:
        """All of them, in order, each with whether it may be dropped; they stay."""
        return tuple(self._backlog.frames())

    def restore(self, frames: Iterable[tuple[bytes, bool]]) -> None:
        """Hold back what `frames` gave elsewhere, whatever the bound here; the next that is added is measured by it."""
        for frame, is_droppable in frames:
            self._backlog.add(frame, is_droppable=is_droppable)

    def release(self) -> int:
        """Write while the kernel takes it: in pieces, for what is written is not dropped any more."""
        written = 0
        if self._dropped and not self._transport.is_frozen:
            dropped, self._dropped = self._dropped, {}
            for which, count in dropped.items():
                self._counters.add("messages_dropped", which, count)
        if self._transport.outbox_bytes:
            self._transport.flush()
        while self._backlog and not self._transport.is_stuck and not self._transport.is_closed:
            written += self._write(HIGH_WATER_BYTES)
        return written

    def write_all(self) -> int:
        """Write it all into the outbox: something has to come behind it."""
        return self._write(None)

    def _drop(self, which: str, count: int) -> None:
        if count and self._transport.is_frozen:
            self._dropped[which] = self._dropped.get(which, 0) + count
        elif count:
            self._counters.add("messages_dropped", which, count)

    def _write(self, size: int | None) -> int:
        """Write the first `size` bytes, rounded up to whole messages; None: all."""
        frames = self._backlog.take(size)
        self._transport.write_now(b"".join(frames))
        return len(frames)

    def _excess_with(self, frame: bytes) -> int:
        return self._transport.outbox_cost + self._backlog.cost + cost_of(frame) - self._max_bytes

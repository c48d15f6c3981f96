"""What a WebSocket between two events is, as plain data that another process can go on with.

Descriptors, receivers and settings are not part of it. Times are ages in seconds: the monotonic clocks of two processes
agree on one boot of one machine only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class FrozenTransport:
    """A `SocketTransport` but for its socket.

    `outbox` was accepted and is not written, in order; it may begin in the middle of a frame. It has been blocked for
    `blocked_seconds` (None: it is not), since which its first `marked_bytes` wait.
    """

    outbox: bytes
    marked_bytes: int
    blocked_seconds: float | None
    received_bytes: int
    sent_bytes: int


@dataclass(frozen=True, slots=True)
class FrozenWebSocket:
    """An open `WebSocket` but for its socket and its receiver.

    `client_window_bits`: of the client's permessage-deflate, of which all else is always the same; 0: no compression.
    `undecoded` begins with the frames so far of an unfinished message: who has decoded all of it is in the middle of
    that message again. Then comes what was received and not decoded. `held`: frames that wait behind the outbox,
    and whether each may still be dropped.
    """

    transport: FrozenTransport
    client_window_bits: int
    undecoded: bytes
    held: tuple[tuple[bytes, bool], ...]
    is_spared: bool
    received_messages: int
    sent_messages: int
    heard_seconds: float
    pinged_seconds: float | None

    def to_plain(self) -> tuple[Any, ...]:
        """For msgpack: tuples, bytes, numbers, bools and None."""
        return (
            (
                self.transport.outbox,
                self.transport.marked_bytes,
                self.transport.blocked_seconds,
                self.transport.received_bytes,
                self.transport.sent_bytes,
            ),
            self.client_window_bits,
            self.undecoded,
            self.held,
            self.is_spared,
            self.received_messages,
            self.sent_messages,
            self.heard_seconds,
            self.pinged_seconds,
        )

    @classmethod
    def of_plain(cls, plain: Sequence[Any]) -> FrozenWebSocket:
        """What `to_plain` gave, as msgpack brings it back. Raises `ValueError` for anything else."""
        try:
            transport, window_bits, undecoded, held, *rest = plain
            frozen = cls(
                FrozenTransport(*transport),
                window_bits,
                undecoded,
                tuple((frame, is_droppable) for frame, is_droppable in held),
                *rest,
            )
        except (TypeError, ValueError) as error:
            raise ValueError(f"not a frozen WebSocket: {error}") from error
        frozen._check()
        return frozen

    def _check(self) -> None:
        transport = self.transport
        texts = (transport.outbox, self.undecoded, *(frame for frame, _ in self.held))
        counts = (
            *(transport.marked_bytes, transport.received_bytes, transport.sent_bytes),
            *(self.client_window_bits, self.received_messages, self.sent_messages),
        )
        ages = (transport.blocked_seconds, self.heard_seconds, self.pinged_seconds)
        if not (
            all(isinstance(text, bytes) for text in texts)
            and all(isinstance(count, int) for count in counts)
            and all(age is None or isinstance(age, (int, float)) for age in ages)
            and self.heard_seconds is not None
            and self.client_window_bits in (0, *range(8, 16))
        ):
            raise ValueError("not a frozen WebSocket: a field of another kind")

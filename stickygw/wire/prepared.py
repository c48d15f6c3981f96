"""A message framed once and written to many: `PreparedMessage`.

Server frames are not masked (RFC 6455 §5.1), so all receivers with the same compression get the same bytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from struct import Struct

from stickygw.types import SlowConsumer

_SHORT = Struct("!BB")
_MEDIUM = Struct("!BBH")
_LONG = Struct("!BBQ")

TEXT = 0x1
BINARY = 0x2

_FIN = 0x80
_RSV1 = 0x40

DEFLATE_WINDOW_BITS = 12
"""4 KiB windows: the compressor's memory stays small, and chat messages are shorter anyway."""

DEFLATE_MEMORY_LEVEL = 5

MIN_DEFLATE_BYTES = 64


def frame(opcode: int, payload: bytes, *, rsv1: bool = False) -> bytes:
    """One unmasked, unfragmented frame (RFC 6455 §5.2)."""
    head = _FIN | opcode | (_RSV1 if rsv1 else 0)
    length = len(payload)
    if length < 126:
        return _SHORT.pack(head, length) + payload
    if length < 65536:
        return _MEDIUM.pack(head, 126, length) + payload
    return _LONG.pack(head, 127, length) + payload


def deflate(payload: bytes) -> bytes:
    """`payload` compressed as one permessage-deflate message without context takeover (RFC 7692 §7.2.1)."""
    compressor = zlib.compressobj(wbits=-DEFLATE_WINDOW_BITS, memLevel=DEFLATE_MEMORY_LEVEL)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


class PreparedMessage:
    """A text or binary message, framed at most once for each kind of receiver."""

    __slots__ = ("_compressed", "_plain", "opcode", "payload")

    def __init__(self, opcode: int, payload: bytes) -> None:
        self.opcode = opcode
        self.payload = payload
        self._plain: bytes | None = None
        self._compressed: bytes | None = None

    @classmethod
    def of(cls, message: str | bytes) -> PreparedMessage:
        """A str becomes a text message (UTF-8), bytes a binary one."""
        return cls(TEXT, message.encode()) if isinstance(message, str) else cls(BINARY, bytes(message))

    @property
    def is_text(self) -> bool:
        """Whether it is a text message."""
        return self.opcode == TEXT

    @property
    def plain(self) -> bytes:
        """The frame for a receiver without compression."""
        if self._plain is None:
            self._plain = frame(self.opcode, self.payload)
        return self._plain

    @property
    def compressed(self) -> bytes:
        """The frame for a receiver with permessage-deflate and no context takeover.

        A short payload only grows: it goes as it is, which RFC 7692 §6 allows for each message.
        """
        if len(self.payload) < MIN_DEFLATE_BYTES:
            return self.plain
        if self._compressed is None:
            self._compressed = frame(self.opcode, deflate(self.payload), rsv1=True)
        return self._compressed


class Batch:
    """Messages that go out together, in order: their frames are joined at most once for each kind of receiver.

    `policy` is for those that do not keep up.
    """

    __slots__ = ("_compressed", "messages", "plain", "policy")

    def __init__(self, messages: Sequence[PreparedMessage], policy: SlowConsumer = "disconnect") -> None:
        self.messages = messages
        self.policy: SlowConsumer = policy
        self.plain = b"".join([message.plain for message in messages])
        """See `PreparedMessage.plain`."""
        self._compressed: bytes | None = None

    @property
    def compressed(self) -> bytes:
        """See `PreparedMessage.compressed`."""
        if self._compressed is None:
            self._compressed = b"".join([message.compressed for message in self.messages])
        return self._compressed

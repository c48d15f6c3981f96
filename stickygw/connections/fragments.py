"""The fragments of one message, until its last one is there (RFC 6455 §5.4): `Fragments`. Pure."""

from __future__ import annotations

from itertools import chain, repeat

MAX_FRAGMENTS = 4096
"""Fragments of one message; tiny ones cost memory (CVE-2026-48779). The `websockets` library has the same bound."""

FRAMING_BYTES = 128 * 1024
"""Bytes that a compressed message may have beyond its bound before `Fragments` forgets its frames.

`MAX_FRAGMENTS` heads of 14 bytes with a flush of 5 are 78 KB, and stored blocks are a few bytes in a thousand. Who
needs more compresses nothing into much, for which there is no bound else: an empty block is 5 bytes and no message.
"""

_TEXT, _BINARY, _CONTINUATION = 0x1, 0x2, 0x0
_RSV1 = 0x40
_MASKED = 0x80


class Fragments:
    """The payloads so far, of `size` bytes, of the message whose first frame is `frame`.

    Whoever adds them has checked their order and bounds their size, with `max_message`. Of a compressed message the
    frames are kept too: no decompressor's state can be written down, so another one must read the same.
    """

    __slots__ = ("_frames", "_max_frames", "_payloads", "is_text", "size")

    def __init__(self, frame: bytes, *, is_text: bool, max_message: int) -> None:
        self._payloads: list[bytes] = []
        self._frames: bytearray | None = bytearray() if frame[0] & _RSV1 else None
        self._max_frames = max_message + FRAMING_BYTES if self._frames is not None else None  # in bytes
        self.is_text = is_text
        self.size = 0

    def add(self, payload: bytes, frame: bytes) -> None:
        """Put `payload` behind the others; `frame` is its whole frame."""
        self._payloads.append(payload)
        self.size += len(payload)
        if self._frames is not None and self._max_frames is not None:
            if len(self._frames) + len(frame) <= self._max_frames:
                self._frames += frame
            else:
                self._frames = None

    @property
    def are_too_many(self) -> bool:
        """Whether one more would be over `MAX_FRAGMENTS`."""
        return len(self._payloads) >= MAX_FRAGMENTS

    @property
    def can_repeat(self) -> bool:
        """Whether `frames` can be asked: not when compressed ones have exceeded their bound (`FRAMING_BYTES`)."""
        return self._frames is not None or self._max_frames is None

    def frames(self) -> bytes:
        """Frames of a client that make the same payloads: its own if they are compressed, else equal ones."""
        if self._frames is not None:
            return bytes(self._frames)
        opcodes = chain([_TEXT if self.is_text else _BINARY], repeat(_CONTINUATION))
        return b"".join(_fragment(opcode, payload) for opcode, payload in zip(opcodes, self._payloads, strict=False))

    def joined(self) -> bytes:
        """The whole message."""
        return b"".join(self._payloads)


def _fragment(opcode: int, payload: bytes) -> bytes:
    """A client's frame without FIN (RFC 6455 §5.2), masked with zeros: the payload stands as it is."""
    length = len(payload)
    if length < 126:
        size = bytes((_MASKED | length,))
    elif length < 65536:
        size = bytes((_MASKED | 126,)) + length.to_bytes(2, "big")
    else:
        size = bytes((_MASKED | 127,)) + length.to_bytes(8, "big")
    return bytes((opcode,)) + size + bytes(4) + payload

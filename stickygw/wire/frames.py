"""How long a client's frame is (RFC 6455 §5.2): where it ends, and so where the next one begins.

By this the `websockets` library is always fed whole frames and stands between two of them.
"""

from __future__ import annotations

from typing import Final

HEADER_INCOMPLETE: Final = 0
"""`frame_size`: more bytes are needed to know."""

HEADER_INVALID: Final = -1
"""`frame_size`: the library will refuse this header as it stands; no need to wait for the rest."""

_KNOWN_OPCODES = frozenset({0x0, 0x1, 0x2, 0x8, 0x9, 0xA})


def frame_size(data: bytes | bytearray, start: int, max_payload: int) -> int:
    """The size in bytes of the frame at `start`, its header included, or one of the two constants above.

    A payload over `max_payload` counts as invalid: it is refused by its header (1009), before its bytes are kept.
    """
    available = len(data) - start
    if available < 2:
        return HEADER_INCOMPLETE
    first, second = data[start], data[start + 1]
    if not second & 0x80 or (first & 0x0F) not in _KNOWN_OPCODES:
        return HEADER_INVALID
    length = second & 0x7F
    header = 6
    if length >= 126:
        width = 2 if length == 126 else 8
        if available < 2 + width:
            return HEADER_INCOMPLETE
        length = int.from_bytes(data[start + 2 : start + 2 + width], "big")
        header += width
    return HEADER_INVALID if length > max_payload else header + length

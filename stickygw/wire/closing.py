"""The payload of a close frame (RFC 6455 §5.5.1, §7.4): `close_payload` makes it, `read_close` reads it."""

from __future__ import annotations

import struct

MAX_REASON_BYTES = 123
"""A close frame has 125 bytes, two of them the code (RFC 6455 §5.5)."""

_SENDABLE = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})


def check_close(code: int, reason: str) -> None:
    """Raise `ValueError` for a code that no close frame may carry (RFC 6455 §7.4), or a reason of over 123 bytes."""
    close_payload(code, reason)


def close_payload(code: int, reason: str) -> bytes:
    """`code` as two bytes, big-endian, then `reason` as UTF-8.

    Raises `ValueError` for a code that no close frame may carry (RFC 6455 §7.4), and for a reason of over 123 bytes or
    that is no Unicode text.
    """
    try:
        encoded = reason.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"a close reason is text that UTF-8 can write: {error}") from None
    _check(code, encoded)
    return struct.pack("!H", code) + encoded


def read_close(payload: bytes) -> tuple[int, str]:
    """The code and the reason in `payload`, the reverse of `close_payload`. Raises `ValueError` for what that does not
    make: fewer than two bytes, another code, a reason that is too long or not UTF-8."""
    if len(payload) < 2:
        raise ValueError(f"a close payload begins with a code of two bytes; it has {len(payload)}")
    code, reason = int.from_bytes(payload[:2]), payload[2:]
    _check(code, reason)
    return code, reason.decode()  # UnicodeDecodeError is a ValueError


def _check(code: int, reason: bytes) -> None:
    if code not in _SENDABLE and not 3000 <= code <= 4999:
        raise ValueError(f"{code} is no close code that can be sent: 1000 to 1014 as RFC 6455 has them, 3000 to 4999")
    if len(reason) > MAX_REASON_BYTES:
        raise ValueError(f"a close reason has at most {MAX_REASON_BYTES} bytes")

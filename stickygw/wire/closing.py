"""What a close frame may carry (RFC 6455 §5.5.1, §7.4): `check_close`."""

from __future__ import annotations

MAX_REASON_BYTES = 123
"""A close frame has 125 bytes, two of them the code (RFC 6455 §5.5)."""

_SENDABLE = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})


def check_close(code: int, reason: str) -> None:
    """Raise `ValueError` for a code that no close frame may carry (RFC 6455 §7.4), or a reason of over 123 bytes."""
    if code not in _SENDABLE and not 3000 <= code <= 4999:
        raise ValueError(f"{code} is no close code that can be sent: 1000 to 1014 as RFC 6455 has them, 3000 to 4999")
    if len(reason.encode()) > MAX_REASON_BYTES:
        raise ValueError(f"a close reason has at most {MAX_REASON_BYTES} bytes")

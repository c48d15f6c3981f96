"""What a session can keep and how it is packed: one msgpack value for each field."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgpack

from stickygw.errors import SessionValueError

MAX_VALUE_BYTES = 64 * 1024
"""Of one packed value."""

MAX_NAME_BYTES = 256
"""Of one field's name."""

MAX_FIELDS = 256
"""Of one session."""

VERSION_FIELD = "_v"
"""Whoever wrote last leaves its mark there."""

CREATED_FIELD = "_c"
"""When the session was first stored, in Unix seconds."""

OWN_FIELDS = frozenset({VERSION_FIELD, CREATED_FIELD})
"""The names that the stores keep for themselves."""

_IMMUTABLE = (str, int, float, bool, bytes, type(None), datetime)


def is_immutable(value: object) -> bool:
    """Whether `value` cannot change in place, so that only an assignment makes it dirty."""
    return type(value) in _IMMUTABLE


def check_name(field: object) -> str:
    """`field` as a field's name: text of at most `MAX_NAME_BYTES`, not the stores' own. Raises `SessionValueError`."""
    if not isinstance(field, str):
        raise SessionValueError(f"a session field is named by text, not {type(field).__name__}")
    try:
        length = len(field.encode())
    except UnicodeEncodeError as error:
        raise SessionValueError("a session field's name has a lone surrogate") from error
    if length > MAX_NAME_BYTES:
        raise SessionValueError(f"a session field's name of {length} bytes; at most {MAX_NAME_BYTES} are kept")
    if field in OWN_FIELDS:
        raise SessionValueError(f"the session store keeps {field!r} for itself; name the field otherwise")
    return field


def pack(field: str, value: Any) -> bytes:
    """`value` as the store keeps it.

    None, bool, int of 64 bits, float, str, bytes, timezone-aware datetime (as its instant, in UTC), and lists
    and dicts of these; a tuple comes back as a list. Raises `SessionValueError` naming `field` for anything
    else, or for more than `MAX_VALUE_BYTES`.
    """
    try:
        packed: bytes = msgpack.packb(value, datetime=True)
        if not is_immutable(value):
            _unpack(packed)  # a dict keyed by tuples can be packed, but never loaded again
    except (TypeError, ValueError, OverflowError, msgpack.UnpackException) as error:
        raise SessionValueError(f"session field {field!r} cannot keep this value: {error}") from error
    if len(packed) > MAX_VALUE_BYTES:
        raise SessionValueError(
            f"session field {field!r} has {len(packed)} bytes packed; at most {MAX_VALUE_BYTES} are kept"
        )
    return packed


def unpack(field: str, packed: bytes) -> Any:
    """The value in `packed`. Raises `SessionValueError`, naming `field`, for another program's bytes."""
    try:
        return _unpack(packed)
    except (TypeError, ValueError, OverflowError, msgpack.UnpackException) as error:
        raise SessionValueError(f"session field {field!r} holds no msgpack value: {error}") from error


def _unpack(packed: bytes) -> Any:
    return msgpack.unpackb(packed, timestamp=3, strict_map_key=False)

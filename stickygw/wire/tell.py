"""What a `Tell` carries: a name and one msgpack value, with their bounds."""

from __future__ import annotations

from typing import Any

import msgpack

MAX_NAME_LENGTH = 128
MAX_PAYLOAD_BYTES = 64 * 1024
"""Of one packed payload or answer: half of what a link message may have."""

LONGEST_ASK_SECONDS = 60.0
"""Nobody waits longer for an answer; the primary forgets a question after so long."""

COMMAND = "command"
"""The sender of what comes from the command line."""


OWN_NAMES = "stickygw."
"""Names that begin so are the gateway's own; no application's function has one."""

SESSIONS_IN_USE = f"{OWN_NAMES}sessions"
"""Asks a worker what it has in use. Of a list of session ids: a map of those with open WebSockets, and how many. Of
null: how many sessions."""


def check_name(name: str) -> str:
    """`name` as that of a message: text of 1 to `MAX_NAME_LENGTH` characters. Raises `ValueError`."""
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME_LENGTH:
        raise ValueError(f"a message's name is text of 1 to {MAX_NAME_LENGTH} characters, not {name!r:.200}")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"a message's name cannot have a lone surrogate: {name!r}") from error
    return name


def pack(value: Any, *, what: str = "payload", most: int = MAX_PAYLOAD_BYTES) -> bytes:
    """`value` as msgpack: None, bool, int of 64 bits, float, str, bytes, and lists and dicts of these.

    Raises `ValueError`, which names `what`, for anything else and for more than `most` bytes.
    """
    try:
        packed: bytes = msgpack.packb(value)
        unpack(packed)  # a dict keyed by tuples can be packed, but never read again
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"the {what} is no msgpack value: {error}") from error
    if len(packed) > most:
        raise ValueError(f"the {what} has {len(packed)} bytes packed; at most {most} are sent")
    return packed


def unpack(packed: bytes) -> Any:
    """The value in `packed`. Raises `ValueError`."""
    try:
        return msgpack.unpackb(packed, strict_map_key=False)
    except (TypeError, ValueError, OverflowError, msgpack.UnpackException) as error:
        raise ValueError(f"{len(packed)} bytes that are no msgpack value: {error}") from error

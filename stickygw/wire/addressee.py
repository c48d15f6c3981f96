"""Whom an envelope on the channel for single sessions and connections is meant for: `addressee`."""

from __future__ import annotations

from typing import Literal

from stickygw.wire.envelope import MAX_TO_BYTES


def addressee(kind: Literal["session", "connection"], id: str) -> str:
    """``session:ID`` or ``connection:ID``, an envelope's `to`.

    Raises `ValueError` for an id that is empty, longer than `MAX_TO_BYTES` leave room for, or no text.
    """
    if not isinstance(id, str):
        raise ValueError(f"a {kind}'s id is text, not {type(id).__name__}")
    room = MAX_TO_BYTES - len(f"{kind}:")
    try:
        length = len(id.encode())
    except UnicodeEncodeError:
        raise ValueError(f"a {kind}'s id has a lone surrogate, which UTF-8 cannot say") from None
    if not 1 <= length <= room:
        raise ValueError(f"a {kind}'s id has {length} bytes of UTF-8; 1 to {room} are allowed")
    return f"{kind}:{id}"

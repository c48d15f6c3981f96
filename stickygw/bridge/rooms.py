"""What a room may be called."""

from __future__ import annotations

import re

from stickygw.errors import RoomNameError

MAX_ROOM_BYTES = 200
"""A name becomes a channel of the store; the bound keeps what clients choose short."""

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


def check_room(name: str) -> bytes:
    """The UTF-8 bytes of a room's name: 1 … `MAX_ROOM_BYTES` of them, no control characters.

    Raises `RoomNameError` for anything else. Rooms are often named by clients, so nothing here trusts the
    type.
    """
    if not isinstance(name, str):
        raise RoomNameError(f"a room's name is text, not {type(name).__name__}")
    try:
        encoded = name.encode()
    except UnicodeEncodeError as error:
        raise RoomNameError("a room's name has a lone surrogate, which UTF-8 cannot say") from error
    if not 1 <= len(encoded) <= MAX_ROOM_BYTES:
        raise RoomNameError(f"a room's name has {len(encoded)} bytes of UTF-8; 1 to {MAX_ROOM_BYTES} are allowed")
    if _CONTROL.search(name):
        raise RoomNameError("a room's name has a control character")
    return encoded

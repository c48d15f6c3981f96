"""Where a message goes: to a room, to a user's connections, or to whom it names itself (`DIRECT`)."""

from __future__ import annotations

import re

from stickygw.errors import RoomNameError

MAX_NAME_BYTES = 200
"""A name becomes a channel of the store; the bound keeps what clients choose short."""

DIRECT = "\x00direct"
"""Heard by every worker: for what is meant for one session or connection, which nobody knows where to find."""

_USER = "\x00user:"
_LOCAL = "\x00local:"

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


def check_room(name: str) -> str:
    """`name`, which is a room's address: 1 … `MAX_NAME_BYTES` of UTF-8, no control characters.

    Raises `RoomNameError` for anything else. Rooms are often named by clients, so nothing here trusts the
    type.
    """
    return _checked(name, "room")


def user_address(name: str) -> str:
    """The address of a user's connections. No room can have it. Raises `RoomNameError`, as `check_room` does."""
    return _USER + _checked(name, "user")


def local_address(room: str) -> str:
    """Where the two workers of a slot that is being moved tell each other what is published in `room` for it alone. It
    is an address of copies: nobody subscribes to it."""
    return _LOCAL + room


def room_of(address: str) -> str:
    """The room of a `local_address`; any other address itself."""
    return address.removeprefix(_LOCAL)


def is_room(address: str) -> bool:
    """Whether it is a room's."""
    return not (isinstance(address, str) and address.startswith("\x00"))


def check_address(address: str) -> None:
    """Raises `RoomNameError` for what no room and no user can be called."""
    if is_room(address):
        check_room(address)


def channel_of(prefix: str, address: str) -> bytes:
    """The store's channel: ``<prefix>:room:<name>``, ``<prefix>:user:<name>`` or ``<prefix>:direct``."""
    if is_room(address):
        return f"{prefix}:room:{check_room(address)}".encode()
    return f"{prefix}:{address[1:]}".encode()


def _checked(name: str, what: str) -> str:
    if not isinstance(name, str):
        raise RoomNameError(f"a {what}'s name is text, not {type(name).__name__}")
    try:
        length = len(name.encode())
    except UnicodeEncodeError as error:
        raise RoomNameError(f"a {what}'s name has a lone surrogate, which UTF-8 cannot say") from error
    if not 1 <= length <= MAX_NAME_BYTES:
        raise RoomNameError(f"a {what}'s name has {length} bytes of UTF-8; 1 to {MAX_NAME_BYTES} are allowed")
    if _CONTROL.search(name):
        raise RoomNameError(f"a {what}'s name has a control character")
    return name

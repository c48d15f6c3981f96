"""What rooms and users may be called, and on which channels of the store they are."""

from __future__ import annotations

from typing import Any

import pytest

from stickygw.bridge.addresses import (
    DIRECT,
    MAX_NAME_BYTES,
    channel_of,
    check_address,
    check_room,
    is_room,
    user_address,
)
from stickygw.errors import RoomNameError

GOOD = ["a", " ", "räume:1 *?[]{}\\", "x" * MAX_NAME_BYTES, "ü" * 100, "\u2028", "💬"]
BAD: list[Any] = ["", "x" * 201, "ü" * 101, "a\nb", "a\r", "a\x00", "\x7f", "\x85", "\ud800", b"room", None, 7]


@pytest.mark.parametrize("name", GOOD)
def test_a_room_is_named_by_printable_text(name: str) -> None:
    assert check_room(name) == name
    check_address(name)
    assert channel_of("sgw", name) == f"sgw:room:{name}".encode()


@pytest.mark.parametrize("name", BAD)
def test_everything_else_is_refused(name: Any) -> None:
    with pytest.raises(RoomNameError):
        check_room(name)
    with pytest.raises(RoomNameError):
        user_address(name)
    with pytest.raises(RoomNameError):
        check_address(name)
    with pytest.raises(RoomNameError):
        channel_of("sgw", name)


@pytest.mark.parametrize("name", GOOD)
def test_a_user_has_a_channel_that_no_room_has(name: str) -> None:
    address = user_address(name)
    check_address(address)
    assert not is_room(address)
    assert channel_of("sgw", address) == f"sgw:user:{name}".encode()
    with pytest.raises(RoomNameError):
        check_room(address)


def test_what_is_meant_for_one_connection_has_a_channel_that_no_room_and_no_user_has() -> None:
    check_address(DIRECT)
    assert not is_room(DIRECT)
    assert channel_of("sgw", DIRECT) == b"sgw:direct"
    with pytest.raises(RoomNameError):
        check_room(DIRECT)
    assert channel_of("sgw", "direct") == b"sgw:room:direct"
    assert channel_of("sgw", user_address("direct")) == b"sgw:user:direct"


def test_the_message_says_whose_name_is_wrong() -> None:
    with pytest.raises(RoomNameError, match="room's name"):
        check_room("")
    with pytest.raises(RoomNameError, match="user's name"):
        user_address("")

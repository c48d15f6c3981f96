"""What a room may be called."""

from __future__ import annotations

from typing import Any

import pytest

from stickygw.bridge.rooms import MAX_ROOM_BYTES, check_room
from stickygw.errors import RoomNameError


@pytest.mark.parametrize("name", ["a", " ", "räume:1 *?[]{}\\", "x" * MAX_ROOM_BYTES, "ü" * 100, "\u2028", "💬"])
def test_a_room_is_named_by_printable_text(name: str) -> None:
    assert check_room(name) == name.encode()


@pytest.mark.parametrize(
    "name", ["", "x" * 201, "ü" * 101, "a\nb", "a\r", "\x00", "\x7f", "\x85", "\ud800", b"room", None, 7]
)
def test_everything_else_is_refused(name: Any) -> None:
    with pytest.raises(RoomNameError):
        check_room(name)

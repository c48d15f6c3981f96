"""What only the memory store promises: its bound."""

from __future__ import annotations

import pytest

from stickygw.errors import SessionEnded
from stickygw.sessions.memory import MemorySessionStore
from stickygw.types import SessionId


def session_id(number: int) -> SessionId:
    return SessionId(f"{number:032x}")


async def test_the_session_longest_untouched_goes_when_the_store_is_full() -> None:
    store = MemorySessionStore(max_sessions=3)
    for number in range(3):
        await store.write(session_id(number), {"a": b"\x01"}, [], 100, is_new=True)
    await store.touch(session_id(0), 100)
    await store.write(session_id(3), {"a": b"\x01"}, [], 100, is_new=True)
    kept = [number for number in range(4) if await store.load(session_id(number)) is not None]
    assert kept == [0, 2, 3]


async def test_what_is_remembered_of_ended_sessions_is_bounded_too() -> None:
    store = MemorySessionStore(max_sessions=3)
    for number in range(4):
        await store.end(session_id(number), 100)
    assert await store.load(session_id(0)) is None
    with pytest.raises(SessionEnded):
        await store.load(session_id(1))

"""`Visit`: one request's session, opened by several tasks of it, given another id, destroyed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from stickygw.errors import SessionEnded
from stickygw.sessions.base import Loaded
from stickygw.sessions.memory import MemorySessionStore
from stickygw.sessions.registry import Sessions
from stickygw.sessions.visit import Visit
from stickygw.types import SessionId

ID = SessionId("0123456789abcdef" * 2)


class Store(MemorySessionStore):
    """A store whose loads can be held up."""

    def __init__(self) -> None:
        super().__init__()
        self.may_go = asyncio.Event()
        self.may_go.set()

    async def load(self, id: SessionId) -> Loaded | None:
        await self.may_go.wait()
        return await super().load(id)


@pytest.fixture
async def store() -> Store:
    store = Store()
    await store.write(ID, {"name": b"\xa3Ada"}, [], 100, is_new=True)
    return store


@pytest.fixture
async def sessions(store: Store) -> AsyncIterator[Sessions]:
    sessions = Sessions(store, ttl=100, is_tracked=lambda: True)
    sessions.start()
    yield sessions
    await sessions.stop()


async def test_tasks_that_open_at_once_hold_it_once_and_the_last_one_lets_go(store: Store, sessions: Sessions) -> None:
    visit = Visit(ID, sessions)
    store.may_go.clear()
    opens = [asyncio.create_task(visit.open()) for _ in range(3)]
    await asyncio.sleep(0)
    store.may_go.set()
    assert len({id(session) for session in await asyncio.gather(*opens)}) == 1
    for left in (1, 1, 0):
        visit.release()
        assert sessions.session_count == left


async def test_one_that_is_released_while_another_task_freshens_it_is_that_task_s_still(
    store: Store, sessions: Sessions
) -> None:
    visit, other = Visit(ID, sessions), Visit(ID, sessions)
    session = await visit.open()
    assert await other.open() is session
    session.mark_stale()
    store.may_go.clear()
    again = asyncio.create_task(visit.open())
    await asyncio.sleep(0)
    visit.release()
    other.release()
    store.may_go.set()
    assert await again is session
    assert await sessions.open(ID) is session
    sessions.release(session)
    visit.release()
    assert sessions.session_count == 0


async def test_an_open_that_fails_holds_nothing(store: Store, sessions: Sessions) -> None:
    visit = Visit(ID, sessions)
    store.may_go.clear()
    opening = asyncio.create_task(visit.open())
    await asyncio.sleep(0)
    opening.cancel()
    await asyncio.wait({opening})
    store.may_go.set()
    await asyncio.sleep(0)
    assert sessions.session_count == 0


async def test_after_a_destroy_a_new_session_is_told_and_the_old_cookie_not_forgotten(sessions: Sessions) -> None:
    visit = Visit(ID, sessions)
    await visit.open()
    await visit.destroy()
    assert visit.has_ended
    visit.release()
    session = await visit.open()
    assert not visit.has_ended
    assert session.id != ID
    visit.release()


async def test_a_session_that_was_ended_elsewhere_is_found_so_before_a_handler_runs(
    store: Store, sessions: Sessions
) -> None:
    session, told = await sessions.open(ID), []
    sessions.watch(ID, lambda: told.append(ID))
    await store.end(ID, 100)
    session.mark_stale()  # as when the tracking link is new
    with pytest.raises(SessionEnded):
        await sessions.freshen(session)
    assert told == [ID]
    sessions.release(session)

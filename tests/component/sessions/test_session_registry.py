"""`Sessions`: one object for each id, one load for openers that meet."""

from __future__ import annotations

import asyncio
import gc
import logging

import pytest
from support.waiting import wait_until

from stickygw.errors import SessionUnavailable
from stickygw.sessions.memory import MemorySessionStore
from stickygw.sessions.registry import Sessions
from stickygw.types import SessionId

ID = SessionId("0123456789abcdef" * 2)


class Store(MemorySessionStore):
    """A store that counts loads, and can be held up or away."""

    def __init__(self) -> None:
        super().__init__()
        self.loads = 0
        self.is_away = False
        self.may_go = asyncio.Event()
        self.may_go.set()

    async def load(self, id: SessionId) -> dict[str, bytes] | None:
        self.loads += 1
        await self.may_go.wait()
        if self.is_away:
            raise SessionUnavailable("away")
        return await super().load(id)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def sessions(store: Store) -> Sessions:
    return Sessions(store, ttl=100)


async def test_a_new_session_has_a_fresh_id_and_costs_no_load(store: Store, sessions: Sessions) -> None:
    first, second = await sessions.open(None), await sessions.open(None)
    assert first.id != second.id
    assert len(first.id) == 32
    assert first.is_new
    assert store.loads == 0
    assert sessions.session_count == 2


async def test_connections_of_one_visitor_share_one_object(store: Store, sessions: Sessions) -> None:
    await store.write(ID, {"a": b"\x01"}, [], 100)
    first = await sessions.open(ID)
    assert first["a"] == 1
    await store.write(ID, {"a": b"\x02"}, [], 100)
    second = await sessions.open(ID)
    assert second is first
    assert first["a"] == 2  # loaded again


async def test_openers_that_meet_share_one_load(store: Store, sessions: Sessions) -> None:
    opened = await asyncio.gather(*(sessions.open(ID) for _ in range(10)))
    assert len({id(session) for session in opened}) == 1
    assert store.loads == 1


async def test_the_last_release_drops_the_session(sessions: Sessions) -> None:
    first = await sessions.open(ID)
    await sessions.open(ID)
    sessions.release(first)
    assert sessions.session_count == 1
    sessions.release(first)
    assert sessions.session_count == 0
    assert await sessions.open(ID) is not first


async def test_a_failed_open_leaves_nothing(store: Store, sessions: Sessions) -> None:
    store.is_away = True
    results = await asyncio.gather(*(sessions.open(ID) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [SessionUnavailable] * 3
    assert sessions.session_count == 0
    store.is_away = False
    await sessions.open(ID)


async def test_a_failed_refresh_leaves_the_others_their_session(store: Store, sessions: Sessions) -> None:
    session = await sessions.open(ID)
    store.is_away = True
    with pytest.raises(SessionUnavailable):
        await sessions.open(ID)
    assert sessions.session_count == 1
    store.is_away = False
    assert await sessions.open(ID) is session


async def test_a_cancelled_opener_takes_the_load_from_nobody(store: Store, sessions: Sessions) -> None:
    store.may_go.clear()
    first, second = asyncio.create_task(sessions.open(ID)), asyncio.create_task(sessions.open(ID))
    await wait_until(lambda: store.loads)
    first.cancel()
    await asyncio.wait({first})
    store.may_go.set()
    session = await second
    sessions.release(session)
    assert store.loads == 1
    assert sessions.session_count == 0


async def test_a_load_that_fails_after_all_openers_left_is_no_unhandled_error(
    store: Store, sessions: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    store.may_go.clear()
    store.is_away = True
    opener = asyncio.create_task(sessions.open(ID))
    await wait_until(lambda: store.loads)
    opener.cancel()
    await asyncio.wait({opener})
    store.may_go.set()
    for _ in range(5):
        await asyncio.sleep(0)
    del opener  # its traceback holds the load's task, which complains when it is freed
    gc.collect()
    assert sessions.session_count == 0
    assert "never retrieved" not in caplog.text


async def test_fields_that_could_not_be_saved_are_told_but_not_the_id(
    sessions: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    session = await sessions.open(ID)
    session["a"] = 1
    with caplog.at_level(logging.WARNING):
        sessions.release(session)
    assert "could not be saved" in caplog.text
    assert ID not in caplog.text

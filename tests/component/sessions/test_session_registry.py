"""`Sessions`: one object for each id, one load for openers that meet."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator

import pytest
from support.waiting import wait_until

from stickygw.errors import SessionUnavailable
from stickygw.sessions.base import check_session_id
from stickygw.sessions.memory import MemorySessionStore
from stickygw.sessions.registry import TOUCH_BATCH, Sessions, new_session_id
from stickygw.types import SessionId

ID = SessionId("0123456789abcdef" * 2)


class Store(MemorySessionStore):
    """A store that counts loads and touches, and can be held up or away, or fail at one session's touch."""

    def __init__(self) -> None:
        self.now = 1000.0
        super().__init__(lambda: self.now)
        self.loads = 0
        self.touches = 0
        self.fails_at: SessionId | None = None
        self.is_away = False
        self.may_go = asyncio.Event()
        self.may_go.set()

    async def load(self, id: SessionId) -> dict[str, bytes] | None:
        self.loads += 1
        await self.may_go.wait()
        if self.is_away:
            raise SessionUnavailable("away")
        return await super().load(id)

    async def touch(self, id: SessionId, ttl: int) -> None:
        self.touches += 1
        if self.is_away:
            raise SessionUnavailable("away")
        if id == self.fails_at:
            raise LookupError("a defect for this test")
        await super().touch(id, ttl)


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


def test_a_new_id_is_one_that_stores_take() -> None:
    assert check_session_id(new_session_id()) != new_session_id()


# The life of what is in use


@pytest.fixture
async def touched(store: Store) -> AsyncIterator[Sessions]:
    """Sessions that live a second, touched each time that the loop has nothing else to do."""
    sessions = Sessions(store, ttl=1, touch_interval=0.0)
    sessions.start()
    yield sessions
    await sessions.stop()


async def test_a_quiet_session_in_use_outlives_its_ttl(store: Store, touched: Sessions) -> None:
    await store.write(ID, {"a": b"\x01"}, [], 1)
    await touched.open(ID)
    for _ in range(5):
        store.now += 0.9
        touches = store.touches
        await wait_until(lambda touches=touches: store.touches > touches)  # type: ignore[misc]
    assert await store.load(ID) == {"a": b"\x01"}


@pytest.mark.parametrize(("ttl", "interval"), [(1, 0.25), (100, 25), (240, 60), (14 * 86_400, 60)])
async def test_a_touch_is_due_four_times_in_a_ttl_and_each_minute_at_least(
    store: Store, ttl: int, interval: float
) -> None:
    now = 0.0
    session = await Sessions(store, ttl=ttl, clock=lambda: now).open(None)
    session["a"] = 1
    await session.flush()
    now = interval - 0.01
    assert not session.is_touch_due
    now = interval
    assert session.is_touch_due


async def test_only_what_is_stored_and_in_use_is_touched(store: Store, touched: Sessions) -> None:
    stored, released = await touched.open(None), await touched.open(None)
    await touched.open(None)
    for session in (stored, released):
        session["a"] = 1
        await session.flush()
    touched.release(released)
    seen: list[SessionId] = []
    touch = store.touch

    async def note(id: SessionId, ttl: int) -> None:
        seen.append(id)
        await touch(id, ttl)

    store.touch = note  # type: ignore[method-assign]
    await wait_until(lambda: len(seen) > 3)
    assert set(seen) == {stored.id}


async def test_an_outage_is_told_once_in_a_round_and_touches_go_on_after_it(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    sessions = Sessions(store, ttl=100, touch_interval=0.0)
    count = 3 * TOUCH_BATCH
    for _ in range(count):
        session = await sessions.open(None)
        session["a"] = 1
        await session.flush()
    store.is_away = True
    sessions.start()
    await wait_until(lambda: store.touches >= 2 * count)
    rounds = -(-store.touches // count)
    assert len([record for record in caplog.records if "cannot be touched" in record.message]) in (rounds - 1, rounds)
    store.is_away = False
    before = store.touches
    await wait_until(lambda: store.touches >= before + count)
    await sessions.stop()


async def test_a_defect_at_one_session_is_loud_and_keeps_touches_from_no_other(
    store: Store, touched: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        session = await touched.open(None)
        session["a"] = 1
        await session.flush()
        store.fails_at = store.fails_at or session.id
    before = store.touches
    await wait_until(lambda: store.touches >= before + 6)
    assert "a defect for this test" in caplog.text


async def test_stop_leaves_no_task(store: Store) -> None:
    tasks = asyncio.all_tasks()
    sessions = Sessions(store, ttl=100)
    await sessions.stop()
    sessions.start()
    await sessions.stop()
    assert asyncio.all_tasks() == tasks

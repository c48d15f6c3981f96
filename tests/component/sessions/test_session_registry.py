"""`Sessions`: one object for each id, one load for openers that meet."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator

import pytest
from support.waiting import wait_until

from stickygw.errors import SessionUnavailable
from stickygw.observability.counters import Counters
from stickygw.sessions import looks, outage, registry
from stickygw.sessions.base import Loaded, check_session_id
from stickygw.sessions.memory import MemorySessionStore
from stickygw.sessions.registry import Sessions, new_session_id
from stickygw.sessions.touches import TOUCH_BATCH
from stickygw.types import SessionId

ID = SessionId("0123456789abcdef" * 2)
OTHER = SessionId("fedcba9876543210" * 2)


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

    async def load(self, id: SessionId) -> Loaded | None:
        self.loads += 1
        await self.may_go.wait()
        if self.is_away:
            raise SessionUnavailable("away")
        return await super().load(id)

    async def touch(self, id: SessionId, ttl: int) -> bool:
        self.touches += 1
        if self.is_away:
            raise SessionUnavailable("away")
        if id == self.fails_at:
            raise LookupError("a defect for this test")
        return await super().touch(id, ttl)


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
    await store.write(ID, {"a": b"\x01"}, [], 100, is_new=True)
    first = await sessions.open(ID)
    assert first["a"] == 1
    await store.write(ID, {"a": b"\x02"}, [], 100, is_new=True)
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


async def test_with_the_store_away_who_comes_to_a_session_in_memory_has_it_as_it_is_there(
    store: Store, sessions: Sessions
) -> None:
    session = await sessions.open(ID)
    store.is_away = True
    assert await sessions.open(ID) is session
    with pytest.raises(SessionUnavailable):
        await sessions.open(OTHER)
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
    await store.write(ID, {"a": b"\x01"}, [], 1, is_new=True)
    await touched.open(ID)
    for _ in range(5):
        store.now += 0.9
        touches = store.touches
        await wait_until(lambda touches=touches: store.touches > touches)  # type: ignore[misc]
    stored = await store.load(ID)
    assert stored is not None
    assert stored.fields == {"a": b"\x01"}


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

    async def note(id: SessionId, ttl: int) -> bool:
        seen.append(id)
        return await touch(id, ttl)

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
    await wait_until(lambda: "cannot be touched" in caplog.text)
    assert store.touches <= TOUCH_BATCH, "the others do not ask a store that gives no answer"
    assert len([record for record in caplog.records if "cannot be touched" in record.message]) == 1
    store.is_away = False
    sessions._outage.end()  # as five seconds do
    await wait_until(lambda: store.touches >= count)
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


# What ends, and who is told


@pytest.fixture
async def watched(store: Store) -> AsyncIterator[Sessions]:
    """Sessions that hear of all changes, with a lifetime of 100 s, and a clock at 1000."""
    counters = Counters()
    sessions = Sessions(store, ttl=100, lifetime=100, now=lambda: store.now, is_tracked=lambda: True, counters=counters)
    store.on_changed.append(sessions.invalidated)
    sessions.start()
    yield sessions
    await sessions.stop()


async def test_an_ended_id_opens_a_new_session(store: Store, sessions: Sessions) -> None:
    await store.end(ID, 100)
    opened = await asyncio.gather(*(sessions.open(ID) for _ in range(3)))
    assert ID not in {session.id for session in opened}
    assert len({session.id for session in opened}) == 3
    for session in opened:
        sessions.release(session)
    assert sessions.session_count == 0


async def test_an_id_that_ended_in_use_opens_a_new_session(watched: Sessions) -> None:
    session = await watched.open(None)
    await session.destroy()
    other = await watched.open(session.id)
    assert other is not session
    assert other.id != session.id


async def test_holders_are_told_when_their_lifetime_is_over(
    store: Store, watched: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "SWEEP_SECONDS", 0.0)
    told: list[str] = []
    watched.watch(ID, lambda: told.append("old"), issued=950.0)
    watched.watch(ID, lambda: told.append("new"))
    watched.watch(ID, lambda: told.append("newest"), issued=1001.0)
    gone = watched.watch(ID, lambda: told.append("gone"), issued=940.0)
    watched.unwatch(gone)
    store.now = 1049.0
    assert watched._holders.tell_overdue(store.now) == 0
    store.now = 1050.0
    await wait_until(lambda: told)
    assert told == ["old"]
    store.now = 1100.0
    await wait_until(lambda: len(told) == 2)
    assert told == ["old", "new"]
    await store.end(ID, 10)
    await wait_until(lambda: told == ["old", "new", "newest"])
    watched.unwatch(gone)
    assert ID not in watched._holders
    assert watched._counters.value("sessions_ended", "lifetime") == 2


async def test_a_holder_that_comes_after_the_end_is_told_too(watched: Sessions) -> None:
    session = await watched.open(None)
    await session.destroy()
    await wait_until(lambda: session.id not in watched._looks)
    told: list[bool] = []
    watched.watch(session.id, lambda: told.append(True))
    await wait_until(lambda: told)


async def test_a_holder_that_raises_keeps_word_from_no_other(
    watched: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[bool] = []

    def fail() -> None:
        raise LookupError("a defect for this test")

    session = await watched.open(None)
    for call in (fail, lambda: told.append(True), fail):
        watched.watch(session.id, call)
    await session.destroy()
    await wait_until(lambda: told)
    assert "a defect for this test" in caplog.text


async def test_an_end_that_cannot_be_looked_at_is_looked_at_again(
    store: Store, watched: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "PAUSE_SECONDS", 0.0)
    session = await watched.open(None)
    told: list[bool] = []
    watched.watch(session.id, lambda: told.append(True))
    store.is_away = True
    await store.end(session.id, 100)
    before = store.loads
    await wait_until(lambda: store.loads > before + 3)
    assert session.is_stale
    assert not told
    store.is_away = False
    await wait_until(lambda: told)


async def test_a_stale_session_goes_on_without_the_store_and_waits_for_it_once(store: Store) -> None:
    now = 0.0
    sessions = Sessions(store, ttl=100, clock=lambda: now)
    await store.write(ID, {"a": b"\x01"}, [], 100, is_new=True)
    session = await sessions.open(ID)
    session.mark_stale()
    store.is_away = True
    loads = store.loads
    for _ in range(3):
        await sessions.freshen(session)
    assert store.loads == loads + 1
    assert session["a"] == 1
    assert session.is_stale
    store.is_away = False
    now = outage.RETRY_SECONDS
    await sessions.freshen(session)
    assert not session.is_stale


async def test_looks_are_few_at_once_and_none_is_lost(store: Store, watched: Sessions) -> None:
    opened = [await watched.open(None) for _ in range(10 * looks.LOOKS_AT_ONCE)]
    running, most, seen = 0, 0, []
    load = store.load

    async def note(id: SessionId) -> Loaded | None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        seen.append(id)
        running -= 1
        return await load(id)

    store.load = note  # type: ignore[method-assign]
    watched.invalidated(None)
    assert all(session.is_stale for session in opened)
    await wait_until(lambda: not any(session.is_stale for session in opened))
    assert set(seen) == {session.id for session in opened}
    assert most == looks.LOOKS_AT_ONCE


async def test_regenerate_that_fails_leaves_the_old_one(store: Store, sessions: Sessions) -> None:
    session = await sessions.open(None)
    session["a"] = 1
    await session.save()
    store.is_away = True
    with pytest.raises(SessionUnavailable):
        await sessions.regenerate(session)
    assert sessions.session_count == 1
    assert not session.is_ended

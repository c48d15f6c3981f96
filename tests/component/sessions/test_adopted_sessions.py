"""A session that comes from another worker with several connections: nothing is rolled back, lost, or missed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from typing import Any

import pytest
from support.waiting import wait_until

from stickygw.errors import SessionUnavailable, SessionValueError
from stickygw.observability.counters import Counters
from stickygw.sessions import write_back
from stickygw.sessions.holders import Holder
from stickygw.sessions.memory import MemorySessionStore
from stickygw.sessions.registry import Sessions
from stickygw.sessions.session import Session
from stickygw.sessions.values import MAX_FIELDS, unpack
from stickygw.types import SessionId


class Store(MemorySessionStore):
    """A store that can be away, or slow: a write waits for `may_answer`, and fails if it was away when it came.
    `writes` are those that it took, and `tries` counts all."""

    def __init__(self) -> None:
        super().__init__()
        self.is_away = False
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.tries = 0
        self.writes: list[dict[str, Any]] = []

    async def write(
        self,
        id: SessionId,
        changed: Mapping[str, bytes],
        removed: Collection[str],
        ttl: int,
        *,
        is_new: bool,
        expected: Mapping[str, bytes | None] | None = None,
    ) -> None:
        self.tries += 1
        is_away = self.is_away
        await self.may_answer.wait()
        if is_away:
            raise SessionUnavailable("away")
        await super().write(id, changed, removed, ttl, is_new=is_new, expected=expected)
        self.writes.append({field: unpack(field, value) for field, value in changed.items()})


@pytest.fixture
async def store() -> Store:
    return Store()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_back, "RETRY_SECONDS", 0.01)


async def running(store: Store) -> AsyncIterator[Sessions]:
    sessions = Sessions(store, ttl=100, is_tracked=lambda: True, counters=Counters(), queue_writes=True)
    sessions.start()
    yield sessions
    await sessions.stop()


@pytest.fixture
async def here(store: Store) -> AsyncIterator[Sessions]:
    """The old worker's."""
    async for sessions in running(store):
        yield sessions


@pytest.fixture
async def there(store: Store) -> AsyncIterator[Sessions]:
    """The new worker's."""
    async for sessions in running(store):
        yield sessions


@pytest.fixture
async def session(here: Sessions) -> Session:
    """It is stored: ``{"y": 0}``."""
    session = await here.open(None)
    session["y"] = 0
    await session.save()
    return session


def adopt(there: Sessions, session: Session, **changed: Any) -> Session:
    """As a connection that comes says what it is."""
    stored, unsaved = session.carried()
    said: dict[str, Any] = {
        "is_stored": not session.is_new,
        "stored": stored,
        "unsaved": unsaved,
        "touched_seconds": session.touched_seconds,
        "is_stale": session.is_stale,
    }
    return there.adopt(session.id, **{**said, **changed})


async def fields(store: Store, id: SessionId) -> dict[str, Any]:
    loaded = await store.load(id)
    assert loaded is not None
    return {field: unpack(field, value) for field, value in loaded.fields.items()}


# --- a second tab -----------------------------------------------------------------------------------------------------


async def test_a_second_tab_takes_back_nothing_that_was_written_since_the_first(
    there: Sessions, session: Session
) -> None:
    session.update(x=1, gone=1)
    moved = adopt(there, session)
    assert moved == {"y": 0, "x": 1, "gone": 1}
    moved["x"] = 2
    del moved["gone"]
    assert adopt(there, session) is moved
    assert moved == {"y": 0, "x": 2}


async def test_nor_what_was_written_and_stored_since(store: Store, there: Sessions, session: Session) -> None:
    session["x"] = 1
    moved = adopt(there, session)
    moved["x"] = 2
    await moved.save()
    adopt(there, session)
    adopt(there, session)
    assert moved == {"y": 0, "x": 2}
    assert not moved.is_dirty
    assert await fields(store, session.id) == {"y": 0, "x": 2}


async def test_what_the_old_worker_has_written_between_two_tabs_comes_with_the_second(
    store: Store, there: Sessions, session: Session
) -> None:
    session.update(x=1, z=1)
    moved = adopt(there, session)
    moved["x"] = 2
    session.update(x=3, z=3, late=3)
    del session["y"]
    adopt(there, session)
    assert moved == {"x": 2, "z": 3, "late": 3}  # of what both wrote, that of who has it
    await moved.save()
    assert await fields(store, session.id) == moved


async def test_what_was_written_there_before_the_first_came_stands(there: Sessions, session: Session) -> None:
    opened = await there.open(session.id)
    opened["x"] = 2
    session.update(x=1, z=1)
    assert adopt(there, session) is opened
    assert opened == {"y": 0, "x": 2, "z": 1}


# --- a full one -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_second", [False, True])
async def test_a_full_session_in_which_one_field_took_the_place_of_another_comes(
    there: Sessions, session: Session, is_second: bool
) -> None:
    session.update({f"f{number}": number for number in range(MAX_FIELDS - 1)})
    await session.save()
    if is_second:
        adopt(there, session)
    del session["f0"]
    session["new"] = 1
    moved = adopt(there, session)
    assert len(moved) == MAX_FIELDS
    assert moved == dict(session)


async def test_what_cannot_be_taken_leaves_nothing(store: Store, there: Sessions, session: Session) -> None:
    with pytest.raises(SessionValueError):
        adopt(there, session, stored={}, unsaved={"x": b"\xc1"})  # no msgpack
    assert there.session_count == 0
    opened = await there.open(session.id)
    assert opened == {"y": 0}
    there.release(opened)


# --- its end ----------------------------------------------------------------------------------------------------------


class Ends:
    """How often the holder of an adopted session was told."""

    def __init__(self, sessions: Sessions, id: SessionId) -> None:
        self.count = 0
        self._sessions = sessions
        self._holder: Holder = sessions.watch(id, self._told)

    def _told(self) -> None:
        self.count += 1

    def stop(self) -> None:
        self._sessions.unwatch(self._holder)


@pytest.mark.parametrize("is_named", [True, False])
async def test_one_that_was_ended_while_it_was_on_the_way_is_told(
    there: Sessions, session: Session, is_named: bool
) -> None:
    there.expect()
    stored, unsaved = session.carried()
    await session.destroy()
    there.invalidated([session.id] if is_named else None)
    adopt(there, session, stored=stored, unsaved=unsaved, is_stored=True)
    ends = Ends(there, session.id)
    await wait_until(lambda: ends.count)
    assert ends.count == 1
    ends.stop()
    there.expect_no_more()


async def test_one_that_was_written_to_while_it_was_on_the_way_is_loaded_and_nobody_is_told_an_end(
    there: Sessions, session: Session
) -> None:
    there.expect()
    stored, unsaved = session.carried()
    session["y"] = 1
    await session.save()
    there.invalidated([session.id])
    moved = adopt(there, session, stored=stored, unsaved=unsaved)
    ends = Ends(there, session.id)
    await wait_until(lambda: session.id not in there._looks)
    assert moved.is_stale
    await there.freshen(moved)
    assert moved == {"y": 1}
    assert ends.count == 0
    ends.stop()
    there.expect_no_more()


# --- what waits for the store -----------------------------------------------------------------------------------------


async def queued(store: Store, session: Session, **fields: Any) -> None:
    store.is_away = True
    session.update(fields)
    await session.save()
    assert session.is_queued


async def test_what_waits_for_the_store_is_written_by_the_worker_that_has_it(
    store: Store, here: Sessions, there: Sessions, session: Session
) -> None:
    await queued(store, session, x=1)
    moved = adopt(there, session)
    here.moved(session)
    assert here.session_count == 0
    moved["x"] = 2
    await moved.save()
    store.writes.clear()
    store.is_away = False
    await wait_until(lambda: not moved.is_queued)
    assert store.writes == [{"x": 2}]
    assert here._queue._task is not None
    await here._queue._task  # which has nothing to write
    assert store.writes == [{"x": 2}]


async def test_while_another_connection_is_here_it_is_written_here_too(
    store: Store, here: Sessions, session: Session
) -> None:
    assert await here.open(session.id) is session
    await queued(store, session, x=1)
    here.moved(session)
    assert here.session_count == 1
    store.is_away = False
    await wait_until(lambda: not session.is_queued)
    assert await fields(store, session.id) == {"y": 0, "x": 1}
    here.release(session)
    assert here.session_count == 0


async def slow_try(store: Store, *, is_taken: bool) -> asyncio.Event:
    """Of what is queued a write is under way. What lets it end; those that come later do not wait."""
    tries, may_end = store.tries, asyncio.Event()
    store.may_answer, others = may_end, store.may_answer
    store.is_away = not is_taken
    await wait_until(lambda: store.tries > tries)
    store.may_answer, store.is_away = others, True
    return may_end


@pytest.mark.parametrize("is_taken", [True, False])
async def test_a_try_that_is_under_way_when_it_moves_ends_in_nothing(
    store: Store, here: Sessions, session: Session, is_taken: bool
) -> None:
    await queued(store, session, x=1)
    may_end = await slow_try(store, is_taken=is_taken)
    here.moved(session)
    assert here.session_count == 0
    may_end.set()
    assert here._queue._task is not None
    await here._queue._task
    assert session.id not in here._queue
    assert here._counters.value("session_writes_lost") == 0


@pytest.mark.parametrize("is_taken", [True, False])
async def test_nor_does_it_touch_what_waits_of_who_has_come_back(
    store: Store, here: Sessions, session: Session, is_taken: bool
) -> None:
    await queued(store, session, x=1)
    may_end = await slow_try(store, is_taken=is_taken)
    here.moved(session)
    again = await here.open(session.id)
    assert again is not session
    again["z"] = 1
    await again.save()
    assert again.is_queued
    tries = store.tries
    may_end.set()
    await wait_until(lambda: store.tries > tries)
    assert again.id in here._queue
    store.is_away = False
    await wait_until(lambda: not again.is_queued)
    assert (await fields(store, again.id))["z"] == 1
    here.release(again)
    assert here.session_count == 0

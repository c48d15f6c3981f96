"""Sessions that the store did not take are kept, and written when it is back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Mapping
from typing import Any

import pytest
from support.waiting import wait_until

from stickygw.errors import SessionEnded, SessionUnavailable, SessionValueError
from stickygw.observability.counters import Counters
from stickygw.sessions import write_back
from stickygw.sessions.base import Loaded
from stickygw.sessions.memory import MemorySessionStore
from stickygw.sessions.registry import Sessions, new_session_id
from stickygw.sessions.session import Session
from stickygw.sessions.values import unpack
from stickygw.types import SessionId


class Store(MemorySessionStore):
    """A store that can be away, be held up, or have a defect; `writes` are those that it took."""

    def __init__(self) -> None:
        super().__init__()
        self.is_away = True
        self.defect: Exception | None = None
        self.may_go = asyncio.Event()
        self.may_go.set()
        self.tries = 0
        self.writes: list[tuple[SessionId, dict[str, Any]]] = []

    def _answer(self) -> None:
        self.tries += 1
        if self.defect is not None:
            raise self.defect
        if self.is_away:
            raise SessionUnavailable("away")

    async def load(self, id: SessionId) -> Loaded | None:
        self._answer()
        return await super().load(id)

    async def touch(self, id: SessionId, ttl: int) -> bool:
        self._answer()
        return await super().touch(id, ttl)

    async def end(self, id: SessionId, remember: int) -> None:
        self._answer()
        await super().end(id, remember)

    async def increment(self, id: SessionId, field: str, by: int, ttl: int, *, is_new: bool) -> int:
        self._answer()
        return await super().increment(id, field, by, ttl, is_new=is_new)

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
        self._answer()
        await self.may_go.wait()
        await super().write(id, changed, removed, ttl, is_new=is_new, expected=expected)
        self.writes.append((id, {field: unpack(field, value) for field, value in changed.items()}))

    async def fields(self, id: SessionId) -> dict[str, Any] | None:
        loaded = await super().load(id)
        return None if loaded is None else {field: unpack(field, value) for field, value in loaded.fields.items()}


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_back, "RETRY_SECONDS", 0.01)


@pytest.fixture
async def sessions(store: Store, counters: Counters) -> AsyncIterator[Sessions]:
    sessions = Sessions(store, ttl=100, counters=counters, queue_writes=True)
    sessions.start()
    yield sessions
    await sessions.stop()


async def queued(sessions: Sessions, **fields: Any) -> Session:
    """A new session whose fields wait for the store."""
    session = await sessions.open(None)
    session.update(fields)
    await session.save()
    assert session.is_queued
    return session


async def written_back(counters: Counters, count: int = 1) -> None:
    await wait_until(lambda: counters.value("session_writes_written_back") == count)


async def test_what_is_saved_while_the_store_is_away_is_written_when_it_is_back(
    store: Store, sessions: Sessions, counters: Counters
) -> None:
    session = await queued(sessions, name="Ada")
    await wait_until(lambda: store.tries > 3)
    assert counters.by_name() == {"session_writes_queued": 1}
    store.is_away = False
    await written_back(counters)
    assert store.writes == [(session.id, {"name": "Ada"})]
    assert not session.is_queued
    assert not session.is_dirty
    session["name"] = "Grace"
    await session.save()
    assert await store.fields(session.id) == {"name": "Grace"}
    assert counters.by_name() == {"session_writes_queued": 1, "session_writes_written_back": 1}


async def test_of_several_changes_the_last_is_written_once(
    store: Store, sessions: Sessions, counters: Counters
) -> None:
    store.is_away = False
    session = await sessions.open(None)
    session.update(a=0, b=0)
    await session.save()
    store.is_away = True
    for number in range(5):
        session["a"] = number
        await session.save()
    del session["b"]
    await session.save()
    store.is_away = False
    await written_back(counters)
    assert [fields for _, fields in store.writes] == [{"a": 0, "b": 0}, {"a": 4}]
    assert await store.fields(session.id) == {"a": 4}
    assert counters.value("session_writes_queued") == 1


async def test_a_queued_session_is_saved_without_waiting_for_the_store(store: Store, sessions: Sessions) -> None:
    session = await queued(sessions, a=1)
    store.is_away = False
    store.may_go.clear()
    await wait_until(lambda: store.tries > 1)  # a write-back waits for the store, and has the session's turn there
    session["a"] = 2
    saving = session.save()
    with pytest.raises(StopIteration):
        saving.send(None)
    store.may_go.set()
    await wait_until(lambda: not session.is_queued and not session.is_dirty)
    assert [fields for _, fields in store.writes] == [{"a": 1}, {"a": 2}]


async def test_the_last_release_leaves_a_queued_session_to_the_next_visit(
    store: Store, sessions: Sessions, counters: Counters, caplog: pytest.LogCaptureFixture
) -> None:
    session = await queued(sessions, name="Ada")
    sessions.release(session)
    assert "could not be saved" not in caplog.text
    tries = store.tries
    assert await sessions.open(session.id) is session
    assert store.tries == tries, "whose changes wait does not wait for the store as well"
    sessions.release(session)
    assert sessions.session_count == 1
    store.is_away = False
    await written_back(counters)
    assert await store.fields(session.id) == {"name": "Ada"}
    assert sessions.session_count == 0
    assert await sessions.open(session.id) is not session


async def test_who_comes_to_a_session_in_memory_has_it_and_others_are_refused(store: Store, sessions: Sessions) -> None:
    store.is_away = False
    session = await sessions.open(None)
    session["name"] = "Ada"
    await session.save()
    store.is_away = True
    assert (await sessions.open(session.id))["name"] == "Ada"
    with pytest.raises(SessionUnavailable):
        await sessions.open(new_session_id())
    assert sessions.session_count == 1


async def test_a_full_queue_refuses_what_is_not_in_it_yet(
    sessions: Sessions, counters: Counters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_back, "MAX_QUEUED", 2)
    first, _ = [await queued(sessions, a=number) for number in range(2)]
    third = await sessions.open(None)
    third["a"] = 3
    with pytest.raises(SessionUnavailable):
        await third.save()
    assert third.is_dirty
    assert not third.is_queued
    first["a"] = 4
    await first.save()
    assert counters.value("session_writes_queued") == 2


async def test_the_longest_waiting_is_written_first(store: Store, sessions: Sessions, counters: Counters) -> None:
    store.defect = SessionUnavailable("away before any round")
    waiting = [await queued(sessions, number=number) for number in range(20)]
    first = waiting[0]
    await wait_until(lambda: store.tries > 21)  # rounds have come and gone, each with one session
    store.defect, store.is_away = None, False
    await written_back(counters, 20)
    numbers = [fields["number"] for _, fields in store.writes]
    turned = numbers[0]
    assert numbers == [*range(turned, 20), *range(turned)], "each that failed went behind the others"
    assert not first.is_dirty


async def test_one_session_that_the_store_does_not_take_holds_up_no_other(
    store: Store, sessions: Sessions, counters: Counters, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = await queued(sessions, a=1)
    for number in range(20):
        await queued(sessions, a=number)

    async def refuse() -> None:
        raise SessionUnavailable("for this one alone")

    with monkeypatch.context() as patched:
        patched.setattr(bad, "write_changes", refuse)
        store.is_away = False
        await written_back(counters, 20)
        assert bad.is_queued
    await written_back(counters, 21)


async def test_what_a_session_that_ended_meanwhile_had_to_write_is_lost_and_said_to_be(
    store: Store, sessions: Sessions, counters: Counters, caplog: pytest.LogCaptureFixture
) -> None:
    waiting = [await queued(sessions, a=number) for number in range(3)]
    told: list[int] = []
    sessions.watch(waiting[0].id, lambda: told.append(0))
    sessions.release(waiting[1])
    for session in waiting[:2]:
        await MemorySessionStore.end(store, session.id, 100)
    store.is_away = False
    await wait_until(lambda: counters.value("session_writes_lost", "ended") == 2)
    await written_back(counters)
    await wait_until(lambda: told)
    assert sessions.session_count == 2
    assert await store.fields(waiting[2].id) == {"a": 2}
    assert "changes of 2 session(s) are lost: they had ended" in caplog.text
    waiting[0]["a"] = 5
    with pytest.raises(SessionEnded):
        await waiting[0].save()


async def test_a_destroyed_session_leaves_the_queue_and_nothing_is_lost(
    store: Store, sessions: Sessions, counters: Counters
) -> None:
    session = await queued(sessions, a=1)
    with pytest.raises(SessionUnavailable):
        await session.destroy()
    store.is_away = False
    await session.destroy()
    await wait_until(lambda: not session.is_queued)
    assert counters.total("session_writes_lost") == 0
    with pytest.raises(SessionEnded):
        await store.fields(session.id)


async def test_a_defect_loses_one_session_and_is_counted(
    store: Store, sessions: Sessions, counters: Counters, caplog: pytest.LogCaptureFixture
) -> None:
    session = await queued(sessions, a=1)
    store.defect = LookupError("a defect for this test")
    await wait_until(lambda: counters.value("session_writes_lost", "defect") == 1)
    assert "a defect for this test" in caplog.text
    store.defect, store.is_away = None, False
    await session.save()  # it is dirty, and as any other
    assert await store.fields(session.id) == {"a": 1}


async def test_what_memory_cannot_answer_fails_as_ever(store: Store, sessions: Sessions) -> None:
    session = await queued(sessions, a=1)
    with pytest.raises(SessionUnavailable):
        await session.increment("count")
    with pytest.raises(SessionUnavailable):
        await session.update_atomically("a", lambda a: a + 1)
    with pytest.raises(SessionUnavailable):
        await session.refresh()
    with pytest.raises(SessionUnavailable):
        await sessions.regenerate(session)
    assert session == {"a": 1}
    assert sessions.session_count == 1


async def test_a_new_id_is_not_given_while_the_store_takes_no_writes(
    store: Store, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.is_away = False
    session = await sessions.open(None)
    session["a"] = 1
    await session.save()

    async def refuse(*_: Any, **__: Any) -> None:
        raise SessionUnavailable("a replica")

    monkeypatch.setattr(store, "write", refuse)
    with pytest.raises(SessionUnavailable):
        await sessions.regenerate(session)
    assert not session.is_ended
    assert sessions.session_count == 1


async def test_a_locked_session_is_written_before_the_lock_is_given_back(
    store: Store, sessions: Sessions, counters: Counters
) -> None:
    session = await sessions.open(None)
    store.is_away = False

    async def lose_the_store() -> None:
        async with session.lock():
            session["a"] = 1
            store.is_away = True

    with pytest.raises(SessionUnavailable):
        await lose_the_store()
    assert not session.is_queued
    assert counters.total("session_writes_queued") == 0


async def test_a_touch_alone_is_not_queued_and_stays_due(store: Store, counters: Counters) -> None:
    sessions = Sessions(store, ttl=100, touch_interval=0.0, counters=counters, queue_writes=True)
    store.is_away = False
    session = await sessions.open(None)
    session["a"] = 1
    await session.save()
    store.is_away = True
    await session.save()
    assert not session.is_queued
    assert counters.total("session_writes_queued") == 0
    sessions._outage.end()
    assert session.is_touch_due


async def test_a_value_that_cannot_be_kept_is_told_to_who_saves_it_and_the_others_are_written(
    store: Store, sessions: Sessions, counters: Counters
) -> None:
    session = await queued(sessions, good=1, bad=[1])
    session["bad"].append(object())
    with pytest.raises(SessionValueError):
        await session.save()
    store.is_away = False
    await written_back(counters)
    assert await store.fields(session.id) == {"good": 1}


async def test_word_of_the_store_wakes_the_queue(
    store: Store, sessions: Sessions, counters: Counters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_back, "RETRY_SECONDS", 3600.0)
    await queued(sessions, a=1)
    await asyncio.sleep(0)  # the queue's task waits
    store.is_away = False
    sessions.invalidated(None)
    await written_back(counters)


async def test_at_the_end_what_waits_is_tried_once_more(
    store: Store, sessions: Sessions, counters: Counters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_back, "RETRY_SECONDS", 3600.0)
    waiting = [await queued(sessions, a=number) for number in range(10)]
    store.is_away = False
    await sessions.stop()
    assert [await store.fields(session.id) for session in waiting] == [{"a": number} for number in range(10)]
    assert counters.by_name() == {"session_writes_queued": 10, "session_writes_written_back": 10}


@pytest.mark.parametrize("hangs", [False, True])
async def test_at_the_end_what_the_store_does_not_take_is_counted_as_lost(
    store: Store, counters: Counters, caplog: pytest.LogCaptureFixture, hangs: bool
) -> None:
    sessions = Sessions(store, ttl=100, timeout=0.05, counters=counters, queue_writes=True)
    sessions.start()
    first, second = [await queued(sessions, a=number) for number in range(2)]
    sessions.release(first)
    if hangs:
        store.is_away = False
        store.may_go.clear()
    async with asyncio.timeout(2.0):
        await sessions.stop()
    assert counters.value("session_writes_lost", "stopped") == 2
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert errors == ["changes of 2 session(s) are lost: the store was not back at the end"]
    assert sessions.session_count == 1
    store.is_away = True
    with pytest.raises(SessionUnavailable):  # nobody is there any more who would write it
        await second.save()


async def test_without_the_setting_a_write_fails(store: Store, counters: Counters) -> None:
    sessions = Sessions(store, ttl=100, counters=counters)
    session = await sessions.open(None)
    session["a"] = 1
    with pytest.raises(SessionUnavailable):
        await session.save()
    assert counters.by_name() == {}

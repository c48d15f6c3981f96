"""`Session`: what is dirty, what is written, and what survives."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from support.waiting import wait_until

from stickygw.errors import SessionUnavailable, SessionValueError
from stickygw.sessions.base import Loaded
from stickygw.sessions.memory import MemorySessionStore
from stickygw.sessions.session import Session
from stickygw.sessions.values import MAX_FIELDS, MAX_VALUE_BYTES, unpack
from stickygw.types import SessionId

ID = SessionId("0123456789abcdef" * 2)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Store(MemorySessionStore):
    """A store that notes its calls, and can be held up, fail, or fail after it has acted."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.calls: list[Any] = []
        self.may_go = asyncio.Event()
        self.may_go.set()
        self.is_away = False
        self.loses_answers = False

    async def _pass(self, *call: Any) -> None:
        self.calls.append(call)
        await self.may_go.wait()
        if self.is_away:
            raise SessionUnavailable("away")

    async def load(self, id: SessionId) -> Loaded | None:
        await self._pass("load")
        return await super().load(id)

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
        await self._pass("write", {field: unpack(field, value) for field, value in changed.items()}, set(removed))
        await super().write(id, changed, removed, ttl, is_new=is_new, expected=expected)
        if self.loses_answers:
            raise SessionUnavailable("no answer")

    async def increment(self, id: SessionId, field: str, by: int, ttl: int, *, is_new: bool) -> int:
        await self._pass("increment", field, by)
        return await super().increment(id, field, by, ttl, is_new=is_new)

    async def touch(self, id: SessionId, ttl: int) -> bool:
        await self._pass("touch")
        return await super().touch(id, ttl)

    async def fields(self) -> dict[str, Any] | None:
        loaded = await super().load(ID)
        return None if loaded is None else {field: unpack(field, value) for field, value in loaded.fields.items()}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> Store:
    return Store(clock)


def new_session(store: Store, clock: Clock) -> Session:
    return Session(ID, store, ttl=1000, clock=clock, timeout=10)


@pytest.fixture
def session(store: Store, clock: Clock) -> Session:
    return new_session(store, clock)


async def held_up(store: Store, session: Session) -> asyncio.Task[None]:
    """A flush that has reached the store and waits there."""
    store.may_go.clear()
    calls = len(store.calls)
    flush = asyncio.create_task(session.flush())
    await wait_until(lambda: len(store.calls) > calls)
    return flush


# A mapping


def test_it_is_a_mapping(session: Session) -> None:
    session.update(a=1, b=[2])
    session["c"] = None
    del session["a"]
    assert dict(session) == {"b": [2], "c": None}
    assert len(session) == 2
    assert "a" not in session
    assert session.get("a") is None
    with pytest.raises(KeyError):
        session["a"]
    with pytest.raises(KeyError):
        del session["a"]


async def test_a_loaded_session_is_a_mapping_too(store: Store, session: Session, clock: Clock) -> None:
    session.update(a=1, b=2, c=3)
    await session.flush()
    other = new_session(store, clock)
    await other.refresh()
    del other["a"]
    other["b"] = 5
    other["d"] = 4
    assert dict(other) == {"b": 5, "c": 3, "d": 4}
    assert len(other) == 3
    other["a"] = 6
    assert dict(other) == {"a": 6, "b": 5, "c": 3, "d": 4}
    other.clear()
    assert dict(other) == {}


def test_its_repr_does_not_tell_the_id(session: Session) -> None:
    assert ID not in repr(session)


# Values


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -(2**63),
        2**64 - 1,
        1.5,
        "grüße",
        b"\x00\xff",
        [1, [2, {"a": None}]],
        {"a": {1: "int keys too"}},
        datetime(2024, 2, 29, 12, 0, 0, 123456, tzinfo=UTC),
        [datetime(1969, 1, 1, tzinfo=UTC)],
    ],
)
async def test_a_value_comes_back_as_it_was(store: Store, session: Session, clock: Clock, value: object) -> None:
    session["field"] = value
    await session.flush()
    other = new_session(store, clock)
    await other.refresh()
    assert other["field"] == value
    assert type(other["field"]) is type(value)
    assert not other.is_dirty


async def test_a_datetime_comes_back_as_its_instant_in_utc(store: Store, session: Session, clock: Clock) -> None:
    session["at"] = datetime(2024, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    await session.flush()
    other = new_session(store, clock)
    await other.refresh()
    assert other["at"] == datetime(2024, 1, 1, tzinfo=UTC)
    assert other["at"].tzinfo is UTC


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1, 2},
        datetime(2024, 1, 1),  # no timezone: which instant?
        2**64,
        "\ud800",
        [object()],
        {(1, 2): 3},
        "x" * MAX_VALUE_BYTES,
        1j,
    ],
)
def test_a_value_that_cannot_be_kept_is_refused_at_once(session: Session, value: object) -> None:
    session["field"] = "before"
    with pytest.raises(SessionValueError):
        session["field"] = value
    assert session["field"] == "before"


def test_a_list_within_itself_is_refused(session: Session) -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(SessionValueError):
        session["field"] = value


@pytest.mark.parametrize("name", [1, None, b"x", "x" * 257, "\ud800", "_v"])
def test_a_field_is_named_by_short_text_that_is_not_the_stores_own(session: Session, name: Any) -> None:
    with pytest.raises(SessionValueError):
        session[name] = 1


async def test_a_session_has_a_bounded_number_of_fields(session: Session) -> None:
    for number in range(MAX_FIELDS):
        session[str(number)] = number
    with pytest.raises(SessionValueError):
        session["one more"] = 1
    with pytest.raises(SessionValueError):
        await session.increment("one more")
    session["0"] = "an old one may change"
    del session["1"]
    session["one more"] = 1


async def test_another_programs_bytes_are_an_error_that_names_the_field(store: Store, session: Session) -> None:
    await store.write(ID, {"good": b"\x01"}, [], 100, is_new=True)
    await MemorySessionStore.write(store, ID, {"bad": b"\xc1"}, [], 100, is_new=True)
    await session.refresh()
    assert session["good"] == 1
    with pytest.raises(SessionValueError, match="bad"):
        session["bad"]


# What is written


async def test_nothing_is_stored_for_a_session_that_nobody_wrote_to(store: Store, session: Session) -> None:
    assert session.get("a") is None
    session["a"] = 1
    del session["a"]
    await session.flush()
    await session.touch()
    assert session.is_new
    assert store.calls == []


async def test_a_flush_writes_what_changed_in_one_go_and_only_once(store: Store, session: Session) -> None:
    session.update(a=1, b=2, c=3)
    await session.flush()
    session["a"] = 4
    session["b"] = 2
    del session["c"]
    assert session.is_dirty
    await session.flush()
    assert not session.is_dirty
    await session.flush()
    assert store.calls == [("write", {"a": 1, "b": 2, "c": 3}, set()), ("write", {"a": 4}, {"c"})]
    assert await store.fields() == {"a": 4, "b": 2}


async def test_a_change_in_place_is_found(store: Store, session: Session, clock: Clock) -> None:
    session["list"] = [1]
    session["list"].append(2)
    await session.flush()
    session["list"].append(3)
    assert session.is_dirty
    await session.flush()
    other = new_session(store, clock)
    await other.refresh()
    other["list"].append(4)
    await other.flush()
    assert await store.fields() == {"list": [1, 2, 3, 4]}


async def test_a_change_in_place_that_cannot_be_kept_holds_up_no_other_field(store: Store, session: Session) -> None:
    session.update(good=1, bad=[1])
    session["bad"].append(object())
    with pytest.raises(SessionValueError, match="bad"):
        await session.flush()
    assert await store.fields() == {"good": 1}


async def test_a_change_in_place_that_cannot_be_kept_is_told_once(store: Store, session: Session) -> None:
    session.update(stored=[1])
    await session.flush()
    session["stored"].append(object())
    session["new"] = [1]
    session["new"].append(object())
    with pytest.raises(SessionValueError):
        await session.flush()
    assert dict(session) == {"stored": [1]}
    assert not session.is_dirty
    session["stored"].append(2)
    await session.flush()
    assert await store.fields() == {"stored": [1, 2]}


async def test_a_change_in_place_that_cannot_be_kept_is_told_while_the_store_is_away(
    store: Store, session: Session
) -> None:
    session.update(good=1, bad=[1])
    session["bad"].append(object())
    store.is_away = True
    with pytest.raises(SessionValueError):
        await session.flush()
    assert dict(session) == {"good": 1}
    assert session.is_dirty
    store.is_away = False
    await session.flush()
    assert await store.fields() == {"good": 1}


@pytest.mark.parametrize("loses_answers", [False, True])
async def test_a_value_given_up_while_it_was_perhaps_written_is_removed(
    store: Store, session: Session, loses_answers: bool
) -> None:
    session.update(good=1, bad=[1])
    await session.flush()
    session["bad"].append(2)
    store.is_away, store.loses_answers = not loses_answers, loses_answers
    first = await held_up(store, session)
    session["bad"].append(object())
    second = asyncio.create_task(session.flush())
    await asyncio.sleep(0)
    store.may_go.set()
    results = await asyncio.gather(first, second, return_exceptions=True)
    assert [type(result) for result in results] == [SessionUnavailable, SessionValueError]
    assert dict(session) == {"good": 1}
    store.is_away = store.loses_answers = False
    await session.flush()
    assert await store.fields() == {"good": 1}


async def test_is_new_until_something_is_stored(store: Store, session: Session, clock: Clock) -> None:
    assert session.is_new
    session["a"] = 1
    assert session.is_new
    await session.flush()
    assert not session.is_new
    other = new_session(store, clock)
    await other.refresh()
    assert not other.is_new


# The life


async def test_use_extends_the_life_at_most_once_in_the_interval(store: Store, session: Session, clock: Clock) -> None:
    session["a"] = 1
    await session.flush()
    clock.now += 59
    await session.flush()
    await session.touch()
    assert store.calls == [("write", {"a": 1}, set())]
    clock.now += 1
    await session.flush()
    await session.touch()
    assert store.calls[1:] == [("touch",)]
    clock.now += 999
    assert await store.fields() == {"a": 1}
    clock.now += 1
    assert await store.fields() is None


async def test_a_touch_is_due_when_something_is_stored_and_the_interval_has_passed(
    store: Store, session: Session, clock: Clock
) -> None:
    clock.now += 60
    assert not session.is_touch_due
    session["a"] = 1
    await session.flush()
    clock.now += 59
    assert not session.is_touch_due
    clock.now += 1
    assert session.is_touch_due
    await session.touch()
    assert not session.is_touch_due


async def test_a_load_shortly_after_somebody_s_use_is_no_second_one(
    store: Store, session: Session, clock: Clock
) -> None:
    await store.write(ID, {"a": b"\x01"}, [], 1000, is_new=True)
    clock.now += 59
    await session.refresh()
    assert store.calls[1:] == [("load",)]
    assert not session.is_touch_due
    clock.now += 1
    await session.refresh()
    assert store.calls[2:] == [("load",), ("touch",)]


async def test_a_load_is_a_use(store: Store, session: Session, clock: Clock) -> None:
    await store.write(ID, {"a": b"\x01"}, [], 10, is_new=True)
    await session.refresh()
    clock.now += 500
    assert await store.fields() == {"a": 1}


async def test_what_can_be_read_but_not_touched_is_loaded_and_stays_due(
    store: Store, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(id: SessionId, ttl: int) -> bool:
        raise SessionUnavailable("READONLY")

    await store.write(ID, {"a": b"\x01"}, [], 10, is_new=True)
    monkeypatch.setattr(store, "touch", refuse)
    await session.refresh()
    assert session["a"] == 1
    assert session.is_touch_due


# Failure


@pytest.mark.parametrize("loses_answers", [False, True])
async def test_what_could_not_be_written_stays_dirty(store: Store, session: Session, loses_answers: bool) -> None:
    session.update(a=1, b=2)
    await session.flush()
    session["a"] = 3
    del session["b"]
    store.is_away, store.loses_answers = not loses_answers, loses_answers
    with pytest.raises(SessionUnavailable):
        await session.flush()
    assert session.is_dirty
    store.is_away = store.loses_answers = False
    await session.flush()
    assert not session.is_dirty
    assert await store.fields() == {"a": 3}


async def test_what_was_perhaps_written_is_put_right_when_it_is_taken_back(store: Store, session: Session) -> None:
    session.update(old=1, gone=2)
    await session.flush()
    session.update(old=5, new=6)
    del session["gone"]
    store.loses_answers = True
    with pytest.raises(SessionUnavailable):
        await session.flush()
    assert await store.fields() == {"old": 5, "new": 6}
    session["old"] = 1
    session["gone"] = 2
    del session["new"]
    store.loses_answers = False
    await session.flush()
    assert await store.fields() == {"old": 1, "gone": 2}


async def test_a_cancelled_flush_leaves_everything_dirty(store: Store, session: Session) -> None:
    session["a"] = 1
    flush = await held_up(store, session)
    flush.cancel()
    with pytest.raises(asyncio.CancelledError):
        await flush
    store.may_go.set()
    assert session.is_dirty
    await session.flush()
    assert await store.fields() == {"a": 1}


async def test_all_who_meet_at_a_dead_store_wait_for_one_time_limit(store: Store, clock: Clock) -> None:
    session = Session(ID, store, ttl=1000, clock=clock, timeout=0.2)
    session["a"] = 1
    await session.flush()
    store.may_go.clear()
    clock.now += 60
    session["a"] = 2
    waits = [session.flush, session.refresh, lambda: session.increment("n")] * 10
    async with asyncio.timeout(2):
        # A touch that has its turn only when the store is known to be away is not due: that is no error.
        results = await asyncio.gather(
            *(wait() for wait in waits), *(session.touch() for _ in range(10)), return_exceptions=True
        )
    assert {type(result) for result in results[: len(waits)]} == {SessionUnavailable}
    assert {type(result) for result in results[len(waits) :]} <= {SessionUnavailable, type(None)}
    store.may_go.set()
    await session.flush()
    assert await store.fields() == {"a": 2}


async def test_a_touch_that_is_not_due_waits_for_nobody(store: Store, session: Session) -> None:
    session["a"] = 1
    await session.flush()
    session["a"] = 2
    flush = await held_up(store, session)
    async with asyncio.timeout(1):
        await session.touch()
    store.may_go.set()
    await flush


# Together


async def test_a_write_during_a_flush_is_not_lost(store: Store, session: Session) -> None:
    session.update(changed=1, deleted=1, mutated=[1], again=1)
    flush = await held_up(store, session)
    session["changed"] = 2
    del session["deleted"]
    session["mutated"].append(2)
    session["new"] = 3
    second = asyncio.create_task(session.flush())
    await asyncio.sleep(0)
    store.may_go.set()
    await asyncio.gather(flush, second)
    expected = {"changed": 2, "mutated": [1, 2], "again": 1, "new": 3}
    assert dict(session) == expected
    assert await store.fields() == expected
    assert not session.is_dirty


async def test_a_field_set_while_its_removal_is_written_stays(store: Store, session: Session) -> None:
    session["a"] = 1
    await session.flush()
    del session["a"]
    flush = await held_up(store, session)
    session["a"] = 1
    store.may_go.set()
    await flush
    assert session.is_dirty
    await session.flush()
    assert await store.fields() == {"a": 1}


async def test_refresh_brings_what_others_wrote_and_keeps_what_is_dirty(
    store: Store, session: Session, clock: Clock
) -> None:
    session.update(mine=1, theirs=1, gone=1, removed=1, in_place=[1])
    await session.flush()
    other = new_session(store, clock)
    await other.refresh()
    other.update(mine=2, theirs=2, added=2, in_place=[2])
    del other["gone"]
    await other.flush()
    assert session["theirs"] == 1
    session["mine"] = 3
    session["in_place"].append(3)
    del session["removed"]
    await session.refresh()
    expected = {"mine": 3, "theirs": 2, "added": 2, "in_place": [1, 3]}
    assert dict(session) == expected
    await session.flush()
    assert await store.fields() == expected


async def test_refresh_keeps_the_objects_that_handlers_hold(store: Store, session: Session) -> None:
    session["cart"] = []
    await session.flush()
    cart = session["cart"]
    await session.refresh()
    cart.append("tea")
    await session.flush()
    assert await store.fields() == {"cart": ["tea"]}


async def test_an_assignment_during_a_refresh_survives(store: Store, session: Session) -> None:
    await store.write(ID, {"a": b"\x01"}, [], 100, is_new=True)
    store.may_go.clear()
    refresh = asyncio.create_task(session.refresh())
    await asyncio.sleep(0)
    session["a"] = 2
    store.may_go.set()
    await refresh
    assert session["a"] == 2
    assert session.is_dirty


# Increment


async def test_increment_counts_and_shows_the_value(store: Store, session: Session) -> None:
    assert await session.increment("visits") == 1
    assert await session.increment("visits", by=-3) == -2
    assert session["visits"] == -2
    assert not session.is_new
    assert not session.is_dirty
    assert await store.fields() == {"visits": -2}


async def test_increment_starts_from_what_is_not_flushed_yet(store: Store, session: Session) -> None:
    session["visits"] = 5
    assert await session.increment("visits") == 6
    session["visits"] = 6
    assert await session.increment("visits") == 7
    assert session["visits"] == 7
    del session["visits"]
    assert await session.increment("visits") == 1
    assert await store.fields() == {"visits": 1}


async def test_an_assignment_during_an_increment_survives(store: Store, session: Session) -> None:
    store.may_go.clear()
    increment = asyncio.create_task(session.increment("visits"))
    await asyncio.sleep(0)
    session["visits"] = 100
    store.may_go.set()
    assert await increment == 1
    assert session["visits"] == 100
    await session.flush()
    assert await store.fields() == {"visits": 100}


@pytest.mark.parametrize("by", [1.0, "1", None, True, 2**53])
async def test_increment_takes_integers_only(session: Session, by: Any) -> None:
    with pytest.raises(SessionValueError):
        await session.increment("visits", by)


async def test_increment_of_text_is_refused(session: Session) -> None:
    session["visits"] = "many"
    with pytest.raises(SessionValueError):
        await session.increment("visits")
    assert session["visits"] == "many"


async def test_an_increment_without_an_answer_is_not_undone_by_the_next_flush(store: Store, session: Session) -> None:
    await session.increment("visits")
    store.is_away = True
    with pytest.raises(SessionUnavailable):
        await session.increment("visits")
    store.is_away = False
    assert not session.is_dirty

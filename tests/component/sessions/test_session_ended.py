"""A session that is over, or that others write to: what its holders still can do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from stickygw.errors import SessionEnded, SessionUnavailable, SessionValueError
from stickygw.sessions.base import Loaded
from stickygw.sessions.memory import MemorySessionStore
from stickygw.sessions.session import Session
from stickygw.types import SessionId

ID = SessionId("0123456789abcdef" * 2)

Write = Callable[[Session], Awaitable[object]]


class Store(MemorySessionStore):
    """A store that can be away, or lose the answers to writes."""

    is_away = False
    loses_answers = False

    async def load(self, id: SessionId) -> Loaded | None:
        if self.is_away:
            raise SessionUnavailable("away")
        return await super().load(id)

    async def write(self, *arguments, **options) -> None:  # type: ignore[no-untyped-def]
        await super().write(*arguments, **options)
        if self.loses_answers:
            raise SessionUnavailable("no answer")

    async def increment(self, *arguments, **options) -> int:  # type: ignore[no-untyped-def]
        value = await super().increment(*arguments, **options)
        if self.loses_answers:
            raise SessionUnavailable("no answer")
        return value


@pytest.fixture
def store() -> Store:
    return Store()


def session_of(store: Store) -> Session:
    return Session(ID, store, ttl=100, remember=1000, touch_interval=0)


@pytest.fixture
async def session(store: Store) -> Session:
    session = session_of(store)
    session.update(name="Ada", cart=["tea"])
    await session.save()
    return session


@pytest.fixture
async def other(store: Store, session: Session) -> Session:
    """The same session on another worker."""
    other = session_of(store)
    await other.refresh()
    return other


async def assign_and_save(session: Session) -> None:
    session["name"] = "Bea"
    await session.save()


async def change_in_place_and_save(session: Session) -> None:
    session["cart"].append("milk")
    await session.save()


async def remove_and_save(session: Session) -> None:
    session.pop("name", None)
    await session.save()


async def lock_and_write(session: Session) -> None:
    async with session.lock():
        session["name"] = "Bea"


WRITES: list[Write] = [
    assign_and_save,
    change_in_place_and_save,
    remove_and_save,
    lock_and_write,
    lambda session: session.increment("n"),
    lambda session: session.update_atomically("n", lambda value: value, default=1),
]


@pytest.mark.parametrize("write", WRITES)
async def test_a_write_to_a_destroyed_session_changes_nothing_and_is_told(
    store: Store, session: Session, other: Session, write: Write
) -> None:
    assert not other.is_ended
    await session.destroy()
    for holder in (other, other, session):
        with pytest.raises(SessionEnded):
            await write(holder)
        assert holder.is_ended
    with pytest.raises(SessionEnded):
        await store.load(ID)


@pytest.mark.parametrize("write", WRITES)
async def test_a_write_to_a_vanished_session_brings_nothing_back(store: Store, session: Session, write: Write) -> None:
    store._sessions.pop(ID)
    with pytest.raises(SessionEnded):
        await write(session)
    assert session.is_ended
    assert await store.load(ID) is None


@pytest.mark.parametrize("look", [Session.refresh, Session.look, Session.touch, Session.flush])
async def test_any_exchange_finds_out_that_a_session_has_vanished(store: Store, session: Session, look: Write) -> None:
    store._sessions.pop(ID)
    with pytest.raises(SessionEnded):
        await look(session)
    assert session.is_ended


async def test_reads_of_an_ended_session_go_on(session: Session, other: Session) -> None:
    await session.destroy()
    assert dict(session) == {"name": "Ada", "cart": ["tea"]}
    with pytest.raises(SessionEnded):
        await other.refresh()
    assert dict(other) == {"name": "Ada", "cart": ["tea"]}
    assert not other.is_touch_due
    assert not other.is_stale
    await other.save()  # nothing changed: there is nothing to refuse


async def test_a_destroyed_session_has_nothing_left_to_save(session: Session) -> None:
    session["name"] = "Bea"
    session["cart"].append("milk")
    session["new"] = [1]
    session["new"].append(object())
    await session.destroy()
    await session.destroy()
    assert not session.is_dirty
    assert session.is_new
    await session.save()


async def test_what_could_not_be_saved_stays_dirty(session: Session, other: Session) -> None:
    await session.destroy()
    other["cart"].append("milk")
    del other["name"]
    for _ in range(2):
        with pytest.raises(SessionEnded):
            await other.save()
        assert dict(other) == {"cart": ["tea", "milk"]}
        assert other.is_dirty


async def test_a_session_that_was_never_stored_is_destroyed_too(store: Store) -> None:
    await session_of(store).destroy()
    with pytest.raises(SessionEnded):
        await assign_and_save(session_of(store))


async def test_a_session_that_was_emptied_may_be_filled_again(store: Store, session: Session) -> None:
    session.clear()
    await session.save()
    assert not session.is_new
    await assign_and_save(session)
    assert not session.is_ended


async def test_a_session_that_was_emptied_is_no_ended_one_for_others(session: Session, other: Session) -> None:
    session.clear()
    await session.save()
    await other.refresh()
    assert not other
    assert not other.is_ended


# Stale


async def test_a_look_tells_others_writes_from_its_own(session: Session, other: Session) -> None:
    await assign_and_save(session)
    await session.increment("n")
    assert not await session.look()
    assert not session.is_stale
    assert await other.look()
    assert other.is_stale
    assert other["name"] == "Ada"  # a handler's view does not change under it
    await other.refresh()
    assert not other.is_stale
    assert other["name"] == "Bea"


async def test_what_is_dirty_survives_the_refresh_of_a_stale_session(session: Session, other: Session) -> None:
    other["cart"].append("milk")
    await assign_and_save(session)
    other.mark_stale()
    await other.refresh()
    assert dict(other) == {"name": "Bea", "cart": ["tea", "milk"]}


async def test_a_session_that_cannot_be_refreshed_stays_stale(store: Store, session: Session) -> None:
    session.mark_stale()
    store.is_away = True
    with pytest.raises(SessionUnavailable):
        await session.refresh()
    assert session.is_stale


async def test_a_mark_that_comes_while_it_is_refreshed_stays(store: Store, session: Session) -> None:
    session.mark_stale()
    load, may_go = store.load, asyncio.Event()

    async def held_up(id: SessionId) -> Loaded | None:
        loaded = await load(id)
        await may_go.wait()
        return loaded

    store.load = held_up  # type: ignore[method-assign]
    refresh = asyncio.create_task(session.refresh())
    await asyncio.sleep(0)
    session.mark_stale()  # what the load has read may be old already
    may_go.set()
    await refresh
    assert session.is_stale


@pytest.mark.parametrize("write", WRITES[-2:])
async def test_a_change_that_was_perhaps_made_makes_it_stale(store: Store, session: Session, write: Write) -> None:
    store.loses_answers = True
    with pytest.raises(SessionUnavailable):
        await write(session)
    assert session.is_stale
    assert not session.is_dirty
    await session.refresh()
    assert session["n"] == 1


async def test_a_refused_value_is_told_before_the_end(session: Session, other: Session) -> None:
    await session.destroy()
    other["cart"].append(object())
    other["name"] = "Bea"
    with pytest.raises(SessionValueError) as error:
        await other.save()
    assert isinstance(error.value.__cause__, SessionEnded)
    with pytest.raises(SessionEnded):
        await other.save()

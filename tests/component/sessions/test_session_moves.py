"""`Sessions.regenerate`: all that anybody wrote is under the new id, and nothing is under the old one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.waiting import wait_until

from stickygw.errors import SessionEnded, SessionUnavailable, SessionValueError
from stickygw.sessions.memory import MemorySessionStore
from stickygw.sessions.moves import MAX_ROUNDS
from stickygw.sessions.registry import Sessions
from stickygw.sessions.session import Session
from stickygw.types import SessionId

TTL = 100


class Store(MemorySessionStore):
    """A store in which somebody does something `before_end`, once for each that waits there."""

    def __init__(self) -> None:
        super().__init__()
        self.before_end: list[Callable[[], Awaitable[object]]] = []

    async def end(self, id: SessionId, remember: int, *, version: bytes | None = None) -> None:
        if self.before_end:
            await self.before_end.pop(0)()
        await super().end(id, remember, version=version)

    async def ids(self) -> list[SessionId]:
        return [id async for id in self.sessions()]


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def here(store: Store) -> Sessions:
    return Sessions(store, ttl=TTL, is_tracked=lambda: True)


@pytest.fixture
async def old(here: Sessions) -> Session:
    session = await here.open(None)
    session["n"] = 1
    await session.save()
    return session


@pytest.fixture
async def there(store: Store, old: Session) -> Session:
    """The same session on another worker."""
    return await Sessions(store, ttl=TTL, is_tracked=lambda: True).open(old.id)


async def test_a_write_of_ours_that_is_under_way_is_waited_for(
    store: Store, here: Sessions, old: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, may_go = store.write, asyncio.Event()

    async def slow(*arguments: Any, **options: Any) -> None:
        monkeypatch.setattr(store, "write", write)
        await may_go.wait()
        await write(*arguments, **options)

    monkeypatch.setattr(store, "write", slow)
    old["b"] = True
    saving = asyncio.create_task(old.save())
    await asyncio.sleep(0)
    moving = asyncio.create_task(here.regenerate(old))
    await asyncio.sleep(0)
    may_go.set()
    await saving
    assert dict(await moving) == {"n": 1, "b": True}


async def test_fields_that_mean_nothing_here_are_moved_as_they_are(store: Store, here: Sessions, old: Session) -> None:
    foreign = {"no msgpack": b"\xc1", "\udcff": b"\x01"} | {f"f{number}": b"\x01" for number in range(300)}
    await store.write(old.id, foreign, (), TTL, is_new=False)
    new = await here.regenerate(old)
    loaded = await store.load(new.id)
    assert loaded is not None
    assert loaded.fields == foreign | {"n": b"\x01"}
    assert await store.ids() == [new.id]


async def test_what_another_worker_writes_meanwhile_is_moved_too(
    store: Store, here: Sessions, old: Session, there: Session
) -> None:
    async def change() -> None:
        del there["n"]
        there["late"] = [1]
        await there.save()

    store.before_end = [change, lambda: there.increment("m")]
    new = await here.regenerate(old)
    assert dict(new) == {"late": [1], "m": 1}
    loaded = await store.load(new.id)
    assert loaded is not None
    assert loaded.fields.keys() == {"late", "m"}
    with pytest.raises(SessionEnded):
        await there.increment("m")


async def test_an_end_comes_though_others_never_stop_writing(
    store: Store, here: Sessions, old: Session, there: Session
) -> None:
    store.before_end = [lambda: there.increment("n")] * (MAX_ROUNDS * 2)
    new = await here.regenerate(old)
    assert new["n"] == MAX_ROUNDS
    assert await store.ids() == [new.id]


async def test_what_is_not_saved_yet_is_moved_and_needs_no_save_by_others(
    store: Store, here: Sessions, old: Session
) -> None:
    old["gone"] = 1
    await old.save()
    del old["gone"]
    old["cart"] = []
    old["cart"].append(1)
    new = await here.regenerate(old)
    assert dict(new) == {"n": 1, "cart": [1]}
    assert not new.is_dirty
    assert not old.is_dirty
    new["cart"].append(2)
    await new.save()
    assert old["cart"] == [1]
    loaded = await store.load(new.id)
    assert loaded is not None
    assert loaded.fields == {"n": b"\x01", "cart": b"\x92\x01\x02"}


async def test_what_is_assigned_while_it_is_moved_is_not_lost_without_a_word(
    store: Store, here: Sessions, old: Session
) -> None:
    async def assign() -> None:
        old["late"] = 1

    store.before_end = [assign]
    new = await here.regenerate(old)
    assert "late" not in new
    with pytest.raises(SessionEnded):
        await old.save()


async def test_of_a_session_with_nothing_only_the_id_is_ended(store: Store, here: Sessions) -> None:
    old = await here.open(None)
    new = await here.regenerate(old)
    assert new.is_new
    assert not new
    assert await store.ids() == []
    with pytest.raises(SessionEnded):
        await store.load(old.id)


@pytest.mark.parametrize("by_whom", ["ended", "deleted"])
async def test_one_that_has_ended_is_not_moved(
    store: Store, here: Sessions, old: Session, there: Session, by_whom: str
) -> None:
    async def delete() -> None:
        store._sessions.pop(old.id)

    store.before_end = [there.destroy if by_whom == "ended" else delete]
    with pytest.raises(SessionEnded):
        await here.regenerate(old)
    assert await store.ids() == []
    with pytest.raises(SessionEnded):
        await here.regenerate(old)


async def test_without_an_answer_to_the_end_no_copy_stays_behind(store: Store, here: Sessions, old: Session) -> None:
    async def away() -> None:
        raise SessionUnavailable("away")

    store.before_end = [away]
    with pytest.raises(SessionUnavailable):
        await here.regenerate(old)
    assert await store.ids() == [old.id]
    assert old.is_stale  # it may have ended
    assert here.session_count == 1
    assert dict(await here.regenerate(old)) == {"n": 1}


async def test_a_copy_that_cannot_be_ended_either_is_told_to_the_log(
    store: Store, here: Sessions, old: Session, caplog: pytest.LogCaptureFixture
) -> None:
    async def away() -> None:
        raise SessionUnavailable("away")

    store.before_end = [away, away]
    with pytest.raises(SessionUnavailable):
        await here.regenerate(old)
    await wait_until(lambda: "nobody knows its id" in caplog.text)


async def test_a_value_that_cannot_be_kept_is_told_once_and_moved_by_the_next_attempt_without(
    here: Sessions, old: Session
) -> None:
    old["cart"] = []
    old["cart"].append(object())
    with pytest.raises(SessionValueError):
        await here.regenerate(old)
    assert dict(await here.regenerate(old)) == {"n": 1}

"""`Session.roll_back`: what was written to some fields and could not be saved is given up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from stickygw.errors import SessionUnavailable
from stickygw.sessions.memory import MemorySessionStore
from stickygw.sessions.own_writes import OwnWrites
from stickygw.sessions.session import Session
from stickygw.types import SessionId

ID = SessionId("0123456789abcdef" * 2)


class Store(MemorySessionStore):
    """Answers a write only when `answer` is set, and then not if it `is_away`."""

    is_away = False

    def __init__(self) -> None:
        super().__init__()
        self.answer = asyncio.Event()
        self.answer.set()

    async def write(self, *arguments: Any, **options: Any) -> None:
        await self.answer.wait()
        if self.is_away:
            raise SessionUnavailable("away")
        await super().write(*arguments, **options)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
async def session(store: Store) -> Session:
    session = Session(ID, store, ttl=100, remember=1000)
    session.update(n=1, cart=["tea"])
    await session.save()
    return session


async def stored(store: Store) -> dict[str, Any]:
    other = Session(ID, store, ttl=100, remember=1000)
    await other.refresh()
    return dict(other)


@pytest.mark.parametrize("saves", [0, 1, 2])
async def test_however_often_it_was_tried_what_was_stored_stands_again(
    saves: int, session: Session, store: Store
) -> None:
    store.is_away = True
    session["n"], session["new"] = 2, True
    session["cart"].append("milk")
    for _ in range(saves):
        with pytest.raises(SessionUnavailable):
            await session.save()
    session.roll_back(["n", "new", "cart"], by=OwnWrites())
    assert dict(session) == {"n": 1, "cart": ["tea"]}
    assert not session.is_dirty


async def test_a_deleted_field_is_there_again_and_other_fields_stay_as_they_were_written(
    session: Session, store: Store
) -> None:
    store.is_away = True
    del session["n"]
    session["other"] = True
    with pytest.raises(SessionUnavailable):
        await session.save()
    session.roll_back(["n"], by=OwnWrites())
    store.is_away = False
    await session.save()
    assert await stored(store) == {"n": 1, "cart": ["tea"], "other": True}


@pytest.mark.parametrize("is_taken", [True, False])
@pytest.mark.parametrize("field", ["n", "new"])
async def test_a_write_that_is_under_way_with_it_is_undone_by_the_next(
    field: str, is_taken: bool, session: Session, store: Store
) -> None:
    store.answer.clear()
    session[field] = 2
    saving = asyncio.ensure_future(session.save())
    await asyncio.sleep(0)
    session.roll_back([field], by=OwnWrites())
    store.is_away = not is_taken
    store.answer.set()
    await asyncio.wait({saving})
    assert (saving.exception() is None) == is_taken
    store.is_away = False
    await session.save()
    assert dict(session) == await stored(store) == {"n": 1, "cart": ["tea"]}


async def test_it_is_loaded_again_as_it_is_stored_also_where_a_lost_answer_hid_that(
    session: Session, store: Store
) -> None:
    session["new"], session["n"] = True, 2
    store.is_away = True
    with pytest.raises(SessionUnavailable):
        await session.save()
    store.is_away = False
    session.roll_back(["new", "n"], by=OwnWrites())
    await MemorySessionStore.write(store, ID, {"new": b"\xc3", "n": b"\x02"}, (), 100, is_new=False)
    await session.refresh()
    assert not session.is_dirty
    assert dict(session) == {"n": 2, "cart": ["tea"], "new": True}


async def test_bytes_of_another_program_stand_again_unread(session: Session, store: Store) -> None:
    await store.write(ID, {"n": b"\xc1"}, (), 100, is_new=False)
    await session.refresh()
    session["n"] = 2
    session.roll_back(["n"], by=OwnWrites())
    assert not session.is_dirty
    loaded = await store.load(ID)
    assert loaded is not None
    assert loaded.fields["n"] == b"\xc1"

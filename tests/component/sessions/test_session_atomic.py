"""`Session.update_atomically` and `Session.lock`: several who change one field, on several workers."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest

from stickygw.errors import SessionUnavailable, SessionValueError
from stickygw.sessions.base import SessionStore
from stickygw.sessions.memory import MemorySessionStore
from stickygw.sessions.redis import RedisSessionStore
from stickygw.sessions.session import Session
from stickygw.types import SessionId

ID = SessionId(secrets.token_hex(16))

WRITERS = 8


@pytest.fixture(params=["memory", "valkey", "redis_server"])
async def stores(request: pytest.FixtureRequest, prefix: str) -> AsyncIterator[list[SessionStore]]:
    """One for each of `WRITERS` workers."""
    if request.param == "memory":
        store = MemorySessionStore()
        yield [store] * WRITERS
        return
    url = request.getfixturevalue(request.param).url
    stores = [RedisSessionStore.from_url(url, prefix=prefix, timeout=10) for _ in range(WRITERS)]
    yield list(stores)
    for each in stores:
        await each.close()


@pytest.fixture
def sessions(stores: list[SessionStore]) -> list[Session]:
    return [Session(ID, store, ttl=100, timeout=10) for store in stores]


def add(value: Any) -> Any:
    return value + 1


# Compare and set


async def test_an_update_starts_from_the_default_and_goes_on_from_what_is_stored(sessions: list[Session]) -> None:
    session = sessions[0]
    assert await session.update_atomically("n", add, default=5) == 6
    assert await session.update_atomically("n", add, default=5) == 7
    assert session["n"] == 7
    assert not session.is_dirty
    assert not session.is_new


async def test_concurrent_updates_on_several_workers_lose_nothing(sessions: list[Session]) -> None:
    async def work(number: int, session: Session) -> None:
        for turn in range(25):
            await session.update_atomically("all", lambda value, one=(number, turn): [*value, one], default=[])

    await asyncio.gather(*(work(number, session) for number, session in enumerate(sessions)))
    await sessions[0].refresh()
    assert len(sessions[0]["all"]) == WRITERS * 25
    assert {tuple(one) for one in sessions[0]["all"]} == {(n, turn) for n in range(WRITERS) for turn in range(25)}


async def test_concurrent_updates_on_one_worker_need_one_attempt_each(sessions: list[Session]) -> None:
    await asyncio.gather(*(sessions[0].update_atomically("n", add, default=0, attempts=1) for _ in range(50)))
    assert sessions[0]["n"] == 50


async def test_concurrent_writers_of_different_fields_lose_nothing(sessions: list[Session]) -> None:
    async def work(number: int, session: Session) -> None:
        for turn in range(25):
            session[f"own {number}"] = turn
            session.setdefault(f"list {number}", []).append(turn)
            await session.save()
            await session.increment("shared")

    await asyncio.gather(*(work(number, session) for number, session in enumerate(sessions)))
    await sessions[0].refresh()
    own = {f"own {number}": 24 for number in range(WRITERS)}
    lists = {f"list {number}": list(range(25)) for number in range(WRITERS)}
    assert dict(sessions[0]) == {**own, **lists, "shared": WRITERS * 25}


async def test_an_update_sees_what_another_worker_wrote(sessions: list[Session]) -> None:
    here, there = sessions[:2]
    await here.update_atomically("n", add, default=0)
    await there.update_atomically("n", add, default=0)
    assert await here.update_atomically("n", add) == 3


async def test_an_update_starts_from_what_is_not_saved_yet(sessions: list[Session]) -> None:
    session = sessions[0]
    session.update(n=5, cart=[1])
    assert await session.update_atomically("n", add) == 6
    session["cart"].append(2)
    assert await session.update_atomically("cart", lambda value: [*value, 3]) == [1, 2, 3]
    del session["n"]
    assert await session.update_atomically("n", add, default=0) == 1
    session["n"] = 1  # as it is stored
    assert await session.update_atomically("n", add) == 2
    assert session["n"] == 2


async def test_a_function_may_change_its_argument_in_place(sessions: list[Session]) -> None:
    def with_tea(cart: list[str]) -> list[str]:
        cart.append("tea")
        return cart

    await sessions[0].update_atomically("cart", with_tea, default=[])
    await sessions[1].update_atomically("cart", with_tea, default=[])
    sessions[1]["cart"].append("milk")  # and what it made is the session's own
    await sessions[1].save()
    await sessions[0].refresh()
    assert sessions[0]["cart"] == ["tea", "tea", "milk"]


async def test_a_writer_who_is_always_late_gives_up(sessions: list[Session]) -> None:
    here, there = sessions[:2]
    await here.update_atomically("n", add, default=0)
    stored, write = there._store, there._store.write
    attempts: list[int] = []

    class Late:
        def __getattr__(self, name: str) -> Any:
            return getattr(stored, name)

        async def write(self, *arguments: Any, **options: Any) -> None:
            attempts.append(await here.update_atomically("n", add))
            await write(*arguments, **options)

    there._store = Late()  # type: ignore[assignment]
    with pytest.raises(SessionUnavailable, match="each of 3 attempts"):
        await there.update_atomically("n", lambda value: -1, attempts=3)
    assert attempts == [2, 3, 4]
    await here.refresh()
    assert here["n"] == 4
    assert not there.is_dirty


async def test_what_a_function_raises_or_makes_that_cannot_be_kept_changes_nothing(sessions: list[Session]) -> None:
    session = sessions[0]
    await session.update_atomically("n", add, default=0)

    def fail(value: Any) -> Any:
        raise TimeoutError("the application's own")

    with pytest.raises(TimeoutError, match="own"):
        await session.update_atomically("n", fail)
    with pytest.raises(SessionValueError):
        await session.update_atomically("n", lambda value: object())
    with pytest.raises(SessionValueError):
        await session.update_atomically("_v", lambda value: 1)
    await session.refresh()
    assert dict(session) == {"n": 1}


async def test_an_assignment_during_an_update_survives(sessions: list[Session]) -> None:
    session = sessions[0]
    session["cart"] = [1]
    await session.save()
    update = asyncio.create_task(session.update_atomically("cart", lambda cart: [*cart, 2]))
    await asyncio.sleep(0)
    session["cart"] = [3]
    await update
    assert session["cart"] == [3]
    await session.save()
    await sessions[1].refresh()
    assert sessions[1]["cart"] == [3]


async def test_an_assignment_during_an_update_that_came_late_survives(sessions: list[Session]) -> None:
    here, there = sessions[:2]
    await here.update_atomically("n", add, default=0)
    update = asyncio.create_task(there.update_atomically("n", add, default=0, attempts=1))
    await asyncio.sleep(0)
    there["n"] = 9
    with pytest.raises(SessionUnavailable):
        await update
    assert there["n"] == 9
    await there.save()
    await here.refresh()
    assert here["n"] == 9


# Locks


async def test_a_lock_makes_read_and_write_one(sessions: list[Session]) -> None:
    async def work(session: Session) -> None:
        for _ in range(5):
            async with session.lock(wait=30):
                session["n"] = session.get("n", 0) + 1

    await asyncio.gather(*(work(session) for session in [*sessions[:3], sessions[0]]))
    await sessions[0].refresh()
    assert sessions[0]["n"] == 20


async def test_a_lock_is_waited_for_so_long_and_no_longer(sessions: list[Session]) -> None:
    here, there = sessions[:2]
    async with here.lock():
        for wait in (0, 0.1):
            with pytest.raises(TimeoutError, match="locked by others"):
                async with there.lock(wait=wait):
                    raise AssertionError("it is locked")
    async with there.lock(wait=0):
        pass


async def test_a_lock_is_given_back_after_an_error_and_what_was_changed_is_saved(sessions: list[Session]) -> None:
    here, there = sessions[:2]

    async def fail() -> None:
        async with here.lock():
            here["a"] = 1
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    async with there.lock(wait=0):
        assert there["a"] == 1


async def test_a_lock_that_was_lost_is_not_taken_from_who_has_it_now(sessions: list[Session]) -> None:
    late, next_one, third = sessions[:3]
    async with late.lock(seconds=0.05):
        lock = next_one.lock(wait=10)
        await lock.__aenter__()
    with pytest.raises(TimeoutError):
        await third.lock(wait=0).__aenter__()
    await lock.__aexit__(None, None, None)
    async with third.lock(wait=0):
        pass


async def test_a_session_that_is_destroyed_in_its_lock_leaves_it_quietly(sessions: list[Session]) -> None:
    async with sessions[0].lock():
        sessions[0]["a"] = 1
        await sessions[0].destroy()
    assert await sessions[1]._store.lease(ID, "another", 1)

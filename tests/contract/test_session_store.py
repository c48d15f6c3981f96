"""The promise of `SessionStore`, kept by every implementation."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import msgpack
import pytest
from redis.asyncio import Redis
from support.waiting import wait_until

from stickygw.errors import SessionEnded, SessionValueError
from stickygw.sessions.base import MAX_INTEGER, SessionConflict, SessionStore
from stickygw.sessions.memory import MemorySessionStore
from stickygw.sessions.redis import RedisSessionStore
from stickygw.types import SessionId

TTL = 100


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Kept:
    """A store, and how to look at and turn its clock."""

    store: SessionStore
    clock: Clock | None = None
    redis: Redis | None = None
    prefix: str = ""

    def key(self, id: SessionId) -> str:
        return f"{self.prefix}:session:{{{id}}}"

    async def fields(self, id: SessionId) -> dict[str, bytes] | None:
        loaded = await self.store.load(id)
        return None if loaded is None else loaded.fields

    async def remaining(self, id: SessionId) -> float:
        """Seconds that a stored session still lives."""
        if self.redis is not None:
            return float(await self.redis.ttl(self.key(id)))
        assert isinstance(self.store, MemorySessionStore)
        assert self.clock is not None
        return self.store._sessions.seconds_left(id)

    async def age(self, id: SessionId, seconds: int) -> None:
        """Make the session `seconds` older."""
        if self.redis is not None:
            await self.redis.expire(self.key(id), int(await self.remaining(id)) - seconds)
        else:
            assert self.clock is not None
            self.clock.now += seconds


@pytest.fixture(params=["memory", "valkey-2", "valkey-3", "redis_server-2", "redis_server-3"])
async def kept(request: pytest.FixtureRequest, prefix: str) -> AsyncIterator[Kept]:
    if request.param == "memory":
        clock = Clock()
        yield Kept(MemorySessionStore(clock), clock)
        return
    server, protocol = request.param.split("-")
    url = f"{request.getfixturevalue(server).url}?protocol={protocol}"
    store = RedisSessionStore.from_url(url, prefix=prefix, timeout=10)
    async with Redis.from_url(url) as redis:
        yield Kept(store, redis=redis, prefix=prefix)
    await store.close()


@pytest.fixture
def id() -> SessionId:
    return SessionId(secrets.token_hex(16))


def packed(value: object) -> bytes:
    data: bytes = msgpack.packb(value)
    return data


async def test_an_unknown_session_loads_as_none(kept: Kept, id: SessionId) -> None:
    assert await kept.store.load(id) is None


async def test_what_was_written_is_loaded(kept: Kept, id: SessionId) -> None:
    await kept.store.write(id, {"a": packed(1), "ü": packed("x"), "": b"\x00\xff"}, [], TTL, is_new=True)
    assert await kept.fields(id) == {"a": packed(1), "ü": packed("x"), "": b"\x00\xff"}


async def test_a_field_whose_name_is_no_utf_8_is_kept_and_removed(kept: Kept, id: SessionId) -> None:
    await kept.store.write(id, {"\udcff": packed(1), "a": packed(2)}, [], TTL, is_new=True)
    assert await kept.store.increment(id, "\udcff", 1, TTL, is_new=True) == 2
    assert await kept.fields(id) == {"\udcff": packed(2), "a": packed(2)}
    await kept.store.write(id, {}, ["\udcff"], TTL, is_new=True)
    assert await kept.fields(id) == {"a": packed(2)}


async def test_a_write_touches_only_the_fields_it_names(kept: Kept, id: SessionId) -> None:
    await kept.store.write(id, {"a": packed(1), "b": packed(2), "c": packed(3)}, [], TTL, is_new=True)
    await kept.store.write(id, {"a": packed(4)}, ["b", "never was"], TTL, is_new=True)
    assert await kept.fields(id) == {"a": packed(4), "c": packed(3)}


async def test_a_loaded_mapping_is_the_callers_own(kept: Kept, id: SessionId) -> None:
    await kept.store.write(id, {"a": packed(1)}, [], TTL, is_new=True)
    loaded = await kept.store.load(id)
    assert loaded is not None
    loaded.fields.clear()
    assert await kept.fields(id) == {"a": packed(1)}


async def test_an_emptied_session_is_stored_and_has_not_ended(kept: Kept, id: SessionId) -> None:
    await kept.store.write(id, {"a": packed(1)}, [], TTL, is_new=True)
    await kept.store.write(id, {}, ["a"], TTL, is_new=False)
    assert await kept.fields(id) == {}
    assert TTL - 10 <= await kept.remaining(id) <= TTL
    await kept.store.write(id, {"b": packed(2)}, [], TTL, is_new=False)
    assert await kept.fields(id) == {"b": packed(2)}


async def test_a_write_sets_the_time_to_live(kept: Kept, id: SessionId) -> None:
    await kept.store.write(id, {"a": packed(1)}, [], TTL, is_new=True)
    assert TTL - 10 <= await kept.remaining(id) <= TTL
    await kept.age(id, 50)
    await kept.store.write(id, {}, ["b"], TTL, is_new=True)
    assert TTL - 10 <= await kept.remaining(id) <= TTL


async def test_a_touch_extends_the_life_and_an_increment_does(kept: Kept, id: SessionId) -> None:
    await kept.store.write(id, {"a": packed(1)}, [], TTL, is_new=True)
    await kept.age(id, 50)
    assert await kept.remaining(id) <= TTL - 50
    assert await kept.store.touch(id, TTL)
    assert TTL - 10 <= await kept.remaining(id) <= TTL
    await kept.age(id, 50)
    await kept.store.increment(id, "a", 1, TTL, is_new=True)
    assert TTL - 10 <= await kept.remaining(id) <= TTL


async def test_a_touch_stores_nothing(kept: Kept, id: SessionId) -> None:
    assert not await kept.store.touch(id, TTL)
    assert await kept.store.load(id) is None


async def test_a_session_past_its_life_is_gone(kept: Kept, id: SessionId) -> None:
    await kept.store.write(id, {"a": packed(1)}, [], TTL, is_new=True)
    await kept.age(id, TTL)
    assert await kept.store.load(id) is None
    assert not await kept.store.touch(id, TTL)
    assert await kept.store.increment(id, "a", 1, TTL, is_new=True) == 1


async def test_increment_counts_a_missing_field_from_zero(kept: Kept, id: SessionId) -> None:
    assert await kept.store.increment(id, "n", 1, TTL, is_new=True) == 1
    assert await kept.store.increment(id, "n", -5, TTL, is_new=True) == -4
    assert await kept.fields(id) == {"n": packed(-4)}


@pytest.mark.parametrize("start", [0, 127, 128, 255, 256, 65_536, 2**32, -1, -32, -33, -129, -(2**31), 2**40])
async def test_increment_reads_and_writes_every_kind_of_integer(kept: Kept, id: SessionId, start: int) -> None:
    await kept.store.write(id, {"n": packed(start)}, [], TTL, is_new=True)
    assert await kept.store.increment(id, "n", 1, TTL, is_new=True) == start + 1
    loaded = await kept.store.load(id)
    assert loaded is not None
    value = msgpack.unpackb(loaded.fields["n"])
    assert (type(value), value) == (int, start + 1)


@pytest.mark.parametrize("value", ["7", 1.0, True, None, b"7", [1], {"a": 1}])
async def test_increment_refuses_what_is_no_integer_and_leaves_it(kept: Kept, id: SessionId, value: object) -> None:
    await kept.store.write(id, {"n": packed(value)}, [], TTL, is_new=True)
    with pytest.raises(SessionValueError):
        await kept.store.increment(id, "n", 1, TTL, is_new=True)
    assert await kept.fields(id) == {"n": packed(value)}


@pytest.mark.parametrize("garbage", [b"", b"\xc1", b"\xcf\x01"])
async def test_increment_refuses_bytes_that_are_no_msgpack(kept: Kept, id: SessionId, garbage: bytes) -> None:
    await kept.store.write(id, {"n": garbage}, [], TTL, is_new=True)
    with pytest.raises(SessionValueError):
        await kept.store.increment(id, "n", 1, TTL, is_new=True)


async def test_increment_stays_where_doubles_are_exact(kept: Kept, id: SessionId) -> None:
    await kept.store.write(id, {"n": packed(MAX_INTEGER - 1)}, [], TTL, is_new=True)
    assert await kept.store.increment(id, "n", 1, TTL, is_new=True) == MAX_INTEGER
    for by in (1, 2, MAX_INTEGER):
        with pytest.raises(SessionValueError):
            await kept.store.increment(id, "n", by, TTL, is_new=True)
    assert await kept.store.increment(id, "n", -MAX_INTEGER, TTL, is_new=True) == 0
    assert await kept.store.increment(id, "n", -MAX_INTEGER, TTL, is_new=True) == -MAX_INTEGER
    with pytest.raises(SessionValueError):
        await kept.store.increment(id, "n", -1, TTL, is_new=True)
    for stored in (2**53, 2**53 + 1, 2**64 - 1, -(2**63)):
        await kept.store.write(id, {"n": packed(stored)}, [], TTL, is_new=True)
        with pytest.raises(SessionValueError):
            await kept.store.increment(id, "n", -1, TTL, is_new=True)


async def test_concurrent_increments_lose_nothing(kept: Kept, id: SessionId) -> None:
    results = await asyncio.gather(*(kept.store.increment(id, "n", 1, TTL, is_new=True) for _ in range(200)))
    assert sorted(results) == list(range(1, 201))


# Who wrote


async def test_each_write_leaves_the_mark_of_its_writer(kept: Kept, id: SessionId) -> None:
    versions = []
    for write in (
        lambda: kept.store.write(id, {"n": packed(1)}, [], TTL, is_new=True),
        lambda: kept.store.increment(id, "n", 1, TTL, is_new=False),
        lambda: kept.store.write(id, {"n": packed(1)}, [], TTL, is_new=False),
    ):
        await write()
        loaded = await kept.store.load(id)
        assert loaded is not None
        assert set(loaded.fields) == {"n"}
        versions.append(loaded.version.decode())
    assert len(set(versions)) == 3
    assert all(re.fullmatch("[0-9a-f]{16}:[0-9]+", version) for version in versions)
    assert len({version.partition(":")[0] for version in versions}) == 1


# Sessions that are no more


@pytest.mark.parametrize("is_new", [False, True])
async def test_an_ended_session_is_refused_and_nothing_is_changed(kept: Kept, id: SessionId, is_new: bool) -> None:
    await kept.store.write(id, {"a": packed(1)}, [], TTL, is_new=True)
    await kept.store.end(id, TTL)
    with pytest.raises(SessionEnded):
        await kept.store.write(id, {"a": packed(2)}, [], TTL, is_new=is_new)
    with pytest.raises(SessionEnded):
        await kept.store.write(id, {}, ["a"], TTL, is_new=is_new)
    with pytest.raises(SessionEnded):
        await kept.store.write(id, {"a": packed(2)}, [], TTL, is_new=is_new, expected={"a": None})
    with pytest.raises(SessionEnded):
        await kept.store.increment(id, "a", 1, TTL, is_new=is_new)
    with pytest.raises(SessionEnded):
        await kept.store.load(id)
    assert not await kept.store.touch(id, TTL)
    assert await kept.store.describe([id]) == [None]


async def test_an_id_that_was_never_stored_can_be_ended_and_ending_again_changes_nothing(
    kept: Kept, id: SessionId
) -> None:
    for _ in range(3):
        await kept.store.end(id, TTL)
    with pytest.raises(SessionEnded):
        await kept.store.write(id, {"a": packed(1)}, [], TTL, is_new=True)


async def test_an_end_is_remembered_so_long_and_no_longer(kept: Kept, id: SessionId) -> None:
    await kept.store.end(id, 200)
    if kept.redis is not None:
        end = f"{kept.prefix}:session-end:{{{id}}}"
        assert 190 <= await kept.redis.ttl(end) <= 200
        await kept.redis.delete(end)
    else:
        assert kept.clock is not None
        kept.clock.now += 199
        with pytest.raises(SessionEnded):
            await kept.store.load(id)
        kept.clock.now += 1
    assert await kept.store.load(id) is None


async def test_a_session_is_ended_as_it_was_loaded_or_not_at_all(kept: Kept, id: SessionId) -> None:
    await kept.store.write(id, {"a": packed(1)}, [], TTL, is_new=True)
    loaded = await kept.store.load(id)
    assert loaded is not None
    await kept.store.increment(id, "a", 1, TTL, is_new=False)
    for version in (loaded.version, b""):
        with pytest.raises(SessionConflict):
            await kept.store.end(id, TTL, version=version)
    assert await kept.fields(id) == {"a": packed(2)}
    loaded = await kept.store.load(id)
    assert loaded is not None
    await kept.store.end(id, TTL, version=loaded.version)
    with pytest.raises(SessionEnded):
        await kept.store.load(id)


async def test_what_is_not_stored_is_ended_as_such_and_what_has_ended_not_again(kept: Kept, id: SessionId) -> None:
    await kept.store.end(id, TTL, version=b"")
    with pytest.raises(SessionEnded):
        await kept.store.load(id)
    with pytest.raises(SessionConflict):
        await kept.store.end(id, TTL, version=b"")


async def test_a_session_that_vanished_is_not_ended_as_it_was_loaded(kept: Kept, id: SessionId) -> None:
    await kept.store.write(id, {"a": packed(1)}, [], TTL, is_new=True)
    loaded = await kept.store.load(id)
    assert loaded is not None
    await kept.age(id, TTL)
    with pytest.raises(SessionConflict):
        await kept.store.end(id, TTL, version=loaded.version)
    assert await kept.store.load(id) is None


async def test_it_is_known_how_long_ago_a_session_was_ended(kept: Kept, id: SessionId) -> None:
    assert not await kept.store.ended_within(id, TTL, TTL)
    await kept.store.write(id, {"a": packed(1)}, [], TTL, is_new=True)
    assert not await kept.store.ended_within(id, TTL, TTL)
    await kept.store.end(id, TTL)
    assert await kept.store.ended_within(id, TTL, 40)
    if kept.redis is not None:
        await kept.redis.expire(f"{kept.prefix}:session-end:{{{id}}}", TTL - 50)
    else:
        assert kept.clock is not None
        kept.clock.now += 50
    assert not await kept.store.ended_within(id, TTL, 40)
    assert await kept.store.ended_within(id, TTL, 60)


async def test_a_vanished_session_does_not_come_back_by_half(kept: Kept, id: SessionId) -> None:
    await kept.store.write(id, {"a": packed(1), "b": packed(2)}, [], TTL, is_new=True)
    await kept.age(id, TTL)
    with pytest.raises(SessionEnded):
        await kept.store.write(id, {"a": packed(2)}, [], TTL, is_new=False)
    with pytest.raises(SessionEnded):
        await kept.store.write(id, {"a": packed(2)}, [], TTL, is_new=False, expected={"a": None})
    with pytest.raises(SessionEnded):
        await kept.store.increment(id, "b", 1, TTL, is_new=False)
    assert await kept.store.load(id) is None


# Compare and set


async def test_a_write_that_expects_what_is_there_is_made(kept: Kept, id: SessionId) -> None:
    await kept.store.write(id, {"a": packed(1)}, [], TTL, is_new=True, expected={"a": None})
    await kept.store.write(id, {"a": packed(2)}, [], TTL, is_new=False, expected={"a": packed(1), "b": None})
    assert await kept.fields(id) == {"a": packed(2)}


@pytest.mark.parametrize("expected", [None, b"", b"\x02", b"=\x01"])
async def test_a_write_that_expects_something_else_is_not_made_and_told_what_is_there(
    kept: Kept, id: SessionId, expected: bytes | None
) -> None:
    await kept.store.write(id, {"a": b"\x01", "empty": b""}, [], TTL, is_new=True)
    everything = {"missing": None, "a": expected, "empty": b""}
    with pytest.raises(SessionConflict) as conflict:
        await kept.store.write(id, {"a": b"\x05", "b": b"\x01"}, ["empty"], TTL, is_new=False, expected=everything)
    assert conflict.value.current == {"missing": None, "a": b"\x01", "empty": b""}
    assert await kept.fields(id) == {"a": b"\x01", "empty": b""}


async def test_a_field_that_is_expected_and_gone_is_a_conflict(kept: Kept, id: SessionId) -> None:
    await kept.store.write(id, {"b": packed(1)}, [], TTL, is_new=True)
    with pytest.raises(SessionConflict) as conflict:
        await kept.store.write(id, {"a": packed(2)}, [], TTL, is_new=False, expected={"a": packed(1)})
    assert conflict.value.current == {"a": None}


async def test_compare_and_set_loses_no_update_of_concurrent_writers(kept: Kept, id: SessionId) -> None:
    async def add(number: int) -> None:
        expected: bytes | None = None
        while True:
            values = [] if expected is None else msgpack.unpackb(expected)
            try:
                await kept.store.write(
                    id, {"all": packed([*values, number])}, [], TTL, is_new=True, expected={"all": expected}
                )
            except SessionConflict as conflict:
                expected = conflict.current["all"]
            else:
                return

    await asyncio.gather(*(add(number) for number in range(30)))
    loaded = await kept.fields(id)
    assert loaded is not None
    assert sorted(msgpack.unpackb(loaded["all"])) == list(range(30))


async def test_concurrent_writers_of_different_fields_lose_nothing(kept: Kept, id: SessionId) -> None:
    await asyncio.gather(
        *(kept.store.write(id, {str(number): packed(number)}, [], TTL, is_new=True) for number in range(100))
    )
    assert await kept.fields(id) == {str(number): packed(number) for number in range(100)}


# Leases


async def test_a_lease_is_one_holders_until_it_is_released(kept: Kept, id: SessionId) -> None:
    assert await kept.store.lease(id, "first", 100)
    assert not await kept.store.lease(id, "second", 100)
    await kept.store.release_lease(id, "second")
    assert not await kept.store.lease(id, "second", 100)
    await kept.store.release_lease(id, "first")
    assert await kept.store.lease(id, "second", 100)


async def test_a_lease_ends_by_itself_and_its_late_release_frees_nobody_elses(kept: Kept, id: SessionId) -> None:
    assert await kept.store.lease(id, "first", 0.05)
    if kept.clock is not None:
        kept.clock.now += 0.05
    await wait_until(lambda: kept.store.lease(id, "second", 100))
    await kept.store.release_lease(id, "first")
    assert not await kept.store.lease(id, "third", 100)


# For operators


async def test_all_stored_sessions_are_listed_and_nothing_else(kept: Kept, id: SessionId) -> None:
    ids = {SessionId(f"{number:032x}") for number in range(1200)}
    await asyncio.gather(*(kept.store.write(each, {"a": packed(1)}, [], TTL, is_new=True) for each in ids))
    await kept.store.end(id, TTL)
    await kept.store.lease(id, "token", 100)
    assert {each async for each in kept.store.sessions()} == ids


async def test_a_session_is_described(kept: Kept, id: SessionId) -> None:
    await kept.store.write(id, {"a": packed(1), "b": packed("x" * 1000)}, [], TTL, is_new=True)
    none, described = await kept.store.describe([SessionId("0" * 32), id])
    assert none is None
    assert described is not None
    assert described.created is not None
    assert abs(described.created - time.time()) < 60
    assert described.seconds_left is not None
    assert TTL - 10 <= described.seconds_left <= TTL
    assert described.field_count == 2
    assert 1000 < described.byte_count < 3000


# Ids

CALLS: list[Callable[[SessionStore, SessionId], Awaitable[object]]] = [
    lambda store, id: store.load(id),
    lambda store, id: store.write(id, {"a": b"\x01"}, [], TTL, is_new=True),
    lambda store, id: store.increment(id, "a", 1, TTL, is_new=True),
    lambda store, id: store.touch(id, TTL),
    lambda store, id: store.end(id, TTL),
    lambda store, id: store.ended_within(id, TTL, 1),
    lambda store, id: store.lease(id, "token", 1),
    lambda store, id: store.release_lease(id, "token"),
    lambda store, id: store.describe([id]),
]


@pytest.mark.parametrize("bad", ["", "a" * 31, "a" * 33, "A" * 32, "g" * 32, "a" * 31 + "\n", "../" + "a" * 29])
async def test_an_id_that_is_none_becomes_no_part_of_a_key(kept: Kept, bad: str) -> None:
    for call in CALLS:
        with pytest.raises(ValueError, match="32 lowercase hex"):
            await call(kept.store, SessionId(bad))

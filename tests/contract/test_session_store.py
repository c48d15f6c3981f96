"""The promise of `SessionStore`, kept by every implementation."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass

import msgpack
import pytest
from redis.asyncio import Redis

from stickygw.errors import SessionValueError
from stickygw.sessions.base import MAX_INTEGER, SessionStore
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

    async def remaining(self, id: SessionId) -> float:
        """Seconds that a stored session still lives."""
        if self.redis is not None:
            return float(await self.redis.ttl(f"{self.prefix}:session:{id}"))
        assert isinstance(self.store, MemorySessionStore)
        assert self.clock is not None
        return self.store._sessions[id].ends_at - self.clock.now

    async def age(self, id: SessionId, seconds: int) -> None:
        """Make the session `seconds` older."""
        if self.redis is not None:
            await self.redis.expire(f"{self.prefix}:session:{id}", int(await self.remaining(id)) - seconds)
        else:
            assert self.clock is not None
            self.clock.now += seconds


@pytest.fixture(params=["memory", "valkey", "redis_server"])
async def kept(request: pytest.FixtureRequest, prefix: str) -> AsyncIterator[Kept]:
    if request.param == "memory":
        clock = Clock()
        yield Kept(MemorySessionStore(clock), clock)
        return
    url = request.getfixturevalue(request.param).url
    store = RedisSessionStore.from_url(url, prefix=prefix)
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
    await kept.store.write(id, {"a": packed(1), "ü": packed("x"), "": b"\x00\xff"}, [], TTL)
    assert await kept.store.load(id) == {"a": packed(1), "ü": packed("x"), "": b"\x00\xff"}


async def test_a_field_whose_name_is_no_utf_8_is_kept_and_removed(kept: Kept, id: SessionId) -> None:
    await kept.store.write(id, {"\udcff": packed(1), "a": packed(2)}, [], TTL)
    assert await kept.store.increment(id, "\udcff", 1, TTL) == 2
    assert await kept.store.load(id) == {"\udcff": packed(2), "a": packed(2)}
    await kept.store.write(id, {}, ["\udcff"], TTL)
    assert await kept.store.load(id) == {"a": packed(2)}


async def test_a_write_touches_only_the_fields_it_names(kept: Kept, id: SessionId) -> None:
    await kept.store.write(id, {"a": packed(1), "b": packed(2), "c": packed(3)}, [], TTL)
    await kept.store.write(id, {"a": packed(4)}, ["b", "never was"], TTL)
    assert await kept.store.load(id) == {"a": packed(4), "c": packed(3)}


async def test_a_loaded_mapping_is_the_callers_own(kept: Kept, id: SessionId) -> None:
    await kept.store.write(id, {"a": packed(1)}, [], TTL)
    loaded = await kept.store.load(id)
    assert loaded is not None
    loaded.clear()
    assert await kept.store.load(id) == {"a": packed(1)}


async def test_a_session_without_fields_is_not_stored(kept: Kept, id: SessionId) -> None:
    await kept.store.write(id, {"a": packed(1)}, [], TTL)
    await kept.store.write(id, {}, ["a"], TTL)
    assert await kept.store.load(id) is None


async def test_a_deleted_session_is_gone(kept: Kept, id: SessionId) -> None:
    await kept.store.write(id, {"a": packed(1)}, [], TTL)
    await kept.store.delete(id)
    await kept.store.delete(id)
    assert await kept.store.load(id) is None


async def test_a_write_sets_the_time_to_live(kept: Kept, id: SessionId) -> None:
    await kept.store.write(id, {"a": packed(1)}, [], TTL)
    assert TTL - 10 <= await kept.remaining(id) <= TTL
    await kept.age(id, 50)
    await kept.store.write(id, {}, ["b"], TTL)
    assert TTL - 10 <= await kept.remaining(id) <= TTL


async def test_a_touch_extends_the_life_and_an_increment_does(kept: Kept, id: SessionId) -> None:
    await kept.store.write(id, {"a": packed(1)}, [], TTL)
    await kept.age(id, 50)
    assert await kept.remaining(id) <= TTL - 50
    await kept.store.touch(id, TTL)
    assert TTL - 10 <= await kept.remaining(id) <= TTL
    await kept.age(id, 50)
    await kept.store.increment(id, "a", 1, TTL)
    assert TTL - 10 <= await kept.remaining(id) <= TTL


async def test_a_touch_stores_nothing(kept: Kept, id: SessionId) -> None:
    await kept.store.touch(id, TTL)
    assert await kept.store.load(id) is None


async def test_a_session_past_its_life_is_gone(kept: Kept, id: SessionId) -> None:
    await kept.store.write(id, {"a": packed(1)}, [], TTL)
    await kept.age(id, TTL)
    assert await kept.store.load(id) is None
    assert await kept.store.increment(id, "a", 1, TTL) == 1


async def test_increment_counts_a_missing_field_from_zero(kept: Kept, id: SessionId) -> None:
    assert await kept.store.increment(id, "n", 1, TTL) == 1
    assert await kept.store.increment(id, "n", -5, TTL) == -4
    assert await kept.store.load(id) == {"n": packed(-4)}


@pytest.mark.parametrize("start", [0, 127, 128, 255, 256, 65_536, 2**32, -1, -32, -33, -129, -(2**31), 2**40])
async def test_increment_reads_and_writes_every_kind_of_integer(kept: Kept, id: SessionId, start: int) -> None:
    await kept.store.write(id, {"n": packed(start)}, [], TTL)
    assert await kept.store.increment(id, "n", 1, TTL) == start + 1
    loaded = await kept.store.load(id)
    assert loaded is not None
    value = msgpack.unpackb(loaded["n"])
    assert (type(value), value) == (int, start + 1)


@pytest.mark.parametrize("value", ["7", 1.0, True, None, b"7", [1], {"a": 1}])
async def test_increment_refuses_what_is_no_integer_and_leaves_it(kept: Kept, id: SessionId, value: object) -> None:
    await kept.store.write(id, {"n": packed(value)}, [], TTL)
    with pytest.raises(SessionValueError):
        await kept.store.increment(id, "n", 1, TTL)
    assert await kept.store.load(id) == {"n": packed(value)}


@pytest.mark.parametrize("garbage", [b"", b"\xc1", b"\xcf\x01"])
async def test_increment_refuses_bytes_that_are_no_msgpack(kept: Kept, id: SessionId, garbage: bytes) -> None:
    await kept.store.write(id, {"n": garbage}, [], TTL)
    with pytest.raises(SessionValueError):
        await kept.store.increment(id, "n", 1, TTL)


async def test_increment_stays_where_doubles_are_exact(kept: Kept, id: SessionId) -> None:
    await kept.store.write(id, {"n": packed(MAX_INTEGER - 1)}, [], TTL)
    assert await kept.store.increment(id, "n", 1, TTL) == MAX_INTEGER
    for by in (1, 2, MAX_INTEGER):
        with pytest.raises(SessionValueError):
            await kept.store.increment(id, "n", by, TTL)
    assert await kept.store.increment(id, "n", -MAX_INTEGER, TTL) == 0
    assert await kept.store.increment(id, "n", -MAX_INTEGER, TTL) == -MAX_INTEGER
    with pytest.raises(SessionValueError):
        await kept.store.increment(id, "n", -1, TTL)
    for stored in (2**53, 2**53 + 1, 2**64 - 1, -(2**63)):
        await kept.store.write(id, {"n": packed(stored)}, [], TTL)
        with pytest.raises(SessionValueError):
            await kept.store.increment(id, "n", -1, TTL)


async def test_concurrent_increments_lose_nothing(kept: Kept, id: SessionId) -> None:
    results = await asyncio.gather(*(kept.store.increment(id, "n", 1, TTL) for _ in range(200)))
    assert sorted(results) == list(range(1, 201))


@pytest.mark.parametrize("bad", ["", "a" * 31, "a" * 33, "A" * 32, "g" * 32, "a" * 31 + "\n", "../" + "a" * 29])
async def test_an_id_that_is_none_becomes_no_part_of_a_key(kept: Kept, bad: str) -> None:
    id = SessionId(bad)
    with pytest.raises(ValueError, match="32 lowercase hex"):
        await kept.store.load(id)
    with pytest.raises(ValueError, match="32 lowercase hex"):
        await kept.store.write(id, {"a": b"\x01"}, [], TTL)
    with pytest.raises(ValueError, match="32 lowercase hex"):
        await kept.store.increment(id, "a", 1, TTL)
    with pytest.raises(ValueError, match="32 lowercase hex"):
        await kept.store.touch(id, TTL)
    with pytest.raises(ValueError, match="32 lowercase hex"):
        await kept.store.delete(id)

"""What only the Redis store can show: a real server that fails, forgets its scripts, and many clients."""

from __future__ import annotations

import asyncio
import re
import secrets

import pytest
from redis.asyncio import Redis
from support.valkey import ValkeyServer

from stickygw.errors import SessionUnavailable
from stickygw.sessions.redis import RedisSessionStore
from stickygw.sessions.session import Session
from stickygw.types import SessionId


@pytest.fixture
def id() -> SessionId:
    return SessionId(secrets.token_hex(16))


async def test_increments_of_several_clients_lose_nothing(valkey: ValkeyServer, prefix: str, id: SessionId) -> None:
    stores = [RedisSessionStore.from_url(valkey.url, prefix=prefix, timeout=10) for _ in range(4)]
    sessions = [Session(id, store, ttl=100, timeout=10) for store in stores]
    await asyncio.gather(*(session.increment("n") for session in sessions for _ in range(100)))
    await sessions[0].refresh()
    assert sessions[0]["n"] == 400
    for store in stores:
        await store.close()


async def test_increment_works_after_the_server_forgot_its_scripts(
    valkey: ValkeyServer, prefix: str, id: SessionId
) -> None:
    store = RedisSessionStore.from_url(valkey.url, prefix=prefix)
    assert await store.increment(id, "n", 1, 100, is_new=True) == 1
    async with Redis.from_url(valkey.url) as redis:
        await redis.script_flush()
    assert await store.increment(id, "n", 1, 100, is_new=True) == 2
    await store.close()


async def test_another_programs_field_whose_name_is_no_utf_8_can_be_read_changed_and_removed(
    valkey: ValkeyServer, prefix: str, id: SessionId
) -> None:
    store = RedisSessionStore.from_url(valkey.url, prefix=prefix)
    session = Session(id, store, ttl=100)
    key = f"{prefix}:session:{{{id}}}"
    async with Redis.from_url(valkey.url) as redis:
        await redis.hset(key, mapping={b"\xff": b"\x91\x01", b"\xfe": b"\x01"})
        await session.refresh()
        session["\udcff"].append(2)
        await session.flush()
        assert await store.increment(id, "\udcfe", 1, 100, is_new=True) == 2
        assert await redis.hmget(key, b"\xff", b"\xfe") == [b"\x92\x01\x02", b"\x02"]
        session.clear()
        await session.flush()
        assert set(await redis.hgetall(key)) == {b"_v", b"_c"}
    await store.close()


async def test_nothing_is_in_the_store_for_an_untouched_session(
    valkey: ValkeyServer, prefix: str, id: SessionId
) -> None:
    store = RedisSessionStore.from_url(valkey.url, prefix=prefix)
    session = Session(id, store, ttl=100)
    await session.refresh()
    await session.flush()
    async with Redis.from_url(valkey.url) as redis:
        assert await redis.keys(f"{prefix}*") == []
        session["a"] = 1
        await session.flush()
        assert await redis.keys(f"{prefix}*") == [f"{prefix}:session:{{{id}}}".encode()]
    await store.close()


async def test_a_paused_server_is_unavailable_within_the_time_limit(
    own_valkey: ValkeyServer, prefix: str, id: SessionId
) -> None:
    store = RedisSessionStore.from_url(own_valkey.url, prefix=prefix, timeout=0.1)
    await store.write(id, {"a": b"\x01"}, [], 100, is_new=True)
    own_valkey.pause()
    async with asyncio.timeout(5):
        for _ in range(2):  # on an open connection, and on a new one
            with pytest.raises(SessionUnavailable):
                await store.load(id)
            with pytest.raises(SessionUnavailable):
                await store.increment(id, "n", 1, 100, is_new=True)
    own_valkey.resume()
    assert await store.load(id)
    await store.close()


async def test_a_crowd_at_a_paused_server_waits_no_longer_than_one(
    own_valkey: ValkeyServer, prefix: str, id: SessionId
) -> None:
    store = RedisSessionStore.from_url(own_valkey.url, prefix=prefix, timeout=0.2)
    own_valkey.pause()
    async with asyncio.timeout(2):
        results = await asyncio.gather(*(store.load(id) for _ in range(200)), return_exceptions=True)
    assert {type(result) for result in results} == {SessionUnavailable}
    own_valkey.resume()
    assert await store.load(id) is None
    await store.close()


async def test_a_stopped_server_is_unavailable_and_a_restarted_one_is_used(
    own_valkey: ValkeyServer, prefix: str, id: SessionId
) -> None:
    store = RedisSessionStore.from_url(own_valkey.url, prefix=prefix)
    await asyncio.gather(*(store.load(id) for _ in range(4)))  # several idle connections
    own_valkey.stop()
    with pytest.raises(SessionUnavailable):
        await store.write(id, {"a": b"\x01"}, [], 100, is_new=True)
    own_valkey.start()
    await asyncio.gather(*(store.write(id, {"a": b"\x01"}, [], 100, is_new=True) for _ in range(4)))
    loaded = await store.load(id)
    assert loaded is not None
    assert loaded.fields == {"a": b"\x01"}
    await store.close()


async def test_a_command_that_the_server_refuses_is_unavailable(
    own_valkey: ValkeyServer, prefix: str, id: SessionId
) -> None:
    store = RedisSessionStore.from_url(own_valkey.url, prefix=prefix)
    async with Redis.from_url(own_valkey.url) as redis:
        await redis.set(f"{prefix}:session:{{{id}}}", "no hash")
    with pytest.raises(SessionUnavailable):
        await store.load(id)
    with pytest.raises(SessionUnavailable):
        await store.write(id, {"a": b"\x01"}, [], 100, is_new=True)
    with pytest.raises(SessionUnavailable):
        await store.increment(id, "a", 1, 100, is_new=True)
    await store.close()


async def test_all_keys_of_one_session_share_a_hash_tag(valkey: ValkeyServer, prefix: str, id: SessionId) -> None:
    """A cluster keeps keys with the same text in braces on one node, and runs no script that needs two."""
    store = RedisSessionStore.from_url(valkey.url, prefix=prefix)
    session = Session(id, store, ttl=100)
    other = SessionId(secrets.token_hex(16))
    async with Redis.from_url(valkey.url) as redis, redis.monitor() as monitor:
        session["a"] = 1
        await session.save()
        await session.increment("n")
        await session.update_atomically("a", lambda value: value + 1)
        async with session.lock():
            session["a"] = 3
        await session.destroy()
        await store.touch(other, 100)  # the last command
        seen: list[str] = []
        async with asyncio.timeout(10):
            while not any(other in command for command in seen):
                seen.append((await monitor.next_command())["command"])
    of_this_test = [command for command in seen if prefix in command and other not in command]
    keys = {word for command in of_this_test for word in command.split() if word.startswith(prefix)}
    tag = f"{{{id}}}"
    assert keys == {f"{prefix}:session:{tag}", f"{prefix}:session-end:{tag}", f"{prefix}:session-lock:{tag}"}
    assert sum(command.startswith("EVAL") for command in of_this_test) >= 4
    await store.close()


async def test_a_hash_that_another_program_wrote_has_no_version_and_is_a_session(
    valkey: ValkeyServer, prefix: str, id: SessionId
) -> None:
    store = RedisSessionStore.from_url(valkey.url, prefix=prefix)
    async with Redis.from_url(valkey.url) as redis:
        await redis.hset(f"{prefix}:session:{{{id}}}", mapping={"a": b"\x01"})
        loaded = await store.load(id)
        assert loaded is not None
        assert loaded.version == b""  # nobody's we know
        await store.write(id, {}, ["a"], 100, is_new=False)
        loaded = await store.load(id)
        assert loaded is not None
        assert loaded.fields == {}
        assert re.fullmatch(b"[0-9a-f]{16}:[0-9]+", loaded.version)
    await store.close()

"""What 100,000 sessions cost the store, and how their ends are spread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import msgpack
import pytest
from redis.asyncio import Redis
from support.many_sessions import fill, session_id, six_fields, six_long_fields
from support.valkey import ValkeyServer

from stickygw.sessions.redis import RedisSessionStore

SESSIONS = 100_000

SETTING_SECONDS = 10.0
"""Setting one instant for all of them takes a tenth of this, mostly."""


@pytest.mark.long
@pytest.mark.alone
@pytest.mark.parametrize("fields", [six_fields, six_long_fields])
async def test_a_session_of_six_fields_takes_at_most_twice_its_msgpack_and_200_bytes(
    own_valkey: ValkeyServer, fields: Callable[[int], dict[str, bytes]]
) -> None:
    store = RedisSessionStore.from_url(own_valkey.url, prefix="stickygw", timeout=30.0)
    async with Redis.from_url(own_valkey.url) as client:
        empty = await used_bytes(client)
        began = time.monotonic()
        await fill(store, SESSIONS, fields=fields)
        seconds = time.monotonic() - began
        each = (await used_bytes(client) - empty) / SESSIONS
        ends = [await client.pexpiretime(f"stickygw:session:{{{session_id(n)}}}") for n in range(0, SESSIONS, 100)]
    await store.close()
    packed = statistics.fmean(len(msgpack.packb(fields(number))) for number in range(SESSIONS))
    spread = (max(ends) - min(ends)) / 1000
    print(f"{each:.0f} bytes a session of {packed:.0f} bytes packed")
    print(f"written in {seconds:.1f} s, they end over {spread:.1f} s")
    assert each <= 2 * packed + 200
    # Each lives its whole ttl from its own last write: they end one after the other, as they were written.
    assert spread > 0.8 * seconds


@pytest.mark.long
@pytest.mark.alone
async def test_a_store_answers_while_100_000_sessions_end_in_one_instant(own_valkey: ValkeyServer) -> None:
    # So no ttl needs to be made uneven. Only a restore, say, may bring so many ends together.
    store = RedisSessionStore.from_url(own_valkey.url, prefix="stickygw", timeout=30.0)
    async with Redis.from_url(own_valkey.url) as client:
        await fill(store, SESSIONS)
        instant = int((time.time() + SETTING_SECONDS) * 1000)
        for first in range(0, SESSIONS, 1000):
            async with client.pipeline(transaction=False) as pipeline:
                for number in range(first, first + 1000):
                    pipeline.pexpireat(f"stickygw:session:{{{session_id(number)}}}", instant)
                await pipeline.execute()
        assert time.time() * 1000 < instant, "the machine is too slow for this test"
        assert await client.dbsize() == SESSIONS
        slowest = 0.0
        while await client.dbsize():
            began = time.monotonic()
            await client.ping()
            slowest = max(slowest, time.monotonic() - began)
    await store.close()
    print(f"gone {time.time() - instant / 1000:.2f} s after it; the slowest PING took {slowest * 1000:.0f} ms")
    assert slowest < 0.5


async def used_bytes(client: Redis) -> int:
    return int((await client.info("memory"))["used_memory"])

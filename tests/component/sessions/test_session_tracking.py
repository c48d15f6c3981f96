"""`Tracking`: the server's word of sessions that anybody has written to, kept across its restarts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random
from time import perf_counter

import pytest
from redis.asyncio import Redis
from support.valkey import ValkeyServer
from support.waiting import wait_until

from stickygw.reconnect import connections
from stickygw.sessions import tracking as tracking_module
from stickygw.sessions.tracking import Tracking
from stickygw.types import SessionId

ID = SessionId("0123456789abcdef" * 2)
OTHER = SessionId("fedcba9876543210" * 2)


class Heard:
    """A tracking link, and what it has said."""

    def __init__(self, url: str, prefix: str) -> None:
        self.calls: list[list[SessionId] | None] = []
        self.key = f"{prefix}:session:{{{ID}}}"
        self.end_key = f"{prefix}:session-end:{{{ID}}}"
        self.link = Tracking(connections(url), prefix=prefix, on_invalidated=self.calls.append, random=Random(1))

    @property
    def ids(self) -> list[SessionId]:
        """All ids so far."""
        return [id for call in self.calls if call is not None for id in call]

    async def wait_armed(self) -> None:
        """Return when it hears all changes."""
        async with asyncio.timeout(15):
            await self.link.armed.wait()


@asynccontextmanager
async def hearing(url: str, prefix: str) -> AsyncIterator[Heard]:
    heard = Heard(url, prefix)
    heard.link.start()
    try:
        yield heard
    finally:
        await heard.link.stop()


@pytest.fixture(params=["valkey", "redis_server"])
async def server(request: pytest.FixtureRequest) -> ValkeyServer:
    kept: ValkeyServer = request.getfixturevalue(request.param)
    return kept


async def test_at_first_anything_may_have_changed(server: ValkeyServer, prefix: str) -> None:
    async with hearing(server.url, prefix) as heard:
        await heard.wait_armed()
        assert heard.calls == [None]


@pytest.mark.parametrize("protocol", [2, 3])
async def test_every_change_by_any_client_is_heard(server: ValkeyServer, prefix: str, protocol: int) -> None:
    async with hearing(server.url, prefix) as heard, Redis.from_url(server.url, protocol=protocol) as redis:
        await heard.wait_armed()
        changes: list[Callable[[], Awaitable[object]]] = [
            lambda: redis.hset(heard.key, "name", b"\x01"),
            lambda: redis.hdel(heard.key, "name"),
            lambda: redis.hset(heard.key, "name", b"\x01"),
            lambda: redis.expire(heard.key, 100),
            lambda: redis.delete(heard.key),
            lambda: redis.set(heard.end_key, b"", ex=100),
        ]
        for count, change in enumerate(changes, start=1):
            await change()
            await wait_until(lambda count=count: len(heard.ids) == count)  # type: ignore[misc]
        assert set(heard.ids) == {ID}


async def test_expiry_is_heard(server: ValkeyServer, prefix: str) -> None:
    async with hearing(server.url, prefix) as heard, Redis.from_url(server.url) as redis:
        await heard.wait_armed()
        life = 50
        for id in (SessionId(f"{number:032x}") for number in range(10)):
            key = f"{prefix}:session:{{{id}}}"
            async with redis.pipeline(transaction=True) as pipeline:  # of which the server tells in one word
                await pipeline.hset(key, "name", b"\x01").pexpire(key, life).execute()
            await wait_until(lambda id=id: id in heard.ids)  # type: ignore[misc]
            if await redis.pttl(key) > 0:
                break
            life *= 2  # a slow server may say in one word that it is there, and that this is over

        async def is_heard() -> bool:
            # Among thousands of keys with an end, which other tests leave, the server finds one in its own time: looked
            # at, it ends when it should.
            await redis.exists(key)
            return heard.ids.count(id) == 2

        await wait_until(is_heard)


async def test_other_keys_are_nothing_of_ours(server: ValkeyServer, prefix: str) -> None:
    async with hearing(server.url, prefix) as heard, Redis.from_url(server.url) as redis:
        await heard.wait_armed()
        for key in (
            f"{prefix}:session:",
            f"{prefix}:session:{ID}",
            f"{prefix}:session:{{{ID}0}}",
            f"{prefix}:session-lock:{{{ID}}}",
            f"{prefix}x:session:{{{ID}}}",
        ):
            await redis.set(key, b"", ex=10)
        await redis.set(b"%b:session:\xff" % prefix.encode(), b"", ex=10)
        await redis.hset(f"{prefix}:session:{{{OTHER}}}", "name", b"\x01")
        await wait_until(lambda: heard.ids)
        assert heard.ids == [OTHER]


async def test_what_was_written_in_one_pipeline_is_heard_whole(server: ValkeyServer, prefix: str) -> None:
    ids = [f"{number:032x}" for number in range(2000)]
    async with hearing(server.url, prefix) as heard, Redis.from_url(server.url) as redis:
        await heard.wait_armed()
        async with redis.pipeline(transaction=False) as pipeline:
            for id in ids:
                pipeline.hset(f"{prefix}:session:{{{id}}}", "name", b"\x01")
            await pipeline.execute()
        await wait_until(lambda: len(set(heard.ids)) == len(ids))


async def test_a_change_is_heard_within_two_seconds(server: ValkeyServer, prefix: str) -> None:
    delays = []
    async with hearing(server.url, prefix) as heard, Redis.from_url(server.url) as redis:
        await heard.wait_armed()
        for count in range(1, 201):
            began = perf_counter()
            await redis.hset(heard.key, "count", b"%d" % count)
            while len(heard.ids) < count:
                assert perf_counter() - began < 2.0
                await asyncio.sleep(0)
            delays.append(perf_counter() - began)
    delays.sort()
    print(f"\nheard after {delays[100] * 1000:.2f} ms, p99 {delays[197] * 1000:.2f} ms")
    assert delays[-1] <= 2.0


async def test_flushing_the_store_may_have_changed_anything(own_valkey: ValkeyServer, prefix: str) -> None:
    async with hearing(own_valkey.url, prefix) as heard, Redis.from_url(own_valkey.url) as redis:
        await heard.wait_armed()
        await redis.flushall()
        await wait_until(lambda: heard.calls == [None, None])


async def test_a_store_that_is_killed_and_back_is_heard_again(own_valkey: ValkeyServer, prefix: str) -> None:
    async with hearing(own_valkey.url, prefix) as heard:
        await heard.wait_armed()
        own_valkey.stop()
        await wait_until(lambda: not heard.link.armed.is_set())
        own_valkey.start()
        await heard.wait_armed()
        assert heard.calls == [None, None]
        async with Redis.from_url(own_valkey.url) as redis:
            await redis.hset(heard.key, "name", b"\x01")
        await wait_until(lambda: heard.ids == [ID])


async def test_a_store_that_stops_answering_is_noticed(
    own_valkey: ValkeyServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking_module, "PING_SECONDS", 0.1)
    async with hearing(own_valkey.url, prefix) as heard:
        await heard.wait_armed()
        own_valkey.pause()
        try:
            await wait_until(lambda: not heard.link.armed.is_set())
        finally:
            own_valkey.resume()
        await heard.wait_armed()
        assert heard.calls == [None, None]


async def test_a_connection_that_the_server_cuts_is_made_again(server: ValkeyServer, prefix: str) -> None:
    async with hearing(server.url, prefix) as heard, Redis.from_url(server.url) as redis:
        await heard.wait_armed()
        # Its own id is where it is redirected to.
        clients = await redis.client_list()
        (own,) = (client for client in clients if client["id"] == client["redir"])
        await redis.client_kill_filter(_id=own["id"])
        await wait_until(lambda: heard.calls == [None, None])


async def test_a_store_that_is_away_at_first_is_heard_when_it_comes(own_valkey: ValkeyServer, prefix: str) -> None:
    own_valkey.stop()
    async with hearing(own_valkey.url, prefix) as heard:
        assert not heard.link.armed.is_set()
        own_valkey.start()
        await heard.wait_armed()


async def test_stop_leaves_no_task(server: ValkeyServer, prefix: str) -> None:
    before = asyncio.all_tasks()
    heard = Heard(server.url, prefix)
    await heard.link.stop()
    heard.link.start()
    await heard.wait_armed()
    await heard.link.stop()
    assert asyncio.all_tasks() == before
    assert not heard.link.armed.is_set()

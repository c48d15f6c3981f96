"""What an application itself keeps in its gateway's store: `App.redis`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from redis.exceptions import RedisError
from support.observed import descriptors
from support.redis_tls import TlsServer
from support.store_proxy import store_proxy
from support.valkey import ValkeyServer
from support.waiting import wait_until

from stickygw import App, OutsideGateway
from stickygw.apps.native import own_redis as own_redis_module
from stickygw.apps.native.own_redis import OwnRedis
from stickygw.testing import AppClient


async def test_what_is_kept_is_there_the_next_time_also_in_on_stop(valkey: ValkeyServer, prefix: str) -> None:
    app = App()

    @app.on_start
    async def count() -> None:
        await app.redis.incr(app.redis_key("starts"))

    @app.on_stop
    async def add_the_end() -> None:
        await app.redis.incrby(app.redis_key("starts"), 10)

    for expected in (b"1", b"12"):
        async with AppClient(app, redis_url=valkey.url, redis={"prefix": prefix}):
            assert app.redis_key("starts") == f"{prefix}:app:starts"
            assert await app.redis.get(app.redis_key("starts")) == expected
            assert await app.redis.keys(f"{prefix}:*") == [f"{prefix}:app:starts".encode()]


async def test_who_does_not_use_it_has_no_connection_and_who_did_has_none_left(
    valkey: ValkeyServer, prefix: str
) -> None:
    app = App()
    before = descriptors(os.getpid())
    async with AppClient(app, redis_url=valkey.url, redis={"prefix": prefix}):
        client = app.redis
        assert app.redis is client
        assert descriptors(os.getpid()) == before
        await asyncio.gather(*(client.ping() for _ in range(5)))
        assert descriptors(os.getpid()) > before
    await wait_until(lambda: descriptors(os.getpid()) == before)


async def test_without_a_store_the_error_names_what_has_one() -> None:
    app = App()
    async with AppClient(app):
        with pytest.raises(OutsideGateway, match=r"`stickygw\.testing\.gateway`, or .*redis_url="):
            _ = app.redis
        with pytest.raises(ValueError, match="at least one character"):
            app.redis_key("")
        assert app.redis_key("scores") == "stickygw:app:scores"  # which needs none


@pytest.mark.parametrize("options", ["", "?socket_timeout=600&socket_connect_timeout=600&retry_on_timeout=yes"])
async def test_a_store_that_does_not_answer_is_an_error_in_bounded_time_and_back_when_it_is(
    own_valkey: ValkeyServer, prefix: str, options: str
) -> None:
    store = OwnRedis(own_valkey.url + options, prefix=prefix, timeout=0.2)
    await store.client.set(store.key("a"), "1")
    own_valkey.pause()
    with pytest.raises(RedisError):
        await asyncio.wait_for(store.client.get(store.key("a")), 20)
    own_valkey.resume()
    assert await store.client.get(store.key("a")) == b"1"
    own_valkey.stop()
    with pytest.raises(RedisError):
        await store.client.get(store.key("a"))
    own_valkey.start()
    await store.client.set(store.key("a"), "2")
    await store.close()


async def test_the_first_command_after_a_restart_of_the_store_is_answered(valkey: ValkeyServer, prefix: str) -> None:
    async with store_proxy(valkey.url) as proxy:
        store, other = (OwnRedis(proxy.url, prefix=prefix, timeout=5) for _ in range(2))
        await store.client.set(store.key("a"), "1")
        await proxy.end_connections()
        await other.client.ping()  # meanwhile the event loop has heard of the end of the first one's connection
        assert await store.client.get(store.key("a")) == b"1"
        await store.close()
        await other.close()


async def test_what_was_perhaps_done_is_not_done_again(valkey: ValkeyServer, prefix: str) -> None:
    async with store_proxy(valkey.url) as proxy:
        store = OwnRedis(proxy.url, prefix=prefix, timeout=5)
        await store.client.set(store.key("score"), "0")
        proxy.loses_next_answer = True
        with pytest.raises(RedisError):
            await store.client.incr(store.key("score"))
        assert not proxy.loses_next_answer
        assert await store.client.get(store.key("score")) == b"1"
        await store.close()


async def test_the_connections_of_one_application_are_bounded(
    own_valkey: ValkeyServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_redis_module, "MAX_CONNECTIONS", 3)
    store = OwnRedis(own_valkey.url, prefix=prefix, timeout=10)
    await asyncio.gather(*(store.client.incr(store.key("all")) for _ in range(200)))
    assert await store.client.get(store.key("all")) == b"200"
    assert len(await store.client.client_list()) <= 3
    await store.close()


async def test_it_is_reached_as_the_gateway_s_store_is_by_tls_too(tmp_path: Path, prefix: str) -> None:
    server = TlsServer(tmp_path)
    try:
        server.admin.acl_setuser(
            "gw", enabled=True, passwords=["+sesame"], commands=["+@all"], keys=[f"{prefix}:*"], channels=["*"]
        )
        store = OwnRedis(server.url(user="gw:sesame"), prefix=prefix, timeout=5)
        await store.client.set(store.key("a"), "1")
        assert await store.client.get(store.key("a")) == b"1"
        with pytest.raises(RedisError, match="permission"):
            await store.client.set("elsewhere", "1")
        assert "sesame" not in repr(store.client)
        await store.close()
    finally:
        server.close()

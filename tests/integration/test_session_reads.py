"""What a handler reads of its session is in its worker's memory, and soon what somebody else has written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgpack
import pytest
from redis.asyncio import Redis
from support.client import Client
from support.gateway import Gateway
from support.logs import whole_log
from support.observed import quantile
from support.raw import get
from support.valkey import ValkeyServer
from support.waiting import wait_until

READING = f"{Path(__file__).parent / 'apps' / 'reading.py'}:app"
PREFIX = "reads"
READS, WRITES = 500, 200
SEEN_SECONDS = 2.0
"""So long a write of somebody else may stay unseen."""

BACKGROUND = {"PING"}
"""What the worker asks the server whatever its handlers do: each subscription whether it is there. Sessions in use are
touched as well, for the first time a minute after they were stored."""

KINDS = pytest.mark.parametrize("path", ["/async", "/plain", "/loop"])


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    server = ValkeyServer()
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="module")
def gateway(server: ValkeyServer) -> Iterator[Gateway]:
    options = ["--redis", server.url, "--set", f"redis.prefix={PREFIX}"]
    with Gateway(READING, *options, workers=2, environment={"STICKYGW_SECRET": "s" * 40}) as gateway:
        yield gateway
        assert "Traceback" not in whole_log(gateway)


@asynccontextmanager
async def commands_of(redis: Redis) -> AsyncIterator[list[str]]:
    """What the server is asked in this block, by anybody: it is in the list when the block has ended."""
    seen: list[str] = []
    async with redis.monitor() as monitor:

        async def take_until(mark: str) -> None:
            await redis.echo(mark)
            async with asyncio.timeout(10):
                while (command := str((await monitor.next_command())["command"])) != f"ECHO {mark}":
                    seen.append(command)

        await take_until("begin")  # what our own connections say of themselves
        seen.clear()
        yield seen
        await take_until("end")


async def settle(redis: Redis, client: Client) -> None:
    """Return when the worker has looked at what the client's arrival has written, its own write or touch."""

    async def is_quiet() -> bool:
        async with commands_of(redis) as seen:
            for _ in range(50):
                await client.ask()
        return names(seen) <= BACKGROUND

    await wait_until(is_quiet)


def names(commands: list[str]) -> set[str]:
    return {command.split()[0].upper() for command in commands}


@KINDS
async def test_a_handler_s_read_asks_the_server_nothing(server: ValkeyServer, gateway: Gateway, path: str) -> None:
    async with Redis.from_url(server.url) as redis, Client(gateway.ws_url + path) as client:
        assert await client.ask() == -1
        await settle(redis, client)
        async with commands_of(redis) as seen:
            for _ in range(READS):
                assert await client.ask() == -1
        assert names(seen) <= BACKGROUND, seen
        assert len(seen) < 50


async def test_a_request_s_read_asks_nothing_while_a_websocket_holds_the_session(
    server: ValkeyServer, gateway: Gateway
) -> None:
    async with Redis.from_url(server.url) as redis, Client(f"{gateway.ws_url}/async") as client:
        assert await client.ask() == -1
        await settle(redis, client)
        async with commands_of(redis) as seen:
            for _ in range(50):
                assert await read(gateway, client) == -1
        assert names(seen) <= BACKGROUND, seen


async def test_a_command_of_a_handler_would_have_been_counted(server: ValkeyServer, gateway: Gateway) -> None:
    async with Redis.from_url(server.url) as redis, Client(f"{gateway.ws_url}/async") as client:
        async with commands_of(redis) as seen:
            await client.send("write")
            assert await client.receive() == "write"
            assert await client.ask() == "write"  # after the first handler's write
        assert "EVALSHA" in names(seen)


@pytest.mark.parametrize("path", ["/async", "/plain", "/loop", "/read"])
async def test_a_write_from_outside_is_seen(server: ValkeyServer, gateway: Gateway, path: str) -> None:
    held = "/async" if path == "/read" else path
    took: list[float] = []
    async with Redis.from_url(server.url) as redis, Client(gateway.ws_url + held) as client:
        assert await client.ask() == -1
        assert client.cookie is not None
        key = f"{PREFIX}:session:{{{client.cookie.split('.')[2]}}}"
        for number in range(WRITES):
            assert await redis.hset(key, "x", msgpack.packb(number)) == 0, "it is the field that is there"
            began = time.monotonic()
            while (seen := await (read(gateway, client) if path == "/read" else client.ask())) != number:
                assert seen == number - 1
                assert time.monotonic() - began < SEEN_SECONDS
            took.append(time.monotonic() - began)
    p50, p99 = (quantile(took, share) * 1000 for share in (0.5, 0.99))
    print(f"{path}: {WRITES} writes from outside seen after {p50:.1f} ms (median), {p99:.1f} ms (p99)")
    assert max(took) <= SEEN_SECONDS


async def read(gateway: Gateway, client: Client) -> object:
    """What a request of the client's is told."""
    assert client.cookie is not None
    answer = await get(gateway.port, "/read", ("Cookie", client.cookie), ("Connection", "close"))
    assert answer.status == 200, answer
    return int(answer.body)

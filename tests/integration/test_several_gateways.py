"""Gateways that share a Redis: whose a thing is, where its clients are sent, and what the application keeps there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import msgpack
import pytest
from redis import Redis
from support.gateway import IN_TURNS, ROOT, Gateway
from support.logs import whole_log
from support.publishers import SECRET
from support.valkey import ValkeyServer
from support.waiting import wait_until
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidStatus

APP = f"{ROOT / 'tests' / 'integration' / 'apps' / 'owned.py'}:app"
ENVIRONMENT = {"STICKYGW_SECRET": SECRET}
KEY = ("--key", "path:/thing/{id}")
PREFIX = "games"
URLS = {"one": "https://one.example.com", "two": "https://two.example.com"}

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def store() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@pytest.fixture(scope="module")
def gateways(store: ValkeyServer) -> Iterator[dict[str, Gateway]]:
    with ExitStack() as stack:
        started = {
            name: stack.enter_context(
                Gateway(
                    APP,
                    *(*KEY, *IN_TURNS, "--redis", store.url),
                    *("--set", f"redis.prefix={PREFIX}", "--set", f"public_url={url}"),
                    environment=ENVIRONMENT,
                )
            )
            for name, url in URLS.items()
        }
        yield started
        for gateway in started.values():
            assert "Traceback" not in whole_log(gateway)


async def told(connection: ClientConnection) -> Any:
    async with asyncio.timeout(20):
        message = await connection.recv()
    assert isinstance(message, bytes)
    return msgpack.unpackb(message)


async def ask(connection: ClientConnection, message: Any) -> Any:
    await connection.send(msgpack.packb(message))
    return await told(connection)


async def minted(gateway: Gateway) -> str:
    async with gateway.connect("/thing/new") as connection:
        id: str = (await told(connection))["id"]
        return id


async def test_a_thing_is_served_by_the_gateway_that_minted_it_and_the_other_one_says_which(
    gateways: dict[str, Gateway],
) -> None:
    ids = {name: await minted(gateway) for name, gateway in gateways.items()}
    assert len({id.partition(".")[0] for id in ids.values()}) == 2
    for name, gateway in gateways.items():
        for owner, id in ids.items():
            if owner == name:
                slots = set()
                for _ in range(4):
                    async with gateway.connect(f"/thing/{id}") as connection:
                        slots.add((await told(connection))["slot"])
                assert len(slots) == 1
                continue
            with pytest.raises(InvalidStatus) as refused:
                async with gateway.connect(f"/thing/{id}"):
                    pass
            answer, elsewhere = refused.value.response, f"{URLS[owner]}/thing/{id}"
            assert (answer.status_code, answer.reason_phrase) == (421, "Misdirected Request")
            assert answer.headers["Location"] == elsewhere
            assert answer.body == f"{elsewhere}\n".encode()


async def test_a_thing_of_a_gateway_that_nobody_knows_is_not_found(gateways: dict[str, Gateway]) -> None:
    for id in ("ffffffff." + "a" * 22, "x"):
        with pytest.raises(InvalidStatus) as refused:
            async with gateways["one"].connect(f"/thing/{id}"):
                pass
        assert refused.value.response.status_code == 404


async def test_scores_are_shared_and_nobody_s_keys_are_in_the_way(
    gateways: dict[str, Gateway], store: ValkeyServer
) -> None:
    async with gateways["one"].connect("/thing/new") as one, gateways["two"].connect("/thing/new") as two:
        await told(one), await told(two)
        assert await ask(one, {"score": 7, "of": "ada"}) == [["ada", 7]]
        assert await ask(two, {"score": 9, "of": "bea"}) == [["bea", 9], ["ada", 7]]
        assert await ask(one, {"score": 3, "of": "bea"}) == [["bea", 9], ["ada", 7]]
    with Redis.from_url(store.url) as client:
        keys = {key.decode() for key in client.keys(f"{PREFIX}:app:*")}
        assert keys == {f"{PREFIX}:app:gateways", f"{PREFIX}:app:scores"}


async def test_ticks_reach_the_room_s_local_members_and_redis_hears_of_none(
    gateways: dict[str, Gateway], store: ValkeyServer
) -> None:
    def publishes() -> int:
        with Redis.from_url(store.url) as client:
            stats: dict[str, Any] = client.info("commandstats")
            return int(stats.get("cmdstat_publish", {}).get("calls", 0))

    async with gateways["one"].connect("/thing/new") as connection:
        await told(connection)
        before = publishes()
        await connection.send(msgpack.packb("watch"))
        ticks = [await told(connection) for _ in range(25)]
        assert len({tick["pid"] for tick in ticks}) == 1
        for last, tick in pairwise(ticks):
            assert tick["tick"] == last["tick"] + 1 + tick["skipped"]
        assert publishes() == before
        await connection.send(msgpack.packb({"tell": "everybody"}))
        while await told(connection) != "everybody":
            pass
        await wait_until(lambda: publishes() > before, seconds=20)


@pytest.mark.long
async def test_with_the_embedded_store_it_is_the_same_client() -> None:
    gateway = Gateway(APP, *KEY, workers=1)
    try:
        await asyncio.to_thread(gateway.start)
        async with gateway.connect("/thing/new") as connection:
            await told(connection)
            assert await ask(connection, {"score": 7, "of": "ada"}) == [["ada", 7]]
        assert await asyncio.to_thread(gateway.stop) == 0
        await asyncio.to_thread(gateway.start)
        async with gateway.connect("/thing/new") as connection:
            await told(connection)
            assert await ask(connection, {"score": 9, "of": "bea"}) == [["bea", 9], ["ada", 7]]
        assert "Traceback" not in whole_log(gateway)
    finally:
        await asyncio.to_thread(gateway.close)

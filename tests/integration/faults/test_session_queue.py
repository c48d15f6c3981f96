"""With ``store_down = "queue"`` what is written to sessions while the store is away is stored when it is back."""

import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.client import Client
from support.gateway import Gateway
from support.logs import whole_log
from support.raw import exchange, upgrade
from support.valkey import ValkeyServer
from support.waiting import wait_until

from stickygw.sessions.redis import RedisSessionStore
from stickygw.sessions.values import unpack

LOGINS = f"{Path(__file__).parents[1] / 'apps' / 'logins.py'}:app"
PREFIX = f"t{secrets.token_hex(4)}"


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    server = ValkeyServer(is_durable=True)
    server.start()
    yield server
    server.close()


@pytest.fixture
def gateway(server: ValkeyServer) -> Iterator[Gateway]:
    options = ["--redis", server.url, "--set", f"redis.prefix={PREFIX}", "--set", "session.store_down=queue"]
    with Gateway(LOGINS, *options, workers=1, environment={"STICKYGW_SECRET": "s" * 40}) as gateway:
        yield gateway
        assert "Traceback" not in whole_log(gateway)


async def stored(server: ValkeyServer) -> dict[str, dict[str, Any]]:
    """The fields of each session in the store, by its name."""
    store = RedisSessionStore.from_url(server.url, prefix=PREFIX, timeout=5.0)
    try:
        found = {}
        async for id in store.sessions():
            loaded = await store.load(id)
            assert loaded is not None
            fields = {field: unpack(field, value) for field, value in loaded.fields.items()}
            found[fields["name"]] = fields
        return found
    finally:
        await store.close()


async def test_what_is_written_while_the_store_is_away_is_stored_when_it_is_back(
    server: ValkeyServer, gateway: Gateway
) -> None:
    known, again, new, gone = (Client(f"{gateway.ws_url}/native") for _ in range(4))
    async with gone:
        await gone.ask(name="gone")

    async def has_left() -> bool:
        return "left" in (await stored(server))["gone"]

    await wait_until(has_left)  # what `on_disconnect` writes would keep it in memory, once the store is away
    async with known:
        await known.ask(name="known", number=0)
        server.stop()
        for number in range(1, 20):
            assert (await known.ask(number=number))["number"] == number
        # Who comes to what this worker has in memory sees it; of what it has not, nobody knows what is in it.
        again.cookie = known.cookie
        async with again:
            assert await again.ask(other=True) == {"slot": 0, "name": "known", "number": 19, "other": True}
        async with new:
            await new.ask(name="new")
        async with new:
            assert await new.ask() == {"slot": 0, "name": "new", "left": 1000}
        answer = await exchange(gateway.port, upgrade("/native", fields=[("Cookie", gone.cookie or "")]))
        assert answer.status == 503
        assert answer.get("Retry-After") is not None
        server.start()

        async def is_written_back() -> bool:
            return {"known", "new", "gone"} == (await stored(server)).keys() and (
                (await stored(server))["known"]["number"] == 19
            )

        started = time.monotonic()
        await wait_until(is_written_back, seconds=20)
        print(f"written back {time.monotonic() - started:.2f} s after the store is up")
        assert await stored(server) == {
            "known": {"name": "known", "number": 19, "other": True, "left": 1000},
            "new": {"name": "new", "left": 1000},
            "gone": {"name": "gone", "left": 1000},
        }
        assert (await known.ask(number=20))["number"] == 20
        assert (await stored(server))["known"]["number"] == 20
    async with gone:
        assert (await gone.ask())["name"] == "gone"


async def test_a_gateway_that_ends_while_the_store_is_away_says_what_is_lost(
    server: ValkeyServer, gateway: Gateway
) -> None:
    async with Client(f"{gateway.ws_url}/native") as client:
        server.stop()
        await client.ask(name="Ada")
        assert gateway.stop() == 0
    assert "changes of 1 session(s) are lost: the store was not back at the end" in gateway.log

"""One session on two workers: what is written on one is read on the other, and a logout closes it on both."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.client import DEADLINE, Client
from support.gateway import Gateway
from support.logs import whole_log
from support.raw import exchange, head
from support.waiting import wait_until
from websockets.exceptions import InvalidStatus

LOGINS = f"{Path(__file__).parent / 'apps' / 'logins.py'}:app"


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with Gateway(LOGINS, "--key", "query:k", "--first-visit", "round_robin", workers=2) as gateway:
        yield gateway
        assert "Traceback" not in whole_log(gateway)


@pytest.fixture
async def keys(gateway: Gateway) -> dict[int, str]:
    """A key for each slot."""
    found: dict[int, str] = {}
    for number in range(50):
        async with Client(f"{gateway.ws_url}/native?k={number}") as client:
            found.setdefault((await client.ask())["slot"], str(number))
        if len(found) == 2:
            return found
    raise AssertionError("50 keys lead to one slot")


@asynccontextmanager
async def both(gateway: Gateway, keys: dict[int, str], paths: tuple[str, str]) -> AsyncIterator[tuple[Client, Client]]:
    """Two WebSockets of one visitor, each on a worker of its own."""
    first = Client(f"{gateway.ws_url}{paths[0]}?k={keys[0]}")
    second = Client(f"{gateway.ws_url}{paths[1]}?k={keys[1]}")
    async with first:
        second.cookie = first.cookie
        if paths[0] == "/native":
            await first.ask(name="ada")
        async with second:
            yield first, second


async def post(gateway: Gateway, target: str, cookie: str | None) -> str:
    assert cookie is not None
    fields = [("Content-Length", "0"), ("Connection", "close"), ("Cookie", cookie)]
    answer = await exchange(gateway.port, head("POST", target, fields=fields))
    assert answer.status == 200, answer
    return answer.body.decode()


async def closed(client: Client) -> tuple[int, str, float]:
    """Code and reason of the close, and the seconds it took."""
    began = time.monotonic()
    async with asyncio.timeout(DEADLINE):
        await client.connection.wait_closed()
    assert client.connection.close_code is not None
    return client.connection.close_code, client.connection.close_reason or "", time.monotonic() - began


@pytest.mark.parametrize("path", ["/native", "/loop"])
async def test_a_handler_sees_what_another_worker_wrote(gateway: Gateway, keys: dict[int, str], path: str) -> None:
    async with both(gateway, keys, ("/native", path)) as (first, second):
        assert await second.ask() == {"slot": 1, "name": "ada"}
        for number in range(20):
            await first.ask(number=number)

            async def is_seen(number: int = number) -> bool:
                seen: dict[str, Any] = await second.ask()
                assert seen.get("number") in (None, number - 1, number)
                return bool(seen.get("number") == number)

            await wait_until(is_seen, seconds=2.0)


@pytest.mark.parametrize("path", ["/native", "/loop", "/quiet"])
async def test_a_logout_closes_the_session_s_websockets_on_both_workers(
    gateway: Gateway, keys: dict[int, str], path: str
) -> None:
    async with (
        both(gateway, keys, ("/native", path)) as (first, second),
        Client(f"{gateway.ws_url}/native?k={keys[1]}") as other,
    ):
        await other.ask(name="somebody else")
        assert await post(gateway, f"/logout?k={keys[0]}", first.cookie) == "0"
        ends = await asyncio.gather(closed(first), closed(second))
        assert [end[:2] for end in ends] == [(4401, "session ended")] * 2
        assert max(end[2] for end in ends) < 1.0
        assert (await other.ask())["name"] == "somebody else"
    # Who comes back with the old cookie is nobody we know; at once, it may get another by an answer that is under way.
    again = Client(f"{gateway.ws_url}/native?k={keys[1]}")
    again.cookie = first.cookie
    with pytest.raises(InvalidStatus) as refused:
        await again.open()
    assert refused.value.response.status_code == 409
    assert "Set-Cookie" not in refused.value.response.headers
    request = head("GET", f"/name?k={keys[0]}", fields=[("Cookie", first.cookie or ""), ("Connection", "close")])
    assert (await exchange(gateway.port, request)).body == b"None"


async def test_a_session_has_an_end_however_much_it_is_used(keys: dict[int, str]) -> None:
    with Gateway(LOGINS, "--set", "session.lifetime=2", workers=1) as gateway:
        async with Client(f"{gateway.ws_url}/native") as client, Client(f"{gateway.ws_url}/quiet") as quiet:
            await client.ask(name="ada")
            code, reason, _ = await closed(client)
            assert (code, reason) == (4401, "session ended")
            assert (await closed(quiet))[:2] == (4401, "session ended")

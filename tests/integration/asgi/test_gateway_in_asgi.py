"""An ASGI application uses the gateway that runs it: rooms are rooms across workers, a client has one session."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from support.client import DEADLINE
from support.gateway import IN_TURNS, Gateway
from support.raw import Answer, exchange, get, head

APP = f"{Path(__file__).parent / 'apps' / 'gateway_in_asgi.py'}:app"
WORKERS = 4


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with Gateway(APP, *IN_TURNS, workers=WORKERS) as gateway:
        yield gateway
        assert "Traceback" not in gateway.log


async def post(gateway: Gateway, target: str, *, body: str = "", cookie: str | None = None) -> Answer:
    fields = [("Content-Length", str(len(body))), ("Connection", "close")]
    if cookie is not None:
        fields.append(("Cookie", cookie))
    return await exchange(gateway.port, head("POST", target, fields=fields) + body.encode())


async def received(connection: Any) -> str:
    async with asyncio.timeout(DEADLINE):
        return str(await connection.recv())


async def test_a_room_reaches_its_members_on_all_workers(gateway: Gateway) -> None:
    async with AsyncExitStack() as stack:
        members = [await stack.enter_async_context(gateway.connect("/rooms/lobby")) for _ in range(2 * WORKERS)]
        slots = Counter([await received(member) for member in members])
        assert slots == {str(slot): 2 for slot in range(WORKERS)}
        await members[0].send("hello")
        assert [await received(member) for member in members] == ["hello"] * len(members)
        await members[0].send("others only")
        await members[0].send("to all")
        for member in members[1:]:
            assert [await received(member), await received(member)] == ["others only", "to all"]
        assert await received(members[0]) == "to all"


async def test_a_request_publishes_to_the_members_on_all_workers(gateway: Gateway) -> None:
    async with AsyncExitStack() as stack:
        members = [await stack.enter_async_context(gateway.connect("/rooms/news")) for _ in range(WORKERS)]
        for member in members:
            await received(member)
        slots = set()
        for number in range(WORKERS):
            slots.add((await post(gateway, "/publish/news", body=f"news {number}")).body)
            assert [await received(member) for member in members] == [f"news {number}"] * WORKERS
        assert len(slots) == WORKERS, "whichever worker the request came to"


async def test_http_and_websockets_of_a_client_have_one_session_and_it_is_told_once(gateway: Gateway) -> None:
    first = await post(gateway, "/name/ada")
    assert first.cookie is not None
    assert first.get("Cache-Control") == "private"
    facts = json.loads(first.body)
    assert facts == {"slot": facts["slot"], "name": "ada", "visits": 1}
    async with gateway.connect("/session", cookie=first.cookie) as one:
        assert gateway.cookie_of(one) is None
        assert json.loads(await received(one)) == {**facts, "visits": 2}
        again = await post(gateway, "/name/ada", cookie=first.cookie)
        assert (json.loads(again.body), again.cookie) == ({**facts, "visits": 3}, None)
        async with gateway.connect("/session", cookie=first.cookie) as other:
            assert json.loads(await received(other)) == {**facts, "visits": 4}


async def test_a_websocket_s_session_is_there_for_later_requests(gateway: Gateway) -> None:
    async with gateway.connect("/session") as connection:
        facts = json.loads(await received(connection))
        assert facts["visits"] == 1
        cookie = gateway.cookie_of(connection)
    assert cookie is not None
    answer = await post(gateway, "/name/bob", cookie=cookie)
    assert json.loads(answer.body) == {"slot": facts["slot"], "name": "bob", "visits": 2}


async def test_who_opens_no_session_gets_no_cookie(gateway: Gateway) -> None:
    assert (await post(gateway, "/publish/nobody")).cookie is None


async def test_a_plain_def_endpoint_is_told_that_it_runs_in_a_thread(gateway: Gateway) -> None:
    answer = await get(gateway.port, "/thread", ("Connection", "close"))
    assert b"make the endpoint `async def`" in answer.body

"""One session is written to by 50 requests and 20 WebSockets on four workers at once: nothing of it is lost."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from support.client import Client
from support.gateway import Gateway
from support.logs import whole_log
from support.raw import get
from support.waiting import wait_until

COUNTING = f"{Path(__file__).parent / 'apps' / 'counting.py'}:app"
WORKERS = 4
REQUESTS, WEBSOCKETS = 50, 20
SEEN_SECONDS = 2.0
"""So long a write on another worker may stay unseen."""


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    # Workers that share two cores with the clients queue for the store: what is shown is that nothing is lost, not how
    # soon it is there.
    options = ["--key", "query:spread", "--set", "redis.timeout=10"]
    with Gateway(COUNTING, *options, workers=WORKERS) as gateway:
        yield gateway
        assert "Traceback" not in whole_log(gateway)


async def by_request(gateway: Gateway, cookie: str, number: int, rounds: int) -> int:
    """All rounds in one request; the slot that served it."""
    target = f"/rounds?spread={number}&own=request{number}&rounds={rounds}"
    answer = await get(gateway.port, target, ("Cookie", cookie), ("Connection", "close"))
    assert answer.status == 200, answer
    return int(answer.body)


async def by_websocket(client: Client, number: int, rounds: int) -> int:
    """A message for each round; the slot that served them."""
    slots = set()
    for done in range(1, rounds + 1):
        await client.send(f"websocket{number}")
        seen = await client.receive()
        assert seen[f"websocket{number}"] == done, "its own writes a holder sees at once"
        slots.add(seen["slot"])
    [slot] = slots
    return int(slot)


@pytest.mark.parametrize("rounds", [15, pytest.param(100, marks=[pytest.mark.long, pytest.mark.alone])])
async def test_seventy_writers_of_one_session_on_four_workers_lose_nothing(gateway: Gateway, rounds: int) -> None:
    async with AsyncExitStack() as stack:
        clients = [Client(f"{gateway.ws_url}/?spread={number}") for number in range(WEBSOCKETS)]
        for client in clients:
            client.cookie = clients[0].cookie
            await stack.enter_async_context(client)
        cookie = clients[0].cookie
        assert cookie is not None
        assert {client.cookie for client in clients} == {cookie}

        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            requests = [group.create_task(by_request(gateway, cookie, number, rounds)) for number in range(REQUESTS)]
            websockets = [group.create_task(by_websocket(client, n, rounds)) for n, client in enumerate(clients)]
        print(f"{(REQUESTS + WEBSOCKETS) * rounds} rounds took {time.monotonic() - began:.1f} s")
        for tasks in (requests, websockets):
            assert {task.result() for task in tasks} == set(range(WORKERS)), "every worker served some"

        own = [f"request{n}" for n in range(REQUESTS)] + [f"websocket{n}" for n in range(WEBSOCKETS)]
        expected = dict.fromkeys(own, rounds) | {"shared": len(own) * rounds}

        # The copy that a WebSocket's worker holds, and what a request is given: on every worker, all of it.
        for number, client in enumerate(clients):
            copies: list[dict[str, Any]] = []

            async def sees_all(
                number: int = number, client: Client = client, copies: list[dict[str, Any]] = copies
            ) -> bool:
                await client.send("")
                held = await client.receive()
                given = await get(gateway.port, f"/fields?spread={number}", ("Cookie", cookie), ("Connection", "close"))
                copies[:] = [without_slot(held), without_slot(json.loads(given.body))]
                return copies == [expected] * 2

            with suppress(TimeoutError):  # what is missing says more
                await wait_until(sees_all, seconds=SEEN_SECONDS)
            assert copies == [expected] * 2


def without_slot(seen: dict[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in seen.items() if field != "slot"}

"""Messages between the workers of a real gateway."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from support.client import Client
from support.gateway import IN_TURNS, running_gateway
from support.waiting import wait_until

HEAVY = f"{Path(__file__).parent / 'apps' / 'heavy.py'}:app"


@asynccontextmanager
async def a_client_of_each_slot() -> AsyncIterator[dict[int, Client]]:
    async with (
        running_gateway(HEAVY, *IN_TURNS) as gateway,
        Client(gateway.ws_url) as one,
        Client(gateway.ws_url) as other,
    ):
        clients = {(await client.who())["slot"]: client for client in (one, other)}
        assert sorted(clients) == [0, 1]
        yield clients


async def test_workers_ask_each_other_and_themselves() -> None:
    async with a_client_of_each_slot() as clients:
        for to in (0, 1, "least_loaded"):
            answer = (await clients[0].ask(do="ask", to=to, payload=[to, None, "ä"]))["answer"]
            assert answer["payload"] == [to, None, "ä"]
            assert to in (answer["slot"], "least_loaded")
        assert await clients[0].ask(do="ask", to=2) == {"error": "'who': slot 2 has no worker that is ready"}


async def test_all_are_told_in_the_senders_order() -> None:
    async with a_client_of_each_slot() as clients:
        for number in range(500):
            await clients[0].send({"do": "tell", "to": "all", "payload": number})

        async def is_told(client: Client) -> bool:
            return bool(await client.ask(do="told") == list(range(500)))

        for client in clients.values():
            await wait_until(lambda client=client: is_told(client))


async def test_an_ask_fails_when_the_worker_dies() -> None:
    async with a_client_of_each_slot() as clients:
        pid = (await clients[1].who())["pid"]
        await clients[0].send({"do": "ask", "to": 1, "payload": "never"})
        await wait_until(lambda: has_been_asked(clients[1]))
        os.kill(pid, signal.SIGKILL)
        assert await clients[0].receive() == {"error": "'who': the worker of slot 1 ended before it answered"}


async def has_been_asked(client: Client) -> bool:
    return bool(await client.ask(do="asked"))

"""Messages to several rooms, to users, sessions and single connections: on all workers of all gateways at one store."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.client import DEADLINE, Client
from support.gateway import IN_TURNS, Gateway
from support.valkey import ValkeyServer

APP = f"{Path(__file__).parent / 'apps' / 'audience.py'}:app"
SECRET = {"STICKYGW_SECRET": "s" * 40}


def options(valkey: ValkeyServer, prefix: str) -> list[str]:
    return ["--redis", valkey.url, *IN_TURNS, "--set", f"redis.prefix={prefix}"]


class Crowd:
    """Clients on four workers: two of each of two gateways."""

    def __init__(self, clients: list[Client]) -> None:
        self.clients = clients

    async def heard(self, marker: str) -> list[list[Any]]:
        """What each has heard by now: up to a marker that is published in a room of all."""
        await self.clients[0].send({"do": "publish", "rooms": "all", "message": marker})

        async def up_to_marker(client: Client) -> list[Any]:
            messages = []
            while (message := await client.receive()) != marker:
                messages.append(message)
            return messages

        return await asyncio.gather(*map(up_to_marker, self.clients))


@pytest.fixture(scope="module")
def gateways(valkey: ValkeyServer) -> Iterator[list[Gateway]]:
    prefix = f"t{secrets.token_hex(4)}"
    with ExitStack() as stack:
        yield [
            stack.enter_context(Gateway(APP, *options(valkey, prefix), workers=2, environment=SECRET)) for _ in range(2)
        ]


@pytest.fixture
async def crowd(gateways: list[Gateway]) -> AsyncIterator[Crowd]:
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Client(gateway.ws_url)) for gateway in gateways for _ in range(2)]
        for pair in (clients[:2], clients[2:]):
            assert {(await client.ask(do="who"))["slot"] for client in pair} == {0, 1}
        for client in clients:
            await client.ask(do="join", rooms=["all"])
        yield Crowd(clients)


async def test_a_message_in_several_rooms_reaches_a_member_of_two_of_them_once(crowd: Crowd) -> None:
    rooms = [["a"], ["b"], ["a", "b"], ["a", "b", "c"]]
    for client, joined in zip(crowd.clients, rooms, strict=True):
        await client.ask(do="join", rooms=joined)
    for number in range(20):
        await crowd.clients[0].send({"do": "publish", "rooms": ["a", "b", "c"], "message": number})
    assert await crowd.heard("end") == [list(range(20))] * 4


async def test_a_user_s_connections_hear_what_is_sent_to_it_wherever_they_are(crowd: Crowd) -> None:
    for client, user in zip(crowd.clients, ["ada", "grace", "grace", "ada"], strict=True):
        assert await client.ask(do="identify", user=user) == {"user": user}
    await crowd.clients[1].send({"do": "to_user", "user": "ada", "message": "for ada"})
    assert [await client.receive() for client in (crowd.clients[0], crowd.clients[3])] == ["for ada"] * 2
    await crowd.clients[0].ask(do="identify", user=None)
    await crowd.clients[1].send({"do": "to_user", "user": "ada", "message": "for ada again"})
    assert await crowd.clients[3].receive() == "for ada again"
    assert await crowd.heard("end") == [[]] * 4


async def test_a_session_s_websockets_hear_what_is_sent_to_it_wherever_they_are(crowd: Crowd) -> None:
    session = (await crowd.clients[3].ask(do="who"))["session"]
    await crowd.clients[0].send({"do": "to_session", "session": session, "message": "for you"})
    assert await crowd.clients[3].receive() == "for you"
    assert await crowd.heard("end") == [[]] * 4


@pytest.mark.parametrize("by", ["session", "user", "connection"])
async def test_what_is_disconnected_is_closed_on_another_gateway_and_nobody_else_is(crowd: Crowd, by: str) -> None:
    target = crowd.clients[3]
    await target.ask(do="identify", user="ada")
    who = await target.ask(do="who")
    name = who["id"] if by == "connection" else who[by]
    await crowd.clients[0].send({"do": "disconnect", by: name, "code": 4000, "reason": "go away"})
    async with asyncio.timeout(DEADLINE):
        await target.connection.wait_closed()
    assert (target.connection.close_code, target.connection.close_reason) == (4000, "go away")
    crowd.clients.remove(target)
    assert await crowd.heard("end") == [[]] * 3


async def test_a_room_s_local_members_are_those_of_this_worker(crowd: Crowd) -> None:
    for client in crowd.clients:
        who = await client.ask(do="who")
        assert await client.ask(do="local", room="all") == {"members": [who["id"]]}


async def test_gateways_with_different_secrets_do_not_hear_each_other_and_say_so(
    valkey: ValkeyServer, prefix: str
) -> None:
    other = {"STICKYGW_SECRET": "o" * 40}
    with (
        Gateway(APP, *options(valkey, prefix), workers=1, environment=SECRET) as here,
        Gateway(APP, *options(valkey, prefix), workers=1, environment=other) as there,
    ):
        async with Client(here.ws_url) as ours, Client(there.ws_url) as theirs:
            for client in (ours, theirs):
                await client.ask(do="join", rooms=["r"])
            for number in range(5):
                await theirs.send({"do": "publish", "rooms": "r", "message": number})
            assert [await theirs.receive() for _ in range(5)] == list(range(5))
            assert await asyncio.to_thread(here.wait_for_line, "with another secret")
            await ours.send({"do": "publish", "rooms": "r", "message": secrets.token_hex(2)})
            await ours.receive()
            assert here.log.count("with another secret") == 1


async def test_the_death_of_one_gateway_is_noticed_by_nobody_on_the_other(
    gateways: list[Gateway], crowd: Crowd
) -> None:
    speaker, *listeners = crowd.clients
    for client in listeners:
        await client.ask(do="join", rooms=["r", "gaps"])
    for number in range(50):
        await speaker.send({"do": "publish", "rooms": "r", "message": number})
    for client in listeners:
        assert [await client.receive() for _ in range(50)] == list(range(50))
    listener = listeners[0]
    for slot in (0, 1):
        gateways[1].kill_worker(slot)
    for number in range(50, 100):
        await speaker.send({"do": "publish", "rooms": "r", "message": number})
    assert [await listener.receive() for _ in range(50)] == list(range(50, 100))
    assert (await listener.ask(do="who"))["slot"] in (0, 1)

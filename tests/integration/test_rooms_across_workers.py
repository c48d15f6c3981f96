"""A room is one room, whichever workers its members are on."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from support.client import DEADLINE, Client, gather_bounded
from support.gateway import IN_TURNS, Gateway

PROBE = f"{Path(__file__).parent / 'apps' / 'probe.py'}:app"
MEMBERS, PUBLISHERS = 100, 5


async def collected(client: Client, count: int) -> list[list[int]]:
    return [await client.receive() for _ in range(count)]


@pytest.mark.parametrize("messages", [50, pytest.param(200, marks=[pytest.mark.long, pytest.mark.alone])])
async def test_every_member_gets_each_message_once_and_each_publishers_in_order(messages: int) -> None:
    """`messages`: of each publisher."""
    with Gateway(PROBE, workers=4) as gateway:
        members = [Client(gateway.ws_url) for _ in range(MEMBERS)]
        publishers = [Client(gateway.ws_url) for _ in range(PUBLISHERS)]
        await gather_bounded(20, *(client.open() for client in [*members, *publishers]))
        slots = Counter([(await client.who())["slot"] for client in members])
        assert len(slots) == 4, "members on every worker, or the test shows nothing"
        for client in members:
            assert await client.ask(do="join", room="lobby") == {"joined": "lobby"}

        async def publish(number: int) -> None:
            for sequence in range(messages):
                await publishers[number].send({"do": "publish", "room": "lobby", "message": [number, sequence]})

        collectors = [asyncio.create_task(collected(client, PUBLISHERS * messages)) for client in members]
        await asyncio.gather(*(publish(number) for number in range(PUBLISHERS)))
        received = await asyncio.gather(*collectors)
        # Nothing more comes: a marker published last is the next thing that each member gets.
        await publishers[0].send({"do": "publish", "room": "lobby", "message": "end"})
        ends = await asyncio.gather(*(client.receive() for client in members))
        await gather_bounded(20, *(client.close() for client in [*members, *publishers]))
    assert ends == ["end"] * MEMBERS
    for came in received:
        for number in range(PUBLISHERS):
            assert [sequence for sender, sequence in came if sender == number] == list(range(messages))


async def test_who_has_left_gets_nothing_more() -> None:
    with Gateway(PROBE, workers=2) as gateway:
        async with Client(gateway.ws_url) as leaver, Client(gateway.ws_url) as stayer:
            for client in (leaver, stayer):
                await client.ask(do="join", room="r")
            assert await leaver.ask(do="leave", room="r") == {"left": "r"}
            await leaver.send({"do": "publish", "room": "r", "message": "after"})
            assert await stayer.receive() == "after"
            assert await leaver.ask(echo="only this") == {"echo": "only this"}


async def test_a_room_that_two_clients_on_two_workers_share_survives_one_of_them() -> None:
    with Gateway(PROBE, *IN_TURNS, workers=2) as gateway:
        async with Client(gateway.ws_url) as first:
            async with Client(gateway.ws_url) as second:
                assert (await first.who())["slot"] != (await second.who())["slot"]
                for client in (first, second):
                    await client.ask(do="join", room="r")
                await second.send({"do": "publish", "room": "r", "message": "hello"})
                assert [await first.receive(), await second.receive()] == ["hello", "hello"]
            await first.send({"do": "publish", "room": "r", "message": "alone"})
            async with asyncio.timeout(DEADLINE):
                assert await first.receive() == "alone"

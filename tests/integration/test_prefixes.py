"""Gateways with one secret at one store, told apart by `redis.prefix` alone: nothing of one is anything to another."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.client import DEADLINE, Client
from support.gateway import IN_TURNS, Gateway
from support.publishers import SECRET
from support.valkey import ValkeyServer

from stickygw.bridge.addresses import DIRECT, channel_of, user_address
from stickygw.errors import ExitCode
from stickygw.publisher import AsyncPublisher, Publisher
from stickygw.types import PREFIX_PATTERN

APP = f"{Path(__file__).parent / 'apps' / 'audience.py'}:app"
ENVIRONMENT = {"STICKYGW_SECRET": SECRET}
PROBE = f"{Path(__file__).parent / 'apps' / 'probe.py'}:app"
ENDINGS = ("", "b")
"""What the prefixes end with: the one is the beginning of the other."""

ROOMS = ["all", "room", "room:all", "b:room:all", ":room:all", "user:ada"]


def options(valkey: ValkeyServer, prefix: str) -> list[str]:
    return ["--redis", valkey.url, *IN_TURNS, "--set", f"redis.prefix={prefix}"]


class Place:
    """A gateway and its clients, who have the same names and rooms everywhere: one on each of its two workers, and a
    twin, who has the session of the first of another place."""

    def __init__(self, gateway: Gateway, prefix: str) -> None:
        self.gateway = gateway
        self.prefix = prefix
        self.clients: list[Client] = []

    async def enter(self, stack: AsyncExitStack, cookie: str | None = None) -> Client:
        """A client, with the session that `cookie` tells."""
        client = Client(self.gateway.ws_url)
        client.cookie = cookie
        self.clients.append(await stack.enter_async_context(client))
        await client.ask(do="join", rooms=ROOMS)
        await client.ask(do="identify", user="ada")
        return client

    async def heard(self) -> list[list[Any]]:
        """What each has heard by now: what the store had before is in front of the marker from the other worker."""
        marker = secrets.token_hex(4)
        for client in self.clients[:2]:
            await client.send({"do": "publish", "rooms": "all", "message": marker})

        async def up_to_markers(client: Client) -> list[Any]:
            messages = [await client.receive()]
            while messages.count(marker) < 2:
                messages.append(await client.receive())
            return [message for message in messages if message != marker]

        return await asyncio.gather(*map(up_to_markers, self.clients))


@pytest.fixture(scope="module")
def gateways(valkey: ValkeyServer) -> Iterator[list[tuple[Gateway, str]]]:
    common = f"t{secrets.token_hex(4)}"
    with ExitStack() as stack:
        prefixes = [common + ending for ending in ENDINGS]
        yield [
            (stack.enter_context(Gateway(APP, *options(valkey, prefix), environment=ENVIRONMENT)), prefix)
            for prefix in prefixes
        ]


@pytest.fixture
async def places(gateways: list[tuple[Gateway, str]]) -> AsyncIterator[list[Place]]:
    async with AsyncExitStack() as stack:
        places = [Place(gateway, prefix) for gateway, prefix in gateways]
        for place in places:
            slots = [(await (await place.enter(stack)).ask(do="who"))["slot"] for _ in range(2)]
            assert sorted(slots) == [0, 1]
        for place, other in (places, places[::-1]):
            original = other.clients[0]
            twin = await place.enter(stack, original.cookie)
            assert (await twin.ask(do="who"))["session"] == (await original.ask(do="who"))["session"]
        yield places


@pytest.mark.parametrize("speaker", range(len(ENDINGS)))
async def test_what_a_client_says_is_heard_under_its_own_prefix_alone(places: list[Place], speaker: int) -> None:
    place, other = places[speaker], places[1 - speaker]
    first, second = place.clients[:2]
    session = (await first.ask(do="who"))["session"]
    await second.send({"do": "publish", "rooms": ROOMS, "message": "rooms"})
    await second.send({"do": "to_user", "user": "ada", "message": "user"})
    await second.send({"do": "to_session", "session": session, "message": "session"})
    assert await place.heard() == [["rooms", "user", "session"], ["rooms", "user"], ["rooms", "user"]]
    assert await other.heard() == [[], [], []]


@pytest.mark.parametrize("speaker", range(len(ENDINGS)))
async def test_what_a_publisher_sends_is_heard_under_its_own_prefix_alone(
    valkey: ValkeyServer, places: list[Place], speaker: int
) -> None:
    place, other = places[speaker], places[1 - speaker]
    session = (await place.clients[0].ask(do="who"))["session"]
    async with AsyncPublisher(valkey.url, secret=SECRET, prefix=place.prefix, codec="json", timeout=10) as publisher:
        await publisher.publish(ROOMS, "rooms")
        await publisher.send_to_user("ada", "user")
        await publisher.send_to_session(session, "session")
    assert await place.heard() == [["rooms", "user", "session"], ["rooms", "user"], ["rooms", "user"]]
    assert await other.heard() == [[], [], []]


@pytest.mark.parametrize("by", ["session", "user", "connection"])
async def test_who_is_disconnected_at_one_gateway_stays_at_the_others(places: list[Place], by: str) -> None:
    place, other = places
    target, witness, twin = place.clients
    who = await target.ask(do="who")
    name = who["id"] if by == "connection" else who[by]
    await witness.send({"do": "disconnect", by: name, "code": 4000, "reason": "go away"})
    for client in [target, witness, twin] if by == "user" else [target]:
        async with asyncio.timeout(DEADLINE):
            await client.connection.wait_closed()
        assert client.connection.close_code == 4000
    assert await other.heard() == [[], [], []]


async def test_one_cookie_is_a_session_of_its_own_at_each_gateway(valkey: ValkeyServer, prefix: str) -> None:
    with (
        Gateway(PROBE, *options(valkey, prefix), workers=1, environment=ENVIRONMENT) as here,
        Gateway(PROBE, *options(valkey, prefix + "b"), workers=1, environment=ENVIRONMENT) as there,
    ):
        theirs = Client(there.ws_url)
        async with Client(here.ws_url) as ours:
            theirs.cookie = ours.cookie
            async with theirs:
                await ours.ask(do="set", field="name", value="ours")
                session = (await ours.who())["session"]
                who = await theirs.who()
                assert (who["session"], who["fields"]) == (session, {"visits": 1})
                killed = await asyncio.to_thread(here.command, "sessions", "kill", session)
                assert killed.returncode == 0, killed.stderr
                async with asyncio.timeout(DEADLINE):
                    await ours.connection.wait_closed()
                assert ours.connection.close_code == 4401
                await theirs.ask(do="set", field="name", value="theirs")
                assert (await theirs.who())["fields"] == {"visits": 1, "name": "theirs"}


@given(
    prefix=st.from_regex(PREFIX_PATTERN, fullmatch=True),
    address=st.just(DIRECT) | st.sampled_from(ROOMS) | st.sampled_from(ROOMS).map(user_address),
)
def test_a_channel_begins_with_its_prefix_and_a_colon_that_no_prefix_has(prefix: str, address: str) -> None:
    assert channel_of(prefix, address).partition(b":")[0] == prefix.encode()


@pytest.mark.parametrize("wrong", ["a:room", "a:user", "a*", "a b", "", "a\n", "a" * 65])
def test_a_publisher_has_no_prefix_that_no_gateway_can_have(wrong: str) -> None:
    for kind in (Publisher, AsyncPublisher):
        with pytest.raises(ValueError, match="a prefix is text that matches"):
            kind("redis://127.0.0.1:1/0", secret=SECRET, prefix=wrong)


def test_a_gateway_does_not_start_with_a_prefix_that_reaches_into_another_s_rooms(valkey: ValkeyServer) -> None:
    gateway = Gateway(APP, *options(valkey, "a:room"), environment=ENVIRONMENT)
    try:
        gateway.launch()
        assert gateway.wait() == ExitCode.SETTINGS
        assert gateway.wait_for_line("redis.prefix")
    finally:
        gateway.close()

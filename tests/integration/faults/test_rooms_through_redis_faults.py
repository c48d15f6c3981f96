"""Valkey fails in five ways while 200 clients publish: nothing comes twice or out of order, and each loss is told."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest
from redis.asyncio import Redis
from support.client import DEADLINE, Client
from support.gateway import IN_TURNS, Gateway
from support.observed import quantile
from support.room_crowd import Crowd
from support.valkey import ValkeyServer

APP = f"{Path(__file__).parents[1] / 'apps' / 'gapped.py'}:app"

CLIENTS, ROOMS = 200, 20
QUIET = 8
"""In so many of the rooms everybody falls silent for good, one room after the other: no later message shows a loss."""

ECHO_P99_SECONDS = 1.0
BACK_AFTER_RESTART_SECONDS = 3.0
BACK_AFTER_PAUSE_SECONDS = 5.0
"""Promised. A pause between two attempts to connect, 2 s at most, and the attempt itself."""

HUSH_SECONDS = 0.2
SHORT_PAUSE_SECONDS = 1.5
"""Longer than a publisher waits for an answer, shorter than a subscriber needs to notice: 2 s at least."""

REFUSED_SECONDS = 0.3
"""Shorter than what passes from a loss until the last number is told."""


class Echoes:
    """A client for each worker that is in no room, and how long its messages take there and back."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.seconds: list[float] = []

    @contextlib.asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            clients: dict[int, Client] = {}
            async with asyncio.timeout(DEADLINE):
                while len(clients) < 2:
                    client = await stack.enter_async_context(Client(self._url))
                    clients[await client.receive()] = client
            tasks = [asyncio.create_task(self._echo(client)) for client in clients.values()]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                ends = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends

    async def _echo(self, client: Client) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            began = clock()
            assert await client.ask(began=began) == {"began": began}
            self.seconds.append(clock() - began)
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def crowd_over(server: ValkeyServer) -> AsyncIterator[Crowd]:
    """A crowd that publishes; the fault is to happen inside, and to be over, and what must be true then is asserted."""
    options = ["--redis", server.url, "--set", f"redis.prefix=t{secrets.token_hex(4)}"]
    options += [*IN_TURNS]
    options += ["--set", "ping_interval=120"]  # no ping comes between the messages
    with Gateway(APP, *options, workers=2, environment={"STICKYGW_SECRET": "s" * 40}) as gateway:
        pids = gateway.pid, gateway.worker_pids()
        echoes = Echoes(f"{gateway.ws_url}/echo")
        async with Crowd(gateway.port, size=CLIENTS, rooms=ROOMS) as crowd:
            async with echoes.going_on():
                await crowd.wait_crossed()
                yield crowd
                await crowd.publish_last()
                await crowd.wait_told()
            assert_honest(crowd)
            assert not any(member.is_lost for member in crowd.members)
        assert (gateway.pid, gateway.worker_pids()) == pids, "no process ended for it"
        assert "Traceback" not in gateway.log
    p99 = quantile(echoes.seconds, 0.99)
    print(f"{len(echoes.seconds)} echoes, p99 {p99 * 1000:.1f} ms, the slowest {max(echoes.seconds) * 1000:.1f} ms")
    assert p99 < ECHO_P99_SECONDS


def assert_honest(crowd: Crowd) -> None:
    """Nothing came twice or out of order, nothing on the sender's own worker was lost, and each loss was told."""
    missed = crowd.missed()
    kinds = Counter("at the end" if one.next_at is None else "in between" for one in missed)
    gaps = sum(len(member.gaps) for member in crowd.members)
    print(f"{sum(member.sent for member in crowd.members)} published, gaps in what came: {dict(kinds)}; {gaps} told")
    assert not [(member, member.repeated) for member in crowd.members if member.repeated]
    assert not [one for one in missed if one.receiver.slot == one.sender.slot]
    assert not crowd.untold()
    assert missed, "something was lost, or the test shows nothing"


@contextlib.asynccontextmanager
async def falling_silent(crowd: Crowd, rooms: Iterable[str]) -> AsyncIterator[None]:
    """One of `rooms` falls silent after the other; on leaving the context all are."""

    async def hush() -> None:
        for room in rooms:
            await asyncio.sleep(HUSH_SECONDS)
            crowd.hush([room])

    async with asyncio.TaskGroup() as group:
        group.create_task(hush())
        yield


async def seconds_until_back(crowd: Crowd) -> float:
    """How long it takes from now until messages cross in every room, in both directions."""
    clock = asyncio.get_running_loop().time
    began = clock()
    await crowd.wait_crossed()
    return clock() - began


@pytest.mark.long
@pytest.mark.alone
async def test_when_the_store_is_killed_and_restarted_each_loss_is_told_and_rooms_are_whole_soon(
    own_valkey: ValkeyServer,
) -> None:
    async with crowd_over(own_valkey) as crowd:
        own_valkey.stop()
        async with falling_silent(crowd, crowd.rooms[:2]):
            await asyncio.sleep(1.0)
        await asyncio.to_thread(own_valkey.start)
        async with falling_silent(crowd, crowd.rooms[2:QUIET]):
            back = await seconds_until_back(crowd)
    print(f"killed: bridged {back:.2f} s after it answers again")
    assert back <= BACK_AFTER_RESTART_SECONDS


@pytest.mark.long
@pytest.mark.alone
async def test_when_the_store_is_stopped_for_5_s_each_loss_is_told_and_rooms_are_whole_soon(
    own_valkey: ValkeyServer,
) -> None:
    async with crowd_over(own_valkey) as crowd:
        own_valkey.pause()
        async with falling_silent(crowd, crowd.rooms[:2]):
            await asyncio.sleep(5.0)
        own_valkey.resume()
        async with falling_silent(crowd, crowd.rooms[2:QUIET]):
            back = await seconds_until_back(crowd)
    print(f"paused: bridged {back:.2f} s after it goes on")
    assert back <= BACK_AFTER_PAUSE_SECONDS


@pytest.mark.long
@pytest.mark.alone
async def test_what_is_lost_where_only_senders_noticed_is_told_by_their_last_numbers(own_valkey: ValkeyServer) -> None:
    """Stopped too shortly for a subscriber to reconnect: in a room that falls silent nothing else shows the loss."""
    async with crowd_over(own_valkey) as crowd:
        own_valkey.pause()
        await asyncio.sleep(SHORT_PAUSE_SECONDS)
        crowd.hush(crowd.rooms[:QUIET])
        own_valkey.resume()
        await crowd.wait_crossed()


@pytest.mark.long
@pytest.mark.alone
async def test_what_is_lost_where_no_sender_noticed_is_told_when_receivers_are_back(own_valkey: ValkeyServer) -> None:
    """The store ends the subscribers' connections and lets no other begin, while it goes on to take messages."""
    async with crowd_over(own_valkey) as crowd, Redis.from_url(own_valkey.url) as redis:
        await redis.execute_command("ACL", "SETUSER", "default", "-subscribe")
        await redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        await asyncio.sleep(0.5)
        crowd.hush(crowd.rooms[:QUIET])
        await crowd.wait_published()
        await redis.execute_command("ACL", "SETUSER", "default", "+subscribe")
        await crowd.wait_crossed()


async def test_what_the_store_refuses_for_a_moment_is_told_with_the_next_message(own_valkey: ValkeyServer) -> None:
    """No connection ends, and the last number comes too late to tell more than the next message does."""
    async with crowd_over(own_valkey) as crowd, Redis.from_url(own_valkey.url) as redis:
        await redis.execute_command("ACL", "SETUSER", "default", "-publish")
        await asyncio.sleep(REFUSED_SECONDS)
        await redis.execute_command("ACL", "SETUSER", "default", "+publish")
        await crowd.wait_crossed()

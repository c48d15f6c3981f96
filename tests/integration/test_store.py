"""What happens to sessions and rooms when the store is killed, paused or started again."""

import asyncio
import os
import secrets
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.client import Client, gather_bounded
from support.gateway import IN_TURNS, Gateway
from support.logs import whole_log
from support.raw import Raw, exchange, upgrade
from support.valkey import ValkeyServer
from support.waiting import wait_until

PROBE = f"{Path(__file__).parent / 'apps' / 'probe.py'}:app"


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with Gateway(PROBE, *IN_TURNS, workers=2) as gateway:
        yield gateway
        assert "Traceback" not in whole_log(gateway)


@asynccontextmanager
async def three(gateway: Gateway) -> AsyncIterator[tuple[str, Client, Client, Client]]:
    """A room, two members on one worker and one on the other."""
    room = secrets.token_hex(4)
    clients = [Client(gateway.ws_url) for _ in range(3)]
    await gather_bounded(1, *(client.open() for client in clients))
    try:
        slots = [(await client.who())["slot"] for client in clients]
        assert slots[0] == slots[2] != slots[1]
        for client in clients:
            await client.ask(do="join", room=room)
        yield room, clients[0], clients[2], clients[1]
    finally:
        await gather_bounded(3, *(client.close() for client in clients))


async def bridged(room: str, publisher: Client, local: Client, remote: Client) -> list[Any]:
    """Publish until a message arrives at the other worker; what its member got on the way."""
    number = 0
    got: list[Any] = []
    last = f"last {secrets.token_hex(4)}"

    async def listen() -> None:
        while not got or not str(got[-1]).startswith(last):
            got.append(await remote.receive())

    listening = asyncio.create_task(listen())
    async with asyncio.timeout(20):
        while not listening.done():
            message = f"{last} {number}"
            await publisher.send({"do": "publish", "room": room, "message": message})
            assert await publisher.receive() == message  # the local ones always get it
            assert await local.receive() == message
            number += 1
            await asyncio.wait([listening], timeout=0.05)
    await listening
    return got


def paused(pid: int | None) -> bool:
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state == "T"


# Killed


async def test_a_killed_store_comes_back_with_its_sessions_and_the_rooms_go_on(gateway: Gateway) -> None:
    visitor = Client(gateway.ws_url)
    async with visitor, three(gateway) as (room, publisher, local, remote):
        await visitor.ask(do="set", field="name", value="Ada")
        before = await visitor.who()
        old_pid = gateway.valkey_pid()
        assert old_pid is not None
        os.kill(old_pid, signal.SIGKILL)
        killed_at = time.monotonic()
        # Nobody is disconnected, and members of one worker hear each other at once.
        await publisher.send({"do": "publish", "room": room, "message": "while it is away"})
        assert [await publisher.receive(), await local.receive()] == ["while it is away"] * 2
        await wait_until(lambda: gateway.valkey_pid() not in (None, old_pid), seconds=20)
        got = await bridged(room, publisher, local, remote)
        print(f"the bridge was back {time.monotonic() - killed_at:.2f} s after the store was killed")
        assert len(got) == len(set(got)), "a message came twice"
        assert (await visitor.who())["pid"] == before["pid"]
    again = Client(gateway.ws_url)
    again.cookie = visitor.cookie
    async with again:
        after = await again.who()
    assert (after["slot"], after["session"]) == (before["slot"], before["session"])
    assert after["fields"] == {"visits": 2, "name": "Ada"}
    assert "the embedded Valkey died" in gateway.log


# Paused


async def test_while_the_store_is_paused_rooms_work_locally_and_known_sessions_get_503(gateway: Gateway) -> None:
    visitor = Client(gateway.ws_url)
    async with visitor:
        before = await visitor.who()
    pid = gateway.valkey_pid()
    assert pid is not None
    async with three(gateway) as (room, publisher, local, remote):
        os.kill(pid, signal.SIGSTOP)
        try:
            await wait_until(lambda: paused(pid))
            await publisher.send({"do": "publish", "room": room, "message": "local"})
            assert [await publisher.receive(), await local.receive()] == ["local", "local"]
            # A known session can't be read: it is said within the store's time limit, not guessed.
            started = time.monotonic()
            assert visitor.cookie is not None
            answer = await exchange(gateway.port, upgrade(fields=[("Cookie", visitor.cookie)]))
            took = time.monotonic() - started
            assert answer.status == 503
            assert answer.get("Retry-After") is not None
            assert answer.cookie is None
            assert took < 3
            # Whoever is connected is served meanwhile, as is a page's health check.
            started = time.monotonic()
            assert await local.ask(echo=1) == {"echo": 1}
            assert time.monotonic() - started < 1
        finally:
            os.kill(pid, signal.SIGCONT)
        got = await bridged(room, publisher, local, remote)
        assert len(got) == len(set(got)), "a message came twice"
    async with visitor:
        after = await visitor.who()
    assert after["session"] == before["session"]
    assert after["fields"] == {"visits": 2}


async def test_a_new_visitor_is_let_in_while_the_store_is_paused(gateway: Gateway) -> None:
    pid = gateway.valkey_pid()
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        await wait_until(lambda: paused(pid))
        async with Raw(gateway.port) as raw:
            started = time.monotonic()
            await raw.send(upgrade())
            answer = await raw.opened()  # nothing needs to be read for it
            assert time.monotonic() - started < 3
            assert answer.cookie is not None
    finally:
        os.kill(pid, signal.SIGCONT)
    async with Client(gateway.ws_url) as client:
        await client.who()


# Started again


async def test_sessions_slots_and_cookies_survive_a_restart_of_the_gateway(gateway: Gateway) -> None:
    visitors = [Client(gateway.ws_url) for _ in range(6)]
    before = []
    for number, visitor in enumerate(visitors):
        async with visitor:
            await visitor.ask(do="set", field="number", value=number)
            before.append(await visitor.who())
    log = await asyncio.to_thread(whole_log, gateway)
    expected = ("the embedded Valkey died", "a handler raised", "its session was not written")
    errors = [line for line in log.splitlines() if " ERROR " in line]
    assert [line for line in errors if not any(text in line for text in expected)] == []
    await asyncio.to_thread(gateway.start)
    for number, visitor in enumerate(visitors):
        async with visitor:
            after = await visitor.who()
        assert (after["slot"], after["session"]) == (before[number]["slot"], before[number]["session"])
        assert after["fields"] == {"visits": 2, "number": number}
        assert visitor.cookies_set == 1


async def test_sessions_survive_the_whole_gateways_sudden_death(gateway: Gateway) -> None:
    visitor = Client(gateway.ws_url)
    async with visitor:
        before = await visitor.who()
    for pid in (gateway.pid, gateway.valkey_pid(), *gateway.worker_pids().values()):
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    await asyncio.to_thread(gateway.wait)
    await asyncio.to_thread(gateway.wait_for_line, "\0")  # the end of its log
    await asyncio.to_thread(gateway.start)
    async with visitor:
        after = await visitor.who()
    assert (after["slot"], after["session"]) == (before["slot"], before["session"])
    assert after["fields"] == {"visits": 2}


# Somebody else's store


async def test_two_gateways_at_one_store_share_sessions_and_rooms(valkey: ValkeyServer, prefix: str) -> None:
    secret = {"STICKYGW_SECRET": secrets.token_urlsafe(48)}
    options = ["--redis", valkey.url, "--set", f"redis.prefix={prefix}"]
    with (
        Gateway(PROBE, *options, workers=1, environment=secret) as one,
        Gateway(PROBE, *options, workers=1, environment=secret) as other,
    ):
        assert one.valkey_pid() is None
        here, there = Client(one.ws_url), Client(other.ws_url)
        async with here:
            await here.ask(do="set", field="name", value="Ada")
            there.cookie = here.cookie
            async with there:
                guest = await there.who()
                assert guest["session"] == (await here.who())["session"]
                assert guest["fields"] == {"visits": 2, "name": "Ada"}
                assert there.cookies_set == 0  # the hint is the first gateway's
                for client in (here, there):
                    await client.ask(do="join", room="r")
                await here.send({"do": "publish", "room": "r", "message": "to both"})
                assert [await here.receive(), await there.receive()] == ["to both", "to both"]
        for gateway in (one, other):
            log = await asyncio.to_thread(whole_log, gateway)
            assert "Traceback" not in log
            assert secret["STICKYGW_SECRET"] not in log

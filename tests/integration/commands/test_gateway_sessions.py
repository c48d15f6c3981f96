"""``stickygw sessions …`` on a real gateway: who is connected where, and the end of a session."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.client import DEADLINE, Client
from support.gateway import ECHO, Gateway
from support.logs import whole_log
from support.many_sessions import fill
from support.valkey import ValkeyServer
from support.waiting import wait_until

from stickygw.errors import ExitCode
from stickygw.sessions.redis import RedisSessionStore

LOGINS = f"{Path(__file__).parents[1] / 'apps' / 'logins.py'}:app"

SESSIONS = 100_000
MAX_MORE_BYTES = 16 << 20
"""What the command may take beyond what it takes for 1,000 sessions."""

TELL_PEAK = """
import atexit, sys

def tell():
    with open("/proc/self/status") as file:
        print(*(line for line in file if line.startswith("VmHWM")), file=sys.stderr)

atexit.register(tell)
from stickygw.cli.main import main
main()
"""


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with Gateway(LOGINS, "--key", "query:k", "--first-visit", "round_robin", workers=2) as gateway:
        yield gateway
        assert "Traceback" not in whole_log(gateway)


async def command(gateway: Gateway, *arguments: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(gateway.command, "sessions", *arguments)


async def listed(gateway: Gateway) -> list[dict[str, Any]]:
    done = await command(gateway, "list", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


async def in_use(gateway: Gateway) -> list[dict[str, Any]]:
    """Those that have a WebSocket."""
    return [session for session in await listed(gateway) if session["connections"]]


@asynccontextmanager
async def one_visitor_on_both_slots(gateway: Gateway) -> AsyncIterator[list[Client]]:
    """Two WebSockets of the same session. Sessions that nobody uses any more are left behind."""
    clients: dict[int, Client] = {}
    cookie = None
    async with AsyncExitStack() as stack:
        for number in range(50):
            client = Client(f"{gateway.ws_url}/native?k={number}")
            client.cookie = cookie
            await stack.enter_async_context(client)
            slot = (await client.ask(name="ada"))["slot"]
            cookie = cookie or client.cookie
            if clients.setdefault(slot, client) is not client:
                await client.close()
            if len(clients) == 2:
                yield list(clients.values())
                return
    raise AssertionError("50 keys lead to one slot")


async def test_a_session_is_listed_with_its_websockets_on_each_slot_and_killed_on_all(gateway: Gateway) -> None:
    async with one_visitor_on_both_slots(gateway) as clients:

        async def is_on_both() -> bool:  # those that were closed on the way here are gone soon
            return [session["connections"] for session in await in_use(gateway)] == [{"0": 1, "1": 1}]

        await wait_until(is_on_both, seconds=DEADLINE)
        [session] = await in_use(gateway)
        stored = len(await listed(gateway))
        counted = json.loads((await command(gateway, "--json")).stdout)
        assert counted == {"stored": stored, "in_use": {"0": 1, "1": 1}}
        shown = json.loads((await command(gateway, "show", session["id"], "--json")).stdout)
        assert shown["values"]["name"] == "ada"
        killed = await command(gateway, "kill", session["id"])
        assert killed.stdout == f"{session['id']}: ended\n"
        for client in clients:
            async with asyncio.timeout(DEADLINE):
                await client.connection.wait_closed()
            assert client.connection.close_code == 4401
        assert len(await listed(gateway)) == stored - 1
    assert (await command(gateway, "kill", session["id"])).returncode == ExitCode.COMMAND
    assert session["id"] not in whole_log(gateway)


@pytest.mark.alone
@pytest.mark.long
async def test_a_list_of_100_000_sessions_takes_no_more_memory_than_a_short_one(own_valkey: ValkeyServer) -> None:
    secret = "x" * 32
    options = ["--set", f"redis.url={own_valkey.url}", "--set", f"secret={secret}"]
    store = RedisSessionStore.from_url(own_valkey.url, prefix="stickygw", timeout=30.0)
    with Gateway(ECHO, *options, workers=2) as gateway:
        await fill(store, 1_000)
        short, short_peak = await asyncio.to_thread(peak_of_list, gateway)
        await fill(store, SESSIONS)
        long, long_peak = await asyncio.to_thread(peak_of_list, gateway)
    await store.close()
    print(f"peak of 1,000 sessions: {short_peak >> 10} KiB; of {SESSIONS:,}: {long_peak >> 10} KiB")
    assert short == 1_000
    assert long == SESSIONS
    assert long_peak - short_peak < MAX_MORE_BYTES


def peak_of_list(gateway: Gateway) -> tuple[int, int]:
    """How many different sessions ``sessions list --json`` tells of, and the most memory that it had."""
    command = [sys.executable, "-c", TELL_PEAK, "sessions", "list", "--json", "--runtime-dir", str(gateway.runtime_dir)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    name, amount, unit = done.stderr.split()
    assert (name, unit) == ("VmHWM:", "kB")
    return len({session["id"] for session in json.loads(done.stdout)}), int(amount) << 10

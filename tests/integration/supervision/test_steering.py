"""What an operator is told of a running gateway, and what it does when it is told something."""

from __future__ import annotations

import asyncio
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.client import Client
from support.commands import environment
from support.gateway import Gateway
from support.terminal import Terminal
from support.waiting import wait_until

from stickygw.errors import ExitCode

STEERED = f"{Path(__file__).parents[1] / 'apps' / 'steered.py'}:app"
SECONDS = 20.0
LEFT = "\x1b[?1049l"
"""Back from the alternate screen (xterm's DECRST 1049)."""


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    options = ["--key", "header:X-Room", "--key", "cookie", "--first-visit", "round_robin"]
    with Gateway(STEERED, *options, workers=2) as gateway:
        yield gateway


async def run(gateway: Gateway, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(gateway.command, *arguments, stdin=stdin)


async def output(gateway: Gateway, *arguments: str, stdin: str = "") -> str:
    """What a command that goes well prints."""
    done = await run(gateway, *arguments, stdin=stdin)
    assert done.returncode == ExitCode.OK, done.stderr
    return done.stdout


async def status(gateway: Gateway) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await output(gateway, "status", "--json"))
    return found


@asynccontextmanager
async def a_client_of_each_slot(gateway: Gateway) -> AsyncIterator[list[Client]]:
    async with AsyncExitStack() as opened:
        found: dict[int, Client] = {}

        async def are_found() -> bool:
            """A worker whose loop was late just now gets no first visits."""
            client = await opened.enter_async_context(Client(gateway.ws_url))
            found[(await client.who())["slot"]] = client
            return len(found) == 2

        await wait_until(are_found, seconds=SECONDS)
        yield [found[0], found[1]]


# Messages


async def test_what_is_told_reaches_the_handlers_of_all_workers_or_of_one(gateway: Gateway) -> None:
    async with a_client_of_each_slot(gateway) as clients:
        assert await output(gateway, "tell", "news", '{"rate": 1.5, "to": "ä"}') == "told 2 workers\n"
        assert await output(gateway, "tell", "news", "[]", "--to", "1") == "told 1 worker\n"

        async def have_heard() -> bool:
            heard = [await client.ask(do="told") for client in clients]
            return bool(heard == [[{"rate": 1.5, "to": "ä"}], [{"rate": 1.5, "to": "ä"}, []]])

        await wait_until(have_heard)


async def test_what_is_asked_is_answered_by_each_worker(gateway: Gateway) -> None:
    answers = await output(gateway, "tell", "who", "7", "--ask")
    assert answers == 'slot 0: {"slot": 0, "payload": 7}\nslot 1: {"slot": 1, "payload": 7}\n'
    failed = await run(gateway, "tell", "who", '"raise"', "--ask", "--to", "0")
    assert (failed.returncode, failed.stdout) == (ExitCode.COMMAND, "")
    assert failed.stderr == "error: slot 0: 'who': the handler raised RuntimeError\n"
    assert "RuntimeError: on purpose" in gateway.log


async def test_a_worker_asks_another(gateway: Gateway) -> None:
    async with a_client_of_each_slot(gateway) as clients:
        for slot, client in enumerate(clients):
            answer = await client.ask(do="ask", slot=1 - slot, payload=[slot])
            assert answer == {"slot": 1 - slot, "payload": [slot]}


# Figures


async def test_the_figures_follow_what_happens(gateway: Gateway) -> None:
    async with a_client_of_each_slot(gateway) as clients:
        before = (await status(gateway))["workers"]
        pids = {(await client.who())["slot"]: (await client.who())["pid"] for client in clients}
        assert [(worker["slot"], worker["pid"]) for worker in before] == sorted(pids.items())
        for _ in range(20):
            await clients[0].who()

        async def have_moved() -> bool:
            moved = [
                after["received"] - worker["received"]
                for worker, after in zip(before, (await status(gateway))["workers"], strict=True)
            ]
            return moved[0] >= 22 and 2 <= moved[1] < 20  # the two before may not have been told of yet

        await wait_until(have_moved, seconds=SECONDS)
        here = await status(gateway)
        assert here["connections"] == sum(worker["connections"] for worker in here["workers"]) >= 2
        assert all(worker["served"] >= 1 and worker["rss"] > 10 << 20 for worker in here["workers"])
        assert (here["state"], here["slots"], here["pid"]) == ("running", 2, gateway.pid)
        assert here["counters"]["hand_overs{taken}"] >= 2

    async def are_gone() -> bool:
        return bool((await status(gateway))["connections"] == 0)

    await wait_until(are_gone, seconds=SECONDS)


async def test_what_an_application_reports_shows_beside_its_slot(gateway: Gateway) -> None:
    async with a_client_of_each_slot(gateway) as clients:
        await clients[1].ask(do="report", values={"games": 17, "map": "\x1b[31mred"})

        async def is_shown() -> bool:
            return "slot 1: games=17 map=\\x1b[31mred\n" in await output(gateway, "status")

        await wait_until(is_shown, seconds=SECONDS)
        reports = {worker["slot"]: worker["report"] for worker in (await status(gateway))["workers"]}
        assert reports == {0: {}, 1: {"games": 17, "map": "\x1b[31mred"}}
        await clients[1].ask(do="report", values={"games": None, "map": None})


# Why


async def explained(gateway: Gateway, *arguments: str, stdin: str = "") -> tuple[int | None, str, str]:
    """The slot where a client belongs, the reason, and what happens there."""
    found = json.loads(await output(gateway, "why", "--json", *arguments, stdin=stdin))
    return found["slot"], found["reason"], found["steps"][-1]


async def test_why_names_the_slot_that_the_client_then_gets(gateway: Gateway) -> None:
    async with a_client_of_each_slot(gateway) as clients:
        for slot, client in enumerate(clients):
            assert client.cookie is not None
            told = await explained(gateway, "--cookie", "-", stdin=f"Cookie: {client.cookie}")
            assert told == (slot, "cookie", f"it goes to slot {slot} (cookie)")
            async with Client(gateway.ws_url, headers={"Cookie": client.cookie}) as tab:
                assert (await tab.who())["slot"] == slot
        for room in ("kitchen", "attic", "cellar"):
            belongs, reason, then = await explained(gateway, "--key", room)
            assert (reason, then) == ("key_hash", f"it goes to slot {belongs} (key_hash)")
            async with Client(gateway.ws_url, headers={"X-Room": room}) as client:
                assert (await client.who())["slot"] == belongs
                assert (await explained(gateway, "--key", room))[:2] == (belongs, "key_table")


async def test_why_says_who_stands_in_for_a_slot_that_is_drained(gateway: Gateway) -> None:
    async with a_client_of_each_slot(gateway) as clients:
        cookie = clients[1].cookie
    assert cookie is not None
    assert await output(gateway, "drain", "1") == "slot 1 is drained\n"
    try:
        then = (await explained(gateway, "--cookie", "-", stdin=cookie))[2]
        assert then == "it does not wait there, and goes to slot 0 (runner_up)"
        async with Client(gateway.ws_url, headers={"Cookie": cookie}) as tab:
            assert (await tab.who())["slot"] == 0
            assert tab.cookie is None, "it will be back"
    finally:
        assert await output(gateway, "restart", "1") == "slot 1 has a fresh worker\n"
    assert (await explained(gateway, "--cookie", "-", stdin=cookie))[2] == "it goes to slot 1 (cookie)"


# Top


async def test_top_shows_reloads_and_gives_the_terminal_back(gateway: Gateway) -> None:
    top = shlex.join([sys.executable, "-m", "stickygw.cli", "top", "--runtime-dir", str(gateway.runtime_dir)])
    script = f"{top}; code=$?; stty -a; echo code=$code"
    generation = (await status(gateway))["generation"]
    pids = gateway.worker_pids()
    with tempfile.TemporaryDirectory(prefix="top-") as folder:
        mark = Path(folder).name
        command = f"sh -c {shlex.quote(script)}"
        with Terminal(command, cwd=Path(folder), environment=environment(Path(folder)), mark=mark) as terminal:

            async def sees(pattern: str) -> None:
                await asyncio.to_thread(terminal.wait_for, pattern, SECONDS)

            for pid in pids.values():
                await sees(rf"ready\S* +\S* +{generation} +{pid} ")
            terminal.type(b"r")
            await sees(f"reload: generation {generation + 1} runs in 2 slots")
            assert not set(gateway.worker_pids().values()) & set(pids.values())
            terminal.type(b"q")
            assert await asyncio.to_thread(terminal.wait, SECONDS) == ExitCode.OK
    before, left, after = terminal.shown.rpartition(LEFT)
    assert before
    assert left
    assert "code=0\n" in after
    assert {"icanon", "echo", "isig"} <= set(after.replace(";", "").split())

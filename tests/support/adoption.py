"""Gateways whose primary is killed and started again, while their workers serve on."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from stickygw.testing.processes import command_line, processes
from support.client import gather_bounded
from support.gateway import ROOT, Gateway
from support.moving_clients import Rider
from support.steering import status
from support.waiting import wait_until

MOVING_FILE = ROOT / "tests" / "integration" / "apps" / "moving.py"
MOVING = f"{MOVING_FILE}:app"
ADOPTING = "still serve: adopting them"
ADOPTED = "adopted worker slot="


def kill_primary(gateway: Gateway) -> None:
    """As the kernel does when memory is short. Workers and Valkey live on."""
    os.kill(gateway.pid, signal.SIGKILL)
    assert gateway.wait() == -signal.SIGKILL


async def start_again(
    gateway: Gateway,
    *more: str,
    target: str | None = None,
    workers: int | None = None,
) -> None:
    """The next primary, with options of its own; ready when this returns."""
    change(gateway, *more, target=target, workers=workers)
    await asyncio.to_thread(gateway.start)


def change(gateway: Gateway, *more: str, target: str | None = None, workers: int | None = None) -> None:
    """What the next primary is started with."""
    gateway._options += more
    gateway._target = target or gateway._target
    gateway._workers = workers or gateway._workers


async def kill_at(gateway: Gateway, text: str) -> None:
    """Start a primary, and kill it as soon as its log has a line with `text`."""
    gateway.launch()
    assert await asyncio.to_thread(gateway.wait_for_line, text), gateway.log
    kill_primary(gateway)


@asynccontextmanager
async def riders_at(gateway: Gateway, count: int, *, path: str = "/in/r{}") -> AsyncIterator[list[Rider]]:
    """So many clients, each alone in its room; `path` gets its number."""
    riders = [Rider(index, f"r{index}", path=path.format(index)) for index in range(count)]
    try:
        await gather_bounded(20, *(rider.connect(gateway.port) for rider in riders))
        yield riders
    finally:
        for rider in riders:
            rider.abort()


async def assert_all_echo(riders: Iterable[Rider], *, seconds: float = 20.0) -> None:
    """Each gets one echo more, and has missed nothing until then."""
    riders = list(riders)
    for rider in riders:
        rider.echo()
    await wait_until(
        lambda: faults(riders) or all(rider.echoes_got == rider.echoes_sent for rider in riders), seconds=seconds
    )
    assert faults(riders) == []


def faults(riders: Iterable[Rider]) -> list[str]:
    """Whatever was lost, doubled, out of order or closed."""
    found = [f"{rider}: {fault}" for rider in riders for fault in rider.faults]
    return found + [f"{rider}: closed, {rider.close_code}" for rider in riders if rider.ended.done()]


async def assert_logged(gateway: Gateway, text: str) -> None:
    """The log has, or will have soon, a line with `text`."""
    assert await asyncio.to_thread(gateway.wait_for_line, text), gateway.log


async def owners(gateway: Gateway) -> dict[int, int]:
    """The process id of each slot's owner."""
    return {worker["slot"]: worker["pid"] for worker in (await status(gateway))["workers"] if worker["is_owner"]}


async def settled(gateway: Gateway) -> int:
    """Return when nothing is under way, and one worker is in each slot, all of one generation; which that is."""
    found: list[int] = []

    async def is_settled() -> bool:
        facts = await status(gateway)
        found[:] = {worker["generation"] for worker in facts["workers"]}
        slots = [worker["slot"] for worker in facts["workers"] if worker["is_owner"]]
        is_one_each = slots == list(range(facts["slots"])) and len(facts["workers"]) == len(slots)
        return facts["state"] == "running" and is_one_each and len(found) == 1

    await wait_until(is_settled, seconds=40)
    return found[0]


async def slot_states(gateway: Gateway) -> dict[int, str]:
    """What the status says of each slot."""
    facts: dict[str, Any] = await status(gateway)
    return {slot["slot"]: slot["state"] for slot in facts["slots_detail"]}


async def newcomers_slot(gateway: Gateway, path: str, *, cookie: str | None = None) -> int:
    """Where a client who comes now is served."""
    rider = Rider(999, "newcomers", path=path, cookie=cookie)
    try:
        await rider.connect(gateway.port)
        return rider.slot
    finally:
        rider.abort()


def count_of_valkeys(gateway: Gateway) -> int:
    """How many embedded ones run."""
    return sum(any("valkey-server" in word for word in command_line(pid)[:1]) for pid in processes(gateway._mark))


def children(pid: int) -> dict[int, tuple[str, str]]:
    """State and command line of each child of a process, zombies included."""
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            fields = (folder / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        if int(fields[1]) == pid:
            found[int(folder.name)] = fields[0], " ".join(command_line(int(folder.name)))
    return found

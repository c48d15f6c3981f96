"""Workers that have grown, or have served enough, are replaced one after the other, and no client is without one."""

from __future__ import annotations

import asyncio
import os
import re
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.client import Client
from support.gateway import ROOT, Gateway
from support.waiting import wait_until
from websockets.exceptions import ConnectionClosed

from stickygw.config.places import CONTROL_SOCKET
from stickygw.ipc.control_client import ControlClient

LEAK = f"{ROOT / 'examples' / 'memory_leak' / 'app.py'}:app"
OPTIONS = ("--first-visit", "round_robin", "--set", "slot_wait=20")
"""Nobody who waits for a slot is sent elsewhere, however long a worker starts on a busy machine."""
MAX_SERVED = 30
GROWTH = 1.25
"""`max_rss` is so many times what a fresh worker has."""
KIB, EVERY = 64, 0.1
"""What a client that stays makes its worker keep, and how often (seconds). 8 of them are 2.5 MiB/s in each of two
workers, which so double in some 20 s."""
STAYING, RETURNING = 8, 4


def status(gateway: Gateway) -> dict[str, Any]:
    with ControlClient(gateway.runtime_dir / CONTROL_SOCKET) as control:
        return control.request("status")


@pytest.fixture(scope="module")
def counting() -> Iterator[Gateway]:
    with Gateway(LEAK, "--set", f"max_served={MAX_SERVED}", *OPTIONS, workers=2) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def fresh_rss(counting: Gateway) -> int:
    """What a worker of this application has, on this machine, when it has just started."""
    return max(rss_of(pid) for pid in counting.worker_pids().values())


def rss_of(pid: int) -> int:
    """Resident bytes; 0 of a process that is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (FileNotFoundError, ProcessLookupError):
        return 0


@dataclass
class Witness:
    """What clients, each with a cookie, and somebody who looks see of a gateway.

    A client fails as soon as it is served by another slot, or by none, and one that stays as soon as it is closed; who
    looks, when a slot has no ready worker.
    """

    gateway: Gateway
    slots: dict[Client, int] = field(default_factory=dict)
    pids: defaultdict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    """Of the workers that answered, by slot."""
    met: defaultdict[Client, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Of the workers that answered a client, one after the other."""
    closes: Counter[int] = field(default_factory=Counter)
    """Of those that come again."""
    largest: int = 0
    """RSS of any worker at any time."""
    looks: int = 0

    async def ask(self, client: Client, kib: int) -> None:
        await client.send(kib)
        answer = await client.receive()
        assert answer["slot"] == self.slots.setdefault(client, answer["slot"])
        self.pids[answer["slot"]].add(answer["pid"])
        if self.met[client][-1:] != [answer["pid"]]:
            self.met[client].append(answer["pid"])

    async def stay(self, client: Client, kib: int) -> None:
        """Talk, on one connection all the time."""
        while True:
            await self.ask(client, kib)
            await asyncio.sleep(EVERY)

    async def come_again(self, client: Client) -> None:
        """One short visit after the other."""
        while True:
            with self._counted():
                await self.ask(client, 0)
                await client.close()
            await client.open()

    async def look(self) -> None:
        """At the status, again and again."""
        while True:
            facts = await asyncio.to_thread(status, self.gateway)
            assert [slot["state"] for slot in facts["slots_detail"]] == ["ready", "ready"]
            workers = Counter(worker["slot"] for worker in facts["workers"])
            assert sum(count > 1 for count in workers.values()) <= 1, "two slots are at it at once"
            self.largest = max(self.largest, *(rss_of(worker["pid"]) for worker in facts["workers"]))
            self.looks += 1
            await asyncio.sleep(0.05)

    async def wait_moved(self) -> None:
        """Until those who stay have all been answered by the next worker of their slot."""

        def have_moved() -> bool:
            return all(len(pids) >= 2 for pids in (*self.pids.values(), *list(self.met.values())[:STAYING]))

        await wait_until(have_moved)
        assert all(len(set(pids)) == len(pids) for pids in self.met.values()), "nobody was taken back"

    @contextmanager
    def _counted(self) -> Iterator[None]:
        try:
            yield
        except ConnectionClosed as closed:
            self.closes[closed.rcvd.code if closed.rcvd is not None else 1006] += 1


@asynccontextmanager
async def busy(gateway: Gateway, *, kib: int) -> AsyncIterator[Witness]:
    """Clients that stay and talk, clients that come again and again, and who looks on, until the context ends."""
    witness = Witness(gateway)
    clients = [Client(gateway.ws_url) for _ in range(STAYING + RETURNING)]
    for client in clients:
        await client.open()
        await witness.ask(client, 0)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(witness.stay(client, kib)) for client in clients[:STAYING]]
        tasks += [group.create_task(witness.come_again(client)) for client in clients[STAYING:]]
        tasks.append(group.create_task(witness.look()))
        yield witness
        for task in tasks:
            task.cancel()
    for client in clients:
        await client.close()
        assert client.cookies_set == 1, "nobody was given another slot"


def recycled(gateway: Gateway) -> list[tuple[str, int]]:
    """The slots that began and ended to be recycled, in order."""
    found = re.findall(
        r": (worker recycled slot=|slot )(\d+)(?: is recycled(?:$|;)|: it has )", gateway.log, re.MULTILINE
    )
    return [("begins" if what.startswith("worker") else "ends", int(slot)) for what, slot in found]


async def wait_recycled(gateway: Gateway) -> None:
    """Until each slot has had its turn. One follows the other, however close their limits were."""
    await wait_until(lambda: {slot for what, slot in recycled(gateway) if what == "ends"} == {0, 1}, seconds=60)


def assert_one_after_the_other(gateway: Gateway) -> None:
    steps = recycled(gateway)
    for (begins, slot), end in zip(steps[::2], steps[1::2], strict=False):
        assert (begins, end) == ("begins", ("ends", slot)), steps


async def test_a_command_makes_the_leak_grow_and_the_status_shows_it(counting: Gateway) -> None:
    done = await asyncio.to_thread(counting.command, "tell", "keep", "100")
    assert done.stdout == "told 2 workers\n", done.stderr

    async def is_shown() -> bool:
        workers = (await asyncio.to_thread(status, counting))["workers"]
        return [worker["report"] for worker in workers] == [{"kept": "100 KiB"}] * 2

    await wait_until(is_shown)


@pytest.mark.long
async def test_at_max_served_a_worker_is_replaced_and_nobody_waits_in_vain(counting: Gateway) -> None:
    async with busy(counting, kib=0) as witness:
        await wait_recycled(counting)
        await witness.wait_moved()
    assert set(witness.closes) <= {1012}
    assert witness.looks > 5
    assert_one_after_the_other(counting)
    served = [int(count) for count in re.findall(r"it has served (\d+) connections \(max_served\)", counting.log)]
    assert min(served) >= MAX_SERVED * 0.9


@pytest.mark.alone
@pytest.mark.long
async def test_a_leak_is_recycled_at_max_rss_before_the_worker_has_doubled(fresh_rss: int) -> None:
    max_rss = int(fresh_rss * GROWTH)
    with Gateway(LEAK, "--set", f"max_rss={max_rss}", *OPTIONS, workers=2) as gateway:
        async with busy(gateway, kib=KIB) as witness:
            await wait_recycled(gateway)
            await witness.wait_moved()
        assert_one_after_the_other(gateway)
        sizes = [int(size) for size in re.findall(r"it has (\d+) MiB of memory \(max_rss\)", gateway.log)]
    print(f"fresh {fresh_rss >> 20} MiB, limit {max_rss >> 20}, recycled at {sizes}, largest {witness.largest >> 20}")
    assert min(sizes) >= max_rss * 0.9 // (1 << 20)
    assert max_rss * 0.9 < witness.largest < 2 * fresh_rss
    assert set(witness.closes) <= {1012}

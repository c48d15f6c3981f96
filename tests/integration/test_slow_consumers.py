"""A member that never reads costs its worker a bounded amount of memory, and the other members next to nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.client import DEADLINE
from support.gateway import IN_TURNS, Gateway
from support.raw import Raw, frame, upgrade
from support.waiting import wait_until
from websockets.asyncio.client import connect
from websockets.frames import Opcode

FLOOD = f"{Path(__file__).parent / 'apps' / 'flood.py'}:app"
STAMP = struct.Struct("!dI")
FRAME_BYTES = 4 + 1024
"""One message on the wire: a header of 4 bytes, for no mask and a length of 16 bits."""

OPTIONS = [*IN_TURNS, "--set", "ping_interval=120"]
"""No ping comes between the messages, and none has to be answered."""

A_SECOND = 10_000
COUNT = 100_000
BEFORE = 20_000
MOST_GROWTH = 16 << 20
READERS = 2


@contextlib.asynccontextmanager
async def member(gateway: Gateway, room: str, slot: int) -> AsyncIterator[Raw]:
    """A member of `room` on `slot`: the cookieless first visits go round."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(4):
            raw = await stack.enter_async_context(Raw(gateway.port))
            await raw.send(upgrade(f"/in/{room}"))
            await raw.opened()
            hello = await raw.next_frame()
            assert hello is not None
            if bytes(hello.data) == b"slot %d" % slot:
                yield raw
                return
            await raw.send(frame(b"\x03\xe8", Opcode.CLOSE))
        raise AssertionError(f"no first visit went to slot {slot}")


async def flood(publisher: Raw, room: str, count: int) -> None:
    await publisher.send(frame(f"flood {room} {count} {A_SECOND}".encode()))
    told = b""
    while told != b"%d" % count:
        answer = await publisher.next_frame()
        assert answer is not None
        told = bytes(answer.data)


async def delays(reader: Raw, count: int) -> list[float]:
    """Read `count` messages, which come in order and none twice; how late each was, in seconds, sorted."""
    loop, found, rest, expected = asyncio.get_running_loop(), [], b"", 0
    while len(found) < count:
        rest += await reader.receive(1 << 18)
        now = loop.time()
        whole = len(rest) - len(rest) % FRAME_BYTES
        for start in range(0, whole, FRAME_BYTES):
            published_at, number = STAMP.unpack_from(rest, start + 4)
            assert number == expected
            expected += 1
            found.append(now - published_at)
        rest = rest[whole:]
    return sorted(found)


def p99(sorted_delays: list[float]) -> float:
    return sorted_delays[len(sorted_delays) * 99 // 100]


class Memory:
    """The most resident bytes that each worker had, beyond what it had at first."""

    def __init__(self, gateway: Gateway) -> None:
        self._first = {pid: resident(pid) for pid in gateway.worker_pids().values()}
        self.growth = 0

    async def watch(self) -> None:
        while True:
            self.growth = max(self.growth, *(resident(pid) - first for pid, first in self._first.items()))
            await asyncio.sleep(0.05)


def resident(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


@contextlib.asynccontextmanager
async def watched(gateway: Gateway) -> AsyncIterator[Memory]:
    memory = Memory(gateway)
    watching = asyncio.create_task(memory.watch())
    try:
        yield memory
    finally:
        watching.cancel()


@pytest.mark.long
@pytest.mark.alone
@pytest.mark.parametrize("slot", [0, 1], ids=["on the publisher's worker", "on another worker"])
async def test_a_member_that_never_reads_is_closed_and_hurts_neither_memory_nor_the_others(slot: int) -> None:
    async with contextlib.AsyncExitStack() as stack:
        gateway = stack.enter_context(Gateway(FLOOD, *OPTIONS, workers=2))
        publisher = await stack.enter_async_context(member(gateway, "control", 0))
        ends = await stack.enter_async_context(member(gateway, "ends", 0))
        readers = [await stack.enter_async_context(member(gateway, "r", slot)) for _ in range(READERS)]
        quiet = await asyncio.gather(*(delays(r, COUNT) for r in readers), flood(publisher, "r", COUNT))
        await stack.enter_async_context(member(gateway, "r", slot))  # which reads nothing from here on
        async with watched(gateway) as memory:
            late = await asyncio.gather(*(delays(r, COUNT) for r in readers), flood(publisher, "r", COUNT))
        told = []
        while b"r 1013 slow consumer" not in told:
            end = await ends.next_frame()
            assert end is not None
            told.append(bytes(end.data))
    before, during = max(p99(found) for found in quiet[:-1]), max(p99(found) for found in late[:-1])
    print(
        f"p99 {before * 1000:.2f} ms before, {during * 1000:.2f} ms with it; RSS grew {memory.growth / 2**20:.1f} MiB"
    )
    assert memory.growth <= MOST_GROWTH
    assert during <= 10 * before


async def test_where_rooms_drop_the_member_stays_and_gets_what_came_last() -> None:
    async with contextlib.AsyncExitStack() as stack:
        gateway = stack.enter_context(Gateway(FLOOD, *OPTIONS, "--set", "outbox_seconds=0.5", workers=2))
        publisher = await stack.enter_async_context(member(gateway, "control", 0))
        reader = await stack.enter_async_context(member(gateway, "drop:r", 1))
        slow = await stack.enter_async_context(member(gateway, "drop:r", 1))
        async with watched(gateway) as memory:
            await asyncio.gather(delays(reader, BEFORE), flood(publisher, "drop:r", BEFORE))
        numbers: list[int] = []
        while not numbers or numbers[-1] < BEFORE - 1:
            data = await slow.next_frame()
            assert data is not None
            numbers.append(STAMP.unpack_from(bytes(data.data))[1])

        async def is_counted() -> bool:
            status = await asyncio.to_thread(gateway.command, "status", "--json")
            return json.loads(status.stdout)["counters"].get("messages_dropped{oldest}") == BEFORE - len(numbers)

        await wait_until(is_counted)
    print(f"{len(numbers)} of {BEFORE} came; RSS grew {memory.growth / 2**20:.1f} MiB")
    assert numbers == sorted(set(numbers))
    assert len(numbers) < BEFORE
    assert numbers[-500:] == list(range(BEFORE - 500, BEFORE))
    assert memory.growth <= MOST_GROWTH


async def test_where_rooms_drop_a_member_that_takes_nothing_at_all_is_ended_in_the_time_of_a_ping() -> None:
    options = ["ping_interval=1", "ping_timeout=1", "outbox_seconds=0.5"]
    async with contextlib.AsyncExitStack() as stack:
        gateway = stack.enter_context(Gateway(FLOOD, *(word for text in options for word in ("--set", text))))
        ends, publisher = [
            await stack.enter_async_context(connect(f"{gateway.ws_url}/in/{room}", proxy=None))
            for room in ("ends", "control")
        ]
        async with Raw(gateway.port) as dead:
            await dead.send(upgrade("/in/drop:r"))
            await dead.opened()
            await publisher.send(f"flood drop:r 10000 {A_SECOND}")
            async with asyncio.timeout(DEADLINE):
                assert str(await ends.recv()).startswith("slot")
                end = await ends.recv()
    assert end in ("drop:r 1013 slow consumer", "drop:r 1006 ")  # by whichever sweep comes first

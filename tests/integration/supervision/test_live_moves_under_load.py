"""Thousands of WebSockets that move at each reload, while their clients echo and publish."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from support.gateway import IN_TURNS, Gateway
from support.moving_clients import Rider
from support.moving_load import Ride, riding
from support.observed import memory_mib
from support.steering import command, status
from support.waiting import wait_until

from stickygw.errors import ExitCode

MOVING = f"{Path(__file__).parents[1] / 'apps' / 'moving.py'}:app"


async def reload(gateway: Gateway, *, moved: int) -> None:
    done = await command(gateway, "reload")
    assert done.returncode == ExitCode.OK, done
    assert f"; {moved} connections moved, 0 closed" in done.stdout, done


async def assert_nothing_lost(gateway: Gateway, ride: Ride) -> None:
    await ride.end()
    assert ride.faults == []
    assert "on_disconnect" not in gateway.log
    assert "Traceback" not in gateway.log
    assert (await status(gateway))["connections"] == len(ride.riders)


@pytest.mark.long
@pytest.mark.alone
@pytest.mark.timeout(180)
async def test_2000_connections_move_five_times_and_miss_nothing() -> None:
    with Gateway(MOVING, *IN_TURNS, workers=2) as gateway:
        async with riding(gateway.port, count=2000, rooms=50) as ride:
            before = {rider.index: await rider.who() for rider in ride.riders[::20]}
            print(f"\nbefore: {await ride.figures(3.0)}")
            for number in range(1, 6):
                await reload(gateway, moved=2000)
                print(f"reload {number}: {await ride.figures(0.5)}")
            await assert_nothing_lost(gateway, ride)
            for rider in ride.riders[::20]:
                after = await rider.who()
                was = before[rider.index]
                assert after["generation"] == 6
                for fact in ("id", "user", "rooms", "state", "session", "visits", "slot"):
                    assert after[fact] == was[fact]


@pytest.mark.long
@pytest.mark.alone
async def test_what_500_connections_feel_of_a_reload() -> None:
    with Gateway(MOVING, *IN_TURNS, workers=2) as gateway:
        async with riding(gateway.port, count=500, rooms=50, echoes_a_second=4) as ride:
            quiet = await ride.figures(3.0)
            print(f"\nbefore: {quiet}")
            for number in range(1, 4):
                await reload(gateway, moved=500)
                figures = await ride.figures(0.5)
                print(f"reload {number}: {figures}")
                assert figures.silence < 2.5
            await assert_nothing_lost(gateway, ride)


@pytest.mark.long
@pytest.mark.alone
async def test_clients_that_come_and_go_all_the_time_are_never_sent_away() -> None:
    closes: Counter[int | None] = Counter()
    stays = 0
    with Gateway(MOVING, *IN_TURNS, workers=2) as gateway:

        async def stay(rider: Rider, random: Random) -> None:
            nonlocal stays
            try:
                await rider.connect(gateway.port)
                for _ in range(random.randrange(4)):
                    rider.echo()
                    await asyncio.sleep(random.random() * 0.1)
                await wait_until(lambda: rider.echoes_got == rider.echoes_sent or rider.ended.done())
                assert rider.faults == []
                stays += 1
                if rider.ended.done():
                    closes[rider.close_code] += 1
            finally:
                rider.abort()

        async def come_and_go(index: int, random: Random) -> None:
            while True:
                await stay(Rider(index, f"r{index % 20}"), random)

        async with riding(gateway.port, count=100, rooms=20) as ride:
            guests = [asyncio.create_task(come_and_go(1000 + index, Random(index))) for index in range(60)]
            for _ in range(5):
                done = await command(gateway, "reload")
                assert done.returncode == ExitCode.OK
                print(f"\n{done.stdout.strip()}; {stays} stays so far")
                seen = stays
                await wait_until(lambda seen=seen: stays >= seen + 60)  # type: ignore[misc]
            for guest in guests:
                guest.cancel()
            results = await asyncio.gather(*guests, return_exceptions=True)
            assert {type(result) for result in results} == {asyncio.CancelledError}, results
            await ride.end()
            assert ride.faults == []
            assert closes == {}

            async def are_counted() -> bool:
                return bool((await status(gateway))["connections"] == 100)

            await wait_until(are_counted)
        assert "Traceback" not in gateway.log


RELOADS = 20
MARGIN_MIB = 12
"""What allocators may keep, and what a room's record costs while it is moved."""


@pytest.mark.long
@pytest.mark.alone
@pytest.mark.timeout(240)
async def test_twenty_reloads_leave_no_descriptor_and_no_memory_behind() -> None:
    with Gateway(MOVING, *IN_TURNS, workers=2) as gateway:
        async with riding(gateway.port, count=200, rooms=20, published_a_second=50) as ride:
            seen: list[tuple[list[int], list[float]]] = []
            for _ in range(RELOADS):
                await reload(gateway, moved=200)
                await ride.figures(0.5)
                seen.append(await settled_costs(gateway))
            await assert_nothing_lost(gateway, ride)
    first, *_, last = seen
    for descriptor_counts, mib in (first, seen[RELOADS // 2], last):
        print(f"\nprimary, slot 0, slot 1: {descriptor_counts} descriptors, {[round(each, 1) for each in mib]} MiB")
    assert last[0] == first[0]
    assert all(after <= before + MARGIN_MIB for before, after in zip(first[1], last[1], strict=True))


async def settled_costs(gateway: Gateway) -> tuple[list[int], list[float]]:
    """Descriptors and MiB of the primary and both workers, once nothing of the move is left; connections to the store,
    of which there are more or fewer at any time, do not count."""
    pids = [gateway.pid, *(pid for _, pid in sorted(gateway.worker_pids().items()))]
    before: list[list[int]] = []

    def is_settled() -> bool:
        before.append([lasting_descriptors(pid) for pid in pids])
        return len(before) > 50 and all(counts == before[-1] for counts in before[-50:])

    await wait_until(is_settled, seconds=20)
    return before[-1], [memory_mib(pid) for pid in pids]


def lasting_descriptors(pid: int) -> int:
    """All but streams on Unix sockets."""
    rows = (line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:])
    streams = {f"socket:[{row[6]}]" for row in rows if row[4] == "0001"}
    folder = f"/proc/{pid}/fd"
    count = 0
    for name in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
            count += os.readlink(f"{folder}/{name}") not in streams
    return count

"""What a move is worth while Redis is away, or one of its two workers dies in the middle of it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.client import gather_bounded
from support.gateway import IN_TURNS, Gateway
from support.moving_clients import Rider
from support.moving_load import Ride, riding
from support.observed import descriptors
from support.steering import command, status
from support.valkey import ValkeyServer
from support.waiting import wait_until

MOVING = f"{Path(__file__).parents[1] / 'apps' / 'moving.py'}:app"


# --- without Redis ----------------------------------------------------------------------------------------------------


def stop(server: ValkeyServer) -> None:
    server.stop()


def pause(server: ValkeyServer) -> None:
    server.pause()


def again(server: ValkeyServer) -> None:
    """Let it answer, whatever was done to it."""
    try:
        server.resume()
    except AssertionError:
        server.start()


@pytest.mark.parametrize(
    ("when", "harm"),
    [
        pytest.param("before", stop, marks=pytest.mark.long),  # nothing is waited for, as in the middle
        pytest.param("before", pause, marks=pytest.mark.long),
        ("in the middle", stop),
        pytest.param("in the middle", pause, marks=pytest.mark.long),
    ],
)
async def test_a_worker_s_members_miss_nothing_of_each_other_when_they_move_without_redis(
    own_valkey: ValkeyServer, harm: Callable[[ValkeyServer], None], when: str
) -> None:
    with Gateway(MOVING, *IN_TURNS, "--redis", own_valkey.url, workers=1, environment=SECRET) as gateway:
        async with riding(gateway.port, count=100, rooms=10, published_a_second=200) as ride:
            if when == "before":
                harm(own_valkey)
            reloading = asyncio.create_task(command(gateway, "reload"))
            await wait_until(lambda: generations(ride.riders) >= {2}, seconds=30)
            if when != "before":
                harm(own_valkey)
            done = await reloading
            print(f"\n{await ride.figures(0.5)}")
            again(own_valkey)
            await ride.figures(1.0)
            await ride.end()
            assert done.stdout.endswith("; 100 connections moved, 0 closed\n"), done
            assert ride.faults == []
        assert "Traceback" not in gateway.log


SECRET = {"STICKYGW_SECRET": "a secret of at least thirty-two bytes"}


def generations(riders: list[Rider]) -> set[int]:
    return {generation for rider in riders for generation in rider.generations}


# --- without one of the workers ---------------------------------------------------------------------------------------

COUNT = 600


@asynccontextmanager
async def in_the_middle(gateway: Gateway) -> AsyncIterator[tuple[Ride, int, int]]:
    """A ride in whose first part a reload is moving connections, and the two workers' process ids."""
    async with riding(gateway.port, count=COUNT, rooms=COUNT // 2, echoes_a_second=2, published_a_second=0) as ride:
        old = gateway.worker_pids()[0]
        had = descriptors(old)
        reloading = asyncio.create_task(command(gateway, "reload"))
        await wait_until(lambda: descriptors(old) < had - COUNT // 6, seconds=30)
        yield ride, old, gateway.worker_pids()[0]
        done = await reloading
        print(f"\n{done.stdout}{done.stderr}")


async def come_back(gateway: Gateway, riders: list[Rider]) -> None:
    """Those who have been cut off or sent away come back, and then all are served, and counted, once."""
    ended = [rider for rider in riders if rider.ended.done()]
    live = [rider for rider in riders if not rider.ended.done()]
    print(f"\n{len(live)} live on, {len(ended)} come back; closed with {sorted({r.close_code or 0 for r in ended})}")
    for rider in live:
        assert rider.faults == []
    again = [Rider(rider.index, rider.room, cookie=rider.cookie) for rider in ended]
    await gather_bounded(40, *(rider.connect(gateway.port) for rider in again))
    try:
        assert {rider.slot for rider in again} <= {0}
        before = {rider: rider.echoes_got for rider in (*live, *again)}
        for rider in before:
            rider.echo()
        await wait_until(
            lambda: all(rider.echoes_got > count or rider.ended.done() for rider, count in before.items()), seconds=20
        )
        assert not [rider for rider in before if rider.ended.done()]

        async def are_counted() -> bool:
            return bool((await status(gateway))["connections"] == len(before))

        await wait_until(are_counted)
    finally:
        for rider in again:
            rider.abort()
        for rider in live:
            rider.abort()

    async def is_empty() -> bool:
        return bool((await status(gateway))["connections"] == 0)

    await wait_until(is_empty)


async def test_an_old_worker_that_is_killed_in_the_middle_takes_only_what_it_still_has() -> None:
    with Gateway(MOVING, *IN_TURNS, workers=1) as gateway:
        async with in_the_middle(gateway) as (ride, old, _):
            os.kill(old, signal.SIGKILL)
            await wait_until(lambda: any(rider.ended.done() for rider in ride.riders))
            await wait_until(lambda: all(rider.ended.done() or 2 in rider.generations for rider in ride.riders))
            await ride.pause()
            assert 0 < sum(rider.ended.done() for rider in ride.riders) < COUNT
            await come_back(gateway, ride.riders)
        assert "Traceback" not in gateway.log


@pytest.mark.long
async def test_a_new_worker_that_is_killed_in_the_middle_takes_only_what_it_already_has() -> None:
    with Gateway(MOVING, *IN_TURNS, workers=1) as gateway:
        async with in_the_middle(gateway) as (ride, _, new):
            os.kill(new, signal.SIGKILL)
            await wait_until(lambda: any(rider.ended.done() for rider in ride.riders))
            cut = [rider for rider in ride.riders if rider.ended.done() and rider.close_code is None]
            assert 0 < len(cut) < COUNT
            # The others go on in the old worker, until it sends them away.
            await wait_until(lambda: all(rider.ended.done() for rider in ride.riders), seconds=30)
            await ride.pause()
            assert {rider.close_code for rider in ride.riders} == {None, 1012}
            await come_back(gateway, ride.riders)
        assert "Traceback" not in gateway.log


@pytest.mark.long
async def test_a_new_worker_that_stands_still_in_the_middle_ends_the_move() -> None:
    with Gateway(MOVING, *IN_TURNS, "--set", "heartbeat_timeout=3", workers=1) as gateway:
        async with in_the_middle(gateway) as (ride, _, new):
            os.kill(new, signal.SIGSTOP)
            await wait_until(lambda: all(rider.ended.done() for rider in ride.riders), seconds=40)
            await ride.pause()
            await come_back(gateway, ride.riders)

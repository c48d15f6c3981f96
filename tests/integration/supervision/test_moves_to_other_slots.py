"""A slot that is scaled away or drained gives its WebSockets to the others: none is closed, and who belongs together
meets again."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.client import gather_bounded
from support.gateway import IN_TURNS, Gateway
from support.moving_clients import Rider
from support.moving_load import Ride, riding
from support.observed import descriptors
from support.steering import command, status, wait_for_status
from support.waiting import wait_until

from stickygw.errors import ExitCode

MOVING = f"{Path(__file__).parents[1] / 'apps' / 'moving.py'}:app"
KEYED = ("--key", "query:match", "--key", "cookie")


async def told(gateway: Gateway, *arguments: str) -> str:
    """A command that goes well; what it says at its end."""
    done = await command(gateway, *arguments)
    assert done.returncode == ExitCode.OK, done
    return done.stdout


async def whereabouts(riders: Sequence[Rider]) -> list[dict[str, Any]]:
    """What the application knows of each."""
    return await gather_bounded(40, *(rider.who() for rider in riders))


async def pid_in(slot: int, riders: Sequence[Rider]) -> int:
    """The process id of the worker of a slot."""
    rider = next(rider for rider in riders if rider.slot == slot)
    return int((await rider.who())["pid"])


async def slot_of_another_tab(gateway: Gateway, rider: Rider) -> int:
    """Where a further connection with this one's cookie comes."""
    tab = Rider(-1, "tabs", cookie=rider.cookie)
    try:
        return (await tab.connect(gateway.port)).slot
    finally:
        tab.abort()


async def assert_tabs_meet(gateway: Gateway, riders: Sequence[Rider], allowed: set[int]) -> None:
    slots = [facts["slot"] for facts in await whereabouts(riders)]
    assert set(slots) == allowed
    assert await gather_bounded(20, *(slot_of_another_tab(gateway, rider) for rider in riders)) == slots


async def assert_nothing_was_lost(ride: Ride) -> None:
    await ride.end()
    assert ride.faults == []


async def test_scaling_down_under_load_loses_doubles_and_closes_nothing() -> None:
    with Gateway(MOVING, *IN_TURNS, workers=4) as gateway:
        async with riding(gateway.port, count=200, rooms=10) as ride:
            before = await whereabouts(ride.riders)
            said = await told(gateway, "scale", "2")
            assert re.fullmatch(r"2 slots, 4 before; \d+ connections moved, 0 closed\n", said), said
            await assert_nothing_was_lost(ride)
            after = await whereabouts(ride.riders)
            for name in ("id", "user", "rooms", "state", "session", "visits"):
                assert [facts[name] for facts in after] == [facts[name] for facts in before]
            # Who was in a slot that stays, stays.
            for was, now in zip(before, after, strict=True):
                assert now["slot"] == was["slot"] if was["slot"] < 2 else now["slot"] < 2
            await assert_tabs_meet(gateway, ride.riders, {0, 1})
            await wait_for_status(gateway, connections=200)  # the tabs are over
        assert "Traceback" not in gateway.log


@pytest.mark.long
async def test_draining_a_slot_under_load_loses_doubles_and_closes_nothing() -> None:
    with Gateway(MOVING, *IN_TURNS, workers=3) as gateway:
        async with riding(gateway.port, count=200, rooms=10) as ride:
            here = sum(rider.slot == 1 for rider in ride.riders)
            assert await told(gateway, "drain", "1") == f"slot 1 is drained; {here} connections moved, 0 closed\n"
            await assert_nothing_was_lost(ride)
            await assert_tabs_meet(gateway, ride.riders, {0, 2})
        assert "Traceback" not in gateway.log


async def test_a_drained_slot_gives_its_connections_away_and_status_counts_them() -> None:
    with Gateway(MOVING, *IN_TURNS, workers=3) as gateway:
        async with riding(gateway.port, count=30, rooms=3, published_a_second=30) as ride:
            done = await command(gateway, "drain", "1")
            assert done.stdout == "slot 1 is drained; 10 connections moved, 0 closed\n", done
            assert "slot 1: 10 connections to go to other slots" in done.stderr
            assert "slot 1: 10 connections moved\n" in done.stderr
            await assert_nothing_was_lost(ride)
            await assert_tabs_meet(gateway, ride.riders, {0, 2})
            facts = await status(gateway)
            assert facts["counters"]["moves{moved}"] == 10
            assert (await told(gateway, "status")).count("moves: 10 connections moved, 0 drained") == 1
        assert "Traceback" not in gateway.log


@pytest.mark.long
async def test_what_cannot_move_is_drained_and_told_apart() -> None:
    with Gateway(MOVING, *IN_TURNS, workers=2) as gateway:
        paths = ["/in/a", "/in/a", "/in/a", "/coroutine"]
        found = [Rider(index, "a", path=path) for index, path in enumerate(paths)]
        try:
            for rider in found:
                await rider.connect(gateway.port)
            assert await told(gateway, "scale", "1") == "1 slots, 2 before; 1 connection moved, 1 closed\n"
            assert await found[3].wait_ended() == 1012
            assert (await status(gateway))["counters"]["moves{drained}"] == 1
        finally:
            for rider in found:
                rider.abort()


@pytest.mark.long
async def test_all_connections_of_a_key_meet_again_and_so_do_those_that_come_later() -> None:
    with Gateway(MOVING, *IN_TURNS, *KEYED, workers=4) as gateway:
        matches = [f"match-{number}" for number in range(12)]
        found = [Rider(index, match, path=f"/in/{match}?match={match}") for match in matches for index in range(4)]
        later = [Rider(9, match, path=f"/in/{match}?match={match}") for match in matches]
        try:
            await asyncio.gather(*(rider.connect(gateway.port) for rider in found))
            away = {rider.room for rider in found if rider.slot >= 2}
            assert away
            await told(gateway, "scale", "2")
            await asyncio.gather(*(rider.connect(gateway.port) for rider in later))
            slots = defaultdict(set)
            for facts, rider in zip(await whereabouts(found + later), found + later, strict=True):
                slots[rider.room].add(facts["slot"])
            assert all(len(where) == 1 for where in slots.values()), slots
            assert all(not rider.ended.done() for rider in found)
            keys = (await status(gateway))["counters"]
            assert keys["routes{key_table}"] >= 12  # those that came later found the table right
        finally:
            for rider in found + later:
                rider.abort()


async def test_a_worker_that_is_killed_while_it_gives_its_slot_away_takes_only_what_it_still_has() -> None:
    with Gateway(MOVING, *IN_TURNS, workers=3) as gateway:
        async with riding(gateway.port, count=450, rooms=150, echoes_a_second=1, published_a_second=0) as ride:
            old = await pid_in(2, ride.riders)
            had = descriptors(old)
            scaling = asyncio.create_task(command(gateway, "scale", "2"))
            await wait_until(lambda: descriptors(old) < had - 30, seconds=30)
            os.kill(old, signal.SIGKILL)
            done = await scaling
            said = re.fullmatch(
                r"2 slots, 3 before; (\d+) connections? moved, 0 closed, at most (\d+) lost\n", done.stdout
            )
            assert said, done
            assert int(said[1]) + int(said[2]) == 150
            await ride.pause()
            assert not [rider.faults for rider in ride.riders if rider.faults]

            async def are_all_accounted_for() -> bool:
                moved = (await status(gateway))["counters"]["moves{moved}"]
                return bool(moved + sum(rider.ended.done() for rider in ride.riders) == 150)

            await wait_until(are_all_accounted_for)  # what was on its way when it died has come, or ended
            lost = [rider for rider in ride.riders if rider.ended.done()]
            assert len(lost) <= int(said[2])
            await wait_for_status(gateway, connections=450 - len(lost), slots=2)
            assert {await slot_of_another_tab(gateway, rider) for rider in lost} <= {0, 1}
        assert "Traceback" not in gateway.log

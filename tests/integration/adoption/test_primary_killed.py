"""A primary is killed (SIGKILL) and started again: its workers, their connections and messages do not notice."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from redis.asyncio import Redis
from support.adoption import (
    ADOPTED,
    ADOPTING,
    MOVING,
    assert_all_echo,
    count_of_valkeys,
    faults,
    kill_at,
    kill_primary,
    newcomers_slot,
    owners,
    riders_at,
    settled,
    start_again,
)
from support.client import gather_bounded
from support.gateway import IN_TURNS, Gateway, running_gateway
from support.moving_clients import Rider
from support.moving_load import riding
from support.observed import descriptors
from support.steering import command, status
from support.waiting import wait_until

OUTAGE_SECONDS = 3.0
"""So long no primary lives under load."""


async def assert_is_counted(gateway: Gateway, connections: int) -> None:
    """The primary knows of as many."""

    async def is_so() -> bool:
        return bool((await status(gateway))["connections"] == connections)

    await wait_until(is_so)


async def stored_on_disk(gateway: Gateway) -> None:
    """What the embedded Valkey has been told is in its file, which may be a second behind (appendfsync everysec)."""
    async with Redis(unix_socket_path=str(gateway.runtime_dir / "valkey.sock")) as store:
        await store.set("behind-all-that", 1)  # it waits for what this client has written
        assert await store.execute_command("WAITAOF", 1, 0, 10_000) == [1, 0]


async def test_clients_under_load_miss_nothing_and_those_who_come_meanwhile_are_served() -> None:
    async with running_gateway(MOVING, *IN_TURNS, workers=2) as gateway:
        async with riding(gateway.port, count=60, rooms=5, echoes_a_second=5) as ride:
            assert len(ride.publishers) == 10
            assert {rider.slot for rider in ride.riders} == {0, 1}
            pids = gateway.worker_pids()
            kill_primary(gateway)

            begun = {rider: (rider.echoes_got, sum(rider.last.values())) for rider in ride.riders}
            late = [Rider(1000 + number, "late") for number in range(50)]
            coming = asyncio.gather(*(rider.connect(gateway.port) for rider in late))
            await ride.figures(OUTAGE_SECONDS)
            for rider, (echoes, heard) in begun.items():
                assert rider.echoes_got > echoes
                assert sum(rider.last.values()) > heard
            assert not any(rider.entered.done() for rider in late)

            await start_again(gateway)
            await coming
            await assert_all_echo(late)
            assert {rider.slot for rider in late} == {0, 1}
            await ride.figures(0.5)
            await ride.end()
            assert ride.faults == []
            assert gateway.worker_pids() == pids == await owners(gateway)
            await assert_is_counted(gateway, 110)
            for rider in late:
                rider.abort()
            await assert_is_counted(gateway, 60)
        assert "Traceback" not in gateway.log


async def test_who_comes_back_with_a_cookie_or_a_key_reaches_the_slot_it_had() -> None:
    async with running_gateway(MOVING, *IN_TURNS, "--key", "query:match", "--key", "cookie", workers=1) as gateway:
        keyed_path = "/in/match?match={}"
        async with riders_at(gateway, 12, path=keyed_path) as keyed:
            # They were in slot 0 when there was no other: the hash of most would send them elsewhere now.
            assert (await command(gateway, "scale", "3")).returncode == 0
            async with riders_at(gateway, 6) as visitors:
                assert {rider.slot for rider in visitors} == {0, 1, 2}
                kill_primary(gateway)
                await start_again(gateway, workers=3)
                for rider in visitors:
                    assert await newcomers_slot(gateway, "/in/tab", cookie=rider.cookie) == rider.slot
                came = [await newcomers_slot(gateway, keyed_path.format(number)) for number in range(12)]
                assert came == [0] * 12
                new = [await newcomers_slot(gateway, keyed_path.format(number)) for number in range(100, 112)]
                assert set(new) & {1, 2}  # the test sees what it is about
                await assert_all_echo([*keyed, *visitors])


@pytest.mark.parametrize("moment", [pytest.param(ADOPTING, marks=pytest.mark.long), ADOPTED])
async def test_a_primary_that_is_killed_while_it_adopts_is_followed_by_another(moment: str) -> None:
    async with running_gateway(MOVING, *IN_TURNS, workers=3) as gateway, riders_at(gateway, 12) as riders:
        pids = gateway.worker_pids()
        kill_primary(gateway)
        await kill_at(gateway, moment)
        await assert_all_echo(riders)
        await start_again(gateway)
        await assert_all_echo(riders)
        assert await owners(gateway) == pids
        await assert_is_counted(gateway, 12)
        assert gateway.log.count(ADOPTED) == 3


async def test_a_worker_that_stands_still_is_not_waited_for_and_gives_what_it_has_when_it_comes() -> None:
    async with running_gateway(MOVING, *IN_TURNS, workers=2) as gateway, riders_at(gateway, 8) as riders:
        slow = gateway.worker_pids()[1]
        kill_primary(gateway)
        os.kill(slow, signal.SIGSTOP)
        await start_again(gateway)  # it has another worker in slot 1 by now
        assert f"not adopted, for they do not answer: pid {slow}" in gateway.log
        first = [rider for rider in riders if rider.slot == 0]
        assert len(first) == 4
        await assert_all_echo(first)

        for rider in riders:
            rider.echo()
        os.kill(slow, signal.SIGCONT)
        await assert_all_echo(riders)

        async def is_alone() -> bool:
            return len((await status(gateway))["workers"]) == 2

        await wait_until(is_alone, seconds=30)
        new = await owners(gateway)
        assert new[1] != slow
        assert [(await rider.who())["pid"] for rider in riders] == [new[rider.slot] for rider in riders]
        await assert_is_counted(gateway, 8)
        assert faults(riders) == []


@pytest.mark.long
async def test_a_primary_that_is_killed_in_a_reload_leaves_nobody_behind() -> None:
    async with (
        running_gateway(MOVING, *IN_TURNS, workers=2) as gateway,
        riding(gateway.port, count=100, rooms=10, echoes_a_second=2) as ride,
    ):
        reloading = asyncio.create_task(command(gateway, "reload"))
        await wait_until(lambda: any(2 in rider.generations for rider in ride.riders), seconds=30)
        kill_primary(gateway)
        assert (await reloading).returncode != 0
        await start_again(gateway)

        finished = await settled(gateway)
        assert sorted(await owners(gateway)) == [0, 1]
        await assert_is_counted(gateway, 100)
        done = await command(gateway, "reload")
        assert done.returncode == 0, done
        assert "; 100 connections moved, 0 closed" in done.stdout
        assert await settled(gateway) == finished + 1
        await ride.end()
        assert ride.faults == []
        await assert_is_counted(gateway, 100)


async def test_sessions_outlive_the_primary_and_its_valkey() -> None:
    async with running_gateway(MOVING, *IN_TURNS, workers=2) as gateway, riders_at(gateway, 4) as riders:
        for number, rider in enumerate(riders):
            await rider.ask(do="set", field="basket", value=number)
            assert (await rider.ask(do="count"))["count"] == 1
        await stored_on_disk(gateway)
        kill_primary(gateway)
        await start_again(gateway)
        await wait_until(lambda: gateway.valkey_pid() is not None)
        assert count_of_valkeys(gateway) == 1

        async def counts_on() -> bool:
            return all([(await rider.ask(do="count"))["count"] >= 2 for rider in riders])

        await wait_until(counts_on, seconds=20)
        for rider in riders:
            again = Rider(rider.index, "again", cookie=rider.cookie)
            await again.connect(gateway.port)
            facts = await again.who()
            assert (facts["session"], facts["visits"]) == ((await rider.who())["session"], 2)
            again.abort()


@pytest.mark.long
async def test_no_descriptor_is_left_by_five_primaries() -> None:
    async with running_gateway(MOVING, *IN_TURNS, workers=2) as gateway, riders_at(gateway, 4) as riders:

        async def follow() -> None:
            kill_primary(gateway)
            await start_again(gateway)
            await assert_all_echo(riders)
            await gather_bounded(1, *(rider.ask(do="count") for rider in riders))

        await follow()
        first = {pid: descriptors(pid) for pid in gateway.worker_pids().values()}
        for _ in range(4):
            await follow()
            assert set(gateway.worker_pids().values()) == set(first)
            # One may just be open for a moment.
            await wait_until(lambda: all(descriptors(pid) <= count for pid, count in first.items()))

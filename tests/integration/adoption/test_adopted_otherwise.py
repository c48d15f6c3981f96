"""The next primary is started with other options, or with an operator's doings before it: what it makes of that."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest
from support.adoption import (
    MOVING,
    MOVING_FILE,
    assert_all_echo,
    assert_logged,
    faults,
    kill_primary,
    newcomers_slot,
    owners,
    riders_at,
    settled,
    slot_states,
    start_again,
)
from support.gateway import IN_TURNS, ROOT, Gateway, running_gateway
from support.raw import exchange, head
from support.steering import command
from support.waiting import wait_until

from stickygw.errors import ExitCode
from stickygw.testing.processes import processes

MINTING = f"{ROOT / 'tests' / 'integration' / 'apps' / 'minting.py'}:app"


async def test_workers_with_another_setting_are_adopted_and_then_replaced() -> None:
    async with running_gateway(MOVING, *IN_TURNS, workers=2) as gateway, riders_at(gateway, 6) as riders:
        kill_primary(gateway)
        await start_again(gateway, "--set", "move_grace=3")
        await assert_logged(gateway, "the adopted workers run with another move_grace: reloading")
        await assert_logged(gateway, "generation 2 runs in 2 slots; 6 connections moved, 0 closed")
        assert await settled(gateway) == 2
        assert {(await rider.who())["generation"] for rider in riders} == {2}
        await assert_all_echo(riders)


async def test_workers_with_the_same_settings_are_left_alone() -> None:
    async with running_gateway(MOVING, *IN_TURNS, workers=2) as gateway:
        pids = gateway.worker_pids()
        kill_primary(gateway)
        await start_again(gateway)
        assert await settled(gateway) == 1
        assert "reloading" not in gateway.log
        assert await owners(gateway) == pids


@pytest.mark.long
async def test_another_target_answers_on_the_same_connections(tmp_path: Path) -> None:
    newer = tmp_path / "newer.py"
    newer.write_text(MOVING_FILE.read_text().replace("version = 1", "version = 2"))
    async with running_gateway(MOVING, *IN_TURNS, workers=2) as gateway, riders_at(gateway, 6) as riders:
        before = [await rider.who() for rider in riders]
        assert {facts["version"] for facts in before} == {1}
        kill_primary(gateway)
        await start_again(gateway, target=f"{newer}:app")
        await assert_logged(gateway, "the adopted workers run with another TARGET: reloading")
        assert await settled(gateway) == 2
        after = [await rider.who() for rider in riders]
        assert {facts["version"] for facts in after} == {2}
        assert [facts["id"] for facts in after] == [facts["id"] for facts in before]
        await assert_all_echo(riders)


async def test_workers_that_serve_another_address_are_left_and_named() -> None:
    async with running_gateway(MOVING, *IN_TURNS, workers=2) as gateway, riders_at(gateway, 4) as riders:
        pids, urls = gateway.worker_pids(), gateway.urls
        kill_primary(gateway)
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            gateway.urls = [f"http://127.0.0.1:{other.getsockname()[1]}"]
        gateway.launch()
        assert await asyncio.to_thread(gateway.wait) == ExitCode.BIND
        said = f"workers of a killed primary still serve {urls[0]}: start with the same addresses"
        await assert_logged(gateway, said)
        assert "--no-adopt" in gateway.log

        gateway.urls = urls
        await assert_all_echo(riders)
        await start_again(gateway)
        assert await owners(gateway) == pids
        await assert_all_echo(riders)


async def test_no_adopt_ends_the_workers_first() -> None:
    async with running_gateway(MOVING, *IN_TURNS, workers=2) as gateway:
        async with riders_at(gateway, 4) as riders:
            pids = gateway.worker_pids()
            kill_primary(gateway)
            await start_again(gateway, "--no-adopt")
            assert [await rider.wait_ended() for rider in riders] == [1001] * 4
            assert not set(pids.values()) & set((await owners(gateway)).values())
        async with riders_at(gateway, 4) as riders:
            await assert_all_echo(riders)


@pytest.mark.long
async def test_more_workers_than_before_are_started_beside_those_that_were() -> None:
    async with running_gateway(MOVING, *IN_TURNS, workers=2) as gateway, riders_at(gateway, 6) as riders:
        kill_primary(gateway)
        await start_again(gateway, workers=3)
        await assert_logged(gateway, "3 slots, 2 before")
        await settled(gateway)
        assert sorted(await owners(gateway)) == [0, 1, 2]
        await assert_all_echo(riders)


@pytest.mark.long
async def test_fewer_workers_than_before_send_away_only_those_of_the_slots_that_go() -> None:
    async with running_gateway(MOVING, *IN_TURNS, workers=3) as gateway, riders_at(gateway, 6) as riders:
        kill_primary(gateway)
        await start_again(gateway, workers=2)
        await assert_logged(gateway, "2 slots, 3 before")
        await settled(gateway)
        assert sorted(await owners(gateway)) == [0, 1]
        staying = [rider for rider in riders if rider.slot < 2]
        assert len(staying) == 4
        await assert_all_echo(staying)


async def test_workers_that_nobody_adopts_end_and_free_the_port() -> None:
    async with running_gateway(MOVING, "--set", "worker_orphan_timeout=1", workers=2) as gateway:
        async with riders_at(gateway, 4) as riders:
            pids = set(gateway.worker_pids().values())
            kill_primary(gateway)
            assert [await rider.wait_ended() for rider in riders] == [1001] * 4
            await wait_until(lambda: not pids & processes(gateway._mark))
        with socket.socket() as again:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            again.bind(("127.0.0.1", gateway.port))
        # No line has it: this returns at the end of the log, which the workers have kept open.
        await asyncio.to_thread(gateway.wait_for_line, "\0")
        await start_again(gateway)
        async with riders_at(gateway, 2) as riders:
            await assert_all_echo(riders)


@pytest.mark.long
async def test_slots_that_an_operator_has_added_or_drained_stay_so() -> None:
    async with running_gateway(MOVING, *IN_TURNS, workers=2) as gateway:
        assert (await command(gateway, "scale", "3")).returncode == 0
        async with riders_at(gateway, 6) as riders:
            assert {rider.slot for rider in riders} == {0, 1, 2}
            kill_primary(gateway)
            await start_again(gateway)
            assert await slot_states(gateway) == {0: "ready", 1: "ready", 2: "ready"}
            await assert_all_echo(riders)

            assert (await command(gateway, "drain", "1")).returncode == 0
            staying = [rider for rider in riders if not rider.ended.done()]
            assert {(await rider.who())["slot"] for rider in staying} == {0, 2}
            kill_primary(gateway)
            await start_again(gateway)
            assert await slot_states(gateway) == {0: "ready", 1: "drained", 2: "ready"}
            assert {await newcomers_slot(gateway, "/in/new") for _ in range(6)} == {0, 2}
            assert (await command(gateway, "restart", "1")).returncode == 0
            assert await slot_states(gateway) == {0: "ready", 1: "ready", 2: "ready"}
            await assert_all_echo(staying)
            assert faults(staying) == []


async def ticket(gateway: Gateway, *, brought: str | None = None) -> tuple[int, str, int]:
    """Status, ticket and process id of one answer."""
    fields = [] if brought is None else [("X-Ticket", brought)]
    answer = await exchange(gateway.port, head("GET", "/", fields=[*fields, ("Connection", "close")]))
    return answer.status, answer.get("x-ticket") or "", int(answer.body)


async def test_ids_that_were_learnt_lead_to_their_slots() -> None:
    async with running_gateway(MINTING, *IN_TURNS, "--learn", "header:x-ticket", workers=3) as gateway:
        minted = [await ticket(gateway) for _ in range(12)]
        assert {status for status, _, _ in minted} == {201}
        assert {pid for _, _, pid in minted} == set(gateway.worker_pids().values())
        kill_primary(gateway)
        await start_again(gateway)
        for _, name, pid in minted:
            assert await ticket(gateway, brought=name) == (200, name, pid)
        strangers = [await ticket(gateway, brought=os.urandom(8).hex()) for _ in range(3)]
        assert {status for status, _, _ in strangers} == {404}  # the test sees what it is about

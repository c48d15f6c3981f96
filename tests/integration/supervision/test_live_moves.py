"""A reload keeps the WebSockets of an `App`: what moves with one, what cannot, and what works afterwards."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.gateway import IN_TURNS, Gateway
from support.moving_clients import TEXT, Rider, abort_all, client_frame
from support.moving_load import riding
from support.steering import command, status
from support.waiting import wait_until

from stickygw.errors import ExitCode

APPS = Path(__file__).parents[1] / "apps"
MOVING = f"{APPS / 'moving.py'}:app"

FACTS = ("id", "user", "rooms", "state", "session", "visits", "slot")
"""Of a connection's answer to who it is: what no move changes."""


async def reload(gateway: Gateway, said: str) -> None:
    done = await command(gateway, "reload")
    assert done.returncode == ExitCode.OK, done
    assert done.stdout.partition("; ")[2] == f"{said}\n", done


@asynccontextmanager
async def riders(gateway: Gateway, *rooms: str, **options: object) -> AsyncIterator[list[Rider]]:
    """One in each of `rooms`, on entering."""
    found: list[Rider] = []
    try:
        for index, room in enumerate(rooms):
            rider = Rider(index, room, **options)  # type: ignore[arg-type]
            found.append(await rider.connect(gateway.port))
        yield found
    finally:
        await abort_all(found)


async def assert_echoes(rider: Rider, count: int = 3) -> None:
    """It is served, has lost nothing, and has been told nothing twice."""
    for _ in range(count):
        rider.echo()
    await wait_until(lambda: rider.echoes_got == rider.echoes_sent or rider.faults or rider.ended.done())
    assert rider.faults == []
    assert not rider.ended.done(), rider.close_code


def assert_quiet(gateway: Gateway) -> None:
    for word in ("Traceback", "ERROR", "on_disconnect"):
        assert word not in gateway.log, gateway.log


# --- what moves -------------------------------------------------------------------------------------------------------


async def test_a_connection_is_the_same_after_two_reloads_and_is_told_no_end() -> None:
    with Gateway(MOVING, *IN_TURNS, workers=2) as gateway:
        async with riders(gateway, *"abcd") as found:
            before = [await rider.who() for rider in found]
            for generation in (2, 3):
                await reload(gateway, "4 connections moved, 0 closed")
                after = [await rider.who() for rider in found]
                assert {facts["generation"] for facts in after} == {generation}
                assert {facts["pid"] for facts in after}.isdisjoint(facts["pid"] for facts in before)
                assert [[facts[name] for name in FACTS] for facts in after] == [
                    [facts[name] for name in FACTS] for facts in before
                ]
                for rider in found:
                    await assert_echoes(rider)
            assert (await status(gateway))["connections"] == 4
            assert before[0]["rooms"] == ["a", "a-too"]
            assert "on_disconnect" not in gateway.log

        async def is_empty() -> bool:
            return bool((await status(gateway))["connections"] == 0)

        await wait_until(is_empty)
        await wait_until(lambda: gateway.log.count("on_disconnect") == 4)


@pytest.mark.parametrize("is_compressing", [pytest.param(False, marks=pytest.mark.long), True])
async def test_64_kib_messages_on_their_way_arrive_once_and_whole(is_compressing: bool) -> None:
    options = [*IN_TURNS, *(["--set", "compression=true"] if is_compressing else [])]
    with Gateway(MOVING, *options, workers=2) as gateway:
        async with riding(
            gateway.port,
            count=20,
            rooms=4,
            echoes_a_second=5,
            published_a_second=10,
            is_compressing=is_compressing,
            padding=1 << 16,
        ) as ride:
            await reload(gateway, "20 connections moved, 0 closed")
            await ride.end()
            assert ride.faults == []
        assert "Traceback" not in gateway.log


async def test_a_frame_that_is_half_sent_is_finished_at_the_next_worker() -> None:
    question = json.dumps({"do": "who"}).encode()
    whole = client_frame(question, TEXT)
    fragments = client_frame(question[:5], TEXT, is_final=False) + client_frame(question[5:], 0)
    with Gateway(MOVING, *IN_TURNS, workers=1) as gateway:
        cuts = [(whole, 1), (whole, 4), (whole, len(whole) - 1), (fragments, 11), (fragments, 13), (fragments, 20)]
        async with riders(gateway, *"abcdef") as found:
            for rider, (data, cut) in zip(found, cuts, strict=True):
                await assert_echoes(rider)
                rider.transport.write(data[:cut])
            await reload(gateway, "6 connections moved, 0 closed")
            for rider, (data, cut) in zip(found, cuts, strict=True):
                rider.transport.write(data[cut:])
                assert (await rider.answer())["who"]["generation"] == 2
                await assert_echoes(rider)
        assert "Traceback" not in gateway.log


@pytest.mark.long
async def test_a_slow_reader_gets_all_that_waited_for_it_in_order() -> None:
    with Gateway(MOVING, *IN_TURNS, "--set", "outbox_bytes=16777216", workers=1) as gateway:
        rider = await Rider(0, "a").connect(gateway.port, receive_buffer=4096)
        try:
            rider.transport.pause_reading()
            rider.tell(do="flood", count=40, size=1 << 16)

            async def is_queued() -> bool:
                return (await queued(gateway)) > 0

            await wait_until(is_queued)
            await reload(gateway, "1 connection moved, 0 closed")
            assert rider.flooded < 10
            await wait_until(is_queued)
            rider.transport.resume_reading()
            await wait_until(lambda: rider.flooded == 40 or rider.faults)
            await assert_echoes(rider)
        finally:
            await abort_all([rider])


async def queued(gateway: Gateway) -> int:
    """How many messages wait in the gateway for its clients."""
    facts = await status(gateway)
    return sum(worker["queued"] for worker in facts["workers"])


async def test_a_handler_at_work_ends_and_its_connection_moves_then() -> None:
    with Gateway(MOVING, *IN_TURNS, workers=1) as gateway:
        async with riders(gateway, *"ab") as (busy, idle):
            busy.tell(do="work", seconds=1.5)
            reloading = asyncio.create_task(reload(gateway, "2 connections moved, 0 closed"))
            await wait_until(lambda: is_served_by(idle, 2))
            busy.echo()  # it waits for the handler
            assert await busy.answer() == {"worked": 1}
            await reloading
            for rider in (busy, idle):
                await assert_echoes(rider)
                assert 2 in rider.generations
        assert "Traceback" not in gateway.log


def is_served_by(rider: Rider, generation: int) -> bool:
    if rider.echoes_got == rider.echoes_sent:
        rider.echo()
    return generation in rider.generations


# --- what does not ----------------------------------------------------------------------------------------------------


@pytest.mark.long
async def test_a_handler_that_outlives_its_grace_costs_its_connection_alone() -> None:
    with Gateway(MOVING, *IN_TURNS, "--set", "move_grace=0.3", workers=1) as gateway:
        async with riders(gateway, *"abc") as (busy, *others):
            busy.tell(do="work", seconds=2)
            await reload(gateway, "2 connections moved, 1 closed")
            assert await busy.wait_ended() == 1012
            for rider in others:
                await assert_echoes(rider)


@pytest.mark.long
async def test_more_busy_handlers_than_move_at_a_time_keep_nobody_else_from_moving() -> None:
    with Gateway(MOVING, *IN_TURNS, "--set", "move_grace=1", workers=1) as gateway:
        async with riders(gateway, *["a"] * 145) as found:
            busy, others = found[:140], found[140:]
            for rider in busy:
                rider.tell(do="work", seconds=2.5)
            await asyncio.gather(*(rider.who() for rider in others))
            await reload(gateway, "5 connections moved, 140 closed")
            for rider in others:
                await assert_echoes(rider)


async def test_what_a_coroutine_serves_is_drained() -> None:
    with Gateway(MOVING, *IN_TURNS, workers=1) as gateway:
        async with riders(gateway, "a") as (rider,), riders(gateway, "-", path="/coroutine") as (other,):
            await reload(gateway, "1 connection moved, 1 closed")
            assert await other.wait_ended() == 1012
            await assert_echoes(rider)


@pytest.mark.long
async def test_what_an_asgi_application_serves_is_drained() -> None:
    with Gateway(f"{APPS / 'moving.py'}:asgi", *IN_TURNS, workers=1) as gateway:
        async with riders(gateway, "-", path="/") as (rider,):
            await reload(gateway, "0 connections moved, 1 closed")
            assert await rider.wait_ended() == 1012


async def test_new_code_without_a_handler_for_its_path_closes_a_connection(tmp_path: Path) -> None:
    file = tmp_path / "narrower.py"
    start = f"import sys\nsys.path.append({str(APPS)!r})\nimport moving\nfrom moving import app\n"
    both = "@app.on_connect('/more')\ndef more(conn): pass\n"
    file.write_text(start + both)
    with Gateway(f"{file}:app", *IN_TURNS, workers=1) as gateway:
        async with riders(gateway, "a") as (rider,), riders(gateway, "-", path="/more") as (other,):
            file.write_text(start + "#")
            done = await command(gateway, "reload")
            assert done.returncode == ExitCode.OK
            assert done.stdout.endswith("; 1 connection moved, 1 closed\n"), done
            assert "1 refused by the new code" in done.stderr
            assert await other.wait_ended() == 1012
            await assert_echoes(rider)


# --- afterwards -------------------------------------------------------------------------------------------------------


@pytest.mark.long
async def test_an_ended_session_closes_its_moved_connections() -> None:
    with Gateway(MOVING, *IN_TURNS, workers=1) as gateway:
        async with riders(gateway, "a") as (first,), riders(gateway, "b", cookie=first.cookie) as (second,):
            assert (await first.who())["session"] == (await second.who())["session"]
            await reload(gateway, "2 connections moved, 0 closed")
            first.tell(do="destroy")
            assert await first.wait_ended() == 4401
            assert await second.wait_ended() == 4401


async def test_a_session_ended_elsewhere_closes_a_moved_connection_that_has_said_nothing_since() -> None:
    with Gateway(MOVING, *IN_TURNS, workers=2) as gateway:
        async with riders(gateway, "a") as (quiet,):
            session = (await quiet.who())["session"]
            await reload(gateway, "1 connection moved, 0 closed")
            done = await command(gateway, "sessions", "kill", session)
            assert done.returncode == ExitCode.OK, done
            assert await quiet.wait_ended() == 4401


async def test_a_moved_connection_is_reached_by_user_by_session_and_by_disconnect() -> None:
    with Gateway(MOVING, *IN_TURNS, workers=2) as gateway:
        async with riders(gateway, *"ab") as (here, there):
            assert here.slot != there.slot
            await reload(gateway, "2 connections moved, 0 closed")
            facts = await there.who()
            here.tell(do="tell_user", user="user-b")
            assert await there.answer() == {"told": "user"}
            here.tell(do="tell_session", session=facts["session"])
            assert await there.answer() == {"told": "session"}
            here.tell(do="disconnect", user="user-b")
            assert await there.wait_ended() == 4000
            await assert_echoes(here)


@pytest.mark.long
async def test_a_moved_client_that_reads_nothing_is_closed_as_slow() -> None:
    with Gateway(MOVING, *IN_TURNS, "--set", "outbox_seconds=1", workers=1) as gateway:
        rider = await Rider(0, "a").connect(gateway.port, receive_buffer=4096)
        try:
            rider.transport.pause_reading()
            await reload(gateway, "1 connection moved, 0 closed")
            rider.tell(do="flood", count=12, size=1 << 16)
            await asyncio.to_thread(gateway.wait_for_line, "on_disconnect")
            assert " 1013" in gateway.log
        finally:
            await abort_all([rider])


@pytest.mark.long
async def test_a_moved_client_that_answers_no_ping_is_closed() -> None:
    options = ("--set", "ping_interval=0.5", "--set", "ping_timeout=0.5")
    with Gateway(MOVING, *IN_TURNS, *options, workers=1) as gateway:
        async with riders(gateway, *"ab") as (silent, lively):
            await reload(gateway, "2 connections moved, 0 closed")
            pings = lively.pings
            silent.answers_pings = False
            await silent.wait_ended()
            assert lively.pings > pings
            await assert_echoes(lively)

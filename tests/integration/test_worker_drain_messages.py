"""One worker process and what its primary can tell it: to drain, to stop meanwhile, how many slots there are."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from support.closes import close_of
from support.lone_worker import LoneWorker, lone_worker
from support.valkey import ValkeyServer
from support.waiting import wait_until
from websockets.asyncio.client import ClientConnection

from stickygw.errors import ExitCode
from stickygw.wire.link import Declined, DeclineReason, Drain, Ended, Resize, Stop, Taken

APP = f"{Path(__file__).parent / 'apps' / 'draining.py'}:app"
HEAD = b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
async def worker(tmp_path: Path, valkey: ValkeyServer, prefix: str) -> AsyncIterator[LoneWorker]:
    async with lone_worker(APP, tmp_path, redis=valkey.url, prefix=prefix) as worker:
        await worker.wait_ready()
        yield worker


async def ask(client: ClientConnection, **question: Any) -> Any:
    await client.send(json.dumps(question))
    return json.loads(await client.recv())


async def end_of(worker: LoneWorker) -> tuple[int, list[str]]:
    """Its exit status, and what the application printed."""
    status = await worker.wait_end()
    return status, [line for line in worker.log.splitlines() if line.startswith("app: ")][1:]


# Drain


async def test_a_drain_closes_all_with_1012_one_after_the_other_and_ends_the_worker_with_0(worker: LoneWorker) -> None:
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(worker.client()) for _ in range(5)]
        closed: list[float] = []

        async def closing(client: ClientConnection) -> tuple[int, str]:
            end = await close_of(client)
            closed.append(time.monotonic())
            return end

        worker.send(Drain(grace_seconds=20.0, spread_seconds=1.0))
        ends = await asyncio.gather(*map(closing, clients))
        status, said = await end_of(worker)
    assert set(ends) == {(1012, "restarting; come back within 1.0 s")}
    assert closed[-1] - closed[0] > 0.3, "the first is closed within 0.2 s, the last 0.8 s after the order or later"
    assert status == ExitCode.OK
    assert said == ["app: left 1012"] * 5 + ["app: on_stop"]
    assert "ERROR" not in worker.log
    assert sorted(id for ended in worker.all_said(Ended) for id in ended.ids) == [1, 2, 3, 4, 5]


async def test_a_draining_worker_finishes_what_runs_and_takes_nothing_new(worker: LoneWorker) -> None:
    async with worker.client() as client:
        await ask(client, do="work", seconds=0.5)
        worker.send(Drain(20.0, 0.0))
        (await worker.arrival(HEAD % b"/")).close()
        await wait_until(lambda: worker.all_said(Declined) == [Declined(2, DeclineReason.STOPPING)])
        assert (await close_of(client))[0] == 1012
        status, said = await end_of(worker)
    assert status == ExitCode.OK
    assert said == ["app: work finished", "app: left 1012", "app: on_stop"]


async def test_a_handshake_under_way_is_finished_in_a_drain_and_closed_like_the_others(worker: LoneWorker) -> None:
    async def drain() -> None:
        await worker.wait_log("app: shaking hands")
        worker.send(Drain(20.0, 0.0))

    draining = asyncio.ensure_future(drain())
    async with worker.client("/slow") as client:
        await draining
        assert (await close_of(client))[0] == 1012
        status, said = await end_of(worker)
    assert status == ExitCode.OK
    assert said == ["app: shaking hands", "app: left 1012", "app: on_stop"]


async def test_an_answer_that_a_slow_client_reads_is_finished_in_a_drain(worker: LoneWorker, tmp_path: Path) -> None:
    (tmp_path / "large.bin").write_bytes(b"x" * (4 << 20))
    client = await worker.arrival(HEAD % b"/large.bin")
    await wait_until(lambda: worker.all_said(Taken))
    worker.send(Drain(20.0, 0.0))
    await worker.wait_log("draining: ")
    client.setblocking(True)
    with client:
        answer = await asyncio.to_thread(_read_all, client)
    assert len(answer.partition(b"\r\n\r\n")[2]) == 4 << 20
    assert (await end_of(worker))[0] == ExitCode.OK


def _read_all(client: Any) -> bytes:
    parts = []
    while part := client.recv(1 << 20):
        parts.append(part)
    return b"".join(parts)


async def test_what_is_left_after_the_drains_grace_is_cut_and_named(worker: LoneWorker) -> None:
    async with worker.client() as client:
        await ask(client, do="wait for ever")
        worker.send(Drain(1.0, 0.0))
        assert (await close_of(client))[0] == 1012
        assert await worker.wait_end() == ExitCode.FORCED_STOP
    assert re.search(r"ERROR .*cut at the drain: 1 connections, 1 handlers running: asked > Event.wait", worker.log)


async def test_a_spread_longer_than_the_grace_still_leaves_time_for_every_goodbye(worker: LoneWorker) -> None:
    async with worker.client() as first, worker.client() as second:
        worker.send(Drain(2.0, 600.0))
        assert {(await close_of(client))[0] for client in (first, second)} == {1012}
        assert await worker.wait_end() == ExitCode.OK


# Stop and drain


async def test_a_stop_takes_over_a_drain_and_closes_what_is_left_with_1001_at_once(worker: LoneWorker) -> None:
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(worker.client()) for _ in range(3)]
        worker.send(Drain(600.0, 500.0))
        worker.send(Stop(10.0, 2.0))
        for client in clients:
            assert await close_of(client) == (1001, "gateway stopping; come back within 2.0 s")
        status, said = await end_of(worker)
    assert status == ExitCode.OK
    assert said == ["app: left 1001"] * 3 + ["app: on_stop"]


@pytest.mark.parametrize("orders", [(Drain(600.0, 0.0), Stop(1.0, 0.0)), (Drain(1.0, 0.0), Stop(600.0, 0.0))])
async def test_of_a_drains_and_a_stops_deadline_the_earlier_holds(worker: LoneWorker, orders: Any) -> None:
    async with worker.client() as client:
        await ask(client, do="wait for ever")
        for order in orders:
            worker.send(order)
        assert await worker.wait_end() == ExitCode.FORCED_STOP
    assert "cut at the stop: 1 connections, 1 handlers running: asked > Event.wait" in worker.log


async def test_a_stop_alone_works_as_ever(worker: LoneWorker) -> None:
    async with worker.client() as client:
        worker.send(Stop(10.0, 1.0))
        assert await close_of(client) == (1001, "gateway stopping; come back within 1.0 s")
        assert await worker.wait_end() == ExitCode.OK


async def test_a_worker_that_is_orphaned_in_a_drain_still_ends(worker: LoneWorker) -> None:
    async with worker.client() as client:
        await ask(client, do="wait for ever")
        worker.send(Drain(1.5, 0.0))
        worker.link.close()
        assert (await close_of(client))[0] == 1012
        assert await worker.wait_end() == ExitCode.FORCED_STOP


# While it starts


async def test_orders_that_come_before_it_is_ready_are_not_lost(
    tmp_path: Path, valkey: ValkeyServer, prefix: str
) -> None:
    async with lone_worker(APP, tmp_path, redis=valkey.url, prefix=prefix) as worker:
        worker.send(Resize(3))
        await worker.wait_ready()
        async with worker.client() as client:
            assert await ask(client, do="who") == {"workers": 3}
            worker.send(Resize(5))
            await wait_until(lambda: _has_workers(client, 5))


async def _has_workers(client: ClientConnection, workers: int) -> bool:
    return await ask(client, do="who") == {"workers": workers}


async def test_a_drain_ends_a_worker_that_is_not_ready(tmp_path: Path, valkey: ValkeyServer, prefix: str) -> None:
    async with lone_worker(APP, tmp_path, redis=valkey.url, prefix=prefix) as worker:
        await worker.wait_log("app: starting")
        worker.send(Drain(20.0, 0.0))
        assert await worker.wait_end() == ExitCode.OK
        assert "app: on_stop" not in worker.log


async def test_a_connection_is_closed_when_its_handler_is_done_for_which_it_waits_a_second_at_most(
    worker: LoneWorker,
) -> None:
    async with worker.client() as quick, worker.client() as slow, worker.client() as idle:
        await ask(quick, do="work", seconds=0.5)
        await ask(slow, do="work", seconds=3.0)
        worker.send(Drain(20.0, 0.0))
        begun = time.monotonic()
        closed = {}
        for name, client in [("idle", idle), ("quick", quick), ("slow", slow)]:
            assert (await close_of(client))[0] == 1012
            closed[name] = time.monotonic() - begun
        assert worker.log.count("app: work finished") == 1
        assert closed["quick"] > 0.4, "its handler had half a second to go"
        assert closed["slow"] > 0.9
        assert await worker.wait_end() == ExitCode.OK
    assert worker.log.count("app: work finished") == 2

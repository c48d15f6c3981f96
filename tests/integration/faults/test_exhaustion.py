"""Descriptors run out, clients dawdle, everybody comes back at once: nothing spins, good clients are served."""

import asyncio
import os
import resource
import signal
import time
from pathlib import Path

import pytest
from support.client import Client, gather_bounded
from support.gateway import Gateway
from support.observed import cpu_share, descriptors, quantile
from support.raw import Raw, upgrade
from support.waiting import wait_until
from websockets.exceptions import InvalidStatus, WebSocketException

PROBE = f"{Path(__file__).parents[1] / 'apps' / 'probe.py'}:app"
STORE_CONNECTIONS = 16
"""A worker's pool to the session store may grow by so many while it is busy."""
HALF_A_HEAD = b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: webso"


async def opened(port: int, count: int, data: bytes) -> list[Raw]:
    """`count` connections that have each sent `data`."""
    raws = []
    for _ in range(count):
        raw = await Raw(port).__aenter__()
        await raw.send(data)
        raws.append(raw)
    return raws


async def closed(raws: list[Raw]) -> None:
    for raw in raws:
        await raw.__aexit__(None, None, None)


async def is_served(gateway: Gateway) -> bool:
    """Whether a good client gets its answer now."""
    try:
        async with asyncio.timeout(2), Client(gateway.ws_url) as client:
            return (await client.who())["workers"] == 2
    except (OSError, TimeoutError, WebSocketException):
        return False


def limit_descriptors(pid: int, limit: int) -> None:
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, limit))


async def test_a_primary_without_descriptors_idles_and_recovers() -> None:
    options = ["--set", "header_timeout=60", "--set", "max_pending_per_address=5000"]
    with Gateway(PROBE, *options, workers=2) as gateway:
        assert await is_served(gateway)
        await wait_until(lambda: descriptors(gateway.pid) < 60)
        baseline = descriptors(gateway.pid)
        limit_descriptors(gateway.pid, 256)
        without_since = time.monotonic()
        raws = await opened(gateway.port, 1000, HALF_A_HEAD)
        share = await cpu_share(gateway.pid, 1.5)
        assert descriptors(gateway.pid) <= 256
        left_at = time.monotonic()
        await closed(raws)
        await wait_until(lambda: is_served(gateway), seconds=20)
        recovered = time.monotonic() - left_at
        lines = gateway.log.count("cannot accept: ")
        print(
            f"primary without descriptors: {share:.1%} of a core, {lines} log lines; "
            f"a good client is served {recovered:.2f} s after"
        )
        assert share < 0.6, "ten times 20 % would show a spin as well as this"
        await wait_until(lambda: descriptors(gateway.pid) <= baseline, seconds=20)
        assert 1 <= lines <= 2 + (left_at + recovered - without_since), "one a second says it, more is noise"


async def test_workers_without_descriptors_decline_and_the_connection_is_answered() -> None:
    with Gateway(PROBE, workers=2) as gateway:
        assert await is_served(gateway)
        pids = gateway.worker_pids()
        baseline = {pid: descriptors(pid) for pid in pids.values()}
        for pid in pids.values():
            limit_descriptors(pid, 100)
        raws = await opened(gateway.port, 300, upgrade("/", host=f"127.0.0.1:{gateway.port}"))
        answers = [await raw.receive() for raw in raws]
        served = [data for data in answers if data.startswith(b"HTTP/1.1 101 ")]
        refused = [data for data in answers if data.startswith(b"HTTP/1.1 503 ")]
        share = await cpu_share(gateway.pid, 1.0)
        print(f"workers with 100 descriptors: {len(served)} served, {len(refused)} answered 503, primary {share:.1%}")
        assert len(served) + len(refused) == 300, "nobody is left without an answer"
        assert len(served) > 100
        assert all(b"Retry-After" in data for data in refused)
        await closed(raws)
        await wait_until(lambda: is_served(gateway), seconds=20)
        assert gateway.worker_pids() == pids, "no worker died of it"
        for pid in pids.values():
            await wait_until(lambda pid=pid: descriptors(pid) <= baseline[pid] + STORE_CONNECTIONS, seconds=20)


async def connect_times(gateway: Gateway, count: int) -> list[float]:
    """How long good clients take from connect to their first answer, one after the other."""
    times = []
    for _ in range(count):
        started = time.monotonic()
        async with Client(gateway.ws_url) as client:
            await client.who()
            times.append(time.monotonic() - started)
    return times


async def test_slow_heads_get_408_and_good_clients_do_not_notice() -> None:
    with Gateway(PROBE, "--set", "header_timeout=4", workers=2) as gateway:
        quiet = await connect_times(gateway, 100)
        raws = await opened(gateway.port, 200, HALF_A_HEAD)
        dribbling = asyncio.create_task(dribble(raws))
        share_task = asyncio.create_task(cpu_share(gateway.pid, 2.0))
        besides = await connect_times(gateway, 100)
        share = await share_task
        answers = await asyncio.gather(*(raw.receive_all() for raw in raws))
        dribbling.cancel()
        print(
            f"beside 200 slow heads: p99 connect {quantile(besides, 0.99) * 1000:.1f} ms "
            f"(without {quantile(quiet, 0.99) * 1000:.1f} ms); primary {share:.1%} of a core"
        )
        assert {data[:13] for data in answers} == {b"HTTP/1.1 408 "}
        assert quantile(besides, 0.99) < 20 * max(quantile(quiet, 0.99), 0.05)
        assert await is_served(gateway)
        await closed(raws)


async def dribble(raws: list[Raw]) -> None:
    """One more byte of a field for each, ten times a second."""
    while True:
        for raw in raws:
            raw.send_nowait(b"x")
        await asyncio.sleep(0.1)


@pytest.mark.long
@pytest.mark.alone
async def test_2_000_clients_dropped_at_once_are_all_back_on_their_slots() -> None:
    # All these clients are one process: where the machine is busy it sends the last heads long after it has connected.
    with Gateway(PROBE, "--set", "header_timeout=60", workers=2) as gateway:
        clients = [Client(gateway.ws_url) for _ in range(2000)]
        await gather_bounded(100, *(client.open() for client in clients))
        before = dict(zip(clients, await gather_bounded(100, *(client.who() for client in clients)), strict=True))
        dropped_at = time.monotonic()
        for pid in gateway.worker_pids().values():
            os.kill(pid, signal.SIGKILL)

        async def comes_back(client: Client) -> float:
            while True:
                try:
                    await client.open()
                    break
                except InvalidStatus as refused:
                    if refused.response.status_code != 503:
                        raise
                    # A busy store: the answer says when to come again.
                    await asyncio.sleep(float(refused.response.headers["Retry-After"]))
            answer = await client.who()
            assert answer["slot"] == before[client]["slot"]
            assert answer["session"] == before[client]["session"]
            return time.monotonic() - dropped_at

        back = await asyncio.gather(*(comes_back(client) for client in clients))
        print(f"2,000 back on their slots: half {quantile(back, 0.5):.2f} s, all {max(back):.2f} s")
        assert max(back) < 60
        await gather_bounded(100, *(client.close() for client in clients))

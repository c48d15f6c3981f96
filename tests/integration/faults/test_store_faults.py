"""Valkey is killed, restarted and stopped while messages flow: workers live on, echoes go on, nothing comes twice."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.client import Client
from support.gateway import IN_TURNS, Gateway
from support.observed import quantile
from support.valkey import ValkeyServer
from support.waiting import wait_until

ECHO_P99_SECONDS = 0.5
"""Echoes take some milliseconds, also on a busy machine; a wait for the store would take its time limit, 1 s."""

PROBE = f"{Path(__file__).parents[1] / 'apps' / 'probe.py'}:app"


class Traffic:
    """One client publishes numbers, one on the other worker collects them, and one that needs no store echoes."""

    def __init__(self, gateway: Gateway) -> None:
        self.sender, self.receiver, self.echoer = (Client(gateway.ws_url) for _ in range(3))
        self.arrived: list[tuple[float, int]] = []
        self.echoes: list[float] = []
        self.sent = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        for client in (self.sender, self.receiver, self.echoer):
            await client.open()
        slots = [(await client.who())["slot"] for client in (self.sender, self.receiver)]
        assert slots[0] != slots[1]
        await self.receiver.ask(do="join", room="r")
        for work in (self._send, self._collect, self._echo):
            self._tasks.append(asyncio.create_task(work()))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        outcomes = await asyncio.gather(*self._tasks, return_exceptions=True)
        for client in (self.sender, self.receiver, self.echoer):
            await client.close()
        assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes), outcomes

    async def wait_bridged(self) -> float:
        """Wait until a message that is sent from now on arrives; the monotonic time."""
        first = self.sent + 1
        await wait_until(lambda: self.arrived and self.arrived[-1][1] >= first, seconds=30)
        return next(at for at, number in self.arrived if number >= first)

    async def _send(self) -> None:
        while True:
            self.sent += 1
            await self.sender.send({"do": "publish", "room": "r", "message": self.sent})
            await asyncio.sleep(0.005)

    async def _collect(self) -> None:
        while True:
            number = await self.receiver.receive()
            self.arrived.append((time.monotonic(), number))

    async def _echo(self) -> None:
        while True:
            started = time.monotonic()
            await self.echoer.ask(echo="?")
            self.echoes.append(time.monotonic() - started)
            await asyncio.sleep(0.01)

    @property
    def numbers(self) -> list[int]:
        return [number for _, number in self.arrived]


@asynccontextmanager
async def traffic_over(server: ValkeyServer) -> AsyncIterator[tuple[Gateway, Traffic]]:
    options = ["--redis", server.url, *IN_TURNS, "--set", f"redis.prefix=t{secrets.token_hex(4)}"]
    with Gateway(PROBE, *options, workers=2, environment={"STICKYGW_SECRET": "s" * 40}) as gateway:
        traffic = Traffic(gateway)
        await traffic.start()
        pids = gateway.worker_pids()
        await traffic.wait_bridged()
        yield gateway, traffic
        await traffic.stop()
        assert gateway.worker_pids() == pids, "no worker ended for it"
        assert traffic.numbers == sorted(set(traffic.numbers)), "nothing twice, nothing out of order"
        assert "Traceback" not in gateway.log


@pytest.fixture
def server():
    server = ValkeyServer()
    server.start()
    yield server
    server.close()


async def test_after_a_restart_of_the_store_messages_are_bridged_again(server: ValkeyServer) -> None:
    async with traffic_over(server) as (_, traffic):
        server.stop()
        down_at, echoes_before = time.monotonic(), len(traffic.echoes)
        await asyncio.sleep(1.0)
        await asyncio.to_thread(server.start)
        up_at = time.monotonic()
        back = await traffic.wait_bridged() - up_at
        lost = set(range(1, traffic.numbers[-1])) - set(traffic.numbers)
        print(
            f"store down {up_at - down_at:.1f} s: bridged {back:.2f} s after it is up, {len(lost)} not bridged, "
            f"echo p99 {quantile(traffic.echoes[echoes_before:], 0.99) * 1000:.1f} ms meanwhile"
        )
        assert back < 20
        assert_echoes_went_on(traffic, echoes_before)


@pytest.mark.long
async def test_after_a_pause_of_the_store_messages_are_bridged_again(server: ValkeyServer) -> None:
    async with traffic_over(server) as (_, traffic):
        server.pause()
        echoes_before = len(traffic.echoes)
        await asyncio.sleep(5.0)
        server.resume()
        up_at = time.monotonic()
        back = await traffic.wait_bridged() - up_at
        lost = set(range(1, traffic.numbers[-1])) - set(traffic.numbers)
        print(
            f"store paused 5 s: bridged {back:.2f} s after it goes on, {len(lost)} not bridged, "
            f"echo p99 {quantile(traffic.echoes[echoes_before:], 0.99) * 1000:.1f} ms meanwhile"
        )
        assert back < 30
        assert_echoes_went_on(traffic, echoes_before)


def assert_echoes_went_on(traffic: Traffic, echoes_before: int) -> None:
    """Who needs no store does not notice that it is away: not even the slowest in a hundred waits for a time limit."""
    meanwhile = traffic.echoes[echoes_before:]
    assert len(meanwhile) > 20, "there were echoes, or the test shows nothing"
    assert quantile(meanwhile, 0.99) < ECHO_P99_SECONDS


async def test_no_acknowledged_write_is_gone_after_a_pause_of_the_store(server: ValkeyServer) -> None:
    options = ["--redis", server.url, "--set", f"redis.prefix=t{secrets.token_hex(4)}", "--set", "redis.timeout=0.2"]
    with Gateway(PROBE, *options, workers=2, environment={"STICKYGW_SECRET": "s" * 40}) as gateway:
        client = Client(gateway.ws_url)
        async with client:
            acknowledged = await count(client)
            server.pause()
            assert await count(client) == 0, "what a store that does not answer has not taken is not acknowledged"
            server.resume()

            async def counts_on() -> bool:
                return await count(client) > acknowledged

            await wait_until(counts_on, seconds=30)
            acknowledged = await count(client)
        async with client:
            assert (await client.who())["fields"]["count"] >= acknowledged > 0


async def count(client: Client) -> int:
    """Count one more; what was acknowledged, 0 when the store is away."""
    answer = await client.ask(do="count")
    return int(answer.get("count", 0))


async def test_no_acknowledged_write_is_gone_when_the_embedded_valkey_is_killed() -> None:
    with Gateway(PROBE, workers=2) as gateway:
        client = Client(gateway.ws_url)
        async with client:
            acknowledged = 0
            killed = gateway.valkey_pid()
            assert killed is not None
            for number in range(300):
                if number == 150:
                    gateway.kill_valkey()
                answer = await client.ask(do="count")
                acknowledged = max(acknowledged, answer.get("count", 0))
                if number >= 150 and "count" in answer:
                    break
                await asyncio.sleep(0.01 if number >= 150 else 0)
            assert acknowledged >= 151, "counting goes on after the restart, or the test shows nothing"
            assert gateway.valkey_pid() not in (None, killed)
        async with client:
            assert (await client.who())["fields"]["count"] >= acknowledged

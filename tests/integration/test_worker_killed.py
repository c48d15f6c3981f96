"""A killed worker takes only its own connections, and its clients find slot and session again."""

import asyncio
import os
import signal
import time
from pathlib import Path

import websockets
from support.client import Client, gather_bounded
from support.gateway import Gateway

PROBE = f"{Path(__file__).parent / 'apps' / 'probe.py'}:app"
CLIENTS = 200


async def test_only_its_own_clients_notice_and_they_come_back_to_slot_and_session() -> None:
    with Gateway(PROBE, workers=4) as gateway:
        clients = [Client(gateway.ws_url) for _ in range(CLIENTS)]
        await gather_bounded(20, *(client.open() for client in clients))
        before = {client: await client.who() for client in clients}
        victims = [client for client in clients if before[client]["slot"] == 2]
        others = [client for client in clients if before[client]["slot"] != 2]
        assert victims

        old_pid = gateway.worker_pids()[2]
        os.kill(old_pid, signal.SIGKILL)
        killed_at = time.monotonic()
        closes = await asyncio.gather(*(client.connection.wait_closed() for client in victims))
        assert len(closes) == len(victims)

        async def comes_back(client: Client) -> float:
            """Reconnect with the cookie, as a page does; how long after the kill it is served."""
            await client.open()
            answer = await client.who()
            assert answer["slot"] == 2
            assert answer["pid"] != old_pid
            assert answer["session"] == before[client]["session"]
            assert answer["fields"] == {"visits": 2}
            return time.monotonic() - killed_at

        back = await gather_bounded(50, *(comes_back(client) for client in victims))
        print(f"{len(victims)} clients of the killed worker: first back {min(back):.2f} s, last {max(back):.2f} s")
        assert min(back) < 20
        for client in others:
            answer = await client.who()
            assert answer["pid"] == before[client]["pid"]
            assert client.connection.state is websockets.State.OPEN
        await gather_bounded(50, *(client.close() for client in clients))


async def test_a_worker_that_dies_again_and_again_leaves_the_port_answering() -> None:
    with Gateway(PROBE, workers=2) as gateway:
        for generation in range(3):
            pids = gateway.worker_pids()
            os.kill(pids[0], signal.SIGKILL)
            async with Client(gateway.ws_url) as client:
                assert (await client.who())["workers"] == 2
            deadline = time.monotonic() + 20
            while gateway.worker_pids().get(0) in (None, pids[0]):
                assert time.monotonic() < deadline, f"slot 0 was not started again after death {generation + 1}"
                await asyncio.sleep(0.02)
        assert gateway.stop() == 0

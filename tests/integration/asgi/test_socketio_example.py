"""examples/socketio_polling: clients of python-socketio that poll without cookies, on four workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
import socketio
from support.example_clients import Outcome, run_client
from support.gateway import IN_TURNS, ROOT, Gateway, running_gateway
from support.uvicorn_server import Uvicorn
from support.valkey import ValkeyServer
from support.waiting import wait_until

EXAMPLE = ROOT / "examples" / "socketio_polling"
TARGET = f"{EXAMPLE / 'app.py'}:app"
LEARN = ("--learn", "engineio")
SHORT_STOP = ("--set", "stop_timeout=1")
"""python-engineio leaves a poll that its client has given up unanswered for 25 s, and a stop would wait for it."""


async def visits(url: str, clients: int, events: int, *transports: str) -> Outcome:
    options = ("--clients", clients, "--events", events, "--transports", *transports)
    return await run_client(EXAMPLE / "client.py", url, *options)


@pytest.fixture(scope="module")
def learning() -> Iterator[Gateway]:
    with Gateway(TARGET, *LEARN, *IN_TURNS, *SHORT_STOP, workers=4) as gateway:
        yield gateway


async def assert_that_all_are_known(gateway: Gateway, clients: int, events: int) -> None:
    outcome = await visits(gateway.url, clients, events, "polling")
    assert (outcome.served, outcome.transports) == (clients, ["polling"]), outcome.text
    assert outcome.workers == set(gateway.worker_pids().values())
    assert "Invalid session" not in gateway.log


async def test_polling_clients_without_cookies_are_known(learning: Gateway) -> None:
    """Without ``--learn``, below, the same load fails."""
    await assert_that_all_are_known(learning, clients=16, events=5)


@pytest.mark.alone
@pytest.mark.long
async def test_a_hundred_polling_clients_are_known_where_uvicorn_knows_them_not(learning: Gateway) -> None:
    await assert_that_all_are_known(learning, clients=100, events=20)
    # The test sees what it is about: without affinity even a small part of the load fails.
    clients, events = 16, 5
    with Uvicorn("app:app", directory=str(EXAMPLE), workers=4) as server:
        outcome = await visits(f"http://127.0.0.1:{server.port}", clients, events, "polling")
        assert outcome.served < clients
        assert '400 "Invalid session' in outcome.text


async def test_websockets_and_the_step_from_polling_to_one_work_on_all_workers(learning: Gateway) -> None:
    for transports in (["websocket"], ["polling", "websocket"]):
        outcome = await visits(learning.url, 8, 3, *transports)
        assert (outcome.served, outcome.transports) == (8, ["websocket"]), outcome.text
        assert outcome.workers == set(learning.worker_pids().values())


async def test_without_learn_the_log_names_the_option() -> None:
    async with running_gateway(TARGET, *SHORT_STOP, workers=4) as gateway:
        outcome = await visits(gateway.url, 16, 3, "polling")
        assert outcome.served < 16
        assert await asyncio.to_thread(gateway.wait_for_line, "run with --learn engineio")


@asynccontextmanager
async def polling(url: str) -> AsyncIterator[socketio.AsyncClient]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:
        client = socketio.AsyncClient(reconnection=False, http_session=http)
        await client.connect(url, transports=["polling"], wait_timeout=20)
        tasks = (client.eio.read_loop_task, client.eio.write_loop_task)
        try:
            yield client
        finally:
            await client.eio.disconnect(abort=True)
    await asyncio.gather(*filter(None, tasks))


@pytest.mark.long
async def test_with_redis_a_room_reaches_across_workers() -> None:
    redis = ValkeyServer()
    redis.start()
    try:
        environment = {"REDIS_URL": redis.url}
        async with (
            running_gateway(TARGET, *LEARN, *IN_TURNS, *SHORT_STOP, workers=2, environment=environment) as gateway,
            polling(gateway.url) as one,
            polling(gateway.url) as other,
        ):
            heard: list[str] = []
            one.on("said", heard.append)
            entered = await one.call("enter", "lobby", timeout=20)
            assert (await other.call("count", timeout=20))["worker"] != entered["worker"]

            async def said() -> bool:
                # Again and again: what is emitted before the other worker has subscribed is lost.
                await other.emit("say", ("lobby", "hello"))
                await other.call("count", timeout=20)
                return "hello" in heard

            await wait_until(said)
    finally:
        redis.stop()

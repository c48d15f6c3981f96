"""The messages of a worker's connections, summed up: those that are open, those that ended, and what waits."""

import asyncio
from collections.abc import Awaitable, Callable

from support.waiting import wait_until

from stickygw import App
from stickygw.apps.native.traffic import Traffic
from stickygw.testing import AppClient

StartClient = Callable[..., Awaitable[AppClient]]


async def test_the_messages_of_ended_connections_stay_in_the_sum(app_client: StartClient) -> None:
    app = App()

    @app.on_message
    def said(conn, message):
        conn.send(message)
        conn.send(message)

    client = await app_client(app)
    async with client.connect("/") as first, client.connect("/") as second:
        for conn in (first, second):
            await conn.send("x")
            await conn.receive()
            await conn.receive()
        assert client.runtime.traffic() == Traffic(2, 4, 0)
    await wait_until(lambda: not client.runtime.connections)
    assert client.runtime.traffic() == Traffic(2, 4, 0)


async def test_messages_that_wait_for_a_handler_are_queued(app_client: StartClient) -> None:
    app, may_go_on = App(), asyncio.Event()

    @app.on_message
    async def said(conn, message):
        await may_go_on.wait()

    client = await app_client(app)
    async with client.connect("/") as conn:
        for _ in range(4):
            await conn.send("x")
        await wait_until(lambda: client.runtime.traffic() == Traffic(4, 0, 3))
        may_go_on.set()
        await wait_until(lambda: client.runtime.traffic() == Traffic(4, 0, 0))


async def test_messages_that_a_client_does_not_take_are_queued(app_client: StartClient) -> None:
    app = App()

    @app.on_message
    def said(conn, message):
        for _ in range(5):
            conn.send(b"x" * 1_000_000)

    client = await app_client(app, outbox_bytes=1 << 24)
    async with client.connect("/") as conn:
        conn.connection.transport.pause_reading()
        await conn.send("x")
        await wait_until(lambda: client.runtime.traffic().queued > 0)
        conn.connection.transport.resume_reading()
        for _ in range(5):
            await conn.receive()
        assert client.runtime.traffic() == Traffic(1, 5, 0)

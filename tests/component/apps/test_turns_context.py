"""A handler runs under its connection's id, whoever's callback it was that brought the message."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from support.waiting import wait_until

from stickygw import App, Connection
from stickygw.observability.context import connection_id
from stickygw.testing import AppClient
from stickygw.types import ConnectionId

StartClient = Callable[..., Awaitable[AppClient]]
ANOTHER = ConnectionId("0123456789abcdef")


@pytest.mark.parametrize("is_async", [True, False])
async def test_the_id_is_set_for_the_handler_and_no_longer(app_client: StartClient, is_async: bool) -> None:
    app, seen = App(), list[tuple[object, object]]()

    def said(conn: Connection, message: str) -> None:
        seen.append((connection_id.get(), conn.id))
        if message == "raise":
            raise RuntimeError("on purpose")

    async def said_async(conn: Connection, message: str) -> None:
        said(conn, message)

    app.on_message(said_async if is_async else said)
    client = await app_client(app)
    async with client.connect("/"):
        await wait_until(lambda: client.runtime.connections)
        [connection] = client.runtime.connections
        # A client that did not read for a while is read again from the callback of whichever wrote to it.
        connection_id.set(ANOTHER)
        for count, message in enumerate(("x", "x", "raise"), start=1):
            connection.receiver.message_received(message)
            assert connection_id.get() == ANOTHER
            await wait_until(lambda count=count: len(seen) == count)
    assert seen == [(connection.id, connection.id)] * 3

"""A connection that is sent away: what has been received is handled before its client may come to another worker."""

from __future__ import annotations

from typing import Any

import pytest
from support.waiting import wait_until

from stickygw import App, Connection
from stickygw.testing import AppClient


async def test_what_came_in_the_same_moment_is_handled_first(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    shut = Connection.shut

    def shut_noted(self: Connection, *arguments: Any, **more: Any) -> None:
        events.append("shut")
        shut(self, *arguments, **more)

    monkeypatch.setattr(Connection, "shut", shut_noted)
    app = App()

    @app.handler
    async def listen(conn: Connection) -> None:
        async for message in conn:
            events.append(message)

    async with AppClient(app) as client, client.connect("/") as visitor:
        await visitor.send("first")
        await wait_until(lambda: events)
        (connection,) = client.runtime.connections
        assert isinstance(connection, Connection)
        await wait_until(lambda: connection.receiver._waiter is not None)  # the coroutine waits for the next
        connection.receiver.message_received("second")
        connection.send_away(1012, "", within=5.0)
        assert await visitor.wait_closed() == 1012
    assert events[:3] == ["first", "second", "shut"]

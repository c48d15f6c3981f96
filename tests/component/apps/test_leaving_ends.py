"""A move is over when the last connection it waited for has gone, or cannot: nobody waits for the whole time it has."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from support.joined_workers import joined
from support.waiting import wait_until

from stickygw import App, Connection
from stickygw.apps.native.leaving import AT_A_TIME


class Endless:
    """What is left of a compressed message of far more bytes than it decompresses to."""

    can_repeat = False


@pytest.fixture
async def may_handle() -> asyncio.Event:
    return asyncio.Event()


def serving(may_handle: asyncio.Event) -> App:
    """A message occupies its connection until `may_handle`; "bye" closes it then."""
    app = App()

    @app.on_message
    async def said(conn: Connection, message: str) -> None:
        await may_handle.wait()
        if message == "bye":
            conn.close(4000)
        else:
            await conn.send(message)

    return app


async def test_when_the_last_one_ends_while_it_is_waited_for_the_move_is_over(may_handle: asyncio.Event) -> None:
    async with (
        joined(serving(may_handle), serving(may_handle)) as workers,
        workers.old.connect("/") as other,
        workers.old.connect("/") as busy,
    ):
        await busy.send("bye")
        await wait_until(lambda: any(each.receiver._is_busy for each in workers.old.runtime.connections))
        workers.begin(within_seconds=600)  # `outcome` waits less
        await wait_until(lambda: workers.leaving.outcome.moved == 1)
        may_handle.set()
        outcome = await workers.outcome()
        assert (outcome.moved, outcome.left) == (1, 0)
        assert await busy.wait_closed() == 4000
        await other.send("y")
        assert await other.receive() == "y"


async def test_when_the_last_one_cannot_travel_the_move_is_over_and_it_is_left(may_handle: asyncio.Event) -> None:
    old, new = serving(may_handle), serving(may_handle)

    @old.on_move_out
    def out(conn: Connection) -> object:
        return object()

    may_handle.set()
    async with joined(old, new) as workers, workers.old.connect("/") as conn:
        workers.begin(within_seconds=600)
        outcome = await workers.outcome()
        assert (outcome.moved, outcome.left) == (0, 1)
        await conn.send("x")
        assert await conn.receive() == "x"  # it is served here until it is drained


async def test_a_hook_that_does_not_end_keeps_its_own_connection_only(
    may_handle: asyncio.Event, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = serving(may_handle), serving(may_handle)

    @old.on_move_out
    async def out(conn: Connection) -> None:
        if conn.request.query_string == "waits":
            await asyncio.Event().wait()

    may_handle.set()
    async with (
        joined(old, new, grace_seconds=0.05) as workers,
        workers.old.connect("/?waits") as waits,
        workers.old.connect("/") as other,
    ):
        workers.begin(within_seconds=600)
        outcome = await workers.outcome()
        assert (outcome.moved, outcome.left) == (1, 1)
        assert not workers.old.runtime.tasks
        assert "took longer than move_grace" in caplog.text
        for conn in (waits, other):
            await conn.send("x")
            assert await conn.receive() == "x"


async def test_who_is_in_a_message_that_cannot_travel_keeps_nobody_waiting(
    may_handle: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than are frozen in one step: they would take all the places."""
    may_handle.set()
    async with AsyncExitStack() as stack:
        workers = await stack.enter_async_context(joined(serving(may_handle), serving(may_handle)))
        for _ in range(AT_A_TIME + 1):
            await stack.enter_async_context(workers.old.connect("/"))
        for connection in workers.old.runtime.connections:  # as `test_websocket_frozen` brings it about
            assert isinstance(connection, Connection)
            assert connection._websocket is not None
            monkeypatch.setattr(connection._websocket, "_fragments", Endless())
        other = await stack.enter_async_context(workers.old.connect("/"))
        workers.begin(within_seconds=600)
        outcome = await workers.outcome()
        assert (outcome.moved, outcome.left) == (1, AT_A_TIME + 1)
        await other.send("x")
        assert await other.receive() == "x"
        monkeypatch.undo()

"""A move is over when the last connection it waited for has gone, or cannot: nobody waits for the whole time it has."""

from __future__ import annotations

import asyncio

import pytest
from support.joined_workers import joined
from support.waiting import wait_until

from stickygw import App, Connection


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

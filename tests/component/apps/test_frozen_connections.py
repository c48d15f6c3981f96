"""Between two workers a connection is nobody's: what is done to it then raises, or is done by the one that has it at
last."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from support.joined_workers import joined
from support.link_ends import new_stands_still, once_sent

from stickygw import App, Connection
from stickygw.errors import ConnectionMoved
from stickygw.sessions.holders import SESSION_ENDED


def answering(name: str, kept: list[Connection]) -> App:
    """Answers with its name; other code has each of its connections, in `kept`."""
    app = App()

    @app.on_connect
    async def enter(conn: Connection) -> None:
        kept.append(conn)
        await conn.join("hall")

    @app.on_message
    async def said(conn: Connection, message: str) -> None:
        await conn.send(f"{name}: {message}")

    return app


ACTS: dict[str, Callable[[Connection], object]] = {
    "send": lambda conn: conn.send("from elsewhere"),
    "close": lambda conn: conn.close(4000, "from elsewhere"),
    "join": lambda conn: conn.join("garden"),
    "leave": lambda conn: conn.leave("hall"),
    "identify": lambda conn: conn.identify("ann"),
}


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
async def test_what_other_code_does_to_a_frozen_connection_raises_and_leaves_no_trace(
    act: Callable[[Connection], object],
) -> None:
    kept: list[Connection] = []
    there: list[Connection] = []
    raised: list[ConnectionMoved] = []

    def try_it() -> None:
        try:
            act(kept[0])
        except ConnectionMoved as error:
            raised.append(error)

    old, new = answering("old", kept), answering("new", there)
    async with joined(old, new) as workers, workers.old.connect("/") as client:
        await client.send("a")
        assert await client.receive() == "old: a"
        workers.begin()
        once_sent(workers, try_it)
        assert (await workers.outcome()).moved == 1
        try_it()  # it is the other's now
        assert len(raised) == 2
        await client.send("b")
        assert await client.receive() == "new: b"
        (moved,) = workers.new.runtime.connections
        assert isinstance(moved, Connection)
        assert (moved.rooms, moved.user) == ({"hall"}, None)


@pytest.mark.parametrize("act", ["send", "close"])
async def test_who_could_not_go_obeys_again(act: str) -> None:
    kept: list[Connection] = []
    async with joined(answering("old", kept), answering("new", [])) as workers, workers.old.connect("/") as client:
        await client.send("a")
        assert await client.receive() == "old: a"
        workers.begin()
        once_sent(workers, workers.new_dies)
        assert (await workers.outcome()).left == 1
        await client.send("b")
        assert await client.receive() == "old: b"
        ACTS[act](kept[0])
        if act == "send":
            assert await client.receive() == "from elsewhere"
        else:
            assert await client.wait_closed() == 4000


@pytest.mark.parametrize("is_adopted", [True, False])
async def test_a_logout_closes_who_is_on_the_way(is_adopted: bool) -> None:
    sent = asyncio.Event()
    workers_still = ExitStack()
    async with (
        joined(answering("old", []), answering("new", [])) as workers,
        workers.old.connect("/", session={"user": "ann"}) as client,
    ):
        await client.send("a")
        assert await client.receive() == "old: a"
        workers.begin()

        def stand_still() -> None:
            workers_still.enter_context(new_stands_still(workers))
            sent.set()

        once_sent(workers, stand_still)
        await sent.wait()
        session = await workers.old.sessions.open(client.session_id)
        await session.destroy()
        workers.old.sessions.release(session)
        workers_still.close()
        if not is_adopted:
            workers.new_dies()
        await workers.outcome()
        assert await client.wait_closed() == SESSION_ENDED[0]

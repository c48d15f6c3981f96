"""A move whose store, or whose other side, is slower than the grace that handlers have: it takes longer, and nothing
and nobody is left behind for that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from itertools import count

import pytest
from support.joined_workers import OTHER_SLOT, Joined, joined
from support.link_ends import new_stands_still, occupied, old_stands_still
from support.waiting import loop_turns, wait_until

from stickygw import App, Connection
from stickygw.testing.app_client import TestConnection
from stickygw.wire.move import Finished, decode

ROOM = "hall"
LONG = "x" * 1000


def hall(may_handle: asyncio.Event) -> App:
    """Everybody is in one room; a message is answered, or "bye" closes, when it `may_handle`. Who is at ``/stays``
    cannot move."""
    app = App()

    @app.on_connect("/")
    async def enter(conn: Connection) -> None:
        await conn.join(ROOM)

    @app.on_message("/")
    async def said(conn: Connection, message: str) -> None:
        await may_handle.wait()
        if message == "bye":
            conn.close(4000)
        else:
            await conn.send(message)

    @app.handler("/stays")
    async def stay(conn: Connection) -> None:
        await conn.join(ROOM)
        async for message in conn:
            await conn.send(message)

    return app


@pytest.fixture
async def may_handle() -> asyncio.Event:
    return asyncio.Event()


# --- a slow store -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unanswered", [0, 2])
async def test_who_rests_waits_for_a_slow_store_beyond_the_grace_of_handlers(
    unanswered: int, may_handle: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    pings = count()

    def ping(callback: Callable[[bool], None]) -> None:
        asyncio.get_running_loop().call_later(0.1, callback, next(pings) >= unanswered)

    may_handle.set()
    async with AsyncExitStack() as stack:
        workers = await stack.enter_async_context(joined(hall(may_handle), hall(may_handle), grace_seconds=0.02))
        clients = [await stack.enter_async_context(workers.old.connect("/")) for _ in range(3)]
        for runtime in (workers.old.runtime, workers.new.runtime):
            monkeypatch.setattr(runtime.bridge, "ping", ping)
        workers.begin()
        looks: list[None] = []
        give_up_late = workers.leaving._give_up_late
        monkeypatch.setattr(workers.leaving, "_give_up_late", lambda: (looks.append(None), give_up_late()))
        outcome = await workers.outcome()
        assert (outcome.moved, outcome.refused, outcome.left) == (3, 0, 0)
        assert len(looks) < 10  # it waits, it does not spin
        assert len(workers.new.runtime.connections) == 3
        for client in clients:
            await client.send("x")
            assert await client.receive() == "x"


async def test_a_handler_that_outlives_its_grace_still_keeps_only_its_own_connection(
    may_handle: asyncio.Event,
) -> None:
    async with (
        joined(hall(may_handle), hall(may_handle), grace_seconds=0.02) as workers,
        workers.old.connect("/") as busy,
        workers.old.connect("/") as other,
    ):
        await busy.send("x")
        await occupied(workers)
        workers.begin(within_seconds=600)
        outcome = await workers.outcome()
        assert (outcome.moved, outcome.refused, outcome.left) == (1, 0, 1)
        may_handle.set()
        assert await busy.receive() == "x"
        await other.send("y")
        assert await other.receive() == "y"


async def test_a_worker_of_another_slot_says_its_last_word_when_the_store_has_what_it_published(
    may_handle: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_answered = asyncio.Event()
    async with AsyncExitStack() as stack:
        workers = await stack.enter_async_context(joined(hall(may_handle), hall(may_handle), slot=OTHER_SLOT))
        _, busy = await begun(stack, workers)
        asked = asyncio.Event()

        async def wait_sent() -> None:
            asked.set()
            await is_answered.wait()

        monkeypatch.setattr(workers.new.runtime.bridge, "wait_sent", wait_sent)
        may_handle.set()
        assert await busy.wait_closed() == 4000
        await wait_until(asked.is_set)
        await loop_turns()
        assert not workers.is_over
        is_answered.set()
        assert (await workers.outcome()).moved == 1


# --- the last copies --------------------------------------------------------------------------------------------------


async def all_of(client: TestConnection, count: int) -> list[str]:
    return [(await client.receive()).removesuffix(LONG) for _ in range(count)]


async def begun(stack: AsyncExitStack, workers: Joined, *, staying: int = 0) -> tuple[TestConnection, TestConnection]:
    """A move in which one has gone, and one is occupied, and leaves when it may; `staying` others cannot move."""
    moved, busy = [await stack.enter_async_context(workers.old.connect("/")) for _ in range(2)]
    await busy.send("bye")
    await occupied(workers, staying + 1)
    workers.begin()
    await wait_until(lambda: workers.leaving.outcome.moved == 1)
    return moved, busy


async def test_what_waits_for_a_busy_new_worker_at_the_end_reaches_who_has_moved(may_handle: asyncio.Event) -> None:
    old, new = hall(may_handle), hall(may_handle)
    async with AsyncExitStack() as stack:
        workers = await stack.enter_async_context(joined(old, new, outbox_bytes=16 << 20))
        moved, busy = await begun(stack, workers)
        link, count = workers.leaving._link, 0
        with new_stands_still(workers):
            while len(link._unsent) < 100:  # behind what the socket takes
                old.publish(ROOM, f"{count} {LONG}")
                count += 1
            may_handle.set()
            assert await busy.wait_closed() == 4000
            await wait_until(lambda: workers.is_over or decode(link._unsent[-1][0]) == Finished())
            assert not workers.is_over
            assert not link.is_closed
        outcome = await workers.outcome()
        assert (outcome.moved, outcome.left) == (1, 0)
        assert await all_of(moved, count) == [f"{number} " for number in range(count)]


async def test_what_waits_for_a_busy_old_worker_at_the_end_reaches_who_stays(may_handle: asyncio.Event) -> None:
    old, new = hall(may_handle), hall(may_handle)
    async with AsyncExitStack() as stack:
        workers = await stack.enter_async_context(joined(old, new, outbox_bytes=16 << 20))
        stays = await stack.enter_async_context(workers.old.connect("/stays"))
        await stays.send("x")
        assert await stays.receive() == "x"
        moved, busy = await begun(stack, workers, staying=1)
        link, count = workers.coming._link, 0
        with old_stands_still(workers):
            while len(link._unsent) < 100:
                new.publish(ROOM, f"{count} {LONG}")
                count += 1
            may_handle.set()
            assert await busy.wait_closed() == 4000
            await wait_until(lambda: workers.is_over or decode(link._unsent[-1][0]) == Finished())
            assert not workers.is_over
        outcome = await workers.outcome()
        assert (outcome.moved, outcome.left) == (1, 1)
        for client in (stays, moved):
            assert await all_of(client, count) == [f"{number} " for number in range(count)]


async def test_a_new_worker_that_never_says_that_it_has_all_is_not_waited_for_for_ever(
    may_handle: asyncio.Event, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    may_handle.set()
    async with (
        joined(hall(may_handle), hall(may_handle)) as workers,
        workers.old.connect("/") as client,
    ):
        monkeypatch.setattr("stickygw.apps.native.leaving.ANSWER_SECONDS", 0.05)
        workers.begin()
        send = workers.coming._link.send
        monkeypatch.setattr(
            workers.coming._link, "send", lambda message, *fds, **more: message == Finished() or send(message, *fds)
        )
        assert (await workers.outcome()).moved == 1
        assert "does not say that it has all" in caplog.text
        await client.send("x")
        assert await client.receive() == "x"

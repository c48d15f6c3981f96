"""Messages that are published while connections move, longer than a datagram, or more of them than a link takes."""

from __future__ import annotations

import asyncio

from support.joined_workers import Joined, joined
from support.waiting import wait_until

from stickygw import App, Connection
from stickygw.testing.app_client import TestConnection

LONG = "x" * 300 * 1024
ROOM = "hall"


def hall(may_handle: asyncio.Event) -> App:
    """Everybody is in one room; a message occupies its connection until `may_handle`."""
    app = App()

    @app.on_connect
    def enter(conn: Connection) -> None:
        conn.join(ROOM)

    @app.on_message
    async def said(conn: Connection, message: str) -> None:
        await may_handle.wait()

    return app


async def occupy(workers: Joined, conn: TestConnection) -> None:
    await conn.send("x")
    await wait_until(lambda: any(each.receiver._is_busy for each in workers.old.runtime.connections))


async def heard(conn: TestConnection) -> tuple[list[str], list[str]]:
    """All that the old worker has published up to its end, and all that the new one has."""
    of_old: list[str] = []
    of_new: list[str] = []
    while of_old[-1:] != ["old end"] or of_new[-1:] != ["new end"]:
        message = await conn.receive()
        (of_old if message.startswith("old") else of_new).append(message)
    return of_old, of_new


async def test_messages_of_300_kib_reach_who_has_moved_and_who_has_not_once_and_in_order() -> None:
    may_handle = asyncio.Event()
    old, new = hall(may_handle), hall(may_handle)
    # Their stores are two: whatever comes from the other worker has come over the link.
    async with (
        joined(old, new, outbox_bytes=16 << 20) as workers,
        workers.old.connect("/", max_size=None) as moved,
        workers.old.connect("/", max_size=None) as busy,
    ):
        await occupy(workers, busy)
        workers.begin()
        old.publish(ROOM, f"old early {LONG}")
        await wait_until(lambda: workers.leaving.outcome.moved == 1)
        for number in range(3):
            old.publish(ROOM, f"old {number} {LONG}")
            new.publish(ROOM, f"new {number} {LONG}")
        old.publish(ROOM, "old end")
        new.publish(ROOM, "new end")
        of_old = [f"old early {LONG}", *(f"old {number} {LONG}" for number in range(3)), "old end"]
        of_new = [*(f"new {number} {LONG}" for number in range(3)), "new end"]
        for conn in (moved, busy):
            assert await heard(conn) == (of_old, of_new)
        may_handle.set()
        outcome = await workers.outcome()
        assert (outcome.moved, outcome.refused, outcome.left) == (2, 0, 0)


async def test_who_rests_while_the_link_is_full_goes_when_it_is_not() -> None:
    may_handle = asyncio.Event()
    old, new = hall(may_handle), hall(may_handle)
    async with joined(old, new) as workers, workers.old.connect("/") as first, workers.old.connect("/") as busy:
        await occupy(workers, busy)
        workers.begin()
        await wait_until(lambda: workers.leaving.outcome.moved == 1)
        loop, link = asyncio.get_running_loop(), workers.leaving._link
        loop.remove_reader(workers._ours.fileno())  # the new worker stands still
        while not link.is_full:
            old.publish("elsewhere", LONG)
        may_handle.set()
        await wait_until(lambda: link._when_sent)  # it has seen that nobody can go
        assert workers.leaving.outcome.moved == 1
        loop.add_reader(workers._ours.fileno(), workers.coming._link._datagrams._readable)
        outcome = await workers.outcome()
        assert (outcome.moved, outcome.refused, outcome.left) == (2, 0, 0)
        for conn in (first, busy):
            await conn.send("x")

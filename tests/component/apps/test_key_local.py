"""What an application tells one worker's members as soon as it has a key's state is for the key's connections too,
which are still on their way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from support.joined_workers import OTHER_SLOT, OWN_SLOT, joined
from support.waiting import wait_until

from stickygw import App, Connection
from stickygw.bridge.record import OVERHEAD_BYTES
from stickygw.testing.app_client import TestConnection
from stickygw.types import Slot


def telling(*, ticks: int = 3, came: list[str] | None = None) -> App:
    """Tells the room of each key that comes that it is here, and so many ticks, and puts it to what `came`."""
    app = App()

    @app.on_connect("/match/{id}")
    async def enter(conn: Connection, id: str) -> None:
        await conn.join(f"match {id}")

    @app.on_message("/match/{id}")
    async def said(conn: Connection, message: str, id: str) -> None:
        await conn.send(message)

    @app.on_key_out
    def out(key: str) -> int:
        return 1

    @app.on_key_in
    async def back(key: str, value: int | None) -> None:
        for said in ("here", *map(str, range(ticks))):
            app.room(f"match {key}").publish_local(said)
            await asyncio.sleep(0)
        if came is not None:
            came.append(key)

    return app


async def heard(player: TestConnection) -> list[str]:
    """All that it has been told so far."""
    await player.send("and now?")
    told: list[str] = []
    while (message := await player.receive()) != "and now?":
        told.append(message)
    return told


@pytest.mark.parametrize("slot", [OWN_SLOT, OTHER_SLOT])
async def test_the_first_words_reach_who_follows(slot: Slot) -> None:
    async with (
        joined(telling(), telling(), slot=slot) as workers,
        workers.old.connect("/match/a") as ann,
        workers.old.connect("/match/b") as bob,
    ):
        workers.begin()
        assert (await workers.outcome()).moved == 2
        for player in (ann, bob):
            assert await heard(player) == ["here", "0", "1", "2"]


async def test_they_reach_who_follows_a_key_that_did_not_wait_for_its_rooms(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its connections follow when the store has answered; the key goes when its time is over."""
    waiting: list[Callable[[bool], None]] = []
    came: list[str] = []
    async with (
        joined(telling(), telling(came=came), slot=OTHER_SLOT, grace_seconds=0.05) as workers,
        workers.old.connect("/match/a") as ann,
    ):
        monkeypatch.setattr(workers.new.runtime.bridge, "ping", waiting.append)
        workers.begin()
        await wait_until(lambda: came == ["a"])
        monkeypatch.undo()
        for callback in waiting:
            callback(True)
        assert (await workers.outcome()).moved == 1
        assert await heard(ann) == ["here", "0", "1", "2"]


async def test_who_follows_is_told_that_too_much_was_said() -> None:
    new, gaps = telling(ticks=10), list[str]()
    new.on_gap(gaps.append)
    async with (
        joined(telling(), new, slot=OTHER_SLOT) as workers,
        workers.old.connect("/match/a") as ann,
    ):
        workers.begin()
        workers.coming._rooms._local._max_bytes = 5 * OVERHEAD_BYTES
        assert (await workers.outcome()).moved == 1
        told = await heard(ann)
        assert told == [str(number) for number in range(10 - len(told), 10)]
        assert 0 < len(told) < 10
        await wait_until(lambda: gaps == ["match a"])

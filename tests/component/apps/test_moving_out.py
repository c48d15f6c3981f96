"""Several moves side by side: each has its own connections and its own failure, and none ends before the others."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from support.waiting import loop_turns, wait_until

from stickygw.apps.native import moving_out
from stickygw.apps.native.leaving import Outcome
from stickygw.apps.native.moving_out import MovingOut
from stickygw.types import Slot


class FakeLeaving:
    """Has moved what it is to, and waits for the others; or fails. `all` are those that were made, by their links."""

    all: dict[socket.socket, FakeLeaving]

    def __init__(
        self,
        runtime: Any,
        link: socket.socket,
        *,
        is_same_slot: bool,
        wait_all_gone: Callable[[], Awaitable[None]],
        wait_all_finished: Callable[[], Awaitable[None]],
        **_: Any,
    ) -> None:
        self.is_same_slot = is_same_slot
        self.outcome = Outcome()
        self._wait_all_gone = wait_all_gone
        self._wait_all_finished = wait_all_finished
        self.work: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.last_word: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.has_said_all = False
        self.is_over = False
        self.all[link] = self

    async def run(self) -> Outcome:
        self.outcome.moved = await self.work
        await self._wait_all_gone()
        self.has_said_all = True
        await self.last_word
        await self._wait_all_finished()
        self.is_over = True
        return self.outcome


class Served:
    """A connection that is none of ours to move."""

    def __init__(self, *, is_websocket: bool) -> None:
        self.is_websocket = is_websocket
        self.is_open = True


async def wait_sent() -> None:
    """The store has answered."""


@pytest.fixture
def links(monkeypatch: pytest.MonkeyPatch) -> dict[Slot, Any]:
    monkeypatch.setattr(FakeLeaving, "all", {}, raising=False)
    monkeypatch.setattr(moving_out, "Leaving", FakeLeaving)
    return {Slot(0): object(), Slot(2): object(), Slot(3): object()}


def begin(links: dict[Slot, Any]) -> tuple[MovingOut, list[FakeLeaving]]:
    runtime: Any = SimpleNamespace(
        identity=SimpleNamespace(slot=Slot(2)),
        connections={Served(is_websocket=True), Served(is_websocket=False)},
        bridge=SimpleNamespace(wait_sent=wait_sent),
    )
    moving = MovingOut(runtime, links, grace_seconds=1.0, within_seconds=2.0, on_moved=lambda: None)
    return moving, [FakeLeaving.all[link] for link in links.values()]


async def test_no_link_ends_before_all_have_gone_and_have_been_told(links: dict[Slot, Any]) -> None:
    moving, leavings = begin(links)
    running = asyncio.ensure_future(moving.run())
    first, second, third = leavings
    assert [leaving.is_same_slot for leaving in leavings] == [False, True, False]
    first.work.set_result(5)
    second.work.set_result(7)
    await wait_until(lambda: first.outcome.moved == 5)
    assert not first.has_said_all
    third.work.set_result(1)
    await wait_until(lambda: all(leaving.has_said_all for leaving in leavings))
    first.last_word.set_result(None)
    third.last_word.set_result(None)
    await loop_turns()
    assert not first.is_over
    second.last_word.set_result(None)
    assert await running == Outcome(moved=13, refused=0, left=1), "of those left, WebSockets only"
    assert all(leaving.is_over for leaving in leavings)


async def test_one_that_fails_keeps_the_others_from_nothing_and_is_in_the_log(
    links: dict[Slot, Any], caplog: pytest.LogCaptureFixture
) -> None:
    moving, (first, second, third) = begin(links)
    running = asyncio.ensure_future(moving.run())
    for leaving in (first, third):
        leaving.last_word.set_result(None)
    first.work.set_result(5)
    second.work.set_exception(RuntimeError("what nobody thought of"))
    third.work.set_result(1)
    assert await running == Outcome(moved=6, refused=0, left=1)
    assert "the move to slot 2 failed" in caplog.text


async def test_the_stop_ends_all_of_them(links: dict[Slot, Any]) -> None:
    moving, leavings = begin(links)
    running = asyncio.ensure_future(moving.run())
    leavings[0].work.set_result(5)
    await wait_until(lambda: leavings[0].outcome.moved == 5)
    running.cancel()
    await asyncio.wait([running])
    assert all(leaving.work.done() for leaving in leavings)
    assert moving.outcome == Outcome(moved=5, refused=0, left=1)

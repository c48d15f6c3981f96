"""A handshake that outlives `move_grace` while its key leaves opens nothing where the key is no more."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from support.joined_workers import Joined, Matches, joined, told_of
from support.waiting import wait_until

from stickygw import Request, Session
from stickygw.testing.app_client import HandshakeRefused, TestConnection

KEY = b"path:/match/{id}\0a"


class LatePair:
    """Two workers' applications with key hooks; at the old one, who comes ``?slowly`` opens when it `may_open`."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.old = Matches(self.told, "old").with_hooks()
        self.new = Matches(self.told, "new").with_hooks()
        self.may_open = asyncio.Event()
        self.old.app.on_handshake(self._wait)

    async def _wait(self, request: Request, session: Session) -> None:
        if "slowly" in request.query:
            await self.may_open.wait()


@pytest.fixture
async def pair() -> LatePair:
    return LatePair()


async def say(conn: TestConnection) -> str:
    await conn.send("x")
    return str(await conn.receive())


async def come_slowly(stack: AsyncExitStack, workers: Joined) -> asyncio.Task[TestConnection]:
    entering = asyncio.create_task(stack.enter_async_context(workers.old.connect("/match/a?slowly")))
    await wait_until(lambda: workers.old.runtime.keys.is_opening(KEY))
    return entering


async def test_it_is_sent_to_where_its_key_is(pair: LatePair) -> None:
    async with joined(pair.old.app, pair.new.app, grace_seconds=0.05) as workers, AsyncExitStack() as stack:
        first = await stack.enter_async_context(workers.old.connect("/match/a"))
        assert await say(first) == "old 1"
        entering = await come_slowly(stack, workers)
        workers.begin()
        await wait_until(told_of(pair.told, "new: in a"))
        pair.may_open.set()
        with pytest.raises(HandshakeRefused, match="another worker's by now") as refused:
            await entering
        assert refused.value.status == 503
        assert (await workers.outcome()).moved == 1
        second = await stack.enter_async_context(workers.new.connect("/match/a"))
        assert [await say(first), await say(second)] == ["new 2", "new 3"]
        assert (pair.old.kept, pair.new.kept) == ({}, {"a": 3})
        assert pair.told.count("old: enter a") == 1


async def test_it_is_sent_there_after_the_move_too(pair: LatePair) -> None:
    async with joined(pair.old.app, pair.new.app, grace_seconds=0.05) as workers, AsyncExitStack() as stack:
        await stack.enter_async_context(workers.old.connect("/match/a"))
        entering = await come_slowly(stack, workers)
        workers.begin()
        assert (await workers.outcome()).moved == 1
        pair.may_open.set()
        with pytest.raises(HandshakeRefused, match="another worker's by now"):
            await entering
        assert pair.old.kept == {}


async def test_it_opens_where_its_key_has_stayed(pair: LatePair) -> None:
    pair.old.out_error = KeyError("a")
    async with joined(pair.old.app, pair.new.app, grace_seconds=0.05) as workers, AsyncExitStack() as stack:
        entering = await come_slowly(stack, workers)
        first = await stack.enter_async_context(workers.old.connect("/match/a"))
        workers.begin()
        await wait_until(told_of(pair.told, "old: out a"))
        pair.may_open.set()
        assert [await say(first), await say(await entering)] == ["old 1", "old 2"]
        await workers.outcome()

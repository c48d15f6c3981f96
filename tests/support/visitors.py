"""Visitors that live through a change of the fleet: they talk all the time, notice when their connection has another
worker, and come back when they are sent away."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from websockets.exceptions import ConnectionClosed

from support.client import DEADLINE, Client, gather_bounded
from support.gateway import Gateway
from support.raw import get

PAUSE_SECONDS = 2.0
"""At most between two bursts of one visitor: the gateway is loaded, not overloaded."""

BURST = 3
"""Messages that are sent at once."""

LONGEST_REQUEST_SECONDS = 10.0
"""A plain request that takes longer hangs: many times what it takes on a busy machine."""


class Visitor:
    """One client of the tally application: `stays` are the workers that it met, `moves` how many of them on the same
    connection as the one before, `closes` how it was closed since."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = Client(url)
        self.stays: list[dict[str, Any]] = []
        self.closes: list[int] = []
        self.moves = 0
        self._sent = 0
        self._taken = 0
        """Of those sent, so many has the gateway had before it said anything of closing: their pong came."""

    @property
    def slot(self) -> int:
        """Where it is."""
        return int(self.stays[-1]["slot"])

    @property
    def session(self) -> str:
        """The session that it has, always the same."""
        (session,) = {stay["session"] for stay in self.stays}
        return str(session)

    async def arrive(self) -> None:
        """Open a connection, and ask who serves it and what of this visitor is known there."""
        await self.client.open()
        who = await self.client.who()
        self._check(who["fields"])
        self.stays.append(who)

    async def live(self, is_over: asyncio.Event) -> None:
        """Talk, and when closed come back at once, until it `is_over`; then leave."""
        is_here = True
        while True:
            try:
                if not is_here:
                    await self.arrive()
                is_here = True
                await self._talk(is_over)
                await self.client.close()
                return
            except ConnectionClosed as closed:
                if is_over.is_set():
                    return
                is_here = False
                self.closes.append(closed.rcvd.code if closed.rcvd is not None else 1006)

    async def in_another_tab(self) -> dict[str, Any]:
        """Who serves a further connection with this visitor's cookie."""
        tab = Client(self.url)
        tab.cookie = self.client.cookie
        async with tab:
            return await tab.who()

    async def _talk(self, is_over: asyncio.Event) -> None:
        while not is_over.is_set():
            for _ in range(BURST):
                self._sent += 1
                await self.client.send({"say": self._sent})
            async with asyncio.timeout(DEADLINE):
                await (await self.client.connection.ping())
            self._taken = self._sent
            await self._look()
            try:
                async with asyncio.timeout(PAUSE_SECONDS * random.random()):  # all in their own step
                    raise AssertionError(f"nobody asked, but {await self.client.connection.recv()!r} came")
            except TimeoutError:
                pass  # as it should be; an end would have been noticed at once

    async def _look(self) -> None:
        """Who serves it now. On one connection all is handled, in order, whoever has it."""
        who = await self.client.who()
        assert who["fields"].get("said", 0) == self._sent, f"{self._sent} were sent, {who} says who came next"
        assert "out_of_order" not in who["fields"], who
        worker = self.stays[-1]
        if (who["slot"], who["generation"]) != (worker["slot"], worker["generation"]):
            self.moves += 1
            self.stays.append(who)

    def _check(self, fields: dict[str, Any]) -> None:
        """What the worker before had taken is handled; only a crash may lose some of it."""
        said = fields.get("said", 0)
        least = 0 if 1006 in self.closes[-1:] else self._taken
        assert least <= said <= self._sent, f"{self._taken} to {self._sent} messages were taken, {said} were handled"
        assert "out_of_order" not in fields, fields
        self._sent = self._taken = said


class Crowd:
    """Many visitors at once, and plain requests beside them. Made by `crowd`."""

    def __init__(self, gateway: Gateway, group: asyncio.TaskGroup) -> None:
        self._gateway = gateway
        self._group = group
        self._is_over = asyncio.Event()
        self.visitors: list[Visitor] = []
        self.requests = 0

    async def add(self, *paths: str) -> list[Visitor]:
        """A visitor for each of `paths`, all of which have arrived and begin to talk."""
        new = [Visitor(self._gateway.ws_url + path) for path in paths]
        await gather_bounded(40, *(visitor.arrive() for visitor in new))
        for visitor in new:
            self._group.create_task(visitor.live(self._is_over))
        self.visitors += new
        return new

    def hammer(self, target: str) -> None:
        """Begin to send plain requests, one after the other, each on a connection of its own."""
        self._group.create_task(self._hammer(target))

    async def end(self) -> None:
        """Let all leave, and the last requests be answered."""
        self._is_over.set()
        await gather_bounded(100, *(visitor.client.close() for visitor in self.visitors))

    async def _hammer(self, target: str) -> None:
        while not self._is_over.is_set():
            begun = time.monotonic()
            answer = await get(self._gateway.port, target)
            assert answer.status == 200, answer
            assert len(answer.body) == int(answer.get("Content-Length") or -1)
            assert time.monotonic() - begun < LONGEST_REQUEST_SECONDS
            self.requests += 1


def closes_of(visitors: Iterable[Visitor]) -> Counter[int]:
    """How often any of them was closed, by code."""
    return Counter(code for visitor in visitors for code in visitor.closes)


@asynccontextmanager
async def crowd(gateway: Gateway) -> AsyncIterator[Crowd]:
    """Nobody yet. At the end of the context all leave; an error of any of them ends it, and so the test."""
    async with asyncio.TaskGroup() as group:
        people = Crowd(gateway, group)
        yield people
        await people.end()

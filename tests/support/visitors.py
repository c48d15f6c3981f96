"""Visitors that live through a change of the fleet: they talk all the time, and come back when they are sent away."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from websockets.exceptions import ConnectionClosed

from support.client import DEADLINE, Client, gather_bounded
from support.gateway import Gateway
from support.raw import get

PAUSE_SECONDS = 0.4
"""Between two bursts of one visitor: the gateway is loaded, not overloaded."""

BURST = 3


@dataclass(slots=True)
class Visitor:
    """One client with a cookie. Between its openings it was closed with `closes`; `stays` is who it met.

    Of the messages that it has `sent` on its connection, the gateway has `certainly` had so many: their pong came.
    """

    client: Client
    stays: list[dict[str, Any]] = field(default_factory=list)
    closes: list[int] = field(default_factory=list)
    sent: int = 0
    certainly: int = 0

    async def arrive(self) -> None:
        """Open a connection, and ask who serves it and what of this visitor is known there."""
        await self.client.open()
        who = await self.client.who()
        said = who["fields"].get("said", 0)
        assert self.certainly <= said <= self.sent, f"said {self.certainly} to {self.sent}, of which {said} count"
        assert "out_of_order" not in who["fields"], who
        self.sent = self.certainly = said
        self.stays.append(who)

    async def live(self, is_over: asyncio.Event) -> None:
        """Talk, and when closed come back at once, until it `is_over`; then leave."""
        while True:
            try:
                await self._talk(is_over)
                await self.client.close()
                return
            except ConnectionClosed as closed:
                self._was_closed(closed)
            while True:
                try:
                    await self.arrive()
                    break
                except ConnectionClosed as closed:  # by a worker that began to drain in between
                    self._was_closed(closed)

    async def _talk(self, is_over: asyncio.Event) -> None:
        while not is_over.is_set():
            for _ in range(BURST):
                self.sent += 1
                await self.client.send({"say": self.sent})
            async with asyncio.timeout(DEADLINE):
                await (await self.client.connection.ping())
            self.certainly = self.sent
            await asyncio.sleep(PAUSE_SECONDS)

    def _was_closed(self, closed: ConnectionClosed) -> None:
        self.closes.append(closed.rcvd.code if closed.rcvd is not None else 1006)

    @property
    def slot(self) -> int:
        """Where it is."""
        return int(self.stays[-1]["slot"])


@dataclass(slots=True)
class Crowd:
    """Many visitors at once, and plain requests beside them."""

    visitors: list[Visitor]
    requests: int = 0
    slowest: float = 0.0

    def __iter__(self) -> Iterator[Visitor]:
        return iter(self.visitors)

    @property
    def closes(self) -> Counter[int]:
        """How often anybody was closed, by code."""
        return Counter(code for visitor in self.visitors for code in visitor.closes)

    async def hammer(self, port: int, target: str, is_over: asyncio.Event) -> None:
        """One plain request after the other, each on a connection of its own, until it `is_over`."""
        while not is_over.is_set():
            begun = time.monotonic()
            answer = await get(port, target)
            assert answer.status == 200, answer
            assert len(answer.body) == int(answer.get("Content-Length") or -1)
            self.requests += 1
            self.slowest = max(self.slowest, time.monotonic() - begun)


@asynccontextmanager
async def crowd(gateway: Gateway, count: int, *, plain: tuple[str, ...] = ()) -> AsyncIterator[Crowd]:
    """`count` visitors that have arrived and talk, and requests for the paths in `plain`, until the context ends.

    An error of any of them ends the context, and so the test.
    """
    people = Crowd([Visitor(Client(gateway.ws_url)) for _ in range(count)])
    await gather_bounded(40, *(visitor.arrive() for visitor in people))
    is_over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for visitor in people:
            group.create_task(visitor.live(is_over))
        for target in plain:
            group.create_task(people.hammer(gateway.port, target, is_over))
        yield people
        is_over.set()

"""The store is killed and comes back with its file, in the middle of writes: what was acknowledged is there.

Writes that it does not take are not acknowledged, reads of loaded sessions go on, and who needs another one is told to
come back.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.client import Client
from support.gateway import Gateway
from support.raw import Answer, exchange, get, upgrade
from support.valkey import ValkeyServer
from support.waiting import wait_until

LEDGER = f"{Path(__file__).parents[1] / 'apps' / 'ledger.py'}:app"
VISITORS = 4
RESTARTS = 3
MORE = 20
"""So many writes of each visitor are acknowledged between two restarts, and at the end."""
FIELDS = 50
"""Of one visitor's session, which are written in turn."""
READ_SECONDS = 1.0
"""A read takes a millisecond; with the store's time limit, a second, it would have waited for it."""


class Visitor:
    """One visitor that writes numbers, each until it is acknowledged, to field after field; another tab reads them."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.writer, self.reader = Client(gateway.ws_url), Client(gateway.ws_url)
        self.acknowledged: dict[str, int] = {}
        self.writes = self.refused = 0
        self.reads: list[float] = []
        self.is_done = False

    async def open(self) -> None:
        await self.writer.open()
        self.reader.cookie = self.writer.cookie
        await self.reader.open()

    async def close(self) -> None:
        await self.writer.close()
        await self.reader.close()

    async def write_on(self, *, by_request: bool) -> None:
        while not self.is_done:
            number, field = self.writes, f"f{self.writes % FIELDS}"
            answer = await (self._requested(field, number) if by_request else self.writer.ask(write=[field, number]))
            if answer == {"written": number}:
                self.acknowledged[field] = number
                self.writes += 1
            else:
                assert answer == {"unavailable": number}
                self.refused += 1
            await asyncio.sleep(0.01)

    async def read_on(self) -> None:
        while not self.is_done:
            acknowledged = dict(self.acknowledged)
            began = time.monotonic()
            assert_has(await self.reader.ask(read=True), acknowledged)
            self.reads.append(time.monotonic() - began)
            await asyncio.sleep(0.01)

    async def _requested(self, field: str, number: int) -> object:
        answer = await self.get(f"/write?field={field}&number={number}")
        assert (answer.status, answer.get("Retry-After")) in ((200, None), (503, "1")), answer
        return json.loads(answer.body)

    async def get(self, target: str) -> Answer:
        return await get(self._gateway.port, target, self.cookie, ("Connection", "close"))

    @property
    def cookie(self) -> tuple[str, str]:
        assert self.writer.cookie is not None
        return "Cookie", self.writer.cookie


def assert_has(fields: dict[str, int], acknowledged: dict[str, int]) -> None:
    """What was acknowledged is there, or a later number, which was written but not acknowledged yet."""
    lost = {field: number for field, number in acknowledged.items() if fields.get(field, -1) < number}
    assert not lost, (lost, fields)


@asynccontextmanager
async def at_work(gateway: Gateway) -> AsyncIterator[list[Visitor]]:
    """Half of them write by WebSocket and half by requests, until the block ends; then nothing they know is lost."""
    visitors = [Visitor(gateway) for _ in range(VISITORS)]
    for visitor in visitors:
        await visitor.open()
    try:
        async with asyncio.TaskGroup() as group:
            for number, visitor in enumerate(visitors):
                group.create_task(visitor.read_on())
                group.create_task(visitor.write_on(by_request=number % 2 == 1))
            yield visitors
            for visitor in visitors:
                visitor.is_done = True
    finally:
        for visitor in visitors:
            await visitor.close()
    for visitor in visitors:
        # Nobody holds it any more: this is what the store has.
        assert_has(json.loads((await visitor.get("/fields")).body), visitor.acknowledged)
    assert "Traceback" not in gateway.log


async def wait_written(visitors: list[Visitor]) -> None:
    """Each of them has some more acknowledged."""
    before = [visitor.writes for visitor in visitors]
    await wait_until(lambda: all(v.writes >= n + MORE for v, n in zip(visitors, before, strict=True)))


async def wait_refused(visitors: list[Visitor]) -> None:
    """Each of them was told that what it writes is not stored."""
    before = [visitor.refused for visitor in visitors]
    await wait_until(lambda: all(v.refused > n + 1 for v, n in zip(visitors, before, strict=True)))


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    server = ValkeyServer(is_durable=True)
    server.start()
    yield server
    server.close()


async def test_no_acknowledged_write_is_lost_and_everybody_is_told_meanwhile(server: ValkeyServer) -> None:
    with Gateway(LEDGER, "--redis", server.url, workers=2, environment={"STICKYGW_SECRET": "s" * 40}) as gateway:
        absent = Visitor(gateway)
        await absent.open()
        assert await absent.writer.ask(write=["absent", 7]) == {"written": 7}
        await absent.close()
        async with at_work(gateway) as visitors:
            for _ in range(RESTARTS):
                await wait_written(visitors)
                server.stop()
                await wait_refused(visitors)
                # A session that no worker has loaded cannot be opened: it is said, not guessed.
                refused = [
                    await absent.get("/fields"),
                    await exchange(gateway.port, upgrade(fields=[absent.cookie])),
                ]
                assert [(answer.status, answer.get("Retry-After")) for answer in refused] == [(503, "1")] * 2
                assert [answer.cookie for answer in refused] == [None, None]
                for visitor in visitors:
                    visitor.reads.clear()
                await wait_refused(visitors)
                for visitor in visitors:
                    assert visitor.reads, "a loaded session is read"
                    assert max(visitor.reads) < READ_SECONDS
                await asyncio.to_thread(server.start)
            await wait_written(visitors)
        assert json.loads((await absent.get("/fields")).body) == {"absent": 7}


@pytest.mark.long
async def test_no_acknowledged_write_is_lost_when_the_embedded_valkey_is_killed_again_and_again() -> None:
    with Gateway(LEDGER, workers=2) as gateway:
        async with at_work(gateway) as visitors:
            for _ in range(RESTARTS):
                await wait_written(visitors)
                gateway.kill_valkey()
            await wait_written(visitors)

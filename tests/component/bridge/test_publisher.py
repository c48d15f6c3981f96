"""`Publisher` at a store that answers, or breaks, exactly when the test says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest
from redis.exceptions import ResponseError
from support.waiting import wait_until

from stickygw.bridge import publisher as publishing
from stickygw.bridge.publisher import Publisher
from stickygw.observability.counters import Counters


class Connection:
    """What the publisher needs of a connection to the store."""

    def __init__(self) -> None:
        self.pipelines = 0
        self._answers: asyncio.Queue[Exception | int] = asyncio.Queue()

    async def connect(self) -> None:
        """It is there at once."""

    async def disconnect(self, *, nowait: bool) -> None:
        """It needs no end."""

    async def send_packed_command(self, data: bytes, *, check_health: bool) -> None:
        self.pipelines += 1

    async def read_response(self, **options: Any) -> int:
        answer = await self._answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def answer(self, *answers: Exception | int) -> None:
        for answer in answers:
            self._answers.put_nowait(answer)


@pytest.fixture
def connection() -> Connection:
    return Connection()


@pytest.fixture
def told() -> list[str]:
    """What the publisher has told: that it is connected, and the channels on which something was lost."""
    return []


@pytest.fixture
async def publisher(connection: Connection, told: list[str]) -> AsyncIterator[Publisher]:
    publisher = Publisher(
        lambda: connection,  # type: ignore[arg-type, return-value]
        counters=Counters(),
        random=Random(1),
        on_lost=lambda channel, why: told.append(channel.decode()),
        on_connected=lambda: told.append("connected"),
    )
    publisher.start()
    await publisher.connected.wait()
    yield publisher
    await publisher.stop()


@pytest.fixture
async def sent(publisher: Publisher, connection: Connection) -> asyncio.Task[None]:
    """Somebody who waits for what was sent: one message, which is on its way."""
    publisher.publish(b"mine", b"x")
    waiting = asyncio.create_task(publisher.wait_sent())
    await wait_until(lambda: connection.pipelines == 1)
    return waiting


async def test_who_waits_for_what_was_sent_is_done_though_more_was_published(
    publisher: Publisher, connection: Connection, sent: asyncio.Task[None]
) -> None:
    publisher.publish(b"another's", b"x")
    connection.answer(0)
    async with asyncio.timeout(0.5):  # half of what the other's pipeline has for its answer
        await sent
    assert publisher.backlog == 1
    connection.answer(0)


async def test_who_waits_for_what_was_sent_waits_for_the_last_of_it(
    publisher: Publisher, connection: Connection
) -> None:
    publisher.publish(b"first", b"x")
    await wait_until(lambda: connection.pipelines == 1)
    publisher.publish(b"second", b"x")
    sent = asyncio.create_task(publisher.wait_sent())
    connection.answer(0)
    await wait_until(lambda: connection.pipelines == 2)
    assert not sent.done()
    connection.answer(0)
    await sent
    await publisher.wait_sent()


async def test_who_waits_for_what_was_sent_is_done_when_it_is_lost(
    publisher: Publisher, connection: Connection, sent: asyncio.Task[None]
) -> None:
    connection.answer(ConnectionResetError("the store is gone"))
    async with asyncio.timeout(0.5):
        await sent
    assert publisher.backlog == 0


async def test_the_channel_of_each_lost_message_is_told_and_then_that_there_is_a_connection_again(
    publisher: Publisher, connection: Connection, told: list[str], sent: asyncio.Task[None]
) -> None:
    publisher.publish(b"queued", b"x")
    publisher.publish(b"queued", b"y")
    connection.answer(ConnectionResetError("the store is gone"))
    await sent
    publisher.publish(b"away", b"x")
    assert told == ["connected", "mine", "queued", "queued", "away"]
    await wait_until(lambda: publisher.connected.is_set())
    assert told[5:] == ["connected"]


async def test_a_refused_message_is_told_lost_and_only_that(
    publisher: Publisher, connection: Connection, told: list[str]
) -> None:
    for channel in (b"first", b"second", b"third"):
        publisher.publish(channel, b"x")
    connection.answer(1, ResponseError("NOPERM"), 1)
    await publisher.wait_sent()
    assert told == ["connected", "second"]


async def test_what_is_too_much_is_told_lost(
    publisher: Publisher, connection: Connection, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "MAX_QUEUED_MESSAGES", 1)
    publisher.publish(b"fits", b"x")
    publisher.publish(b"too much", b"x")
    assert told == ["connected", "too much"]
    connection.answer(1)


@pytest.mark.parametrize("turns", range(6))
async def test_a_stop_that_meets_the_end_of_the_connection_is_a_stop(
    publisher: Publisher, connection: Connection, turns: int
) -> None:
    await asyncio.sleep(0)
    connection.answer(ConnectionResetError("the store is gone"))
    for _ in range(turns):
        await asyncio.sleep(0)
    async with asyncio.timeout(3):
        await publisher.stop()


async def test_a_pipeline_is_bounded_in_bytes_but_for_one_long_message(
    publisher: Publisher, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "MAX_PIPELINE_BYTES", 1000)
    for size in (400, 400, 400, 2000, 10):
        publisher.publish(b"channel", b"x" * size)
    for pipelines, answers in ((1, 2), (2, 1), (3, 1), (4, 1)):
        await wait_until(lambda pipelines=pipelines: connection.pipelines == pipelines)
        connection.answer(*[0] * answers)
    await publisher.wait_sent()
    assert publisher.backlog == 0

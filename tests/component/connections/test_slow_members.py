"""Members of rooms that do not read: closed, or without the oldest or the newest messages, and always bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

import pytest
from support.socket_pair import DEADLINE, SocketPair
from support.waiting import wait_until
from websockets.frames import Frame, Opcode

from stickygw.bridge.hub import Hub
from stickygw.types import SlowConsumer
from stickygw.wire.prepared import Batch, PreparedMessage

MAX_OUTBOX = 256 * 1024
KIB = 1024
COUNT = 5000
"""Messages of 1 KiB: some 5 MB, of which `MAX_OUTBOX` may wait."""


@pytest.fixture
async def pair() -> AsyncIterator[SocketPair]:
    pair = SocketPair(max_outbox=MAX_OUTBOX)
    yield pair
    pair.close()


def numbered(number: int, size: int = KIB) -> PreparedMessage:
    return PreparedMessage.of(str(number).ljust(size))


def batch(policy: SlowConsumer, *numbers: int) -> Batch:
    return Batch([numbered(number) for number in numbers], policy)


END = PreparedMessage.of(b"the end")


def numbers_of(frames: Iterable[Frame]) -> list[int]:
    return [int(bytes(frame.data)) for frame in frames if frame.opcode is Opcode.TEXT]


def waiting(pair: SocketPair) -> int:
    return pair.websocket.unsent_bytes


async def test_where_rooms_disconnect_too_much_closes_with_1013_and_counts_once(pair: SocketPair) -> None:
    for number in range(COUNT):
        pair.websocket.deliver(batch("disconnect", number))
        assert waiting(pair) <= MAX_OUTBOX + 2 * KIB
    pair.websocket.close_slow()
    async with asyncio.timeout(DEADLINE):
        assert await pair.ended == (1013, "slow consumer")
    assert pair.counters.by_name() == {"connections_closed{slow_consumer}": 1}


@pytest.mark.parametrize("per_batch", [1, 4, 500])
async def test_where_the_oldest_are_dropped_the_last_ones_arrive_in_order(pair: SocketPair, per_batch: int) -> None:
    for first in range(0, COUNT, per_batch):
        pair.websocket.deliver(batch("drop_oldest", *range(first, first + per_batch)))
        assert waiting(pair) <= MAX_OUTBOX
    pair.websocket.send(END)
    numbers = numbers_of(await pair.read_frames(Opcode.BINARY))
    dropped = pair.counters.value("messages_dropped", "oldest")
    assert numbers == sorted(numbers)
    assert len(numbers) == COUNT - dropped
    assert numbers[-100:] == list(range(COUNT - 100, COUNT))
    assert pair.websocket.sent_messages == len(numbers) + 1
    assert pair.counters.total("messages_dropped") == dropped > COUNT // 2
    assert pair.websocket.is_open


@pytest.mark.parametrize("per_batch", [1, 4, 500])
async def test_where_the_newest_are_dropped_the_first_ones_arrive_in_order(pair: SocketPair, per_batch: int) -> None:
    for first in range(0, COUNT, per_batch):
        pair.websocket.deliver(batch("drop_newest", *range(first, first + per_batch)))
        assert waiting(pair) <= MAX_OUTBOX
    pair.websocket.send(END)
    numbers = numbers_of(await pair.read_frames(Opcode.BINARY))
    # What is sent to it by name takes the place of an old one, which nothing else does.
    assert pair.counters.value("messages_dropped", "oldest") <= 1
    assert len(numbers) == COUNT - pair.counters.total("messages_dropped")
    assert len(set(range(100)) - set(numbers)) <= 1
    assert numbers == sorted(numbers)


async def test_compressed_frames_are_dropped_whole_too() -> None:
    pair = SocketPair(max_outbox=20_000, is_compressed=True)
    try:
        for number in range(COUNT):
            pair.websocket.deliver(batch("drop_oldest", number))
        pair.websocket.send(END)
        numbers = numbers_of(await pair.read_frames(Opcode.BINARY))
        assert numbers == sorted(numbers)
        assert numbers[-1] == COUNT - 1
        assert len(numbers) == COUNT - pair.counters.value("messages_dropped", "oldest") < COUNT
    finally:
        pair.close()


async def test_what_the_application_sends_is_never_dropped_and_keeps_its_place(pair: SocketPair) -> None:
    for number in range(COUNT):
        if number % 100 == 0:
            pair.websocket.send(numbered(number))
        else:
            pair.websocket.deliver(batch("drop_oldest", number))
    pair.websocket.send(END)
    numbers = numbers_of(await pair.read_frames(Opcode.BINARY))
    assert numbers == sorted(numbers)
    assert set(range(0, COUNT, 100)) <= set(numbers)
    assert len(numbers) < COUNT


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest"])
async def test_too_much_of_what_the_application_sends_closes_all_the_same(
    pair: SocketPair, policy: SlowConsumer
) -> None:
    for number in range(COUNT):
        pair.websocket.deliver(batch(policy, number))
        pair.websocket.send(numbered(number))
        assert waiting(pair) <= MAX_OUTBOX + 2 * KIB
    async with asyncio.timeout(DEADLINE):
        assert await pair.ended == (1013, "slow consumer")
    assert pair.counters.value("connections_closed", "slow_consumer") == 1


async def test_a_client_that_keeps_up_loses_nothing(pair: SocketPair) -> None:
    for first in range(0, 1000, 100):
        pair.websocket.deliver(batch("drop_oldest", *range(first, first + 100)))
        assert numbers_of(await pair.read_frames(Opcode.TEXT, 100)) == list(range(first, first + 100))
    assert pair.counters.by_name() == {}
    assert waiting(pair) == 0
    assert not pair.websocket.is_spared


async def test_a_blocked_client_is_spared_until_it_has_read(pair: SocketPair) -> None:
    pair.websocket.deliver(batch("drop_oldest", *range(100)))
    assert pair.websocket.blocked_since is not None
    assert pair.websocket.is_spared
    await pair.read_frames(Opcode.TEXT, 100)
    await wait_until(lambda: not pair.websocket.is_spared)
    assert pair.websocket.blocked_since is None


async def test_a_ping_overtakes_what_is_held_back_and_its_pong_is_heard(pair: SocketPair) -> None:
    for number in range(COUNT):
        pair.websocket.deliver(batch("drop_oldest", number))
    pair.websocket.ping()
    before = await pair.read_frames(Opcode.PING)
    assert len(before) < 20
    await pair.send(Opcode.PONG)
    await wait_until(lambda: pair.websocket.pinged_at is None)


async def test_what_is_held_back_goes_out_before_the_close_frame(pair: SocketPair) -> None:
    pair.websocket.deliver(batch("drop_oldest", *range(200)))
    pair.websocket.send(numbered(200))
    pair.websocket.close(1000, "done")
    frames = await pair.read_frames(Opcode.CLOSE)
    assert numbers_of(frames) == list(range(201))
    assert frames[-1].opcode is Opcode.CLOSE


async def test_drained_is_done_when_nothing_is_held_back_either(pair: SocketPair) -> None:
    pair.websocket.deliver(batch("drop_oldest", *range(200)))
    drained = pair.websocket.drained()
    begun = await pair.read_frames(Opcode.TEXT, 50)
    assert not drained.done()
    await pair.read_frames(Opcode.TEXT, 200 - len(begun))
    async with asyncio.timeout(DEADLINE):
        await drained
    assert waiting(pair) == 0


async def test_one_client_whose_sends_wait_is_not_read_meanwhile(pair: SocketPair) -> None:
    pair.websocket.deliver(batch("drop_oldest", *range(100)))
    for number in range(100):
        pair.websocket.send(numbered(number))
    assert not pair.websocket.is_reading
    await pair.send(Opcode.TEXT, b"still there")
    await pair.read_frames(Opcode.TEXT, 200)
    await wait_until(lambda: pair.received == ["still there"])


async def test_a_message_longer_than_the_bound_goes_out_alone_and_is_dropped_behind_others(pair: SocketPair) -> None:
    large = Batch([numbered(1, 2 * MAX_OUTBOX)], "drop_oldest")
    pair.websocket.deliver(large)
    pair.websocket.deliver(large)
    pair.websocket.deliver(batch("drop_oldest", 2))
    assert pair.counters.value("messages_dropped", "oldest") == 2
    await pair.read_frames(Opcode.TEXT)
    pair.websocket.deliver(batch("drop_oldest", 3))
    assert numbers_of(await pair.read_frames(Opcode.TEXT)) == [3]


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest"])
async def test_a_message_longer_than_the_bound_is_not_dropped_for_who_keeps_up(
    pair: SocketPair, policy: SlowConsumer
) -> None:
    texts = ["short", "x" * 2 * MAX_OUTBOX]
    pair.websocket.deliver(Batch([PreparedMessage.of(text) for text in texts], policy))
    frames = await pair.read_frames(Opcode.TEXT, 2)
    assert [bytes(frame.data).decode() for frame in frames] == texts
    assert pair.counters.total("messages_dropped") == 0


async def test_each_message_has_the_policy_of_its_room() -> None:
    policies: dict[str, SlowConsumer] = {"tick": "drop_oldest", "first": "drop_newest", "talk": "disconnect"}
    pair = SocketPair(max_outbox=MAX_OUTBOX)
    try:
        hub = Hub(pair.counters, policies.__getitem__)
        for room in policies:
            hub.join(room, Delivered(pair))
        for number in range(900):
            room = "talk" if number % 10 == 0 else "tick" if number % 10 < 6 else "first"
            hub.publish(room, numbered(number))
        hub.catch_up(Delivered(pair))
        pair.websocket.send(END)
        numbers = numbers_of(await pair.read_frames(Opcode.BINARY))
        assert numbers == sorted(numbers)
        assert set(range(0, 900, 10)) <= set(numbers)
        assert len(numbers) == 900 - pair.counters.total("messages_dropped")
        assert pair.counters.value("messages_dropped", "oldest") > 0
        assert pair.counters.value("messages_dropped", "newest") > 0
    finally:
        pair.close()


class Delivered:
    """The WebSocket of a pair as a member."""

    def __init__(self, pair: SocketPair) -> None:
        self._pair = pair

    def __hash__(self) -> int:
        return id(self._pair)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Delivered) and other._pair is self._pair

    def deliver(self, batch: Batch) -> None:
        self._pair.websocket.deliver(batch)

    def send_away(self, code: int, reason: str, *, within: float) -> None:
        self._pair.websocket.close(code, reason, within=within)

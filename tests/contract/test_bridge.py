"""The promise of `Bridge`, kept by every implementation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from random import Random
from typing import Any

import pytest
from support.waiting import wait_until

from stickygw.bridge.addresses import DIRECT, user_address
from stickygw.bridge.base import Bridge, Publication
from stickygw.bridge.memory import MemoryBridge, MemoryBus
from stickygw.bridge.redis import RedisBridge
from stickygw.errors import RoomNameError
from stickygw.observability.counters import Counters
from stickygw.wire.envelope import CLOSE, EnvelopeKeys
from stickygw.wire.prepared import BINARY, TEXT


class Node:
    """A worker's end of the bridge that keeps what came."""

    def __init__(self) -> None:
        self.bridge: Bridge
        self.received: list[tuple[str, Publication]] = []
        self.gaps: list[list[str]] = []

    def on_publication(self, address: str, publication: Publication) -> None:
        self.received.append((address, publication))

    def on_gap(self, addresses: list[str]) -> None:
        self.gaps.append(addresses)

    def texts(self, address: str) -> list[str]:
        return [publication.payload.decode() for at, publication in self.received if at == address]


NewNode = Callable[[], Coroutine[Any, Any, Node]]


@pytest.fixture(params=["memory", "valkey", "redis_server"])
async def new_node(request: pytest.FixtureRequest, prefix: str) -> AsyncIterator[NewNode]:
    nodes: list[Node] = []
    bus = MemoryBus()
    url = "" if request.param == "memory" else request.getfixturevalue(request.param).url

    async def make() -> Node:
        node = Node()
        nodes.append(node)
        if request.param == "memory":
            node.bridge = MemoryBridge(bus, on_publication=node.on_publication)
        else:
            node.bridge = RedisBridge(
                url,
                prefix=prefix,
                keys=EnvelopeKeys([b"secret"]),
                on_publication=node.on_publication,
                on_gap=node.on_gap,
                counters=Counters(),
                random=Random(),
            )
        await node.bridge.start()
        return node

    yield make
    for node in nodes:
        await node.bridge.stop()


def text(message: str) -> Publication:
    return Publication(TEXT, message.encode())


async def test_a_message_reaches_the_other_node_and_not_its_own(new_node: NewNode) -> None:
    a, b = await new_node(), await new_node()
    await a.bridge.subscribe("room")
    await b.bridge.subscribe("room")
    a.bridge.publish("room", text("hello"))
    b.bridge.publish("room", text("there"))
    await wait_until(lambda: a.received and b.received)
    assert b.texts("room") == ["hello"]
    assert a.texts("room") == ["there"]
    assert a.gaps == b.gaps == []


async def test_a_node_that_does_not_subscribe_may_publish(new_node: NewNode) -> None:
    a, b = await new_node(), await new_node()
    await b.bridge.subscribe("room")
    a.bridge.publish("room", text("hello"))
    await wait_until(lambda: b.received)
    assert a.received == []


async def test_a_publication_arrives_as_it_went(new_node: NewNode) -> None:
    a, b = await new_node(), await new_node()
    await b.bridge.subscribe("räume:1 *?[]")
    published = [
        text("grüße\r\n"),
        Publication(BINARY, b"\x00\r\n\xff"),
        Publication(TEXT, b"for one", to="session:s1"),
        Publication(TEXT, b"in several rooms", group=b"8 bytes!"),
        Publication(CLOSE, b"\x03\xe8bye", to="connection:c1"),
    ]
    for publication in published:
        a.bridge.publish("räume:1 *?[]", publication)
    await wait_until(lambda: len(b.received) == len(published))
    assert b.received == [("räume:1 *?[]", publication) for publication in published]


async def test_rooms_users_and_direct_messages_are_apart_though_they_are_called_alike(new_node: NewNode) -> None:
    a, b = await new_node(), await new_node()
    addresses = ["direct", user_address("direct"), DIRECT]
    for address in addresses:
        await b.bridge.subscribe(address)
        a.bridge.publish(address, text(f"to {address!r}"))
    await wait_until(lambda: len(b.received) == 3)
    assert [b.texts(address) for address in addresses] == [[f"to {address!r}"] for address in addresses]


async def test_each_publishers_order_is_kept_in_each_room(new_node: NewNode) -> None:
    publishers = [await new_node() for _ in range(3)]
    receiver = await new_node()
    for room in ("red", "blue"):
        await receiver.bridge.subscribe(room)
    for number in range(300):
        for name, publisher in enumerate(publishers):
            publisher.bridge.publish("red" if number % 3 else "blue", text(f"{name} {number}"))
        if number % 50 == 0:
            await asyncio.sleep(0)
    await wait_until(lambda: len(receiver.received) == 900)
    for room, numbers in (("red", range(300)), ("blue", range(0, 300, 3))):
        for name in range(3):
            got = [one for one in receiver.texts(room) if one.startswith(f"{name} ")]
            assert got == [f"{name} {number}" for number in numbers if room == "blue" or number % 3]
    assert receiver.gaps == []


async def test_nothing_comes_of_a_room_that_was_left(new_node: NewNode) -> None:
    a, b = await new_node(), await new_node()
    await b.bridge.subscribe("left")
    await b.bridge.subscribe("kept")
    b.bridge.unsubscribe("left")
    b.bridge.unsubscribe("never joined")
    a.bridge.publish("left", text("1"))
    a.bridge.publish("kept", text("2"))
    await wait_until(lambda: b.received)
    assert b.texts("left") == []
    assert b.texts("kept") == ["2"]


async def test_a_room_left_and_joined_again_at_once_is_subscribed(new_node: NewNode) -> None:
    a, b = await new_node(), await new_node()
    for turns in range(4):
        await b.bridge.subscribe("room")
        b.bridge.unsubscribe("room")
        for _ in range(turns):
            await asyncio.sleep(0)
        await b.bridge.subscribe("room")
        a.bridge.publish("room", text(str(turns)))
        await wait_until(lambda turns=turns: len(b.received) == turns + 1)  # type: ignore[misc]
        b.bridge.unsubscribe("room")
    assert b.texts("room") == ["0", "1", "2", "3"]


async def test_subscribe_acts_though_nobody_awaits_it(new_node: NewNode) -> None:
    a, b = await new_node(), await new_node()
    ignored = b.bridge.subscribe("first")
    await b.bridge.subscribe("second")
    a.bridge.publish("first", text("1"))
    await wait_until(lambda: b.received)
    await ignored


async def test_what_is_subscribed_already_is_confirmed_at_once(new_node: NewNode) -> None:
    node = await new_node()
    await node.bridge.subscribe("room")
    again = asyncio.ensure_future(node.bridge.subscribe("room"))
    assert again.done()


async def test_a_cancelled_subscriber_takes_nothing_from_another(new_node: NewNode) -> None:
    a, b = await new_node(), await new_node()

    async def subscribe() -> None:
        await b.bridge.subscribe("room")

    first, second = asyncio.create_task(subscribe()), asyncio.create_task(subscribe())
    await asyncio.sleep(0)
    first.cancel()
    await second
    a.bridge.publish("room", text("1"))
    await wait_until(lambda: b.received)


@pytest.mark.parametrize("name", ["", "x" * 201, "ü" * 101, "a\nb", "a\x00b", "\x7f", "\ud800"])
async def test_a_bad_room_name_is_refused(new_node: NewNode, name: str) -> None:
    node = await new_node()
    with pytest.raises(RoomNameError):
        node.bridge.subscribe(name)
    with pytest.raises(RoomNameError):
        node.bridge.publish(name, text("1"))


async def test_a_node_is_connected_between_start_and_stop(new_node: NewNode) -> None:
    node = await new_node()
    assert node.bridge.is_connected
    await node.bridge.stop()
    assert not node.bridge.is_connected


async def test_what_is_published_before_stop_is_sent(new_node: NewNode) -> None:
    a, b = await new_node(), await new_node()
    await b.bridge.subscribe("room")
    for number in range(5_000):  # more than one pipeline
        a.bridge.publish("room", text(str(number)))
    await a.bridge.stop()
    await wait_until(lambda: len(b.received) == 5_000)


async def test_who_waits_for_what_was_sent_does_not_wait_for_what_is_published_meanwhile(new_node: NewNode) -> None:
    a, b = await new_node(), await new_node()
    await b.bridge.subscribe("room")
    is_over = False

    async def publish_always() -> None:
        while not is_over:
            a.bridge.publish("another room", text("x"))
            await asyncio.sleep(0)

    busy = asyncio.create_task(publish_always())
    for number in range(20):
        a.bridge.publish("room", text(str(number)))
        async with asyncio.timeout(5):
            await a.bridge.wait_sent()
    is_over = True
    await busy
    await wait_until(lambda: len(b.received) == 20)


async def test_who_waits_for_what_was_sent_loses_nothing_of_a_flood(new_node: NewNode) -> None:
    a, b = await new_node(), await new_node()
    await b.bridge.subscribe("room")
    for number in range(30_000):
        a.bridge.publish("room", text(str(number)))
        if a.bridge.backlog > 1000:
            await a.bridge.wait_sent()
    await a.bridge.wait_sent()
    assert a.bridge.backlog == 0
    await wait_until(lambda: len(b.received) == 30_000, seconds=30)
    assert b.texts("room") == [str(number) for number in range(30_000)]

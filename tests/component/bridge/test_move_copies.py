"""Copies between two workers of a move, and pings, over a real store: the first of a message's two ways counts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from redis.asyncio import Redis
from support.bridge_nodes import Node
from support.valkey import ValkeyServer
from support.waiting import wait_until

from stickygw.bridge.addresses import local_address
from stickygw.bridge.base import Publication
from stickygw.bridge.copies import Copies
from stickygw.reconnect import Backoff
from stickygw.wire.prepared import TEXT

NewNode = Callable[..., Coroutine[Any, Any, Node]]
Copy = tuple[bytes, bytes]


def copied(node: Node, *, with_local: bool = True) -> list[Copy]:
    """What `node` copies from now on."""
    copies: list[Copy] = []
    node.bridge.copy_to(lambda channel, data: copies.append((channel, data)), with_local=with_local)
    return copies


async def ponged(node: Node) -> bool:
    answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    node.bridge.ping(answer.set_result)
    return await answer


async def test_a_copy_and_its_message_count_once_whichever_is_first(valkey: ValkeyServer, new_node: NewNode) -> None:
    a, b = await new_node(valkey), await new_node(valkey)
    copies = copied(a)
    await b.bridge.subscribe("room")
    a.publish("1")
    b.bridge.take_copy(*copies[0])
    assert b.received == ["1"]
    a.publish("2")
    await wait_until(lambda: b.received == ["1", "2"])
    b.bridge.take_copy(*copies[1])
    assert b.received == ["1", "2"]
    assert b.counters.total("bridge_old") == 0
    assert b.gaps == []
    assert b.bridge.position_of("room") == {a.bridge.origin: 2} == a.bridge.position_of("room")


async def test_a_copy_that_others_have_signed_is_not_taken(valkey: ValkeyServer, new_node: NewNode) -> None:
    a, b = await new_node(valkey, b"one secret"), await new_node(valkey, b"another")
    copies = copied(a)
    await b.bridge.subscribe("room")
    a.publish("1")
    b.bridge.take_copy(*copies[0])
    assert b.received == []
    assert b.counters.total("bridge_foreign") >= 1


async def test_what_is_local_goes_to_the_copies_alone(valkey: ValkeyServer, new_node: NewNode) -> None:
    a, b = await new_node(valkey), await new_node(valkey)
    copies, others = copied(a), copied(a, with_local=False)
    await b.bridge.subscribe("room")
    number = a.bridge.publish_copy(local_address("room"), Publication(TEXT, b"local"))
    assert (number, len(copies), others) == (1, 1, [])
    assert a.bridge.backlog == 0
    b.bridge.take_copy(*copies[0])
    b.bridge.take_copy(*copies[0])
    assert b.received == ["local"]
    b.bridge.unsubscribe("room")
    b.bridge.take_copy(*copies[0])
    assert b.received == ["local"]


async def test_copies_wait_for_what_was_published_before_them(valkey: ValkeyServer, new_node: NewNode) -> None:
    a, b = await new_node(valkey), await new_node(valkey)
    await b.bridge.subscribe("room")
    a.publish("1")
    copies, taken = copied(a), Copies(b.bridge)
    a.publish("2")
    for copy in copies:
        taken.received(*copy)
    await a.bridge.wait_sent()
    taken.settled()
    await wait_until(lambda: taken.is_open)
    assert b.received == ["1", "2"]
    assert b.gaps == []


async def test_what_the_store_lost_is_taken_before_what_it_brings_next(valkey: ValkeyServer, new_node: NewNode) -> None:
    a, b = await new_node(valkey), await new_node(valkey)
    await b.bridge.subscribe("room")
    copies, taken = copied(a), Copies(b.bridge)
    publisher = a.bridge._publisher
    publisher.connected.clear()  # away
    a.publish("1")
    taken.received(*copies[0])
    publisher.connected.set()
    a.publish("2")
    await wait_until(lambda: taken.is_open)
    assert b.received == ["1"]
    taken.received(*copies[1])
    assert b.received == ["1", "2"]
    assert b.gaps == []


async def test_more_copies_than_are_kept_show_as_a_hole(valkey: ValkeyServer, new_node: NewNode) -> None:
    a, b = await new_node(valkey), await new_node(valkey)
    await b.bridge.subscribe("room")
    copies = copied(a)
    a.bridge._publisher.connected.clear()
    a.publish("1", "2", "3")
    taken = Copies(b.bridge, max_bytes=len(copies[0][1]))
    taken.received(*copies[0])
    taken.received(*copies[1])
    taken.open()
    taken.received(*copies[2])
    assert b.received == ["1", "3"]
    assert b.gaps == [["room"]]


async def test_an_answered_ping_says_that_all_before_is_here(valkey: ValkeyServer, new_node: NewNode) -> None:
    a, b = await new_node(valkey), await new_node(valkey)
    await b.bridge.subscribe("room")
    for number in range(50):
        a.publish(str(number))
    await a.bridge.wait_sent()
    assert await ponged(b)
    assert len(b.received) == 50
    b.bridge.subscribe("other")
    assert not b.bridge.is_heard("other")
    assert await ponged(b)
    assert b.bridge.is_heard("other")


async def test_a_ping_is_over_when_the_connection_is(
    own_valkey: ValkeyServer, new_node: NewNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backoff, "next_seconds", lambda backoff: 0.3)
    node = await new_node(own_valkey)
    await node.bridge.subscribe("room")
    async with Redis.from_url(own_valkey.url) as redis:
        await redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        assert not await ponged(node)
    assert not node.bridge.is_heard("room")
    assert not await ponged(node)
    await wait_until(lambda: node.bridge.is_heard("room"))
    assert await ponged(node)
    assert node.gaps == [["room"]]


async def test_a_store_that_stands_still_does_not_hold_a_ping(own_valkey: ValkeyServer, new_node: NewNode) -> None:
    node = await new_node(own_valkey)
    await node.bridge.subscribe("room")
    async with Redis.from_url(own_valkey.url) as redis:
        await redis.execute_command("CLIENT", "PAUSE", "1500", "ALL")
        node.bridge.subscribe("late")
        assert not await ponged(node)
    assert not node.bridge.is_heard("late")
    await wait_until(lambda: node.bridge.is_heard("late"))
    assert node.gaps == [["late"]]  # it may have been needed before it was confirmed

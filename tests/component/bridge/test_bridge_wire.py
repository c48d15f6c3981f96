"""What goes over the wire between the Redis bridge and its store, and what the bridge makes of what comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from redis.asyncio import Redis
from support.bridge_nodes import Node
from support.valkey import ValkeyServer
from support.waiting import wait_until

from stickygw.wire.envelope import Envelope, EnvelopeKeys
from stickygw.wire.prepared import TEXT

NewNode = Callable[..., Coroutine[Any, Any, Node]]


async def reads_and_publishes(redis: Redis) -> tuple[int, int]:
    stats, commands = await redis.info("stats"), await redis.info("commandstats")
    return stats["total_reads_processed"], commands.get("cmdstat_publish", {}).get("calls", 0)


async def no_channels(redis: Redis) -> bool:
    return not await redis.pubsub_channels()


async def test_publishes_of_one_loop_turn_are_one_pipeline(own_valkey: ValkeyServer, new_node: NewNode) -> None:
    a = await new_node(own_valkey)
    async with Redis.from_url(own_valkey.url) as redis:
        await redis.ping()
        before = await reads_and_publishes(redis)
        a.publish(*map(str, range(100)))
        await wait_until(lambda: not a.bridge._publisher._unanswered and not a.bridge._publisher._queue)
        after = await reads_and_publishes(redis)
    assert after[1] - before[1] == 100
    assert after[0] - before[0] <= 4  # the pipeline, this test's two INFOs, perhaps a PING


async def test_subscriptions_of_one_loop_turn_are_one_command(own_valkey: ValkeyServer, new_node: NewNode) -> None:
    a = await new_node(own_valkey)
    await asyncio.gather(*(a.bridge.subscribe(f"room {number}") for number in range(100)))
    async with Redis.from_url(own_valkey.url) as redis:
        commands = await redis.info("commandstats")
        assert commands["cmdstat_subscribe"]["calls"] == 1
        assert len(await redis.pubsub_channels()) == 100
        for number in range(100):
            a.bridge.unsubscribe(f"room {number}")
        await wait_until(lambda: no_channels(redis))


async def test_its_own_echo_is_dropped(valkey: ValkeyServer, new_node: NewNode) -> None:
    a, b = await new_node(valkey), await new_node(valkey)
    await a.bridge.subscribe("room")
    a.publish("mine")
    b.publish("theirs")
    await wait_until(lambda: a.received)
    assert a.received == ["theirs"]
    assert a.counters.total("bridge_old") == 0


async def test_garbage_on_a_channel_is_counted_and_nothing_else(
    valkey: ValkeyServer, prefix: str, new_node: NewNode
) -> None:
    a, b = await new_node(valkey), await new_node(valkey)
    await a.bridge.subscribe("room")
    channel = f"{prefix}:room:room"
    garbage = [b"", b"hello", bytes(16), bytes(16) + b"\xc1", bytes(16) + b"\x97\x02\x02", b"\xff" * 1000]
    async with Redis.from_url(valkey.url) as redis:
        for data in garbage:
            await redis.publish(channel, data)
    b.publish("good")
    await wait_until(lambda: a.received == ["good"])
    assert a.counters.value("bridge_garbage") == len(garbage)
    assert a.bridge.is_connected


async def test_duplicates_and_holes_of_another_sender_are_noticed(
    valkey: ValkeyServer, prefix: str, new_node: NewNode
) -> None:
    a = await new_node(valkey)
    await a.bridge.subscribe("room")
    channel = f"{prefix}:room:room".encode()
    async with Redis.from_url(valkey.url) as redis:
        for number in (1, 2, 2, 1, 4, 3, 5):
            envelope = Envelope(b"somebody", number, TEXT, str(number).encode())
            await redis.publish(channel, EnvelopeKeys().encode(channel, envelope))
    await wait_until(lambda: "5" in a.received)
    assert a.received == ["1", "2", "4", "5"]
    assert a.gaps == [["room"]]
    assert a.counters.value("bridge_old") == 3


async def test_what_was_missed_while_nobody_was_in_the_room_is_no_gap(valkey: ValkeyServer, new_node: NewNode) -> None:
    a, b = await new_node(valkey), await new_node(valkey)
    witness = await new_node(valkey)
    await witness.bridge.subscribe("room")
    await b.bridge.subscribe("room")
    a.publish("1")
    await wait_until(lambda: b.received == ["1"])
    b.bridge.unsubscribe("room")
    a.publish("2")
    await wait_until(lambda: witness.received == ["1", "2"])
    await b.bridge.subscribe("room")
    a.publish("3")
    await wait_until(lambda: b.received == ["1", "3"])
    assert b.gaps == []


async def test_a_callback_that_raises_is_logged_and_bridging_goes_on(
    valkey: ValkeyServer, new_node: NewNode, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = await new_node(valkey), await new_node(valkey)
    a.bridge._on_publication = lambda address, publication: a.received.append(str(1 // int(publication.payload)))
    await a.bridge.subscribe("room")
    b.publish("0", "1")
    await wait_until(lambda: a.received == ["1"])
    assert "ZeroDivisionError" in caplog.text
    assert a.gaps == []


async def test_a_message_that_the_store_refuses_is_counted(own_valkey: ValkeyServer, new_node: NewNode) -> None:
    a, b = await new_node(own_valkey), await new_node(own_valkey)
    await b.bridge.subscribe("room")
    async with Redis.from_url(own_valkey.url) as redis:
        await redis.execute_command("ACL", "SETUSER", "default", "-publish")
        a.publish("1", "2")
        await wait_until(lambda: a.lost() == {"refused": 2})
        await redis.execute_command("ACL", "SETUSER", "default", "+publish")
    a.publish("3")
    await wait_until(lambda: b.received == ["3"])


async def test_a_url_cannot_ask_for_what_the_bridge_does_not_speak(
    valkey: ValkeyServer, prefix: str, new_node: NewNode
) -> None:
    a = await new_node(valkey)
    b = Node(f"{valkey.url}?protocol=3&decode_responses=true&socket_timeout=0.1", prefix)
    await b.bridge.start()
    await b.bridge.subscribe("room")
    a.publish("1")
    await wait_until(lambda: b.received == ["1"])
    await b.bridge.stop()

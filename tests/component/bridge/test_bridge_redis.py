"""What only the Redis bridge can show: a real server that dies, is stopped and is too slow."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvloop
from redis.asyncio import Redis
from support.bridge_nodes import Node
from support.valkey import ValkeyServer
from support.waiting import wait_until

from stickygw import reconnect
from stickygw.bridge import publisher as publishing
from stickygw.bridge import subscriber as subscribing
from stickygw.bridge.publisher import Publisher

NewNode = Callable[..., Coroutine[Any, Any, Node]]


async def restarted(server: ValkeyServer, *nodes: Node) -> None:
    """Kill and start the server, and wait until all nodes have noticed and come back."""
    server.stop()
    await wait_until(lambda: not any(node.bridge.is_connected for node in nodes))
    server.start()
    await wait_until(lambda: all(node.bridge.is_connected for node in nodes))


async def in_a_pipeline(node: Node) -> None:
    """Return when what `node` has published is on its way to the server."""
    await wait_until(lambda: node.bridge._publisher._unanswered and not node.bridge._publisher._queue)


# Restart


async def test_after_a_restart_every_room_is_subscribed_and_told_a_gap(
    own_valkey: ValkeyServer, new_node: NewNode
) -> None:
    a, b = await new_node(own_valkey), await new_node(own_valkey)
    rooms = [f"room {number}" for number in range(1200)]  # more than one command's worth
    await asyncio.gather(*(b.bridge.subscribe(room) for room in rooms))
    assert b.gaps == []
    await restarted(own_valkey, a, b)
    assert sorted(room for gap in b.gaps for room in gap) == sorted(rooms)
    assert b.counters.value("bridge_gap", "reconnect") == 1200
    assert a.gaps == []
    for room in rooms:
        a.publish(room, room=room)
    await wait_until(lambda: len(b.received) >= 1200)
    assert b.received == rooms


async def test_bridging_is_back_within_three_seconds_of_a_restart(own_valkey: ValkeyServer, new_node: NewNode) -> None:
    a, b = await new_node(own_valkey), await new_node(own_valkey)
    await b.bridge.subscribe("room")
    own_valkey.stop()
    await wait_until(lambda: not a.bridge.is_connected and not b.bridge.is_connected)
    halves = (a.bridge._publisher, a.bridge._subscriber, b.bridge._publisher, b.bridge._subscriber)
    # An outage that has come to the longest pauses between attempts.
    await wait_until(lambda: all(half._backoff._failures >= 7 for half in halves), seconds=30)
    own_valkey.start()
    await wait_until(lambda: a.bridge.is_connected and b.bridge.is_connected, seconds=3)
    a.publish("back")
    await wait_until(lambda: b.received == ["back"])


async def test_no_message_comes_twice_across_restarts(own_valkey: ValkeyServer, new_node: NewNode) -> None:
    a, b = await new_node(own_valkey), await new_node(own_valkey)
    await b.bridge.subscribe("room")
    published = 0
    for _ in range(3):
        done = asyncio.create_task(restarted(own_valkey, a, b))
        while not done.done():
            a.publish(str(published))
            published += 1
            await asyncio.sleep(0.001)
        await done
    a.publish("end")
    await wait_until(lambda: "end" in b.received)
    numbers = [int(text) for text in b.received[:-1]]
    assert numbers == sorted(set(numbers))
    missing = published - len(numbers)
    assert missing > 0
    # Whatever did not come was counted by its sender, or came to a receiver that was told a gap.
    assert set(a.lost()) <= {"away", "uncertain"}
    assert a.counters.total("bridge_lost") > 0
    assert b.counters.value("bridge_gap", "reconnect") == 3


async def test_while_the_store_is_away_messages_are_dropped_at_once_and_counted(
    own_valkey: ValkeyServer, new_node: NewNode
) -> None:
    a, b = await new_node(own_valkey), await new_node(own_valkey)
    await b.bridge.subscribe("room")
    a.publish("1")
    await wait_until(lambda: b.received == ["1"])
    own_valkey.stop()
    await wait_until(lambda: not a.bridge.is_connected)
    a.publish("2", "3", "4")
    assert a.lost() == {"away": 3}
    own_valkey.start()
    await wait_until(lambda: a.bridge.is_connected and b.bridge.is_connected)
    a.publish("5")
    await wait_until(lambda: b.received == ["1", "5"])
    assert b.gaps == [["room"], ["room"]]  # the reconnect, and the hole that the lost ones left
    assert b.counters.value("bridge_gap", "hole") == 1


async def test_a_room_joined_while_the_store_is_away_is_told_a_gap_when_it_is_back(
    own_valkey: ValkeyServer, new_node: NewNode
) -> None:
    own_valkey.stop()
    b = Node(own_valkey.url, "late")
    starting = asyncio.create_task(b.bridge.start())
    await asyncio.sleep(0)
    async with asyncio.timeout(1):
        await b.bridge.subscribe("room")
    assert not b.bridge.is_connected
    own_valkey.start()
    await starting
    await wait_until(lambda: b.gaps == [["room"]])
    await b.bridge.stop()


async def test_start_returns_within_its_bound_while_the_store_is_away(own_valkey: ValkeyServer) -> None:
    own_valkey.stop()
    node = Node(own_valkey.url, "away")
    async with asyncio.timeout(4):
        await node.bridge.start()
    assert not node.bridge.is_connected
    await node.bridge.stop()


# Pause


async def test_a_pause_that_nobody_notices_loses_nothing(own_valkey: ValkeyServer, new_node: NewNode) -> None:
    a, b = await new_node(own_valkey), await new_node(own_valkey)
    await b.bridge.subscribe("room")
    own_valkey.pause()
    a.publish("during")
    await in_a_pipeline(a)
    await asyncio.sleep(publishing.PIPELINE_SECONDS * 0.3)  # time itself is under test: so long nobody minds
    assert b.received == []
    own_valkey.resume()
    await wait_until(lambda: b.received == ["during"])
    assert a.lost() == {}
    assert b.gaps == []


async def test_after_a_pause_bridging_is_back_and_nothing_comes_twice(
    own_valkey: ValkeyServer, new_node: NewNode
) -> None:
    a, b = await new_node(own_valkey), await new_node(own_valkey)
    await b.bridge.subscribe("room")
    a.publish("0")
    await wait_until(lambda: b.received == ["0"])
    own_valkey.pause()
    resume_at = asyncio.get_running_loop().time() + 3
    published = 1
    while asyncio.get_running_loop().time() < resume_at:
        a.publish(str(published))
        published += 1
        await asyncio.sleep(0.01)
    assert not a.bridge.is_connected
    assert set(a.lost()) == {"uncertain", "away"}
    own_valkey.resume()
    await wait_until(lambda: a.bridge.is_connected and b.bridge.is_connected, seconds=5)
    a.publish("end")
    await wait_until(lambda: "end" in b.received)
    numbers = [int(text) for text in b.received[:-1]]
    assert numbers == sorted(set(numbers))
    assert published - len(numbers) <= a.counters.total("bridge_lost")
    assert b.gaps  # at least the hole


async def test_a_stopped_server_is_noticed_within_five_seconds(own_valkey: ValkeyServer, new_node: NewNode) -> None:
    b = await new_node(own_valkey)
    await b.bridge.subscribe("room")
    subscriber = b.bridge._subscriber
    own_valkey.pause()
    await wait_until(lambda: not subscriber.connected.is_set(), seconds=5)
    own_valkey.resume()
    await wait_until(lambda: b.bridge.is_connected, seconds=5)
    assert b.gaps == [["room"]]


@contextmanager
def blocker() -> Iterator[Callable[[], object]]:
    """What it gives blocks the loop soon after: in a reader's callback, as a connection's handler does, where uvloop
    looks at timers before sockets afterwards."""
    waker, sleeper = socket.socketpair()
    loop = asyncio.get_running_loop()
    loop.add_reader(sleeper, lambda: (sleeper.recv(1), time.sleep(0.25)))
    yield lambda: waker.send(b"x")
    loop.remove_reader(sleeper)
    waker.close()
    sleeper.close()


@pytest.mark.parametrize("run", [pytest.param(asyncio.run, marks=pytest.mark.long), uvloop.run])
def test_a_loop_that_was_blocked_does_not_take_the_server_for_dead(
    valkey: ValkeyServer, prefix: str, monkeypatch: pytest.MonkeyPatch, run: Callable[..., None]
) -> None:
    monkeypatch.setattr(subscribing, "PING_SECONDS", 0.1)
    monkeypatch.setattr(publishing, "PIPELINE_SECONDS", 0.1)

    async def block_and_look() -> None:
        node = Node(valkey.url, prefix)
        await node.bridge.start()
        await node.bridge.subscribe("room")
        with blocker() as block_soon:
            for phase in range(20):  # before a ping is due, and between a ping and its answer
                node.publish("waits for its answer meanwhile")
                for _ in range(phase % 4):
                    await asyncio.sleep(0)
                block_soon()
                await asyncio.sleep(0.25 + 0.007 * phase)
        assert node.gaps == []
        assert node.lost() == {}
        assert node.bridge.is_connected
        await node.bridge.stop()

    run(block_and_look())


async def test_a_join_at_a_stopped_server_waits_no_longer_than_its_bound(
    own_valkey: ValkeyServer, new_node: NewNode
) -> None:
    b = await new_node(own_valkey)
    own_valkey.pause()
    async with asyncio.timeout(3.5):
        await b.bridge.subscribe("room")
    own_valkey.resume()
    await wait_until(lambda: b.gaps == [["room"]])  # it was told joined before it was


# Bounds


async def test_a_full_queue_drops_what_comes_on_top(
    own_valkey: ValkeyServer, new_node: NewNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "MAX_QUEUED_MESSAGES", 100)
    a, b = await new_node(own_valkey), await new_node(own_valkey)
    await b.bridge.subscribe("room")
    a.publish(*map(str, range(150)))
    assert a.lost() == {"queue_full": 50}
    await wait_until(lambda: len(b.received) == 100)
    a.publish("after")
    await wait_until(lambda: b.received[100:] == ["after"])
    assert b.gaps == [["room"]]


async def test_the_queue_is_bounded_in_bytes_until_they_are_answered(
    own_valkey: ValkeyServer, new_node: NewNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "MAX_QUEUED_BYTES", 1_000_000)
    a, b = await new_node(own_valkey), await new_node(own_valkey)
    await b.bridge.subscribe("room")
    own_valkey.pause()
    big = "x" * 400_000
    a.publish(big)
    await in_a_pipeline(a)  # and still counts
    a.publish(big, big)
    assert a.lost() == {"queue_full": 1}
    own_valkey.resume()
    await wait_until(lambda: len(b.received) == 2)
    a.publish(big)
    await wait_until(lambda: len(b.received) == 3)


async def test_more_than_a_pipeline_holds_goes_out_in_order(
    valkey: ValkeyServer, new_node: NewNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "MAX_PIPELINE_MESSAGES", 10)
    a, b = await new_node(valkey), await new_node(valkey)
    await b.bridge.subscribe("room")
    a.publish(*map(str, range(95)))
    await wait_until(lambda: len(b.received) == 95)
    assert b.received == [str(number) for number in range(95)]
    assert b.gaps == []


# The tasks


async def alone(redis: Redis) -> bool:
    return len(await redis.client_list()) == 1


async def test_a_defect_is_loud_and_does_not_end_bridging(
    valkey: ValkeyServer, new_node: NewNode, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = await new_node(valkey), await new_node(valkey)
    await b.bridge.subscribe("room")

    def defect(self: Publisher) -> list[bytes]:
        raise LookupError("a defect for this test")

    with monkeypatch.context() as patched:
        patched.setattr(Publisher, "_take_pipeline", defect)
        a.publish("1")
        await wait_until(lambda: a.lost() == {"away": 1})
    await wait_until(lambda: a.bridge.is_connected)
    a.publish("2")
    await wait_until(lambda: b.received == ["2"])
    assert "a defect for this test" in caplog.text


async def test_each_outage_is_logged_once_not_at_every_attempt(
    own_valkey: ValkeyServer, new_node: NewNode, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconnect, "STAND_SECONDS", 0.0)  # so short as the connections stand here
    caplog.set_level(logging.DEBUG, "stickygw.reconnect")
    a = await new_node(own_valkey)
    halves = ("bridge subscriber: not connected", "bridge publisher: not connected")
    for _ in range(2):
        caplog.clear()
        own_valkey.stop()
        await wait_until(lambda: all(caplog.text.count(half) > 2 for half in halves))
        assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == len(halves)
        own_valkey.start()
        await wait_until(lambda: a.bridge.is_connected)


async def test_stop_leaves_no_task_and_no_connection(own_valkey: ValkeyServer, prefix: str) -> None:
    tasks = asyncio.all_tasks()
    node = Node(own_valkey.url, prefix)
    await node.bridge.start()
    await node.bridge.subscribe("room")
    await node.bridge.stop()
    assert asyncio.all_tasks() == tasks
    async with Redis.from_url(own_valkey.url) as redis:
        await wait_until(lambda: alone(redis))

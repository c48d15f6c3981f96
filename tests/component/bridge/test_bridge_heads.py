"""A loss that no later message shows: the sender tells its last number, and the receivers learn of the gap."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from redis.asyncio import Redis
from support.bridge_nodes import Node
from support.valkey import ValkeyServer
from support.waiting import wait_until

from stickygw.bridge import publisher as publishing
from stickygw.bridge import redis as bridging
from stickygw.reconnect import Backoff
from stickygw.wire.envelope import HEAD, Envelope, EnvelopeKeys
from stickygw.wire.prepared import TEXT

NewNode = Callable[..., Coroutine[Any, Any, Node]]


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Last numbers are told soon after a loss."""
    monkeypatch.setattr(bridging, "HEAD_SECONDS", 0.05)


@pytest.fixture(autouse=True)
def away_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has lost its connection comes back after a while: long enough to lose something meanwhile."""
    monkeypatch.setattr(Backoff, "next_seconds", lambda backoff: 0.3)


async def cut(publisher: Node, server: ValkeyServer) -> None:
    """End the connections on which nobody subscribes; return when `publisher` has noticed."""
    async with Redis.from_url(server.url) as redis:
        await redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await wait_until(lambda: not publisher.bridge._publisher.connected.is_set())


async def test_what_was_lost_last_while_the_sender_was_away_is_told_when_it_is_back(
    own_valkey: ValkeyServer, new_node: NewNode
) -> None:
    a, b = await new_node(own_valkey), await new_node(own_valkey)
    await b.bridge.subscribe("room")
    await b.bridge.subscribe("quiet")
    a.publish("1")
    await wait_until(lambda: b.received == ["1"])
    await cut(a, own_valkey)
    a.publish("2", "3")
    assert a.lost() == {"away": 2}
    await wait_until(lambda: b.gaps)
    assert b.gaps == [["room"]]
    assert b.counters.value("bridge_gap", "hole") == 1
    a.publish("4")
    await wait_until(lambda: b.received == ["1", "4"])
    assert b.gaps == [["room"]]  # a loss is told once


async def test_a_sender_of_whom_nothing_ever_came_tells_its_loss_too(
    own_valkey: ValkeyServer, new_node: NewNode
) -> None:
    a, b = await new_node(own_valkey), await new_node(own_valkey)
    await b.bridge.subscribe("room")
    await cut(a, own_valkey)
    a.publish("1")
    await wait_until(lambda: b.gaps == [["room"]])
    assert b.received == []


@pytest.mark.usefixtures("soon")
async def test_what_the_store_refused_last_is_told_when_it_takes_messages_again(
    own_valkey: ValkeyServer, new_node: NewNode
) -> None:
    a, b = await new_node(own_valkey), await new_node(own_valkey)
    await b.bridge.subscribe("room")
    async with Redis.from_url(own_valkey.url) as redis:
        await redis.execute_command("ACL", "SETUSER", "default", "-publish")
        a.publish("1")
        await wait_until(lambda: a.lost() == {"refused": 1})
        assert b.gaps == []
        await redis.execute_command("ACL", "SETUSER", "default", "+publish")
    await wait_until(lambda: b.gaps == [["room"]])
    assert b.received == []


@pytest.mark.usefixtures("soon")
async def test_what_was_too_much_last_is_told_soon(
    own_valkey: ValkeyServer, new_node: NewNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = await new_node(own_valkey), await new_node(own_valkey)
    await b.bridge.subscribe("room")
    monkeypatch.setattr(publishing, "MAX_QUEUED_MESSAGES", 10)
    a.publish(*map(str, range(15)))
    await wait_until(lambda: b.gaps == [["room"]])
    assert b.received == [str(number) for number in range(10)]
    assert a.lost() == {"queue_full": 5}


async def test_a_refused_message_is_told_to_who_first_heard_of_its_sender_by_a_later_one(
    own_valkey: ValkeyServer, new_node: NewNode
) -> None:
    a, b = await new_node(own_valkey), await new_node(own_valkey)
    await b.bridge.subscribe("room")
    async with Redis.from_url(own_valkey.url) as redis:
        await redis.execute_command("ACL", "SETUSER", "default", "-publish")
        a.publish("1")
        await wait_until(lambda: a.lost() == {"refused": 1})
        await redis.execute_command("ACL", "SETUSER", "default", "+publish")
    a.publish("2")
    await wait_until(lambda: b.received == ["2"] and b.gaps == [["room"]])


async def test_what_was_lost_over_a_connection_is_told_on_the_next_one_even_if_it_was_overtaken(
    own_valkey: ValkeyServer, new_node: NewNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = await new_node(own_valkey), await new_node(own_valkey)
    await b.bridge.subscribe("room")
    with monkeypatch.context() as patch:
        patch.setattr(publishing, "MAX_QUEUED_MESSAGES", 0)
        a.publish("1")
    assert a.lost() == {"queue_full": 1}
    a.publish("2")
    await wait_until(lambda: b.received == ["2"])
    await cut(a, own_valkey)
    await wait_until(lambda: b.gaps == [["room"]])


async def test_what_was_lost_last_at_a_store_that_stood_still_is_told_when_it_goes_on(
    own_valkey: ValkeyServer, new_node: NewNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "PIPELINE_SECONDS", 0.1)
    monkeypatch.setattr(publishing, "SECOND_LOOK_SECONDS", 0.1)
    a, b = await new_node(own_valkey), await new_node(own_valkey)
    await b.bridge.subscribe("room")
    own_valkey.pause()
    a.publish("1")
    await wait_until(lambda: a.lost() == {"uncertain": 1})
    a.publish("2")
    own_valkey.resume()  # before the receiver has noticed
    await wait_until(lambda: b.gaps)
    assert b.gaps == [["room"]]
    assert b.counters.value("bridge_gap", "reconnect") == 0
    assert "2" not in b.received


async def test_a_last_number_that_is_known_is_no_gap(valkey: ValkeyServer, prefix: str, new_node: NewNode) -> None:
    a = await new_node(valkey)
    await a.bridge.subscribe("room")
    channel, sender = f"{prefix}:room:room".encode(), b"somebody"
    async with Redis.from_url(valkey.url) as redis:
        for envelope in (
            Envelope(sender, 1, TEXT, b"1"),
            Envelope(sender, 1, HEAD, b""),
            Envelope(sender, 2, TEXT, b"2"),
            Envelope(sender, 1, HEAD, b""),
            Envelope(sender, 3, TEXT, b"3"),
        ):
            await redis.publish(channel, EnvelopeKeys().encode(channel, envelope))
    await wait_until(lambda: a.received == ["1", "2", "3"])
    assert a.gaps == []
    assert a.counters.total("bridge_old") == 0


async def test_the_channels_with_a_loss_to_tell_are_bounded(
    own_valkey: ValkeyServer, new_node: NewNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridging, "MAX_NUMBERED_ROOMS", 3)
    a, b = await new_node(own_valkey), await new_node(own_valkey)
    for room in ("1", "2", "3", "4", "5"):
        await b.bridge.subscribe(room)
    await cut(a, own_valkey)
    for room in ("1", "2", "3", "4", "1", "5"):  # 2 and 3 are those longest ago
        a.publish("lost", room=room)
    await wait_until(lambda: len(b.gaps) == 3)
    assert b.gaps == [["4"], ["1"], ["5"]]

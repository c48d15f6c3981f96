"""Who shares a store and a prefix shares rooms only with a secret in common."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from redis.asyncio import Redis
from support.bridge_nodes import Node
from support.valkey import ValkeyServer
from support.waiting import wait_until

from stickygw.bridge.redis import FOREIGN_LOG_SECONDS
from stickygw.wire.envelope import Envelope, EnvelopeKeys
from stickygw.wire.prepared import TEXT

NewNode = Callable[..., Coroutine[Any, Any, Node]]


async def test_nodes_with_another_secret_do_not_hear_each_other(valkey: ValkeyServer, new_node: NewNode) -> None:
    ours, ours_too = await new_node(valkey, b"ours"), await new_node(valkey, b"ours")
    theirs = await new_node(valkey, b"theirs")
    await ours.bridge.subscribe("room")
    theirs.publish("1", "2")
    await wait_until(lambda: ours.counters.total("bridge_foreign") == 2)
    ours_too.publish("3")
    await wait_until(lambda: ours.received)
    assert ours.received == ["3"]
    assert ours.gaps == []
    assert ours.counters.total("bridge_garbage") == 0


async def test_while_secrets_rotate_old_and_new_nodes_hear_each_other(valkey: ValkeyServer, new_node: NewNode) -> None:
    before = await new_node(valkey, b"old")
    between = await new_node(valkey, b"old", b"new")  # all nodes learn the new one before any signs with it
    after = await new_node(valkey, b"new", b"old")
    for node in (before, between, after):
        await node.bridge.subscribe("room")
    before.publish("signed with the old one")
    await wait_until(lambda: between.received and after.received)
    after.publish("signed with the new one")
    await wait_until(lambda: len(between.received) == 2 and before.counters.total("bridge_foreign") == 1)
    assert between.received == ["signed with the old one", "signed with the new one"]


async def test_what_was_signed_for_one_room_is_not_taken_in_another(
    valkey: ValkeyServer, prefix: str, new_node: NewNode
) -> None:
    a = await new_node(valkey, b"ours")
    await a.bridge.subscribe("red")
    await a.bridge.subscribe("blue")
    red, blue = f"{prefix}:room:red".encode(), f"{prefix}:room:blue".encode()
    data = EnvelopeKeys([b"ours"]).encode(red, Envelope(b"somebody", 1, TEXT, b"1"))
    async with Redis.from_url(valkey.url) as redis:
        await redis.publish(blue, data)
        await redis.publish(red, data)
    await wait_until(lambda: a.received)
    assert a.received == ["1"]
    assert a.counters.total("bridge_foreign") == 1


async def test_foreign_messages_are_all_counted_and_logged_once_a_minute(
    valkey: ValkeyServer, new_node: NewNode, caplog: pytest.LogCaptureFixture
) -> None:
    ours, theirs = await new_node(valkey, b"ours"), await new_node(valkey, b"theirs")
    await ours.bridge.subscribe("room")
    counted = logged = 0
    for seconds, lines in ((0.0, 1), (FOREIGN_LOG_SECONDS - 0.1, 0), (0.1, 1), (1.0, 0)):
        ours.now += seconds
        theirs.publish("1", "2", "3")
        counted, logged = counted + 3, logged + lines
        await wait_until(lambda counted=counted: ours.counters.total("bridge_foreign") == counted)  # type: ignore[misc]
        warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert len(warnings) == logged
    assert "another secret" in caplog.text

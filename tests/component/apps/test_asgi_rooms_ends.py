"""`stickygw.asgi.rooms`: how a WebSocket in rooms ends: disconnected, closed by its client, or left by its block."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from starlette.websockets import WebSocketDisconnect
from support.hand_made_websocket import HandMade, publish, worker_left_empty
from support.waiting import wait_until

from stickygw.asgi import rooms
from stickygw.testing import AppClient


@pytest.fixture
def websocket() -> HandMade:
    return HandMade()


@pytest.fixture
async def client() -> AsyncIterator[AppClient]:
    async with worker_left_empty() as client:
        yield client


def count_of(client: AppClient, *labels: str) -> int:
    return int(client.counters.value(*labels))


# Disconnected


async def test_a_disconnect_waits_behind_what_was_sent_before(client: AppClient, websocket: HandMade) -> None:
    async with rooms(websocket) as r:
        await r.identify("ada")
        await r.join("r")
        websocket.may_send.clear()
        publish(client, "before")
        await client._app.disconnect(user="ada", code=4001)
        publish(client, "after")
        assert r.rooms == ()
        await r.join("again")
        assert r.rooms == ()
        websocket.may_send.set()
    assert websocket.sent == ["before", (4001, "")]


async def test_a_disconnect_waits_no_longer_than_it_may(
    client: AppClient, websocket: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stickygw.apps.native.audience.CLOSE_WITHIN", 0.1)
    async with rooms(websocket) as r:
        await r.identify("ada")
        websocket.may_send.clear()
        await client._app.send_to_user("ada", "stuck")
        await client._app.disconnect(user="ada", code=4001)
        await wait_until(lambda: websocket.sent)
    assert websocket.sent == [(4001, "")]


async def test_what_is_found_slow_while_it_is_disconnected_is_closed_with_the_code_of_that(
    client: AppClient, websocket: HandMade
) -> None:
    async with rooms(websocket) as r:
        await r.identify("ada")
        websocket.may_send.clear()
        await client._app.send_to_user("ada", "stuck for longer than outbox_seconds")
        await client._app.disconnect(user="ada", code=4001)
        await wait_until(lambda: websocket.sent)
    assert websocket.sent == [(4001, "")]
    assert count_of(client, "connections_closed", "slow_consumer") == 0


# Sockets that end


@pytest.mark.parametrize("error", [WebSocketDisconnect(1006), OSError("closed")])
async def test_a_closed_socket_ends_the_deliveries_quietly(
    client: AppClient, websocket: HandMade, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async with rooms(websocket) as r:
        await r.join("r")
        websocket.error = error
        publish(client, "one")
        await wait_until(lambda: (publish(client, "two"), not r.rooms)[1])
    assert websocket.sent == []
    assert not caplog.records


async def test_another_error_is_told_and_closes_the_socket(
    client: AppClient, websocket: HandMade, caplog: pytest.LogCaptureFixture
) -> None:
    async with rooms(websocket) as r:
        await r.join("r")
        websocket.error = RuntimeError("a defect")
        publish(client, "one")
    assert websocket.sent == [(1011, "internal error")]
    assert "a defect" in caplog.text
    assert count_of(client, "deliver_failed", "RuntimeError") == 1


# The end of a block


async def test_what_cannot_be_sent_at_the_block_s_end_is_given_up_after_a_while(
    client: AppClient, websocket: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stickygw.apps.asgi.rooms.EXIT_SECONDS", 0.05)
    before = asyncio.all_tasks()
    async with rooms(websocket) as r:
        await r.join("r")
        websocket.may_send.clear()
        publish(client, "stuck")
    assert asyncio.all_tasks() <= before
    websocket.may_send.set()
    assert websocket.sent == []


async def test_a_disconnect_that_waits_when_the_block_has_ended_leaves_no_task(
    client: AppClient, websocket: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stickygw.apps.asgi.rooms.EXIT_SECONDS", 0.05)
    monkeypatch.setattr("stickygw.apps.native.audience.CLOSE_WITHIN", 0.2)
    before = asyncio.all_tasks()
    async with rooms(websocket) as r:
        await r.identify("ada")
        websocket.may_send.clear()
        await client._app.send_to_user("ada", "stuck")
        await client._app.disconnect(user="ada", code=4001)
    assert asyncio.all_tasks() <= before
    await asyncio.sleep(0.2)  # until it would have been closed
    assert websocket.sent == []


async def test_what_is_found_slow_at_the_block_s_end_is_closed_within_it(
    client: AppClient, websocket: HandMade
) -> None:
    async with rooms(websocket) as r:
        await r.join("r")
        websocket.may_send.clear()
        publish(client, "stuck")
    assert websocket.sent == [(1013, "slow consumer")]

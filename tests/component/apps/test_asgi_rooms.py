"""`stickygw.asgi.rooms`: WebSockets of ASGI applications in rooms, whoever serves them."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import AsyncIterator

import pytest
from support.hand_made_websocket import HandMade, marked, publish, worker_left_empty
from support.waiting import wait_until

from stickygw import App, OutsideGateway
from stickygw.asgi import rooms
from stickygw.errors import RoomNameError
from stickygw.testing import AppClient


@pytest.fixture
def websocket() -> HandMade:
    return HandMade()


@pytest.fixture
async def client() -> AsyncIterator[AppClient]:
    async with worker_left_empty() as client:
        yield client


# Membership


async def test_outside_a_gateway_there_are_none(websocket: HandMade) -> None:
    with pytest.raises(OutsideGateway):
        async with rooms(websocket):
            pass


async def test_a_member_gets_text_as_text_and_bytes_as_bytes_in_order(client: AppClient, websocket: HandMade) -> None:
    async with rooms(websocket) as r:
        await r.join("r")
        await r.join("s")
        assert r.rooms == ("r", "s")
        await r.publish("r", "text")
        publish(client, b"bytes", "s")
        await r.leave("s")
        publish(client, "unheard", "s")
        publish(client, "last")
        assert r.rooms == ("r",)
    assert websocket.sent == ["text", b"bytes", "last"], "what was delivered before the block's end, too"
    publish(client, "after")
    assert r.rooms == ()


async def test_a_sender_can_exclude_itself(client: AppClient, websocket: HandMade) -> None:
    other = HandMade()
    async with rooms(websocket) as r, rooms(other) as s:
        await r.join("r")
        await s.join("r")
        await r.publish("r", "one", exclude=r)
        await client._app.publish("r", "two", exclude=s)
    assert (websocket.sent, other.sent) == (["two"], ["one"])


async def test_messages_are_of_the_application_s_codec(websocket: HandMade) -> None:
    async with AppClient(App(codec="json")), rooms(websocket) as r:
        await r.join("r")
        await r.publish("r", {"n": [1]})
    assert websocket.sent == ['{"n":[1]}']


async def test_a_name_that_no_room_can_have_is_refused(client: AppClient, websocket: HandMade) -> None:
    async with rooms(websocket) as r:
        with pytest.raises(RoomNameError):
            await r.join("")
        assert r.rooms == ()


async def test_a_name_that_no_room_can_have_is_left_by_nobody(client: AppClient, websocket: HandMade) -> None:
    async with rooms(websocket) as r:
        await r.identify("ada")
        with pytest.raises(RoomNameError):
            await r.leave("\x00user:ada")
        await client._app.send_to_user("ada", "hello")
    assert websocket.sent == ["hello"], "it is hers still"


async def test_behind_the_block_nothing_is_joined(client: AppClient, websocket: HandMade) -> None:
    async with rooms(websocket) as r:
        pass
    with pytest.raises(RuntimeError, match="this block has ended"):
        await r.join("r")


async def test_an_error_in_the_block_leaves_the_rooms_and_is_the_caller_s(
    client: AppClient, websocket: HandMade
) -> None:
    async def handler() -> None:
        async with rooms(websocket) as r:
            await r.join("r")
            await r.publish("r", "before")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await handler()
    assert websocket.sent == ["before"]


async def test_a_cancelled_handler_leaves_the_rooms_and_no_task(client: AppClient, websocket: HandMade) -> None:
    is_in = asyncio.Event()

    async def handler() -> None:
        async with rooms(websocket) as r:
            await r.join("r")
            is_in.set()
            await asyncio.get_running_loop().create_future()

    task = asyncio.create_task(handler())
    await is_in.wait()
    before = asyncio.all_tasks()
    websocket.may_send.clear()
    publish(client, "stuck")
    await wait_until(lambda: asyncio.all_tasks() - before)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() <= before


async def test_what_is_published_is_sent_in_the_member_s_context(client: AppClient, websocket: HandMade) -> None:
    marked.set("the member's")
    async with rooms(websocket) as r:
        await r.join("r")
        context = contextvars.copy_context()
        context.run(marked.set, "the publisher's")
        context.run(publish, client, "hello")
    assert websocket.contexts == {"the member's"}


# Slow clients


def count_of(client: AppClient, *labels: str) -> int:
    return int(client.counters.value(*labels))


async def test_more_than_outbox_bytes_waiting_is_a_slow_consumer(client: AppClient, websocket: HandMade) -> None:
    async with rooms(websocket) as r:
        await r.join("r")
        websocket.may_send.clear()
        publish(client, "stuck")
        await asyncio.sleep(0)  # its sending has begun
        for _ in range(20):
            publish(client, "x" * 100)
        await asyncio.sleep(0)  # they are delivered
        assert r.rooms == (), "it is in no room any more"
        await wait_until(lambda: websocket.sent)
        await r.join("again")
        assert r.rooms == ()
        websocket.may_send.set()
    assert websocket.sent == [(1013, "slow consumer")]
    assert count_of(client, "connections_closed", "slow_consumer") == 1


async def test_what_was_sent_does_not_count_any_more(client: AppClient, websocket: HandMade) -> None:
    async with rooms(websocket) as r:
        await r.join("r")
        for sent in (3, 6, 9):
            for _ in range(3):
                publish(client, "x" * 100)
            await wait_until(lambda: len(websocket.sent) == sent)  # noqa: B023 - awaited here
    assert set(websocket.sent) == {"x" * 100}


async def calls_of_a_drop(app: App, *, kept: int) -> int:
    """How many functions are called to deliver a message that another one is dropped for, when so many must be kept."""
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    websocket = HandMade()
    async with AppClient(app, outbox_bytes=200_000) as client, rooms(websocket) as r:
        await r.join("talk")
        await r.join("tick")
        websocket.may_send.clear()
        for _ in range(kept):
            publish(client, "x" * 100, "talk")
        while not count_of(client, "messages_dropped", "oldest"):
            publish(client, "y" * 100, "tick")
            await asyncio.sleep(0)  # it is delivered
        publish(client, "y" * 100, "tick")
        sys.setprofile(count)
        client.runtime.hub.catch_up(r)
        sys.setprofile(None)
        assert count_of(client, "messages_dropped", "oldest") == 2
        websocket.may_send.set()
    return calls


async def test_to_drop_a_message_nobody_looks_through_those_that_must_be_kept() -> None:
    app = App()
    app.configure_rooms("tick", slow_consumer="drop_oldest")
    assert await calls_of_a_drop(app, kept=1000) < 100


async def test_a_single_message_may_be_larger_than_the_outbox(client: AppClient, websocket: HandMade) -> None:
    async with rooms(websocket) as r:
        await r.join("r")
        publish(client, "x" * 5000)
    assert websocket.sent == ["x" * 5000]


async def test_a_message_that_waits_longer_than_outbox_seconds_is_a_slow_consumer(
    client: AppClient, websocket: HandMade
) -> None:
    async with rooms(websocket) as r:
        await r.join("r")
        websocket.may_send.clear()
        publish(client, "stuck")
        await wait_until(lambda: websocket.sent)
        publish(client, "unheard")
        await asyncio.sleep(0)  # it is delivered
        assert r.rooms == ()
    assert websocket.sent == [(1013, "slow consumer")]
    assert count_of(client, "connections_closed", "slow_consumer") == 1

"""`stickygw.asgi.rooms`: WebSockets of ASGI applications in rooms, whoever serves them."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from support.waiting import wait_until

from stickygw import App, OutsideGateway
from stickygw.asgi import Rooms, rooms
from stickygw.errors import RoomNameError
from stickygw.testing import AppClient

marked: contextvars.ContextVar[str] = contextvars.ContextVar("marked", default="")


class HandMade:
    """A WebSocket that takes what `may_send` lets through, and remembers it."""

    def __init__(self) -> None:
        self.may_send = asyncio.Event()
        self.may_send.set()
        self.sent: list[str | bytes | tuple[int, str]] = []
        self.error: Exception | None = None
        self.contexts: set[str] = set()

    async def send_text(self, data: str) -> None:
        await self.may_send.wait()
        if self.error is not None:
            raise self.error
        self.contexts.add(marked.get())
        self.sent.append(data)

    async def send_bytes(self, data: bytes) -> None:
        await self.may_send.wait()
        self.sent.append(data)

    async def close(self, code: int, reason: str) -> None:
        self.sent.append((code, reason))


@pytest.fixture
def websocket() -> HandMade:
    return HandMade()


@pytest.fixture
async def client() -> AsyncIterator[AppClient]:
    async with AppClient(App(), outbox_bytes=1000, outbox_seconds=0.2) as client:
        yield client
        assert not client.runtime.hub._rooms, "everybody has left"
        assert not client.runtime.hub._rooms_of


def publish(client: AppClient, message: Any, room: str = "r") -> None:
    client._app.publish(room, message)


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


# Starlette's, served by ours


def starlette(handler: Callable[[WebSocket], Any]) -> App:
    return App(http=Starlette(routes=[WebSocketRoute("/", handler)]))


async def test_a_websocket_that_is_not_accepted_is_refused() -> None:
    errors = []

    async def handler(websocket: WebSocket) -> None:
        try:
            async with rooms(websocket):
                pass
        except RuntimeError as error:
            errors.append(str(error))
        await websocket.accept()
        await websocket.close()

    async with AppClient(starlette(handler)) as client, client.connect("/") as conn:
        await conn.wait_closed()
    assert errors == ["a WebSocket joins rooms when it is accepted: first await websocket.accept()"]


async def test_a_handler_sees_its_own_disconnect_and_a_close_of_its_own_ends_the_deliveries() -> None:
    ends: list[str] = []

    async def handler(websocket: WebSocket) -> None:
        await websocket.accept()
        async with rooms(websocket) as r:
            await r.join("r")
            await websocket.send_text("in")
            try:
                if await websocket.receive_text() == "close":
                    await websocket.close(4000)
                    await r.publish("r", "behind the close")
            except WebSocketDisconnect as error:
                ends.append(f"disconnect {error.code}")
        ends.append("out")

    async with AppClient(starlette(handler)) as client:
        async with client.connect("/") as conn:
            assert await conn.receive() == "in"
            await conn.send("close")
            assert await conn.wait_closed() == 4000
        await wait_until(lambda: ends == ["out"])
        async with client.connect("/") as conn:
            assert await conn.receive() == "in"
            await conn.close(4001)
        await wait_until(lambda: ends == ["out", "disconnect 4001", "out"])
        assert not client.runtime.hub._rooms_of


async def test_a_reader_that_never_reads_is_closed_with_1013_and_counted_once() -> None:
    closes: list[int] = []
    member: list[Rooms] = []

    async def handler(websocket: WebSocket) -> None:
        await websocket.accept()
        async with rooms(websocket) as r:
            await r.join("r")
            member.append(r)
            try:
                await websocket.receive_text()
            except WebSocketDisconnect as error:
                closes.append(error.code)

    app = starlette(handler)
    async with AppClient(app, outbox_bytes=200_000) as client, client.connect("/") as conn:
        await wait_until(lambda: member)
        conn.connection.transport.pause_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(10):
            while member[0].rooms:
                await app.publish("r", "x" * 20_000)
                await asyncio.sleep(0)
        await wait_until(lambda: closes)
        assert closes == [1013]
        assert count_of(client, "connections_closed", "slow_consumer") == 1
        conn.connection.transport.abort()


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


async def test_what_is_found_slow_at_the_block_s_end_is_closed_within_it(
    client: AppClient, websocket: HandMade
) -> None:
    async with rooms(websocket) as r:
        await r.join("r")
        websocket.may_send.clear()
        publish(client, "stuck")
    assert websocket.sent == [(1013, "slow consumer")]

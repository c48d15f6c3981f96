"""`stickygw.asgi.rooms` around Starlette's WebSockets, served by ours: how they end, and what reaches them before."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from support.waiting import wait_until

from stickygw import App, ConnectionClosed
from stickygw.asgi import Rooms, rooms
from stickygw.testing import AppClient, TestConnection


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
        assert client.counters.value("connections_closed", "slow_consumer") == 1
        conn.connection.transport.abort()


# Disconnected from elsewhere


class Chat:
    """An application whose WebSockets are in the room "lobby", and ada's, until they are told of their end."""

    def __init__(self) -> None:
        self.app = starlette(self._handler)
        self.members: list[Rooms] = []
        self.ends: list[int] = []

    async def _handler(self, websocket: WebSocket) -> None:
        await websocket.accept()
        async with rooms(websocket) as r:
            await r.identify("ada")
            await r.join("lobby")
            self.members.append(r)
            await websocket.send_text("in")
            try:
                while True:
                    await websocket.receive_text()
            except WebSocketDisconnect as error:
                self.ends.append(error.code)


async def all_received(conn: TestConnection) -> list[Any]:
    """What comes before the close, and its code."""
    received = []
    try:
        while True:
            received.append(await conn.receive())
    except ConnectionClosed:
        return [*received, conn.close_code]


@pytest.mark.parametrize("to", ["user", "session"])
@pytest.mark.parametrize("by", ["user", "session", "room"])
async def test_what_was_sent_before_a_disconnect_arrives_before_it(by: str, to: str) -> None:
    chat = Chat()
    app = chat.app
    async with AppClient(app) as client, client.connect("/") as conn:
        assert await conn.receive() == "in"
        send: dict[str, Callable[[str], Awaitable[None]]] = {
            "user": lambda text: app.send_to_user("ada", text),
            "session": lambda text: app.send_to_session(conn.session_id, text),
            "room": lambda text: app.publish("lobby", text),
        }
        await send[by]("one")
        await send[by]("two")
        if to == "user":
            await app.disconnect(user="ada", code=4001, reason="log in again")
        else:
            await app.disconnect(session=conn.session_id, code=4001, reason="log in again")
        await send[by]("too late")
        assert await all_received(conn) == ["one", "two", 4001]
        assert conn.close_reason == "log in again"
        await wait_until(lambda: chat.ends == [4001])
        assert not client.runtime.hub._rooms_of


async def test_what_is_sent_to_a_session_comes_behind_what_was_published_before() -> None:
    chat = Chat()
    async with AppClient(chat.app) as client, client.connect("/") as conn:
        assert await conn.receive() == "in"
        await chat.app.publish("lobby", "first")
        await chat.app.send_to_session(conn.session_id, "second")
        await chat.app.publish("lobby", "third")
        assert [await conn.receive() for _ in range(3)] == ["first", "second", "third"]


async def test_what_is_many_times_the_kernel_s_buffer_arrives_before_a_disconnect() -> None:
    chat = Chat()
    async with AppClient(chat.app, outbox_bytes=10_000_000) as client, client.connect("/") as conn:
        assert await conn.receive() == "in"
        sent = [str(number).ljust(100_000) for number in range(50)]
        for message in sent:
            await chat.app.send_to_user("ada", message)
        await chat.app.disconnect(user="ada", code=4001)
        assert await all_received(conn) == [*sent, 4001]


async def stop_reading(conn: TestConnection, chat: Chat) -> None:
    """Let the client read no more, and wait until something of its rooms cannot be written."""
    conn.connection.transport.pause_reading()  # type: ignore[attr-defined]
    async with asyncio.timeout(10):
        while not chat.app.runtime.counters.total("messages_dropped"):
            await chat.app.publish("lobby", "x" * 20_000)
            await asyncio.sleep(0)


@pytest.mark.parametrize("to", ["user", "session"])
async def test_who_does_not_read_is_disconnected_in_the_time_for_that(to: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stickygw.apps.native.audience.CLOSE_WITHIN", 0.4)
    chat = Chat()
    async with AppClient(chat.app, slow_consumer="drop_oldest", outbox_bytes=200_000) as client:
        async with client.connect("/") as conn:
            await stop_reading(conn, chat)
            if to == "user":
                await chat.app.disconnect(user="ada", code=4001)
            else:
                await chat.app.disconnect(session=conn.session_id, code=4001)
            async with asyncio.timeout(3):
                await wait_until(lambda: not client.runtime.connections)
            conn.connection.transport.abort()
        await wait_until(lambda: chat.ends)
        assert chat.ends == [4001]
        assert client.counters.value("connections_closed", "slow_consumer") == 0


async def test_a_second_disconnect_with_less_time_ends_who_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    chat = Chat()
    settings: dict[str, Any] = {"slow_consumer": "drop_oldest", "outbox_bytes": 200_000}
    async with AppClient(chat.app, **settings) as client, client.connect("/") as conn:
        await stop_reading(conn, chat)
        monkeypatch.setattr("stickygw.apps.native.audience.CLOSE_WITHIN", 60.0)
        await chat.app.disconnect(user="ada", code=4001)
        monkeypatch.setattr("stickygw.apps.native.audience.CLOSE_WITHIN", 0.4)
        await chat.app.disconnect(session=conn.session_id, code=4002)
        async with asyncio.timeout(3):
            await wait_until(lambda: not client.runtime.connections)
        conn.connection.transport.abort()


async def test_a_handler_that_disconnects_its_own_client_and_ends_has_sent_all_before() -> None:
    async def handler(websocket: WebSocket) -> None:
        await websocket.accept()
        async with rooms(websocket) as r:
            await r.identify("ada")
            for number in range(3):
                await app.send_to_user("ada", str(number))
            await app.disconnect(user="ada", code=4001)

    app = starlette(handler)
    async with AppClient(app) as client, client.connect("/") as conn:
        assert await all_received(conn) == ["0", "1", "2", 4001]


# Blocks within blocks


async def test_what_is_sent_to_a_session_reaches_the_block_that_is_left_when_the_other_ends() -> None:
    async def handler(websocket: WebSocket) -> None:
        await websocket.accept()
        for ends_first in (True, False):
            first, second = rooms(websocket), rooms(websocket)
            await first.__aenter__()
            await second.__aenter__()
            await websocket.send_text("two blocks")
            await websocket.receive_text()
            await (first if ends_first else second).__aexit__(None, None, None)
            await websocket.send_text("one block")
            await websocket.receive_text()
            await (second if ends_first else first).__aexit__(None, None, None)
        await websocket.send_text("no block")
        await websocket.receive()

    app = starlette(handler)
    async with AppClient(app) as client, client.connect("/") as conn:
        for _ in range(2):
            for blocks in ("two blocks", "one block"):
                assert await conn.receive() == blocks
                await app.send_to_session(conn.session_id, f"to {blocks}")
                assert await conn.receive() == f"to {blocks}"
                await conn.send("go on")
        assert await conn.receive() == "no block"
        await app.send_to_session(conn.session_id, "unheard")
        await app.disconnect(session=conn.session_id, code=4001)
        assert await all_received(conn) == [4001]

"""What others write to a session, or its end, as the handlers and clients of a worker see it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgpack
import pytest
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket
from support.waiting import wait_until

from stickygw import App, Connection, SessionUnavailable
from stickygw.sessions.base import Loaded
from stickygw.testing import AppClient
from stickygw.types import SessionId

StartClient = Callable[..., Awaitable[AppClient]]


async def write_elsewhere(client: AppClient, id: SessionId, **fields: object) -> None:
    """As another worker would; returns when this one knows."""
    changed = {field: msgpack.packb(value) for field, value in fields.items()}
    await client.store.write(id, changed, (), 100, is_new=False)
    await wait_until(lambda: client.sessions._entries[id].session.is_stale)


def async_handler(app: App) -> None:
    @app.on_message
    async def asked(conn: Connection, message: str) -> None:
        conn.send(str(conn.session["name"]))


def def_handler(app: App) -> None:
    @app.on_message
    def asked(conn: Connection, message: str) -> None:
        conn.send(str(conn.session["name"]))


def loop_handler(app: App) -> None:
    @app.handler("/")
    async def loop(conn: Connection) -> None:
        async for _ in conn:
            conn.send(str(conn.session["name"]))


@pytest.mark.parametrize("handler", [async_handler, def_handler, loop_handler])
async def test_the_next_message_s_handler_sees_what_another_worker_wrote(
    app_client: StartClient, handler: Callable[[App], None]
) -> None:
    app = App()
    handler(app)
    client = await app_client(app)
    async with client.connect("/", session={"name": "ada"}) as conn:
        await conn.send("")
        assert await conn.receive() == "ada"
        for name in ("grace", "edsger"):
            await write_elsewhere(client, conn.session_id, name=name)
            for _ in range(3):
                await conn.send("")
            assert [await conn.receive() for _ in range(3)] == [name] * 3
    assert client.counters.value("sessions_invalidated") == 2


async def test_while_the_store_is_away_a_handler_goes_on_with_what_was_loaded(app_client: StartClient) -> None:
    app = App()
    async_handler(app)
    client = await app_client(app)
    load = client.store.load

    async def away(id: SessionId) -> Loaded | None:
        raise SessionUnavailable("away")

    async with client.connect("/", session={"name": "ada"}) as conn:
        await write_elsewhere(client, conn.session_id, name="grace")
        client.store.load = away  # type: ignore[method-assign]
        await conn.send("")
        assert await conn.receive() == "ada"
        client.store.load = load  # type: ignore[method-assign]
        client.sessions._outage.end()
        await conn.send("")
        assert await conn.receive() == "grace"
    assert client.counters.value("session_reads_failed") == 1


async def test_a_handler_s_view_does_not_change_under_it(app_client: StartClient) -> None:
    app = App()
    may_go_on = asyncio.Event()

    @app.on_message
    async def asked(conn: Connection, message: str) -> None:
        before = conn.session["name"]
        await conn.send("at work")
        await may_go_on.wait()
        await conn.send(f"{before} {conn.session['name']}")

    client = await app_client(app)
    async with client.connect("/", session={"name": "ada"}) as conn:
        await conn.send("")
        assert await conn.receive() == "at work"
        await write_elsewhere(client, conn.session_id, name="grace")
        may_go_on.set()
        assert await conn.receive() == "ada ada"


async def test_destroy_in_a_handler_closes_all_of_its_visitor_and_nobody_else(app_client: StartClient) -> None:
    app = App()
    told: list[tuple[int, str]] = []

    @app.on_message
    async def asked(conn: Connection, message: str) -> None:
        if message == "logout":
            await conn.session.destroy()
        else:
            await conn.send(message)

    @app.on_disconnect
    def left(conn: Connection, code: int, reason: str) -> None:
        told.append((code, reason))

    client = await app_client(app)
    async with (
        client.connect("/", session={"name": "ada"}) as first,
        client.connect("/", session=first.session_id) as second,
        client.connect("/", session={"name": "grace"}) as other,
    ):
        await first.send("logout")
        assert [await first.wait_closed(), await second.wait_closed()] == [4401, 4401]
        await wait_until(lambda: told == [(4401, "session ended")] * 2)
        await other.send("still here")
        assert await other.receive() == "still here"
    await wait_until(lambda: client.sessions.session_count == 0)
    assert client.counters.value("sessions_ended", "ended") == 2
    assert not list(client.sessions._holders)


@pytest.mark.parametrize("saves", [True, False])
async def test_a_handler_that_writes_to_a_session_that_has_ended_is_told_of_no_defect(
    app_client: StartClient, caplog: pytest.LogCaptureFixture, saves: bool
) -> None:
    app = App()

    @app.on_message
    async def asked(conn: Connection, message: str) -> None:
        client.store.on_changed.clear()  # nobody else tells of the end
        await client.store.end(conn.session.id, 100)
        conn.session["name"] = "grace"
        if saves:
            await conn.session.save()

    @app.on_disconnect
    def left(conn: Connection, code: int, reason: str) -> None:
        conn.session["left"] = code

    client = await app_client(app)
    async with client.connect("/", session={"name": "ada"}) as conn:
        await conn.send("")
        assert await conn.wait_closed() == 4401
    await wait_until(lambda: client.sessions.session_count == 0)
    assert {record.levelname for record in caplog.records if "session" in record.message} == {"WARNING"}
    assert client.counters.total("handler_errors") == 0


async def test_an_asgi_websocket_is_closed_whether_it_has_opened_the_session_or_not(app_client: StartClient) -> None:
    heard: list[Any] = []

    async def quiet(websocket: WebSocket) -> None:
        await websocket.accept()
        heard.append(await websocket.receive())

    client = await app_client(App(http=Starlette(routes=[WebSocketRoute("/", quiet)])))
    async with client.connect("/", session={"name": "ada"}) as conn:
        await client.store.end(conn.session_id, 100)
        assert await conn.wait_closed() == 4401
    await wait_until(lambda: heard)
    assert heard[0] == {"type": "websocket.disconnect", "code": 4401, "reason": "session ended"}
    assert not list(client.sessions._holders)


async def test_a_connection_that_ends_is_watched_no_more(app_client: StartClient) -> None:
    app = App()
    async_handler(app)
    client = await app_client(app)
    async with client.connect("/", session={"name": "ada"}) as conn:
        assert list(client.sessions._holders) == [conn.session_id]
    await wait_until(lambda: not list(client.sessions._holders))

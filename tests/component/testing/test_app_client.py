"""An application in the test's own process: real handshakes, frames, sessions and rooms, and no ports."""

import asyncio

import pytest

from stickygw import App, Connection, ConnectionClosed, Refuse
from stickygw.testing.app_client import AppClient, HandshakeRefused


@pytest.fixture
def app() -> App:
    app = App(codec="json", subprotocols=["v2"])

    @app.on_handshake
    def who(request, session):
        if request.query.get("token") == "wrong":
            raise Refuse(401, "log in first")

    @app.on_connect("/ws/{room}")
    async def enter(conn: Connection, room: str) -> None:
        await conn.join(room)
        await conn.send({"visits": await conn.session.increment("visits"), "name": conn.session.get("name")})

    @app.on_message
    async def said(conn: Connection, message: dict) -> None:
        if message == "bye":
            conn.close(4000, "as you wish")
        elif message == "fail":
            raise LookupError("on purpose")
        else:
            for room in conn.rooms:
                await conn.publish(room, message)

    return app


async def test_messages_sessions_and_rooms_work(app: App) -> None:
    async with AppClient(app) as client:
        async with client.connect("/ws/a", session={"name": "Ada"}) as ada, client.connect("/ws/a") as bob:
            assert await ada.receive() == {"visits": 1, "name": "Ada"}
            assert await bob.receive() == {"visits": 1, "name": None}
            await ada.send({"text": "hello"})
            assert await bob.receive() == await ada.receive() == {"text": "hello"}
        async with client.connect("/ws/a", session=ada.session_id) as again:
            assert await again.receive() == {"visits": 2, "name": "Ada"}
        assert await client.session(ada.session_id) == {"visits": 2, "name": "Ada"}


async def test_the_end_is_told_with_its_code(app: App) -> None:
    async with AppClient(app) as client, client.connect("/ws/a") as conn:
        await conn.receive()
        assert conn.close_code is None
        await conn.send("bye")
        with pytest.raises(ConnectionClosed) as closed:
            await conn.receive()
        assert (closed.value.code, closed.value.reason) == (4000, "as you wish")
        assert conn.close_code == 4000


async def test_what_was_not_received_is_in_nobodys_way_at_the_end(app: App) -> None:
    """The close frame is behind it, and the `websockets` client reads no further than 16 messages ahead."""
    async with AppClient(app) as client:
        async with asyncio.timeout(5.0), client.connect("/ws/a") as conn:
            for _ in range(100):
                app.publish("a", {"text": "hello"})
        assert conn.close_code == 1000


async def test_a_handler_that_raises_is_1011(app: App) -> None:
    async with AppClient(app) as client, client.connect("/ws/a") as conn:
        await conn.receive()
        await conn.send("fail")
        assert await conn.wait_closed() == 1011
        assert client.counters.value("handler_errors", "LookupError") == 1


async def test_refusals_are_told_with_status_and_body(app: App) -> None:
    async with AppClient(app) as client:
        with pytest.raises(HandshakeRefused) as refused:
            async with client.connect("/ws/a?token=wrong"):
                pass
        assert (refused.value.status, refused.value.body) == (401, "log in first\n")
        with pytest.raises(HandshakeRefused, match="404"):
            async with client.connect("/elsewhere"):
                pass


async def test_nothing_to_receive_is_a_timeout(app: App) -> None:
    async with AppClient(app) as client, client.connect("/ws/a", subprotocols=["v1", "v2"]) as conn:
        await conn.receive()
        assert conn.subprotocol == "v2"
        with pytest.raises(TimeoutError):
            await conn.receive(timeout=0.01)


async def test_leaving_the_client_closes_what_is_open_and_stops_the_application() -> None:
    app = App()
    told: list[object] = []
    app.on_start(lambda: told.append("start"))
    app.on_stop(lambda: told.append("stop"))

    @app.on_disconnect
    async def left(conn, code, reason):
        told.append(code)

    app.on_message(lambda conn, message: None)
    async with AppClient(app, slot=3, workers=4) as client, client.connect("/"):
        assert (app.slot, app.workers) == (3, 4)
    assert told == ["start", 1000, "stop"]

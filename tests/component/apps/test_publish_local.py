"""`Room.publish_local`: to the members in this worker, and nothing leaves it."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from stickygw import App, Connection
from stickygw.testing import AppClient

SNAPSHOT = {"tick": 7, "ships": [[1, 0.5, -2.25, 100], [2, 1e-9, 3.0, 40]], "shots": [], "raw": b"\x00\xff"}


@pytest.fixture
def app() -> App:
    app = App(codec="msgpack")

    @app.on_connect("/match/{id}")
    async def enter(conn: Connection, id: str) -> None:
        await conn.join(id)

    @app.on_message
    def said(conn: Connection, message: Any) -> None:
        for room in conn.rooms:
            match message:
                case {"local": value, "exclude": True}:
                    app.room(room).publish_local(value, exclude=conn)
                case {"local": value}:
                    app.room(room).publish_local(value)
                case {"everywhere": value}:
                    conn.publish(room, value)

    return app


async def test_members_get_one_binary_message_of_msgpack(app: App) -> None:
    async with (
        AppClient(app) as client,
        client.connect("/match/a") as one,
        client.connect("/match/a") as two,
        client.connect("/match/b") as stranger,
    ):
        await one.send({"local": SNAPSHOT})
        await one.send({"local": "next", "exclude": True})
        for member in (one, two):
            frame = await member.connection.recv()
            assert isinstance(frame, bytes)
            assert msgpack.unpackb(frame) == SNAPSHOT
        await one.send({"local": "last"})
        assert [await two.receive(), await two.receive(), await one.receive()] == ["next", "last", "last"]
        await stranger.send({"local": "b"})
        assert await stranger.receive() == "b"


async def test_the_bridge_sees_nothing_of_it(app: App) -> None:
    async with AppClient(app) as client, client.connect("/match/a") as conn:
        bridge = client.runtime.bridge
        before = bridge.position_of("a")
        for number in range(50):
            await conn.send({"local": number})
        assert [await conn.receive() for _ in range(50)] == list(range(50))
        assert bridge.position_of("a") == before == {}
        assert bridge.backlog == 0
        await conn.send({"everywhere": "hello"})
        assert await conn.receive() == "hello"
        assert list(bridge.position_of("a").values()) == [1]  # one envelope has been numbered

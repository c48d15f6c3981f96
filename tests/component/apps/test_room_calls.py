"""What a native connection's calls about rooms make of names that clients chose, and of an end in the middle."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

import pytest
from support.waiting import wait_until

from stickygw import App, Connection
from stickygw.apps.native import audience as audiences
from stickygw.apps.native.gaps import Gaps
from stickygw.errors import RoomNameError
from stickygw.testing import AppClient


@pytest.fixture
def connections() -> list[Connection]:
    return []


@pytest.fixture
def app(connections: list[Connection]) -> App:
    app = App()
    app.on_connect(connections.append)
    return app


async def test_who_is_found_ended_while_it_is_identified_anew_is_nowhere(
    app: App, connections: list[Connection]
) -> None:
    async with AppClient(app) as client, client.connect("/") as websocket:
        await wait_until(lambda: connections)
        connection = connections[0]
        connection.identify("ann")
        sock = websocket.connection.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        websocket.connection.transport.abort()
        await asyncio.sleep(0)  # the reset is there, and the worker has not looked
        app.send_to_user("ann", "x" * 100_000)
        connection.identify("bea")
        await wait_until(lambda: not connection.is_open)
        assert client.runtime.hub.rooms_of(connection) == ()
        assert not client.runtime.hub.has_members("\x00user:bea")


async def test_a_room_cannot_be_left_that_none_can_be(app: App, connections: list[Connection]) -> None:
    async with AppClient(app) as client, client.connect("/"):
        await wait_until(lambda: connections)
        connection = connections[0]
        await connection.identify("ann")
        for name in ("\x00user:ann", "", ["room"]):
            with pytest.raises(RoomNameError):
                connection.leave(name)  # type: ignore[arg-type]
        assert client.runtime.hub.has_members("\x00user:ann")


@pytest.mark.parametrize("rooms", [5, None, {"room": 1}, b"room", ["a", ["b"]], ["a", ""], iter(["a"])])
async def test_what_are_no_rooms_gets_no_message(app: App, rooms: Any) -> None:
    async with AppClient(app):
        with pytest.raises(RoomNameError):
            app.publish(rooms, "hello")


async def test_a_message_is_for_a_bounded_number_of_rooms(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audiences, "MAX_ROOMS", 3)
    async with AppClient(app):
        await app.publish(["a", "b", "c", "c"][:3], "hello")
        with pytest.raises(RoomNameError, match="4 rooms"):
            app.publish(["a", "b", "c", "d"], "hello")


async def test_a_room_that_is_left_meanwhile_is_not_told_a_gap() -> None:
    told: list[str] = []
    joined = {"first", "second", "third"}
    goes_on = asyncio.Event()

    async def slow(room: str) -> None:
        told.append(room)
        await goes_on.wait()

    tasks: list[asyncio.Task[None]] = []
    gaps = Gaps(
        [slow],
        has_members=joined.__contains__,
        spawn=lambda coroutine: tasks.append(asyncio.create_task(coroutine)),
    )
    gaps.add(["first", "second", "third"])
    await wait_until(lambda: told == ["first"])
    joined.discard("second")
    goes_on.set()
    await asyncio.gather(*tasks)
    assert told == ["first", "third"]

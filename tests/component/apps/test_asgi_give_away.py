"""A kept connection whose further request is not the ASGI application's: from there on it is as a fresh one."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support.raw import frame, head, upgrade
from support.waiting import wait_until

from stickygw import App, Connection, Refuse, Request, Session
from stickygw.testing import AppClient
from stickygw.types import SessionId

OPENED = b"HTTP/1.1 101 "


class Kept:
    """The client of a connection on which the ASGI application has answered one request."""

    def __init__(self, client: AppClient) -> None:
        self.client = client
        self.app_waits = asyncio.Event()
        self.go_on = asyncio.Event()
        self.sock: socket.socket

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def receive(self) -> bytes:
        async with asyncio.timeout(10):
            return await asyncio.get_running_loop().sock_recv(self.sock, 65536)

    async def receive_all(self) -> bytes:
        data = b""
        while piece := await self.receive():
            data += piece
        return data


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"asgi"})


@asynccontextmanager
async def kept() -> AsyncIterator[Kept]:
    app = App(http=asgi)

    @app.on_handshake
    async def wait(request: Request, session: Session) -> None:
        one.app_waits.set()
        await one.go_on.wait()
        if request.path == "/refused":
            raise Refuse(401, "log in first")

    @app.on_message("/{any}")
    async def echo(conn: Connection, message: str, any: str) -> None:
        await conn.send(message)

    async with AppClient(app) as client:
        one = Kept(client)
        one.sock = await client._serve(SessionId("0" * 32), "127.0.0.1")
        with one.sock:
            one.sock.setblocking(False)
            await one.send(head("GET", "/"))
            assert (await one.receive()).endswith(b"asgi")
            yield one


async def test_what_comes_while_it_opens_waits_for_the_websocket() -> None:
    async with kept() as one:
        await one.send(upgrade("/native"))
        await one.app_waits.wait()
        await one.send(frame(b"early"))
        one.go_on.set()
        data = b""
        while not data.endswith(b"early"):
            data += await one.receive()
        assert data.startswith(OPENED)


async def test_a_request_behind_the_handshake_is_answered_by_nobody() -> None:
    async with kept() as one:
        await one.send(upgrade("/native"))
        await one.app_waits.wait()
        await one.send(head("GET", "/"))
        one.go_on.set()
        answers = await one.receive_all()
        assert answers.startswith(OPENED)
        assert b"asgi" not in answers


@pytest.mark.parametrize(
    ("handshake", "status"),
    [
        (upgrade("/refused"), b"401"),
        (upgrade("/native", fields=[("Origin", "http://elsewhere.example")]), b"403"),
        (upgrade("/of/asgi", fields=[("Origin", "http://elsewhere.example")]), b"403"),
    ],
)
async def test_a_refusal_is_an_answer(handshake: bytes, status: bytes) -> None:
    async with kept() as one:
        one.go_on.set()
        await one.send(handshake)
        assert (await one.receive_all()).startswith(b"HTTP/1.1 " + status)


@pytest.mark.parametrize("is_reset", [False, True])
async def test_a_client_that_leaves_while_it_opens_leaves_nothing_behind(is_reset: bool) -> None:
    async with kept() as one:
        await one.send(upgrade("/native"))
        await one.app_waits.wait()
        if is_reset:
            await one.send(b"x")  # unread when it is closed
        one.sock.close()
        one.go_on.set()
        await wait_until(lambda: not one.client.runtime.connections)


async def test_what_was_served_before_and_what_was_behind_have_a_line_each(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "stickygw.access")
    async with kept() as one:
        one.go_on.set()
        await one.send(upgrade("/native"))
        assert (await one.receive()).startswith(OPENED)
    lines = [record.__dict__["fields"] for record in caplog.records if record.name == "stickygw.access"]
    assert [(line["path"], line["status"]) for line in lines] == [("/", 200), ("/native", 101)]

"""The edges of WebSockets at an ASGI application, beside uvicorn, which serves the same one."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.gateway import Gateway
from support.raw import Raw, frame, head, parsed, upgrade
from support.uvicorn_server import Uvicorn
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode

APPS = Path(__file__).parent / "apps"


@pytest.fixture(scope="module")
def ours() -> Iterator[Gateway]:
    settings = ("header_timeout=0.5", "outbox_seconds=1", "max_message=100000")
    options = [word for setting in settings for word in ("--set", setting)]
    with Gateway(f"{APPS / 'edges.py'}:app", *options, workers=1) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def theirs() -> Iterator[Uvicorn]:
    options = ("--ws-max-size", "100000", "--ws-per-message-deflate", "false")
    with Uvicorn("edges:app", directory=str(APPS), options=options) as server:
        yield server


async def event(port: int, begins: str = "") -> str | None:
    """What the application has told of a client that has gone, the first that begins so."""
    async with Raw(port) as raw:
        await raw.send(head("GET", f"/seen?{begins}", fields=[("Connection", "close")]))
        return next(iter(json.loads((await raw.answer()).body.split(b"\r\n")[1])), None)


@pytest.fixture(autouse=True)
async def _nothing_was_told_before(ours: Gateway) -> None:
    async with Raw(ours.port) as raw:
        await raw.send(head("GET", "/forget", fields=[("Connection", "close")]))
        await raw.answer()


async def story(port: int, path: str, *messages: str | bytes, **options: Any) -> list[Any]:
    """What a client sees that sends `messages`, gets as many, and waits for the end, or closes it."""
    told: list[Any] = []
    try:
        async with connect(f"ws://127.0.0.1:{port}{path}", proxy=None, compression=None, **options) as client:
            told.append(client.subprotocol)
            for message in messages:
                await client.send(message)
                told.append(await client.recv())
            while path not in ("/echo",):
                told.append(await client.recv())
    except InvalidStatus as refused:
        response = refused.response
        fields = {name.lower(): value for name, value in response.headers.raw_items() if name.lower() != "date"}
        told += [response.status_code, fields, response.body]
    except ConnectionClosed as closed:
        told += [closed.rcvd]
    return told


STORIES: dict[str, Any] = {
    "echo": ("/echo", "text", b"bytes", "x" * 70_000, ""),
    "facts and a close of the application's": ("/scope?a=%20b",),
    "a message that is too big": ("/echo", "x" * 100_001),
    "a denial response": ("/denied",),
    "a rejection": ("/rejected",),
    "the app raises before it accepts": ("/raises",),
    "the app raises later": ("/raises-late",),
}


@pytest.mark.parametrize("name", STORIES)
async def test_each_story_is_that_of_uvicorn(ours: Gateway, theirs: Uvicorn, name: str) -> None:
    path, *messages = STORIES[name]
    port_of = {"user_agent_header": None, "additional_headers": {"X-Own": "1"}}
    told = [await story(port, path, *messages, **port_of) for port in (ours.port, theirs.port)]
    told = [
        json.loads(re.sub(r"127\.0\.0\.1:\d+|key\W+b\W+[\w+/]+==", "", json.dumps(one, default=repr))) for one in told
    ]
    assert told[0] == told[1]


async def test_the_first_subprotocol_that_the_application_names_is_agreed_on(ours: Gateway) -> None:
    [subprotocol, shown, closed] = await story(ours.port, "/scope", subprotocols=["chat.v2", "chat.v1"])
    assert subprotocol == "chat.v2"
    assert json.loads(shown)["subprotocols"] == ["chat.v2", "chat.v1"]
    assert (closed.code, closed.reason) == (4000, "shown")


async def test_a_close_of_the_client_s_reaches_the_application(ours: Gateway, theirs: Uvicorn) -> None:
    for port in (ours.port, theirs.port):
        async with connect(f"ws://127.0.0.1:{port}/echo", proxy=None) as client:
            await client.close(4321, "enough")
        assert await event(port, "disconnect%204321") == "disconnect 4321 enough"


async def test_a_client_that_vanishes_is_told_of(ours: Gateway) -> None:
    async with Raw(ours.port) as raw:
        await raw.send(upgrade("/echo"))
        await raw.opened()
        raw.reset()
    assert await event(ours.port, "disconnect") == "disconnect 1005 None"


async def test_frames_in_one_segment_with_the_handshake_are_answered_at_every_cut(ours: Gateway) -> None:
    opening, frames = upgrade("/echo"), frame(b"first") + frame(b"second", Opcode.BINARY)
    for cut in (*range(len(opening) - 3, len(opening) + len(frames) + 1), None):
        async with Raw(ours.port) as raw:
            await raw.send((opening + frames)[:cut])
            if cut is not None and cut < len(opening):
                await raw.wait_arrived()
                await raw.send((opening + frames)[cut:])
            assert (await raw.opened()).get("x-own") == "1"
            if cut is not None and cut >= len(opening):  # the first piece has been read, alone
                await raw.send((opening + frames)[cut:])
            for text in (b"first", b"second"):
                answered = await raw.next_frame()
                assert answered is not None
                assert answered.data == text, cut


async def test_a_handshake_that_the_application_never_answers_is_refused_in_time(ours: Gateway) -> None:
    async with Raw(ours.port) as raw:
        await raw.send(upgrade("/silent"))
        answer = await raw.answer()
    assert (answer.status, answer.body) == (503, b"The application did not answer the handshake in time.\n")
    assert await event(ours.port, "silent") == "silent 1006"


async def test_a_head_that_the_gate_passes_and_the_library_does_not_is_answered(ours: Gateway) -> None:
    async with Raw(ours.port) as raw:
        await raw.send(upgrade("/echo", fields=[("X-Long", "x" * 9000)]))
        assert (await raw.answer()).status == 431


async def test_pages_of_other_origins_may_not_connect(ours: Gateway) -> None:
    async with Raw(ours.port) as raw:
        await raw.send(upgrade("/echo", fields=[("Origin", "https://evil.example")]))
        assert (await raw.answer()).status == 403


async def _flood(raw: Raw, data: bytes) -> int:
    """Send `data` again and again until the other side has had enough; how many bytes it took."""
    sent = 0
    async with asyncio.timeout(20):
        try:
            while True:
                size = raw.send_nowait(data)
                sent += size
                if not size:
                    await asyncio.sleep(0.01)
        except ConnectionError:
            return sent


async def test_a_client_that_sends_pings_and_never_reads_is_not_read_and_closed(ours: Gateway) -> None:
    ping = Frame(Opcode.PING, b"x" * 125).serialize(mask=True)
    async with Raw(ours.port, receive_buffer=4096) as raw:
        await raw.send(upgrade("/echo"))
        sent = await _flood(raw, ping * 100)
    assert sent < 60_000_000
    assert await event(ours.port, "disconnect") == "disconnect 1013 slow consumer"


async def test_a_client_that_does_not_read_a_flood_is_closed(ours: Gateway) -> None:
    async with Raw(ours.port, receive_buffer=4096) as raw:
        await raw.send(upgrade("/flood"))
        await raw.opened()
        assert await event(ours.port, "flood") == "flood over"


async def test_a_second_request_on_a_kept_connection_may_be_a_handshake(ours: Gateway) -> None:
    async with Raw(ours.port) as raw:
        await raw.send(head("GET", "/bare?204") + upgrade("/echo") + frame(b"behind"))
        data = b""
        while b"behind" not in data:
            data += await raw.receive()
        assert parsed(data).status == 204
        assert b"HTTP/1.1 101 Switching Protocols\r\n" in data

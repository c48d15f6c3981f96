"""`SessionMiddleware` under the servers that people run, side by side over one Valkey."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from support.asgi_servers import SERVERS, AsgiServer, Visitor
from support.valkey import ValkeyServer
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

MAX_SECONDS = 5.0
"""Until a logout has closed a WebSocket elsewhere: 1 s is promised; the rest is for a busy machine."""

EXIT_CODES = {"uvicorn": -signal.SIGTERM, "hypercorn": 0, "granian": 0}
"""uvicorn stops, and then sends the signal to itself once more, as shells like it."""


def server(name: str, valkey: ValkeyServer, prefix: str) -> AsgiServer:
    environment = {"SESSION_STORE": valkey.url, "SESSION_PREFIX": prefix}
    return AsgiServer(name, "sessioned:app", directory=Path(__file__).parent / "apps", environment=environment)


async def said(websocket: ClientConnection, text: str) -> Any:
    async with asyncio.timeout(20):
        await websocket.send(text)
        return json.loads(await websocket.recv())


async def close_code(websocket: ClientConnection) -> int | None:
    async with asyncio.timeout(20):
        with pytest.raises(ConnectionClosed):
            await websocket.recv()
    return websocket.close_code


@pytest.mark.parametrize("name", SERVERS)
async def test_http_and_websocket_have_one_session_and_the_server_stops_cleanly(
    name: str, valkey: ValkeyServer, prefix: str
) -> None:
    with server(name, valkey, prefix) as here:
        visitor = Visitor()
        assert await visitor.ask(here, "/count") == {"n": 1}
        websocket = await visitor.connect(here, "/note")
        assert await said(websocket, "a") == {"n": 1, "a": True}
        assert await visitor.ask(here, "/count") == {"n": 2, "a": True}
        assert await said(websocket, "b") == {"n": 2, "a": True, "b": True}
        assert await visitor.ask(here, "/login", method="POST") == {"n": 2, "a": True, "b": True, "user": "ada"}
        assert await close_code(websocket) == 4401
        websocket = await visitor.connect(here, "/note")
        assert await visitor.ask(here, "/logout", method="POST") == {}
        assert await close_code(websocket) == 4401
        assert await visitor.ask(here, "/count") == {"n": 1}
        assert await asyncio.to_thread(here.stop) == EXIT_CODES[name], here.log
        for word in ("stickygw", "Traceback", "was destroyed", "never awaited"):
            assert word not in here.log, here.log


@pytest.mark.parametrize(("one", "two"), [("uvicorn", "hypercorn"), ("hypercorn", "granian"), ("granian", "uvicorn")])
async def test_a_logout_at_one_server_closes_the_websocket_at_another(
    one: str, two: str, valkey: ValkeyServer, prefix: str
) -> None:
    with server(one, valkey, prefix) as here, server(two, valkey, prefix) as there:
        visitor, other = Visitor(), Visitor()
        await visitor.ask(here, "/count")
        assert await visitor.ask(there, "/count") == {"n": 2}
        websocket, others = await visitor.connect(there, "/note"), await other.connect(there, "/note")
        assert await said(websocket, "a") == {"n": 2, "a": True}
        begun = time.monotonic()
        await visitor.ask(here, "/logout", method="POST")
        assert await close_code(websocket) == 4401
        seconds = time.monotonic() - begun
        print(f"a logout at {one} closed the WebSocket at {two} after {seconds * 1000:.1f} ms")
        assert seconds <= MAX_SECONDS
        assert await said(others, "still here") == {"still here": True}
        await others.close()

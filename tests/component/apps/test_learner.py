"""An ASGI application behind the learner: what is registered, when the answer leaves, and that it stays the same."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import engineio
import pytest
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from stickygw.apps.asgi.learner import Learner
from stickygw.routing.keys import parse_key
from stickygw.routing.learning import MAX_BODY_BYTES, parse_learn

OPEN = b'0{"sid":"s1","upgrades":[]}'
HANDSHAKE = b"EIO=4&transport=polling"
Message = dict[str, Any]


def start(*headers: tuple[bytes, bytes], status: int = 200) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(data: bytes, *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


class Served:
    """An application that sends `messages`, behind a learner. `events`: what was registered and what left, in order."""

    def __init__(
        self,
        *messages: Message,
        learn: tuple[str, ...] = (),
        keys: tuple[str, ...] = ("cookie",),
        is_proxied: bool = False,
    ) -> None:
        self.events: list[Any] = []
        self.messages = messages
        self.learner = Learner(
            self._app,
            [parse_learn(text) for text in learn],
            [parse_key(text) for text in keys],
            register=self._register,
            is_proxied=is_proxied,
        )

    async def _app(self, scope: Message, receive: Any, send: Callable[[Message], Awaitable[None]]) -> None:
        for message in self.messages:
            await send(message)

    async def _register(self, keys: list[bytes]) -> None:
        await asyncio.sleep(0)  # the loop turns: nothing may overtake it
        self.events.append(keys)

    async def get(self, query: bytes = b"", *headers: tuple[bytes, bytes], type: str = "http") -> list[Any]:
        """What happened for one request."""
        scope = {"type": type, "method": "GET", "query_string": query, "headers": headers, "http_version": "1.1"}
        await self.learner(scope, None, self._sent)
        return self.events

    async def _sent(self, message: Message) -> None:
        self.events.append(message)


def closing(message: Message) -> Message:
    return {**message, "headers": [*message["headers"], (b"connection", b"close")]}


async def test_ids_in_the_head_are_registered_before_it_leaves() -> None:
    head = start((b"Mcp-Session-Id", b"m1"), (b"set-cookie", b"sid=c1; Path=/"))
    served = Served(head, body(b"x"), learn=("header:mcp-session-id", "cookie:sid"))

    keys = [b"header:mcp-session-id\x00m1", b"cookie:sid\x00c1"]
    assert await served.get() == [keys, closing(head), body(b"x")]


@pytest.mark.parametrize("cut", range(len(OPEN) + 1))
async def test_engineio_id_is_registered_before_anything_of_its_answer_leaves(cut: int) -> None:
    messages = [start(), body(OPEN[:cut], more=True), body(OPEN[cut:])]
    served = Served(*messages, learn=("engineio",))

    assert await served.get(HANDSHAKE) == [[b"query:sid\x00s1"], closing(messages[0]), *messages[1:]]


async def test_stream_after_the_id_is_not_held_back() -> None:
    served = Served(start(), body(OPEN, more=True), learn=("engineio",))

    assert await served.get(HANDSHAKE) == [[b"query:sid\x00s1"], closing(start()), body(OPEN, more=True)]


@pytest.mark.parametrize(
    "messages",
    [
        (start(), body(b"hello")),
        (start(), body(b"")),
        (start(), body(b"", more=True), body(b"<html>", more=True)),
        (start(), {"type": "http.response.pathsend", "path": "/dev/null"}),
        (start(), body(b"0" * MAX_BODY_BYTES, more=True)),
        (start(status=400), body(b'"Bad Request"')),
    ],
)
async def test_answer_without_an_id_is_the_same_and_nothing_is_registered(messages: tuple[Message, ...]) -> None:
    served = Served(*messages, learn=("engineio",))

    assert await served.get(HANDSHAKE) == [closing(messages[0]), *messages[1:]]


async def test_id_that_the_request_brought_is_not_registered_again() -> None:
    head = start((b"mcp-session-id", b"m1"))
    served = Served(head, learn=("header:mcp-session-id",))

    assert await served.get(b"", (b"mcp-session-id", b"m1")) == [closing(head)]
    assert [b"header:mcp-session-id\x00m1"] in await served.get(b"", (b"mcp-session-id", b"m0"))


async def test_id_in_a_websocket_handshake_is_registered_before_it_is_accepted() -> None:
    accept = {"type": "websocket.accept", "headers": [(b"set-cookie", b"sid=c1")]}
    served = Served(accept, {"type": "websocket.send", "text": "x"}, learn=("cookie:sid",))

    assert await served.get(type="websocket") == [[b"cookie:sid\x00c1"], accept, served.messages[1]]


async def test_answer_closes_only_where_the_next_request_may_belong_elsewhere() -> None:
    head = start((b"Connection", b"keep-alive"))
    assert await Served(head).get() == [head]
    assert await Served(head, keys=("ip", "cookie")).get() == [head]
    assert await Served(head, keys=("query:user",)).get() == [closing(start())]
    assert await Served(head, is_proxied=True).get() == [closing(start())], "it may be another client's"


async def test_fields_that_can_be_read_once_only_are_read_once() -> None:
    fields = [(b"mcp-session-id", b"m1"), (b"x-other", b"1")]
    for type, kind in (("http", "http.response.start"), ("websocket", "websocket.accept")):
        message = {"type": kind, "status": 200, "headers": iter(fields)}
        keys, left = await Served(message, learn=("header:mcp-session-id",)).get(type=type)
        assert keys == [b"header:mcp-session-id\x00m1"]
        assert left["headers"][:2] == fields


async def test_lifespan_is_passed_on() -> None:
    message = {"type": "lifespan.startup.complete"}
    assert await Served(message, learn=("engineio",)).get(type="lifespan") == [message]


async def test_log_names_the_flag_once_when_engineio_does_not_know_a_session(caplog: pytest.LogCaptureFixture) -> None:
    def flags() -> list[str]:
        return [record.message for record in caplog.records if "--learn engineio" in record.message]

    server = engineio.AsyncServer(async_mode="asgi")
    served = Served()
    caplog.set_level(logging.WARNING)
    for learn, keys in ((("engineio",), ("cookie",)), ((), ("query:sid",))):
        served.learner = Learner(
            engineio.ASGIApp(server), [*map(parse_learn, learn)], [*map(parse_key, keys)], register=served._register
        )
        await ask(served, b"EIO=4&transport=polling&sid=gone")
    assert not flags()

    served.learner = Learner(engineio.ASGIApp(server), [], [], register=served._register)
    for _ in range(2):
        await ask(served, b"EIO=4&transport=polling&sid=gone")
    assert len(flags()) == 1


@pytest.mark.parametrize("more", [b"", b"&j=0"])
@pytest.mark.parametrize("greeting", ["", "x" * 5000])
async def test_engineio_server_is_understood_also_when_it_compresses(more: bytes, greeting: str) -> None:
    server = engineio.AsyncServer(async_mode="asgi", monitor_clients=False)
    minted = []

    @server.on("connect")
    async def connected(sid: str, environ: Any) -> None:
        minted.append(sid)
        if greeting:
            await server.send(sid, greeting)

    served = Served()
    served.learner = Learner(engineio.ASGIApp(server), [parse_learn("engineio")], [], register=served._register)
    for number, coding in enumerate((b"gzip", b"deflate", b"")):
        served.events.clear()
        await ask(served, HANDSHAKE + more, (b"accept-encoding", coding))
        assert served.events[0] == [b"query:sid\x00" + minted[number].encode()]
        assert bool(greeting and coding) is (b"content-encoding" in dict(lower(served.events[1]["headers"])))
    for socket in list(server.sockets.values()):
        await socket.close(wait=False)


async def test_uvicorn_ends_the_connection_after_an_answer_that_says_so() -> None:
    served = Served(start((b"content-length", b"2")), body(b"hi"), keys=("query:user",))
    config = Config(served.learner, lifespan="off", log_config=None, access_log=False, interface="asgi3")
    config.load()
    state = ServerState()
    listener = await asyncio.get_running_loop().create_server(
        lambda: HttpToolsProtocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    async with listener, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname()[:2])
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = await reader.read()  # to the end
        writer.close()
        await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\nconnection: close\r\n\r\nhi")


async def ask(served: Served, query: bytes, *headers: tuple[bytes, bytes]) -> None:
    """One request to a whole Engine.IO application."""
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/engine.io/",
        "query_string": query,
        "headers": [(b"host", b"a"), *headers],
        "http_version": "1.1",
    }

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    await served.learner(scope, receive, served._sent)


def lower(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [(name.lower(), value) for name, value in headers]

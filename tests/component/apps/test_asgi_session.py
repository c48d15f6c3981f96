"""`stickygw.asgi.session`: whose session a request has, and when its client is told."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from support.raw import Answer, head, parsed, upgrade
from support.waiting import wait_until

from stickygw import App, OutsideGateway, SessionUnavailable
from stickygw.apps.arrival import Arrival
from stickygw.asgi import session
from stickygw.connections.transport import SocketTransport
from stickygw.routing.cookie import claim_of
from stickygw.routing.request_head import Head, examine
from stickygw.testing import AppClient
from stickygw.testing.app_client import _KEYS
from stickygw.types import HandOverId, SessionId
from stickygw.wire.link import Offer

Handler = Callable[[Request], Awaitable[Response]]


def app_of(handler: Handler, websocket: Callable[[WebSocket], Awaitable[None]] | None = None) -> App:
    routes: list[Any] = [Route("/", handler)]
    if websocket is not None:
        routes.append(WebSocketRoute("/ws", websocket))
    return App(http=Starlette(routes=routes))


async def count(request: Request) -> Response:
    """Writes to the session, unless it is only to look."""
    async with session() as visitor:
        if "look" not in request.query_params:
            visitor["n"] = visitor.get("n", 0) + 1
        return PlainTextResponse(str(visitor.get("n", 0)))


class Connected:
    """The client's end of a connection whose client has proved to be `session`, or nobody."""

    def __init__(self, client: AppClient, session: SessionId | None) -> None:
        self._client = client
        self._session = session
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)

    async def send(self, data: bytes) -> None:
        first = examine(data)
        assert isinstance(first, Head)
        loop = asyncio.get_running_loop()
        transport = SocketTransport(self._theirs, loop, self._client.runtime.flusher)
        offer = Offer(HandOverId(1), self._session, 0, None, "127.0.0.1", 1, False, "test")
        arrival = Arrival(offer, first, data[first.size :], transport, lambda: None)
        await self._client._endpoint.serve(arrival)

    async def more(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._ours, data)

    async def answer(self) -> Answer:
        data = b""
        async with asyncio.timeout(5):
            while b"\r\n\r\n" not in data:
                data += await asyncio.get_running_loop().sock_recv(self._ours, 65536)
        return parsed(data)

    def close(self) -> None:
        self._ours.close()


@asynccontextmanager
async def asked(
    client: AppClient, data: bytes, *, session: SessionId | None = None
) -> AsyncIterator[tuple[Connected, Answer]]:
    connected = Connected(client, session)
    with contextlib.closing(connected):
        await connected.send(data)
        yield connected, await connected.answer()


def id_in(answer: Answer) -> SessionId | None:
    """The session that the answer's cookie names."""
    if answer.cookie is None:
        return None
    request = examine(head("GET", "/", fields=[("Cookie", answer.cookie)]))
    assert isinstance(request, Head)
    claim = claim_of(request, name="stickygw", keys=_KEYS, now=0, lifetime=1 << 40)
    assert claim is not None
    return claim.session


def get(target: str = "/", *fields: tuple[str, str]) -> bytes:
    return head("GET", target, fields=fields)


# The cookie


async def test_a_new_session_that_is_written_to_is_in_the_answer_s_cookie() -> None:
    async with AppClient(app_of(count)) as client, asked(client, get()) as (_, answer):
        assert answer.get("Cache-Control") == "private"
        id = id_in(answer)
        assert id is not None
        assert await client.session(id) == {"n": 1}


async def test_one_that_is_still_open_when_the_answer_begins_is_in_its_cookie_too() -> None:
    async def answering(scope: Any, receive: Any, send: Any) -> None:
        async with session() as visitor:
            visitor["n"] = 1
            await PlainTextResponse("done")(scope, receive, send)

    async with AppClient(App(http=answering)) as client, asked(client, get()) as (_, answer):
        id = id_in(answer)
        assert id is not None
        await wait_until(lambda: client.sessions.session_count == 0)
        assert await client.session(id) == {"n": 1}


async def test_one_that_is_only_looked_at_costs_no_cookie() -> None:
    async with AppClient(app_of(count)) as client, asked(client, get("/?look=1")) as (_, answer):
        assert answer.body == b"0"
        assert answer.cookie is None


async def test_a_document_s_cookie_names_the_session_that_was_opened() -> None:
    document = get("/", ("Sec-Fetch-Mode", "navigate"))
    async with AppClient(app_of(count)) as client, asked(client, document) as (_, answer):
        id = id_in(answer)
        assert id is not None
        assert await client.session(id) == {"n": 1}


async def test_who_has_a_session_gets_it_and_no_cookie() -> None:
    async with AppClient(app_of(count)) as client:
        id = await client._session_id({"n": 41})
        async with asked(client, get(), session=id) as (_, answer):
            assert (answer.body, answer.cookie) == (b"42", None)
        assert await client.session(id) == {"n": 42}


async def test_a_public_response_has_no_cookie_and_that_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def public(request: Request) -> Response:
        await count(request)
        return PlainTextResponse("same for all", headers={"Cache-Control": "public"})

    async with AppClient(app_of(public)) as client, asked(client, get()) as (_, answer):
        assert answer.cookie is None
        assert "public" in caplog.text


async def test_each_request_of_a_connection_has_the_session_of_its_own_client() -> None:
    async with AppClient(app_of(count)) as client, asked(client, get()) as (connected, first):
        await connected.more(get())
        second = await connected.answer()
        assert None is not id_in(first) != id_in(second) is not None
        assert first.cookie is not None
        for expected in (b"2", b"3"):
            await connected.more(get("/", ("Cookie", first.cookie)))
            again = await connected.answer()
            assert (again.body, again.cookie) == (expected, None)


async def test_blocks_of_one_request_have_one_session() -> None:
    async def several(request: Request) -> Response:
        async with session() as one, session() as same:
            assert one.shared is same.shared
            one["n"] = 1
        async with session() as again:
            return PlainTextResponse(str(again["n"]))

    async with AppClient(app_of(several)) as client, asked(client, get()) as (_, answer):
        assert answer.body == b"1"
        assert client.sessions.session_count == 0


# WebSockets


async def test_a_websocket_s_cookie_names_the_session_that_is_opened_later() -> None:
    ids = []

    async def websocket(websocket: WebSocket) -> None:
        await websocket.accept()
        async with session() as visitor:
            visitor["name"] = "Ada"
            ids.append(visitor.id)

    async with AppClient(app_of(count, websocket)) as client, asked(client, upgrade("/ws")) as (_, answer):
        assert answer.status == 101
        await wait_until(lambda: ids and client.sessions.session_count == 0)
        assert ids == [id_in(answer)]
        assert await client.session(ids[0]) == {"name": "Ada"}


async def test_http_and_websocket_of_a_client_share_one_object() -> None:
    async def websocket(websocket: WebSocket) -> None:
        await websocket.accept()
        async with session() as visitor:
            visitor["n"] = 10  # not written yet
            await websocket.send_text("open")
            await websocket.receive_text()
            await websocket.send_text(str(visitor["n"]))

    async with AppClient(app_of(count, websocket)) as client, client.connect("/ws") as conn:
        assert await conn.receive() == "open"
        assert (await client.request("GET", "/", session=conn.session_id)).text == "11"
        await conn.send("now")
        assert await conn.receive() == "11"


# Too late


async def test_a_new_session_is_not_opened_behind_the_answer_s_head() -> None:
    errors = []

    async def late(request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            yield b"."
            try:
                async with session():
                    pass
            except RuntimeError as error:
                errors.append(str(error))

        return StreamingResponse(body())

    async with AppClient(app_of(late)) as client:
        async with asked(client, get()):
            await wait_until(lambda: errors)
        assert "before the answer begins" in errors.pop()
        id = await client._session_id({})
        async with asked(client, get(), session=id):
            await wait_until(lambda: not client.runtime.tasks)
        assert errors == [], "this one's client knows it"


async def test_a_new_session_that_is_written_to_behind_the_head_is_not_stored() -> None:
    ids: list[SessionId] = []
    errors = []

    async def late(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        try:
            async with session() as visitor:
                await PlainTextResponse("done")(scope, receive, send)
                visitor["n"] = 1
                ids.append(visitor.id)
        except RuntimeError as error:
            errors.append(error)

    async with AppClient(App(http=late)) as client:
        async with asked(client, get()):
            await wait_until(lambda: errors)
        assert await client.session(ids[0]) == {}


# Errors


async def test_outside_a_request_there_is_none() -> None:
    async with AppClient(app_of(count)):
        with pytest.raises(OutsideGateway, match="serves no request"):
            async with session():
                pass


async def test_what_was_written_before_an_error_is_kept_and_the_client_told() -> None:
    async def failing(request: Request) -> Response:
        async with session() as visitor:
            visitor["n"] = 1
            raise ZeroDivisionError

    async with AppClient(app_of(failing)) as client, asked(client, get()) as (_, answer):
        assert answer.status == 500
        id = id_in(answer)
        assert id is not None
        assert await client.session(id) == {"n": 1}


async def test_a_store_that_is_away_is_the_application_s_to_answer() -> None:
    async def unavailable(request: Request) -> Response:
        try:
            return await count(request)
        except SessionUnavailable:
            return PlainTextResponse("later", 503)

    async with AppClient(app_of(unavailable)) as client:
        id = await client._session_id({"n": 1})

        async def load(*_: Any) -> None:
            raise SessionUnavailable("away")

        client.store.load = load  # type: ignore[method-assign]
        async with asked(client, get(), session=id) as (_, answer):
            assert answer.status == 503
        assert client.sessions.session_count == 0

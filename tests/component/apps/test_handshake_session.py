"""A handshake whose session has ended, or ends in ``on_handshake``: what its answer tells the client."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from support.raw import Answer, head, parsed, upgrade

from stickygw import App, Refuse, SessionEnded
from stickygw.apps.arrival import Arrival
from stickygw.asgi import session
from stickygw.connections.transport import SocketTransport
from stickygw.routing.cookie import claim_of
from stickygw.routing.request_head import Head, examine
from stickygw.sessions.registry import LATELY_SECONDS, REMEMBER_SECONDS
from stickygw.testing import AppClient
from stickygw.testing.app_client import _KEYS
from stickygw.types import HandOverId, SessionId
from stickygw.wire.link import Offer


async def answer_to(client: AppClient, data: bytes, proved: SessionId | None) -> Answer:
    """What a client gets that has proved to be `proved`, or nobody."""
    ours, theirs = socket.socketpair()
    with contextlib.closing(ours):
        ours.setblocking(False)
        request = examine(data)
        assert isinstance(request, Head)
        loop = asyncio.get_running_loop()
        offer = Offer(HandOverId(1), proved, 0, None, "127.0.0.1", 1, False, "test")
        transport = SocketTransport(theirs, loop, client.runtime.flusher)
        await client._endpoint.serve(Arrival(offer, request, b"", transport, lambda: None))
        received = b""
        async with asyncio.timeout(5):
            while b"\r\n\r\n" not in received:
                received += await loop.sock_recv(ours, 65536)
        return parsed(received)


def id_in(answer: Answer) -> SessionId | None:
    """The session that the answer's cookie names."""
    if answer.cookie is None:
        return None
    request = examine(head("GET", "/", fields=[("Cookie", answer.cookie)]))
    assert isinstance(request, Head)
    claim = claim_of(request, name="stickygw", keys=_KEYS, now=0, lifetime=1 << 40)
    return None if claim is None else claim.session


def is_forgotten(answer: Answer) -> bool:
    return "Max-Age=0" in (answer.get("Set-Cookie") or "")


async def stored(client: AppClient) -> list[SessionId]:
    return [id async for id in client.store.sessions()]


app = App(codec="json")


@app.on_handshake
async def entered(request: Any, visitor: Any) -> None:
    """Does what the path names, one after the other."""
    for step in request.path.strip("/").split("-"):
        match step:
            case "write":
                visitor["came"] = 1
            case "regenerate":
                await visitor.regenerate()
            case "destroy":
                await visitor.destroy()
            case "refuse":
                raise Refuse(503, "full, come again")
            case "ended":
                raise SessionEnded("for this test")


@app.on_message
async def said(connection: Any, message: Any) -> None:
    pass


@pytest.mark.parametrize("path", ["/regenerate-write-refuse", "/write-regenerate-refuse"])
async def test_a_refusal_after_a_new_id_tells_it_and_all_is_kept(path: str) -> None:
    async with AppClient(app) as client:
        old = await client._session_id({"user": 7})
        answer = await answer_to(client, upgrade(path), old)
        assert answer.status == 503
        new = id_in(answer)
        assert new not in (None, old)
        assert await stored(client) == [new]
        assert await client.session(new) == {"user": 7, "came": 1}


async def test_what_a_client_wrote_that_is_not_told_its_id_is_not_stored() -> None:
    async with AppClient(app) as client:
        answer = await answer_to(client, upgrade("/write-refuse"), None)
        assert (answer.status, answer.cookie) == (503, None)
        assert await stored(client) == []


async def test_what_a_known_client_wrote_before_it_was_refused_is_stored_and_needs_no_cookie() -> None:
    async with AppClient(app) as client:
        id = await client._session_id({"user": 7})
        answer = await answer_to(client, upgrade("/write-refuse"), id)
        assert (answer.status, answer.cookie) == (503, None)
        assert await client.session(id) == {"user": 7, "came": 1}


@pytest.mark.parametrize(("path", "status"), [("/destroy-refuse", 503), ("/destroy", 101)])
async def test_who_is_logged_out_by_a_handshake_is_told_to_forget_the_cookie(path: str, status: int) -> None:
    async with AppClient(app) as client:
        id = await client._session_id({"user": 7})
        answer = await answer_to(client, upgrade(path), id)
        assert answer.status == status
        assert is_forgotten(answer)
        assert await stored(client) == []


async def test_a_handshake_whose_session_ends_under_it_is_a_conflict() -> None:
    async with AppClient(app) as client:
        answer = await answer_to(client, upgrade("/ended"), await client._session_id({"user": 7}))
        assert (answer.status, answer.body) == (409, b"the session has ended\n")


async def test_who_comes_at_once_with_an_id_that_has_ended_is_to_come_again_and_gets_no_cookie() -> None:
    """The answer of the login that ended it is under way, with another cookie, which must not be overtaken."""
    async with AppClient(app) as client:
        id = await client._session_id({"user": 7})
        await client.store.end(id, REMEMBER_SECONDS)
        answer = await answer_to(client, upgrade("/"), id)
        assert (answer.status, answer.cookie) == (409, None)
        assert client.sessions.session_count == 0


async def test_who_comes_later_with_an_id_that_has_ended_has_a_new_session() -> None:
    async with AppClient(app) as client:
        id = await client._session_id({"user": 7})
        await client.store.end(id, REMEMBER_SECONDS - int(LATELY_SECONDS) - 1)
        answer = await answer_to(client, upgrade("/"), id)
        assert answer.status == 101
        assert id_in(answer) not in (None, id)


async def page(request: Request) -> PlainTextResponse:
    async with session() as visitor:
        if "write" in request.query_params:
            visitor["n"] = 1
        return PlainTextResponse("hello")


@pytest.mark.parametrize(("target", "has_cookie"), [("/", False), ("/?write", True)])
async def test_a_document_gives_who_comes_with_an_id_that_has_ended_a_cookie_only_for_what_was_written(
    target: str, has_cookie: bool
) -> None:
    async with AppClient(App(http=Starlette(routes=[Route("/", page)]))) as client:
        id = await client._session_id({"user": 7})
        await client.store.end(id, REMEMBER_SECONDS)
        data = head("GET", target, fields=[("Sec-Fetch-Mode", "navigate")])
        answer = await answer_to(client, data, id)
        assert (answer.status, answer.cookie is not None) == (200, has_cookie)
        assert (await answer_to(client, data, None)).cookie is not None

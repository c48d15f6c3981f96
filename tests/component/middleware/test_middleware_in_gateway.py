"""`SessionMiddleware` in an application that a gateway serves: store, cookie and `Session` object are the gateway's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from support.session_pages import SECRET, Store, count, echo, login, logout, look, untouched
from websockets.asyncio.client import connect

from stickygw import App, Connection, SessionUnavailable
from stickygw.asgi import SessionMiddleware, session
from stickygw.testing import AppClient
from stickygw.testing.app_client import _KEYS
from stickygw.testing.http_exchange import TestAnswer, exchange
from stickygw.types import SessionId


async def native(request: Request) -> str:
    """Whether the gateway's own way to the session leads to the same one."""
    async with session() as visitor:
        return str(visitor.shared is request.session.shared)


def app_of(*, route: Callable[[Request], Awaitable[str]] = native, **options: Any) -> App:
    def endpoint(page: Callable[[Request], Awaitable[str]]) -> Callable[[Request], Awaitable[Response]]:
        async def answered(request: Request) -> Response:
            return PlainTextResponse(await page(request))

        return answered

    pages = {"/": count, "/look": look, "/none": untouched, "/login": login, "/logout": logout, "/page": route}
    routes: list[Any] = [Route(path, endpoint(page)) for path, page in pages.items()]
    routes.append(WebSocketRoute("/asgi", echo))
    app = App(codec="json", http=Starlette(routes=routes, middleware=[Middleware(SessionMiddleware, **options)]))

    @app.on_message("/native")
    async def said(conn: Connection, message: str) -> None:
        conn.session[message] = True
        await conn.send(dict(conn.session))

    return app


def cookie_id(line: str | None) -> SessionId:
    assert line is not None
    claim = _KEYS.verify(line.partition(";")[0].partition("=")[2].encode(), now=0, lifetime=1 << 40)
    assert claim is not None
    return claim.session


async def asked_by_a_stranger(client: AppClient, path: str, **headers: str) -> TestAnswer:
    sock = await client._serve(None, "127.0.0.1")  # type: ignore[arg-type]
    return await exchange(sock, "GET", path, headers=headers, body=b"")


@pytest.mark.parametrize("headers", [{}, {"Sec-Fetch-Mode": "navigate"}], ids=["fetch", "document"])
async def test_a_new_client_is_told_by_exactly_one_cookie(headers: dict[str, str]) -> None:
    async with AppClient(app_of()) as client:
        answer = await asked_by_a_stranger(client, "/", **headers)
        (line,) = answer.headers.get_all("Set-Cookie") or ()
        assert (answer.text, answer.headers["Cache-Control"]) == ("1", "private")
        assert await client.session(cookie_id(line)) == {"n": 1}


async def test_a_new_client_that_writes_nothing_is_told_of_nothing() -> None:
    async with AppClient(app_of()) as client:
        answer = await asked_by_a_stranger(client, "/look")
        assert (answer.text, answer.headers.get_all("Set-Cookie")) == ("{}", None)


async def test_a_new_client_of_a_websocket_is_told_by_exactly_one_cookie() -> None:
    async with AppClient(app_of()) as client:
        sock = await client._serve(None, "127.0.0.1")  # type: ignore[arg-type]
        async with connect("ws://testserver/asgi", sock=sock, proxy=None) as websocket:
            assert websocket.response is not None
            (line,) = websocket.response.headers.get_all("Set-Cookie")
            await websocket.send("a")
            assert await websocket.recv() == "a"
            assert (await client.request("GET", "/look", session=cookie_id(line))).text == "{'a': True}"


async def test_requests_and_native_websockets_share_one_session_object() -> None:
    async with AppClient(app_of()) as client, client.connect("/native", session={"n": 41}) as conn:
        assert (await client.request("GET", "/", session=conn.session_id)).text == "42"
        await conn.send("a")
        assert await conn.receive() == {"n": 42, "a": True}
        assert (await client.request("GET", "/look", session=conn.session_id)).text == "{'n': 42, 'a': True}"


async def test_asgi_websockets_share_it_too() -> None:
    async with (
        AppClient(app_of()) as client,
        client.connect("/native", session={"n": 1}) as conn,
        client.connect("/asgi", session=conn.session_id) as websocket,
    ):
        await websocket.connection.send("b")
        assert await websocket.connection.recv() == "b n"
        await conn.send("a")
        assert await conn.receive() == {"n": 1, "a": True, "b": True}


async def test_it_is_the_session_that_stickygw_asgi_gives() -> None:
    async with AppClient(app_of()) as client:
        assert (await client.request("GET", "/page", session={"n": 1})).text == "True"


@pytest.mark.parametrize("path", ["/", "/look", "/none", "/page"])
async def test_who_has_a_session_gets_no_cookie(path: str) -> None:
    async with AppClient(app_of()) as client:
        answer = await client.request("GET", path, session={"n": 1})
        assert (answer.status, answer.headers.get_all("Set-Cookie")) == (200, None)


async def test_a_login_is_told_by_exactly_one_cookie_and_the_old_id_is_worthless() -> None:
    async with AppClient(app_of()) as client:
        before = await client._session_id({"n": 1})
        answer = await client.request("GET", "/login", session=before)
        (line,) = answer.headers.get_all("Set-Cookie") or ()
        assert cookie_id(line) != before
        assert await client.session(cookie_id(line)) == {"n": 1, "user": "ada"}
        assert (await client.request("GET", "/look", session=before)).text == "{}"


async def test_a_logout_closes_native_and_asgi_websockets() -> None:
    async with (
        AppClient(app_of()) as client,
        client.connect("/native", session={"n": 1}) as conn,
        client.connect("/asgi", session=conn.session_id) as websocket,
    ):
        answer = await client.request("GET", "/logout", session=conn.session_id)
        (line,) = answer.headers.get_all("Set-Cookie") or ()
        assert line.startswith("stickygw=;")
        assert await conn.wait_closed() == await websocket.wait_closed() == 4401


async def test_what_it_is_given_for_elsewhere_is_not_used_in_a_gateway() -> None:
    store = Store()
    async with AppClient(app_of(secret=SECRET, store=store)) as client:
        id = await client._session_id({"n": 1})
        assert (await client.request("GET", "/", session=id)).text == "2"
        assert store.ids == []


async def test_a_session_that_cannot_be_loaded_is_answered_503() -> None:
    async with AppClient(app_of()) as client:
        id = await client._session_id({"n": 1})

        async def load(*_: Any) -> None:
            raise SessionUnavailable("away")

        client.store.load = load  # type: ignore[method-assign]
        answer = await client.request("GET", "/", session=id)
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")


async def test_only_an_answer_that_asked_the_session_varies_by_cookie() -> None:
    async with AppClient(app_of()) as client:
        id = await client._session_id({"n": 1})
        answers = [await client.request("GET", path, session=id) for path in ("/look", "/none")]
        assert [answer.headers.get("Vary") for answer in answers] == ["Cookie", None]

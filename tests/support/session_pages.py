"""An application with sessions in the hands of `stickygw.asgi.SessionMiddleware`, for tests: `served`."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from stickygw.asgi import MemorySessionStore, SessionMiddleware
from stickygw.errors import SessionUnavailable
from stickygw.middleware.cookies import NO_GATEWAY
from stickygw.routing.cookie import CookieClaim, CookieKeys
from stickygw.sessions.base import Loaded
from stickygw.types import SessionId, Slot

SECRET = "a secret for tests, known to everyone"

Page = Callable[[Request], Awaitable[Response | str]]


class Store(MemorySessionStore):
    """One that can be away, and that counts what it is asked."""

    is_away = False
    loads = 0
    writes = 0

    async def load(self, id: SessionId) -> Loaded | None:
        self.loads += 1
        self._answer()
        return await super().load(id)

    async def write(self, *arguments: Any, **options: Any) -> None:
        self.writes += 1
        self._answer()
        await super().write(*arguments, **options)

    async def end(self, *arguments: Any, **options: Any) -> None:
        self._answer()
        await super().end(*arguments, **options)

    @property
    def ids(self) -> list[SessionId]:
        """Of all that are stored."""
        return [SessionId(id) for id in self._sessions.ids()]

    def _answer(self) -> None:
        if self.is_away:
            raise SessionUnavailable("away")


def served(
    pages: Mapping[str, Page] | Page,
    *,
    websocket: Callable[[WebSocket], Awaitable[None]] | None = None,
    secret: str | list[str] = SECRET,
    **options: Any,
) -> Starlette:
    """`pages` by their paths, or a single one, and a WebSocket at ``/ws``. Without the option `store`: a new one."""
    routes: list[Any] = []
    if websocket is not None:
        routes.append(WebSocketRoute("/ws", websocket))
    for path, page in (pages if isinstance(pages, Mapping) else {"/": pages}).items():
        routes.append(Route(path, _endpoint(page), methods=["GET", "POST"]))
    store = options.pop("store", None) or Store()
    return Starlette(routes=routes, middleware=[Middleware(SessionMiddleware, secret=secret, store=store, **options)])


def _endpoint(page: Page) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        answer = await page(request)
        return PlainTextResponse(answer) if isinstance(answer, str) else answer

    return endpoint


async def count(request: Request) -> str:
    """Counts its calls."""
    request.session["n"] = request.session.get("n", 0) + 1
    return str(request.session["n"])


async def look(request: Request) -> str:
    """Says what is in the session."""
    return str(dict(request.session))


async def untouched(request: Request) -> str:
    """Asks nothing of the session."""
    return "the same for all"


async def login(request: Request) -> str:
    """Makes the client a user."""
    await request.session.regenerate()
    request.session["user"] = "ada"
    return "hello"


async def logout(request: Request) -> str:
    """Ends it."""
    await request.session.destroy()
    return "bye"


async def echo(websocket: WebSocket) -> None:
    """Answers each text with the session's fields, having made it the name of one more."""
    await websocket.accept()
    async for text in websocket.iter_text():
        websocket.session[text] = True
        await websocket.send_text(" ".join(sorted(websocket.session)))


def cookie_of(id: SessionId, *, age: int = 0, secret: str = SECRET) -> str:
    """The cookie's value that proves `id`, signed `age` seconds ago."""
    return CookieKeys([secret.encode()]).sign(CookieClaim(id, NO_GATEWAY, Slot(0), int(time.time()) - age))


def id_in(value: str | None, *secrets: str) -> SessionId:
    """The session that a cookie's value, or a Set-Cookie line, names."""
    assert value is not None
    value = value.partition(";")[0].rpartition("=")[2]
    keys = CookieKeys([secret.encode() for secret in secrets or (SECRET,)])
    claim = keys.verify(value.encode(), now=time.time(), lifetime=1 << 40)
    assert claim is not None, value
    return claim.session

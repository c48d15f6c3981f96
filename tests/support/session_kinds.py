"""Applications whose `request.session` is by Starlette, by starsessions or by us: `Implementation`."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from inspect import isawaitable
from typing import Any

import pytest
from itsdangerous import TimestampSigner
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware as StarletteSessions
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from starsessions import InMemoryStore, SessionAutoloadMiddleware
from starsessions import SessionMiddleware as Starsessions
from starsessions.session import regenerate_session_id

from stickygw.asgi import MemorySessionStore, SessionMiddleware
from support.asgi_calls import Answer, Browser
from support.session_pages import SECRET

TTL = 1000
"""Seconds that all sessions and cookies live."""

Step = Callable[[Any], Any]
"""What a handler does with its session; what it returns, or what that is awaited to, is the answer."""


class Clock:
    """One that can be turned, for the memory store."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


@dataclass
class Implementation:
    """An application whose handlers do what a test says, and how its sessions grow old and end."""

    name: str
    middleware: list[Middleware]
    age: Callable[[int], Awaitable[None]]
    """Make what is stored so many seconds older."""

    def __post_init__(self) -> None:
        self.steps: dict[str, Step] = {}
        routes: list[Any] = [Route("/{step}", self._page), WebSocketRoute("/{step}", self._websocket)]
        self.app = Starlette(routes=routes, middleware=self.middleware)

    @property
    def kind(self) -> str:
        """Whose it is."""
        return self.name.partition("-")[0]

    async def visit(self, browser: Browser, *steps: Step) -> Any:
        """Each step in a request of its own; the last one's answer."""
        for step in steps:
            answer = await self.answer(browser, step)
            assert answer.status == 200
        return json.loads(answer.text)

    async def answer(self, browser: Browser, step: Step) -> Answer:
        """That to a request that does `step`."""
        return await browser.get(self.path(step))

    async def visit_by_websocket(self, browser: Browser, step: Step) -> Any:
        """`visit` by a WebSocket, which ends then."""
        async with await browser.connect(self.path(step)) as websocket:
            sent = await websocket.next()
            await websocket.end()
            return json.loads(sent["text"])

    def path(self, step: Step) -> str:
        """Where `step` is done."""
        self.steps[str(id(step))] = step
        return f"/{id(step)}"

    async def _page(self, request: Request) -> Response:
        result = self.steps[request.path_params["step"]](request)
        value = await result if isawaitable(result) else result
        return value if isinstance(value, Response) else JSONResponse(value)

    async def _websocket(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(json.dumps(self.steps[websocket.path_params["step"]](websocket)))
        await websocket.close()


def starlette_s(monkeypatch: pytest.MonkeyPatch) -> Implementation:
    """Starlette's own: the fields are in the cookie."""

    async def age(seconds: int) -> None:
        monkeypatch.setattr(TimestampSigner, "get_timestamp", lambda signer: int(time.time()) + seconds)

    return Implementation("starlette", [Middleware(StarletteSessions, secret_key=SECRET, max_age=TTL)], age)


def starsessions_s() -> Implementation:
    """starsessions, over its store in memory."""

    async def age(seconds: int) -> None:
        """Its store in memory forgets nothing."""

    sessions = Middleware(Starsessions, store=InMemoryStore(), lifetime=TTL, cookie_https_only=False)
    return Implementation("starsessions", [sessions, Middleware(SessionAutoloadMiddleware)], age)


def ours_in_memory() -> Implementation:
    """Ours in one process."""

    clock = Clock()

    async def age(seconds: int) -> None:
        clock.ahead += seconds

    sessions = Middleware(SessionMiddleware, secret=SECRET, store=MemorySessionStore(clock), ttl=TTL, lifetime=TTL)
    return Implementation("ours-memory", [sessions], age)


def ours_in_redis(url: str, prefix: str) -> Implementation:
    """Ours over the Redis or Valkey at `url`."""

    async def age(seconds: int) -> None:
        async with Redis.from_url(url) as redis:
            async for key in redis.scan_iter(f"{prefix}:session:*"):
                await redis.expire(key, int(await redis.ttl(key)) - seconds)

    sessions = Middleware(SessionMiddleware, secret=SECRET, store=url, prefix=prefix, timeout=10, ttl=TTL, lifetime=TTL)
    return Implementation("ours-redis", [sessions], age)


def login(theirs: Implementation) -> Step:
    """By the best means that each has."""

    async def logged_in(request: Request) -> None:
        if theirs.kind == "ours":
            await request.session.regenerate()  # type: ignore[attr-defined]
        elif theirs.kind == "starsessions":
            regenerate_session_id(request)
        request.session["user"] = "ada"

    return logged_in


def logout(theirs: Implementation) -> Step:
    """As `login`."""

    async def logged_out(request: Request) -> None:
        if theirs.kind == "ours":
            await request.session.destroy()  # type: ignore[attr-defined]
        else:
            request.session.clear()

    return logged_out

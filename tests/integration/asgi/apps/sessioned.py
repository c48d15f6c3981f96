"""Sessions over the store that the environment names, in any ASGI server."""

from __future__ import annotations

import os

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from stickygw.asgi import SessionMiddleware


async def count(request: Request) -> JSONResponse:
    request.session["n"] = request.session.get("n", 0) + 1
    return JSONResponse(dict(request.session))


async def login(request: Request) -> JSONResponse:
    await request.session.regenerate()  # type: ignore[attr-defined]
    request.session["user"] = "ada"
    return JSONResponse(dict(request.session))


async def logout(request: Request) -> JSONResponse:
    await request.session.destroy()  # type: ignore[attr-defined]
    return JSONResponse({})


async def note(websocket: WebSocket) -> None:
    """Makes each text a field, and answers with all."""
    await websocket.accept()
    async for text in websocket.iter_text():
        websocket.session[text] = True
        await websocket.send_json(dict(websocket.session))


app = Starlette(
    routes=[
        Route("/count", count),
        Route("/login", login, methods=["POST"]),
        Route("/logout", logout, methods=["POST"]),
        WebSocketRoute("/note", note),
    ],
    middleware=[
        Middleware(
            SessionMiddleware,
            secret="a secret for tests, known to everyone",
            store=os.environ["SESSION_STORE"],
            prefix=os.environ["SESSION_PREFIX"],
            timeout=10,
        )
    ],
)

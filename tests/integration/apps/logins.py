"""One session on several workers: native WebSockets that read and write it, an ASGI one that does neither, a logout."""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from stickygw import App, Connection
from stickygw.asgi import session


async def logout(request: Request) -> PlainTextResponse:
    async with session() as visitor:
        await visitor.destroy()
    return PlainTextResponse(str(app.slot))


async def name(request: Request) -> PlainTextResponse:
    async with session() as visitor:
        return PlainTextResponse(str(visitor.get("name")))


async def quiet(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_json(app.slot)
    await websocket.receive()


routes: list[Any] = [Route("/logout", logout, methods=["POST"]), Route("/name", name), WebSocketRoute("/quiet", quiet)]
app = App(codec="json", http=Starlette(routes=routes))


@app.on_connect("/native")
def enter(conn: Connection) -> None:
    """There is such a path."""


@app.on_message("/native")
async def asked(conn: Connection, message: dict[str, Any]) -> None:
    """What is in the message is written; the answer is what the handler sees."""
    conn.session.update(message)
    await conn.session.save()
    await conn.send({"slot": app.slot, **conn.session})


@app.handler("/loop")
async def loop(conn: Connection) -> None:
    async for _ in conn:
        await conn.send({"slot": app.slot, **conn.session})


@app.on_disconnect
def left(conn: Connection, code: int, reason: str) -> None:
    """Where the session has ended, this is written to nothing."""
    conn.session["left"] = code

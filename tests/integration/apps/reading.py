"""Every kind of handler reads one field of its session, and answers with it; ``"write"`` is written there."""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from stickygw import App, Connection
from stickygw.asgi import session


async def read(request: Request) -> JSONResponse:
    async with session() as visitor:
        return JSONResponse(visitor["x"])


app = App(codec="json", http=Starlette(routes=[Route("/read", read)]))


@app.on_connect
def enter(conn: Connection) -> None:
    conn.session.setdefault("x", -1)


@app.on_message("/async")
async def asked(conn: Connection, message: Any) -> None:
    if message == "write":
        conn.session["x"] = message
    await conn.send(conn.session["x"])


@app.on_message("/plain")
def told(conn: Connection, message: Any) -> None:
    conn.send(conn.session["x"])


@app.handler("/loop")
async def loop(conn: Connection) -> None:
    async for _ in conn:
        await conn.send(conn.session["x"])

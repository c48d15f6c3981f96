"""A login that gives the session a new id, before or after it says whose it is."""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from stickygw import App, Connection, SessionEnded
from stickygw.asgi import session


async def put(request: Request) -> JSONResponse:
    try:
        async with session() as visitor:
            visitor.update(request.query_params)
            visitor.pop("k", None)
            return JSONResponse(dict(visitor))
    except SessionEnded:  # by somebody's login, meanwhile
        return JSONResponse({}, 409)


async def login(request: Request) -> JSONResponse:
    async with session() as visitor:
        if request.path_params["order"] == "name-last":
            await visitor.regenerate()
        visitor["user"] = "victim"
        if request.path_params["order"] == "name-first":
            await visitor.regenerate()
        return JSONResponse(dict(visitor))


app = App(codec="json", http=Starlette(routes=[Route("/put", put), Route("/login/{order}", login, methods=["POST"])]))


@app.on_message("/")
async def said(conn: Connection, message: dict[str, Any]) -> None:
    """What is in the message is written; the answer is what the handler sees."""
    conn.session.update(message)
    await conn.session.save()
    await conn.send(dict(conn.session))


@app.on_message("/slot")
async def asked(conn: Connection, message: object) -> None:
    await conn.send(app.slot)

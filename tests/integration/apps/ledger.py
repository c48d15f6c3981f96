"""Numbers are written to fields of the session; each is acknowledged once it is stored."""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from stickygw import App, Connection, SessionUnavailable
from stickygw.asgi import session


async def write(request: Request) -> JSONResponse:
    number = int(request.query_params["number"])
    try:
        async with session() as visitor:
            visitor[request.query_params["field"]] = number
    except SessionUnavailable:
        return JSONResponse({"unavailable": number}, 503, {"Retry-After": "1"})
    return JSONResponse({"written": number})


async def fields(request: Request) -> JSONResponse:
    try:
        async with session() as visitor:
            return JSONResponse(dict(visitor))
    except SessionUnavailable:
        return JSONResponse("unavailable", 503, {"Retry-After": "1"})


app = App(codec="json", http=Starlette(routes=[Route("/write", write), Route("/fields", fields)]))


@app.on_message
async def said(conn: Connection, message: dict[str, Any]) -> None:
    """``{"write": [field, number]}`` is answered when it is stored, or cannot be; ``{"read": …}`` from memory."""
    match message:
        case {"write": [str(field), int(number)]}:
            conn.session[field] = number
            try:
                await conn.session.save()
            except SessionUnavailable:
                await conn.send({"unavailable": number})
            else:
                await conn.send({"written": number})
        case {"read": _}:
            await conn.send(dict(conn.session))

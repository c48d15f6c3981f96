"""Many holders of one session count in it: in a field that all share, and each in a field of its own."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from stickygw import App, Connection
from stickygw.asgi import session
from stickygw.sessions.request_session import RequestSession
from stickygw.sessions.session import Session

ATTEMPTS = 1000
"""Seventy at once change one field without a pause: who compares and sets is late much more often than 16 times."""


async def count_own(visitor: Session | RequestSession, own: str) -> None:
    """`own` has one writer: it is read and written, so that a read of an old copy would show."""
    visitor[own] = visitor.get(own, 0) + 1
    await visitor.save()


async def rounds(request: Request) -> JSONResponse:
    async with session() as visitor:
        for _ in range(int(request.query_params["rounds"])):
            await visitor.increment("shared")
            await count_own(visitor, request.query_params["own"])
    return JSONResponse(app.slot)


async def fields(request: Request) -> JSONResponse:
    async with session() as visitor:
        return JSONResponse({"slot": app.slot, **visitor})


app = App(codec="json", http=Starlette(routes=[Route("/rounds", rounds), Route("/fields", fields)]))


@app.on_message
async def said(conn: Connection, own: str) -> None:
    """A name is one round in the field of that name, nothing is none; the answer is what the handler sees."""
    if own:
        await conn.session.update_atomically("shared", lambda n: n + 1, default=0, attempts=ATTEMPTS)
        await count_own(conn.session, own)
    await conn.send({"slot": app.slot, **conn.session})

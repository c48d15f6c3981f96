"""An ASGI application that mints ids, which only the worker that has minted one knows."""

from __future__ import annotations

import os
import secrets
from typing import Any

minted: set[bytes] = set()


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers with its process id: 201 and a new id for a request without one, 404 for an id that it does not know."""
    if scope["type"] != "http":
        return
    brought = dict(scope["headers"]).get(b"x-ticket")
    ticket = brought or secrets.token_hex(8).encode()
    status = 201
    if brought is not None:
        status = 200 if brought in minted else 404
    minted.add(ticket)
    body = str(os.getpid()).encode()
    fields = [(b"content-length", str(len(body)).encode()), (b"x-ticket", ticket)]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})

"""An application that says what it sees of its requests: /native by handlers, all else by an ASGI application."""

from __future__ import annotations

import json
import logging
from typing import Any

from stickygw import App, Connection
from stickygw.asgi import session

log = logging.getLogger("tokens")


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        return
    shown = scope | {"headers": [field for field in scope["headers"] if field[0] != b"cookie"]}
    log.warning("the application logs its scope: %s", shown)
    async with session() as visitor:
        visitor["visits"] = visitor.get("visits", 0) + 1
        seen = {
            "session": visitor.id,
            "visits": visitor["visits"],
            "query": scope["query_string"].decode(),
            "offered": scope.get("subprotocols"),
        }
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept", "subprotocol": next(iter(scope["subprotocols"]), None)})
            await send({"type": "websocket.send", "text": json.dumps(seen)})
            await send({"type": "websocket.close"})
            return
        body = json.dumps(seen).encode()
        fields = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": body})


app = App(codec="json", subprotocols=("chat.v1",), http=asgi)


@app.on_connect("/native")
async def entered(conn: Connection) -> None:
    request = conn.request
    shown = [field for field in request.headers.raw_items() if field[0].lower() != "cookie"]
    log.warning("the application logs its request: %s %s", request.query_string, shown)
    await conn.send(
        {
            "session": conn.session.id,
            "visits": await conn.session.increment("visits"),
            "query": request.query_string,
            "offered": request.headers.get_all("Sec-WebSocket-Protocol"),
        }
    )

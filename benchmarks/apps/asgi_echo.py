"""The smallest ASGI application: a GET is answered with a few bytes, a WebSocket's messages come back."""

from __future__ import annotations

from typing import Any

BODY = b"Hello, world!"
FIELDS = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(BODY))]


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    match scope["type"]:
        case "http":
            await send({"type": "http.response.start", "status": 200, "headers": FIELDS})
            await send({"type": "http.response.body", "body": BODY})
        case "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            while (event := await receive())["type"] == "websocket.receive":
                await send({"type": "websocket.send", "text": event["text"]})
        case "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})

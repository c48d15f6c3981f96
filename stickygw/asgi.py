"""For ASGI applications that a gateway runs: the rooms of a WebSocket, the session of a request.

::

    from stickygw.asgi import rooms, session

    @app.websocket("/chat")
    async def chat(websocket: WebSocket) -> None:
        await websocket.accept()
        async with rooms(websocket) as r:
            await r.join("lobby")
            async for text in websocket.iter_text():
                await r.publish("lobby", text)

What else a gateway can do, `stickygw.current` has. The names here are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stickygw.apps.asgi.rooms import Rooms, rooms
    from stickygw.apps.asgi.session import session

__all__ = ["Rooms", "rooms", "session"]

_HOMES = {
    "Rooms": "stickygw.apps.asgi.rooms",
    "rooms": "stickygw.apps.asgi.rooms",
    "session": "stickygw.apps.asgi.session",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'stickygw.asgi' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value

"""For ASGI applications: the rooms of a WebSocket, the session of a request, and sessions without a gateway too.

::

    from stickygw.asgi import rooms, session

    @app.websocket("/chat")
    async def chat(websocket: WebSocket) -> None:
        await websocket.accept()
        async with rooms(websocket) as r:
            await r.join("lobby")
            async for text in websocket.iter_text():
                await r.publish("lobby", text)

`SessionMiddleware` gives ``request.session``, in any ASGI server; the others need a gateway. What else a gateway can
do, `stickygw.current` has. The names here are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stickygw.apps.asgi.rooms import Rooms, rooms
    from stickygw.apps.asgi.session import session
    from stickygw.middleware.session_middleware import SessionMiddleware
    from stickygw.sessions.memory import MemorySessionStore
    from stickygw.sessions.request_session import RequestSession

__all__ = ["MemorySessionStore", "RequestSession", "Rooms", "SessionMiddleware", "rooms", "session"]

_HOMES = {
    "MemorySessionStore": "stickygw.sessions.memory",
    "RequestSession": "stickygw.sessions.request_session",
    "Rooms": "stickygw.apps.asgi.rooms",
    "SessionMiddleware": "stickygw.middleware.session_middleware",
    "rooms": "stickygw.apps.asgi.rooms",
    "session": "stickygw.apps.asgi.session",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'stickygw.asgi' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value

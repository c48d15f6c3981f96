"""A Socket.IO server whose clients may poll: python-socketio as its documentation has it, on several workers.

    stickygw run examples/socketio_polling/app.py:app --workers 4 --learn engineio

A polling client makes a request for each message, and only the worker that answered its first one knows its id.
"""

import os

import socketio

# Rooms reach beyond one worker only through Redis, which python-socketio then uses by itself.
redis_url = os.environ.get("REDIS_URL")
manager = socketio.AsyncRedisManager(redis_url) if redis_url else None

sio = socketio.AsyncServer(async_mode="asgi", client_manager=manager)
app = socketio.ASGIApp(sio)


@sio.event
async def count(sid: str) -> dict[str, int]:
    """How often this client has asked, which its session on this worker knows; and which process that is."""
    async with sio.session(sid) as session:
        session["count"] = session.get("count", 0) + 1
        return {"count": session["count"], "worker": os.getpid()}


@sio.event
async def enter(sid: str, room: str) -> dict[str, int]:
    await sio.enter_room(sid, room)
    return {"worker": os.getpid()}


@sio.event
async def say(sid: str, room: str, text: str) -> None:
    await sio.emit("said", text, room=room)

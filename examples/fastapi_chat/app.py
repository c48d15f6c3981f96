"""A chat as a FastAPI application, whose rooms reach over all workers.

    stickygw run examples/fastapi_chat/app.py:app --workers 4

Messages are JSON objects with a "type"; each says which worker it came by. Programs speak to a room with a request:

    curl http://127.0.0.1:8000/rooms/lobby -H 'Content-Type: application/json' -d '{"text": "Tea is ready"}'
"""

import json
import time
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, WebSocket
from fastapi import Path as PathPart
from fastapi.responses import FileResponse
from pydantic import BaseModel, StringConstraints

import stickygw
from stickygw.asgi import rooms

Room = Annotated[str, PathPart(pattern=r"^[\w-]{1,30}$")]
Name = Annotated[str, Query(min_length=1, max_length=30)]

app = FastAPI()


class Announcement(BaseModel):
    text: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]


def news(type: str, **facts: Any) -> str:
    return json.dumps({"type": type, "worker": stickygw.current().slot + 1, "at": time.time(), **facts})


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(Path(__file__).parent / "index.html")


@app.post("/rooms/{room}", status_code=204)
async def announce(room: Room, announcement: Announcement) -> None:
    await stickygw.current().publish(room, news("announced", text=announcement.text))


@app.websocket("/ws/{room}")
async def chat(websocket: WebSocket, room: Room, name: Name = "guest") -> None:
    await websocket.accept()
    async with rooms(websocket) as r:
        await r.join(room)
        await websocket.send_text(news("welcome", workers=stickygw.current().workers))
        await r.publish(room, news("entered", name=name), exclude=r)
        async for text in websocket.iter_text():
            if text.strip():
                await r.publish(room, news("said", name=name, text=text[:2000]))
    await stickygw.current().publish(room, news("left", name=name))

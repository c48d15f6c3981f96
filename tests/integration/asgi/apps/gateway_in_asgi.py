"""A FastAPI application that uses the gateway that runs it: rooms, sessions, and who it is."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request, WebSocket

import stickygw
from stickygw.asgi import rooms, session

app = FastAPI()


@app.post("/publish/{room}")
async def publish(room: str, request: Request) -> int:
    gateway = stickygw.current()
    await gateway.publish(room, (await request.body()).decode())
    return gateway.slot


@app.post("/name/{name}")
async def name(name: str) -> dict[str, Any]:
    async with session() as visitor:
        visitor["name"] = name
        visitor["visits"] = visitor.get("visits", 0) + 1
        return {"slot": stickygw.current().slot, **visitor}


@app.get("/thread")
def thread() -> str:
    try:
        return str(stickygw.current().slot)
    except stickygw.OutsideGateway as error:
        return str(error)


@app.websocket("/rooms/{room}")
async def enter(websocket: WebSocket, room: str) -> None:
    await websocket.accept()
    async with rooms(websocket) as r:
        await r.join(room)
        await websocket.send_text(str(stickygw.current().slot))
        async for text in websocket.iter_text():
            await r.publish(room, text, exclude=r if text.startswith("others") else None)


@app.websocket("/session")
async def look(websocket: WebSocket) -> None:
    await websocket.accept()
    async with session() as visitor:
        visitor["visits"] = visitor.get("visits", 0) + 1
        await websocket.send_json({"slot": stickygw.current().slot, **visitor})
        await websocket.receive()

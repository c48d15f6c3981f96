"""An application whose connections are numbered in both directions, so that one that moves shows what it has lost.

Binary messages are the load, text ones are JSON requests, and so are their answers.
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
from typing import Any

from stickygw import App, Connection

ECHO = struct.Struct("!cI")
"""``E``, and the number of the client's echo, from 1; whatever follows comes back too."""

ECHOED = struct.Struct("!cIIH")
"""``E``, the number, how many came before and with it, and the generation that answers."""

app = App()
version = 1


@app.on_connect("/in/{room}")
async def enter(conn: Connection, room: str) -> None:
    conn.state.update(echoes=0, connects=conn.state.get("connects", 0) + 1, entered_in=os.getpid())
    conn.session["visits"] = conn.session.get("visits", 0) + 1
    await conn.identify(f"user-{room}")
    await conn.join(room)
    await conn.join(f"{room}-too")
    await conn.send(json.dumps({"slot": app.slot}))


@app.on_message("/in/{room}")
async def said(conn: Connection, message: str | bytes, room: str) -> None:
    if isinstance(message, str):
        await asked(conn, json.loads(message))
    elif message[:1] == b"E":
        _, number = ECHO.unpack_from(message)
        conn.state["echoes"] += 1
        head = ECHOED.pack(b"E", number, conn.state["echoes"], app.generation)
        await conn.send(head + message[ECHO.size :])
    else:
        await conn.publish(room, message)


@app.on_disconnect("/in/{room}")
async def leave(conn: Connection, code: int, reason: str, room: str) -> None:
    print(f"on_disconnect {conn.id} {code}", flush=True)


async def asked(conn: Connection, question: dict[str, Any]) -> None:
    """Do what it says, and answer if it is a question."""
    match question:
        case {"do": "who"}:
            await conn.send(json.dumps({"who": who(conn)}))
        case {"do": "work", "seconds": seconds}:
            await asyncio.sleep(seconds)
            await conn.send(json.dumps({"worked": app.generation}))
        case {"do": "flood", "count": count, "size": size}:
            for number in range(1, count + 1):
                conn.send(b"F" + struct.pack("!I", number) + bytes(size))
        case {"do": "set", "field": field, "value": value}:
            conn.session[field] = value
            await conn.send(json.dumps({"set": field}))
        case {"do": "count"}:
            await conn.send(json.dumps({"count": await conn.session.increment("count")}))
        case {"do": "destroy"}:
            await conn.session.destroy()
        case {"do": "tell_user", "user": user}:
            await app.send_to_user(user, json.dumps({"told": "user"}))
        case {"do": "tell_session", "session": session}:
            await app.send_to_session(session, json.dumps({"told": "session"}))
        case {"do": "disconnect", "user": user}:
            await app.disconnect(user=user, code=4000, reason="asked to")


def who(conn: Connection) -> dict[str, Any]:
    """All that should outlive a move, and where it is now."""
    return {
        "id": conn.id,
        "user": conn.user,
        "rooms": sorted(conn.rooms),
        "state": {name: value for name, value in conn.state.items() if name != "echoes"},
        "session": conn.session.id,
        "visits": conn.session.get("visits"),
        "slot": app.slot,
        "generation": app.generation,
        "version": version,
        "pid": os.getpid(),
    }


@app.handler("/coroutine")
async def converse(conn: Connection) -> None:
    async for message in conn:
        await conn.send(message)


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI application that echoes."""
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": event["text"]})

"""Chat rooms whose members may sit on different workers. Run it with `make demo`, or

    stickygw run examples/chat/app.py:app --workers 2

A visitor's name and visits are in the session, so they outlive the page, the worker and the gateway.
The page in page/ needs no build step; messages are JSON objects with a "type".
"""

import time
from pathlib import Path
from typing import Any

from stickygw import App, Connection

app = App(codec="json", static=Path(__file__).parent / "page")


def visitor(conn: Connection) -> dict[str, Any]:
    """Who speaks, and on which worker, for the other members."""
    tag = conn.session.id[:4]
    return {"tag": tag, "name": conn.session.get("name", f"guest {tag}"), "worker": app.slot + 1}


@app.on_connect("/ws/{room}")
async def enter(conn: Connection, room: str) -> None:
    visits = await conn.session.increment("visits")
    await conn.join(room)
    await conn.send({"type": "welcome", "you": visitor(conn), "visits": visits, "workers": app.workers})
    await conn.publish(room, {"type": "entered", "who": visitor(conn)}, exclude=conn)


@app.on_message
async def said(conn: Connection, message: Any) -> None:
    match message:
        case {"type": "say", "id": str(id), "text": str(text)} if text.strip():
            news = {"type": "said", "id": id, "text": text[:2000], "at": time.time()}
        case {"type": "rename", "name": str(name)} if name.strip():
            news = {"type": "renamed", "before": visitor(conn)["name"]}
            conn.session["name"] = name.strip()[:30]
        case _:
            conn.close(1008, "a message that this chat does not know")
            return
    for room in conn.rooms:
        await conn.publish(room, news | {"who": visitor(conn)})


@app.on_disconnect
async def left(conn: Connection, code: int, reason: str) -> None:
    for room in conn.rooms:
        await conn.publish(room, {"type": "left", "who": visitor(conn)})

"""A small chat with rooms. `deploy.py` edits a copy of it, again and again, while clients are in it.

    stickygw run examples/deploy/app.py:app

A message is a JSON object: an "echo" goes back to its sender, a "say" to all in the room.
"""

from typing import Any

from stickygw import App, Connection

VERSION = 1

app = App(codec="json")


@app.on_connect("/{room}")
async def enter(conn: Connection, room: str) -> None:
    conn.state["echoes"] = 0
    await conn.join(room)


@app.on_message
async def said(conn: Connection, message: Any) -> None:
    match message:
        case {"type": "echo", "number": int(number)}:
            conn.state["echoes"] += 1  # in this worker's memory, and it goes along with the connection
            await conn.send({"type": "echo", "number": number, "count": conn.state["echoes"], "version": VERSION})
        case {"type": "say", "number": int(number), "who": int(who)}:
            for room in conn.rooms:
                await conn.publish(room, {"type": "say", "number": number, "who": who})
        case _:
            conn.close(1008, "a message that this chat does not know")

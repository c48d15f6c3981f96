"""An application that tests can ask what it knows: who serves, which session, which rooms."""

from __future__ import annotations

import os
from typing import Any

from stickygw import App, Connection, SessionUnavailable

app = App(codec="json")


@app.on_connect
async def enter(conn: Connection) -> None:
    await conn.session.increment("visits")


@app.on_message
async def asked(conn: Connection, message: dict[str, Any]) -> None:
    """``{"do": …}`` is answered; anything else comes back as it is."""
    match message:
        case {"do": "who"}:
            await conn.send(
                {
                    "slot": app.slot,
                    "workers": app.workers,
                    "generation": app.generation,
                    "pid": os.getpid(),
                    "session": conn.session.id,
                    "fields": dict(conn.session),
                    "client": conn.request.client,
                }
            )
        case {"do": "set", "field": str(field), "value": value}:
            conn.session[field] = value
            await conn.send({"done": "set"})
        case {"do": "count"}:
            try:
                await conn.send({"count": await conn.session.increment("count")})
            except SessionUnavailable:
                await conn.send({"failed": "count"})
        case {"do": "join", "room": str(room)}:
            await conn.join(room)
            await conn.send({"joined": room})
        case {"do": "leave", "room": str(room)}:
            conn.leave(room)
            await conn.send({"left": room})
        case {"do": "publish", "room": str(room), "message": payload}:
            await conn.publish(room, payload)
        case _:
            await conn.send(message)

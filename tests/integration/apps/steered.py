"""An application that hears what it is told, and says of itself what a client asks it to."""

from __future__ import annotations

import os
from typing import Any

from stickygw import App, Connection

app = App(codec="json")
told: list[Any] = []


@app.on_message
async def asked(conn: Connection, message: dict[str, Any]) -> None:
    match message:
        case {"do": "who"}:
            await conn.send({"slot": app.slot, "pid": os.getpid(), "session": conn.session.id})
        case {"do": "told"}:
            await conn.send(told)
        case {"do": "ask", "slot": int(slot), "payload": payload}:
            await conn.send(await app.ask("who", payload, to=slot))
        case {"do": "report", "values": {**values}}:
            app.report(**values)
            await conn.send("reported")


@app.on_tell("news")
def news(payload: Any) -> None:
    told.append(payload)


@app.on_tell("who")
async def who(payload: Any) -> dict[str, Any]:
    if payload == "raise":
        raise RuntimeError("on purpose")
    return {"slot": app.slot, "payload": payload}

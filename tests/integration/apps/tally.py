"""An application that counts what each visitor says, in order, and takes a moment for each message.

`by_hand` is the same with one coroutine for each connection, which no other worker can go on with.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from stickygw import App, Connection

app = App(codec="json", static=Path(__file__).parent)
by_hand = App(codec="json", static=Path(__file__).parent)
version = 1
"""Of the application's own file, which imports this one."""


@app.on_connect
async def enter(conn: Connection) -> None:
    await conn.session.increment("visits")


@app.on_message
async def said(conn: Connection, message: dict[str, Any]) -> None:
    await heard(app, conn, message)


@by_hand.handler
async def visit(conn: Connection) -> None:
    await enter(conn)
    async for message in conn:
        await heard(by_hand, conn, message)


async def heard(app: App, conn: Connection, message: Any) -> None:
    """``{"say": n}`` is counted if it follows on what this visitor has said before, and not answered."""
    match message:
        case {"say": int(number)}:
            await asyncio.sleep(0.05)  # some are always in the middle of it
            if number != conn.session.get("said", 0) + 1:
                conn.session["out_of_order"] = [conn.session.get("said", 0), number]
            conn.session["said"] = number
        case {"do": "who"}:
            await conn.send(
                {
                    "slot": app.slot,
                    "workers": app.workers,
                    "generation": app.generation,
                    "version": version,
                    "session": conn.session.id,
                    "fields": dict(conn.session),
                }
            )

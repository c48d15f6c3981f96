"""An application that floods a room at a given pace, with messages that carry the time at which they were published."""

from __future__ import annotations

import asyncio
import struct
import time

from stickygw import App, Connection

MESSAGE_BYTES = 1024
STAMP = struct.Struct("!dI")

app = App()
app.configure_rooms("drop:*", slow_consumer="drop_oldest")


@app.on_connect("/in/{room}")
async def enter(conn: Connection, room: str) -> None:
    await conn.join(room)
    await conn.send(f"slot {app.slot}")


@app.on_message("/in/{room}")
async def asked(conn: Connection, message: str, room: str) -> None:
    """``flood ROOM COUNT A_SECOND``: publishes, and tells of each 10,000 messages."""
    _, target, count, rate = message.split()
    began = time.monotonic()
    published = 0
    while published < int(count):
        due = min(int(count), int((time.monotonic() - began) * int(rate)) + 1)
        while published < due:
            stamp = STAMP.pack(time.monotonic(), published)
            await app.publish(target, stamp.ljust(MESSAGE_BYTES, b"."))
            published += 1
            if published % 10_000 == 0:
                await conn.send(str(published))
        await asyncio.sleep(0.001)


@app.on_disconnect("/in/{room}")
async def left(conn: Connection, code: int, reason: str, room: str) -> None:
    await app.publish("ends", f"{room} {code} {reason}")

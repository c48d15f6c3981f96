"""An application whose clients publish in one room each, and see where in it something may have been missed."""

from __future__ import annotations

from stickygw import App, Connection

app = App()


@app.on_gap
def missed(room: str) -> None:
    app.room(room).publish_local("gap")


@app.on_connect("/in/{room}")
async def enter(conn: Connection, room: str) -> None:
    await conn.join(room)
    await conn.send(f"slot {app.slot}")


@app.on_message("/in/{room}")
async def said(conn: Connection, message: bytes, room: str) -> None:
    await conn.publish(room, message)


@app.on_connect("/echo")
async def enter_alone(conn: Connection) -> None:
    await conn.send(str(app.slot))


@app.on_message("/echo")
async def echo(conn: Connection, message: str) -> None:
    await conn.send(message)

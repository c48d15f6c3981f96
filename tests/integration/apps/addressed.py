"""An application whose clients, in plain text, join rooms and say who they are."""

from __future__ import annotations

from stickygw import App, Connection

app = App()


@app.on_message
async def asked(conn: Connection, message: str) -> None:
    """Each request is answered when it is done; whatever else comes was published."""
    match message.split(" ", 1):
        case ["join", room]:
            await conn.join(room)
            await conn.send(f"joined {room}")
        case ["identify", user]:
            await conn.identify(user)
            await conn.send(f"identified {user}")
        case ["session"]:
            conn.session["is_used"] = True
            await conn.send(conn.session.id)

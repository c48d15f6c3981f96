"""Says and hears by every address that there is, and tells of gaps."""

from __future__ import annotations

from typing import Any

from stickygw import App, Connection

app = App(codec="json")


@app.on_gap
async def missed(room: str) -> None:
    app.room("gaps").publish_local({"gap": room, "slot": app.slot})


@app.on_message
async def asked(conn: Connection, message: dict[str, Any]) -> None:
    match message.pop("do"):
        case "who":
            answer = {"slot": app.slot, "id": conn.id, "session": conn.session.id, "user": conn.user}
        case "join":
            for room in message["rooms"]:
                await conn.join(room)
            answer = {"rooms": sorted(conn.rooms)}
        case "leave":
            for room in message["rooms"]:
                conn.leave(room)
            answer = {"rooms": sorted(conn.rooms)}
        case "identify":
            await conn.identify(message["user"])
            answer = {"user": conn.user}
        case "publish":
            await conn.publish(message["rooms"], message["message"])
            return
        case "to_user":
            await app.send_to_user(message["user"], message["message"])
            return
        case "to_session":
            await app.send_to_session(message["session"], message["message"])
            return
        case "disconnect":
            code, reason = message.pop("code", 1008), message.pop("reason", "")
            await app.disconnect(**message, code=code, reason=reason)
            return
        case "local":
            members = app.room(message["room"]).local_members
            answer = {"members": sorted(member.id for member in members)}  # type: ignore[attr-defined]
        case _:
            raise LookupError(message)
    await conn.send(answer)

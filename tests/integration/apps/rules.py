"""An application for the rules of connections: it reports what its handlers see to the room named in the path."""

from __future__ import annotations

import asyncio
from typing import Any

from stickygw import App, Connection, ConnectionClosed, Refuse

app = App(codec="json")

gates: dict[str, asyncio.Event] = {}


def gate(name: str) -> asyncio.Event:
    return gates.setdefault(name, asyncio.Event())


# Before 101


@app.on_handshake
async def admit(request: Any, session: Any) -> None:
    query = request.query
    if "name" in query:
        session["name"] = query["name"]
    if "refuse" in query:
        facts = [request.path, query["refuse"], request.headers["X-Test"], request.client, session.get("name", "")]
        raise Refuse(int(query["refuse"]), " ".join(facts), headers={"WWW-Authenticate": 'Bearer realm="a, b"'})
    if "raise" in query:
        raise RuntimeError("on purpose, in on_handshake")


@app.on_error
async def failed(conn: Connection, error: Exception) -> None:
    await conn.publish(conn.request.path_params["report"], {"on_error": str(error), "id": conn.id})


# Whoever watches a room gets its reports; it may open gates, and is answered.


@app.on_connect("/watch/{report}")
async def watch(conn: Connection, report: str) -> None:
    await conn.join(report)


@app.on_message("/watch/{report}")
async def watched(conn: Connection, message: Any) -> None:
    match message:
        case {"open": str(name)}:
            gate(name).set()
        case _:
            await conn.send(message)


# Handlers of every kind, as coroutine functions


@app.on_connect("/rules/{report}")
async def enter(conn: Connection) -> None:
    if "raise_in_connect" in conn.request.query:
        raise RuntimeError("on purpose, in on_connect")


@app.on_message("/rules/{report}")
async def asked(conn: Connection, message: Any, report: str) -> None:
    inside = conn.state["inside"] = conn.state.get("inside", 0) + 1
    try:
        await answer(conn, message, report, inside)
    finally:
        conn.state["inside"] -= 1


async def answer(conn: Connection, message: Any, report: str, inside: int) -> None:
    match message:
        case {"do": "raise"}:
            raise RuntimeError("on purpose")
        case {"do": "wait", "seconds": float(seconds), "number": number}:
            await asyncio.sleep(seconds)
            await conn.send({"number": number, "inside": inside})
        case {"do": "hold", "at": str(name)}:
            await conn.publish(report, {"holds": name})
            await gate(name).wait()
        case {"do": "count"}:
            conn.state["count"] = conn.state.get("count", 0) + 1
        case {"do": "counted"}:
            await conn.send({"count": conn.state.get("count", 0)})
        case {"do": "request"}:
            request = conn.request
            facts = {"path": request.path, "query": request.query, "parts": request.path_params}
            await conn.send(facts | {"client": request.client, "subprotocol": request.subprotocol})
        case {"do": "join", "room": str(room)}:
            await conn.join(room)
            await conn.send({"joined": room})
        case {"do": "publish", "room": str(room), "message": payload, "exclude": bool(is_excluded)}:
            await conn.publish(room, payload, exclude=conn if is_excluded else None)
        case {"do": "set", "field": str(field), "value": value}:
            conn.session[field] = value
        case {"do": "set and raise", "field": str(field), "value": value}:
            conn.session[field] = value
            raise RuntimeError("on purpose, after a field was set")
        case {"do": "close", "code": int(code), "reason": str(reason)}:
            conn.close(code, reason)
        case {"do": "echo"}:
            await conn.send(message)
        case _:
            await conn.publish(report, {"handled": message})


@app.on_disconnect("/rules/{report}")
async def left(conn: Connection, code: int, reason: str, report: str) -> None:
    try:
        await conn.send("too late")
    except ConnectionClosed as error:
        refused = [error.code, error.reason]
    else:
        refused = []
    rooms = sorted(conn.rooms)
    await conn.publish(report, {"left": [code, reason], "rooms": rooms, "refused": refused, "is_open": conn.is_open})
    if "raise_in_disconnect" in conn.request.query:
        raise RuntimeError("on purpose, in on_disconnect")


# The same, as plain functions


@app.on_connect("/plain/{report}")
def enter_plain(conn: Connection) -> None:
    conn.state["seen"] = []


@app.on_message("/plain/{report}")
def asked_plain(conn: Connection, message: Any, report: str) -> None:
    conn.state["seen"].append(message)
    match message:
        case {"do": "raise"}:
            raise RuntimeError("on purpose, in def")
        case {"do": "seen"}:
            conn.send(conn.state["seen"])
        case {"do": "set", "field": str(field), "value": value}:
            conn.session[field] = value
        case {"do": "handled"}:
            conn.publish(report, {"handled": message})


@app.on_disconnect("/plain/{report}")
def left_plain(conn: Connection, code: int, reason: str, report: str) -> None:
    conn.publish(report, {"left": [code, reason], "rooms": sorted(conn.rooms)})


# A coroutine for the whole life


@app.on_connect("/loop/{report}")
def enter_loop(conn: Connection) -> None:
    if "raise_in_connect" in conn.request.query:
        raise RuntimeError("on purpose, in on_connect")


@app.handler("/loop/{report}")
async def loop(conn: Connection, report: str) -> None:
    async for message in conn:
        match message:
            case {"do": "raise"}:
                raise RuntimeError("on purpose, in a coroutine")
            case {"do": "return"}:
                return
            case {"do": "set", "field": str(field), "value": value}:
                conn.session[field] = value
            case _:
                await conn.send(message)
    await conn.publish(report, {"loop": "over"})


@app.on_disconnect("/loop/{report}")
async def left_loop(conn: Connection, code: int, reason: str, report: str) -> None:
    await conn.publish(report, {"left": [code, reason]})


# Another application: plain messages, with subprotocols

speaking = App(subprotocols=("chat.v2", "chat.v1"))


@speaking.on_connect("/room/{room}")
async def enter_room(conn: Connection, room: str) -> None:
    await conn.join(room)
    await conn.send("joined")


@speaking.on_connect
def enter_any(conn: Connection) -> None:
    conn.send(f"subprotocol: {conn.request.subprotocol}")


@speaking.on_message
async def said(conn: Connection, message: str | bytes) -> None:
    if conn.rooms:
        for room in conn.rooms:
            await conn.publish(room, message)
    else:
        await conn.send(message)


@speaking.on_disconnect
async def gone(conn: Connection, code: int, reason: str) -> None:
    for room in conn.rooms:
        await conn.publish(room, f"left {code} {reason}")

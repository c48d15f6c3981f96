"""An application whose things belong to one gateway each, and which keeps scores beside the gateway's own keys."""

from __future__ import annotations

import os
from typing import Any

from stickygw import App, Connection, Refuse, Tick

app = App(codec="msgpack")


@app.every(seconds=1 / 20)
def step(tick: Tick) -> None:
    app.room("all").publish_local({"tick": tick.number, "skipped": tick.skipped, "pid": os.getpid()})


@app.on_start
async def announce() -> None:
    if app.public_url is not None:
        await app.redis.hset(app.redis_key("gateways"), app.gateway_id, app.public_url)


@app.on_handshake
async def own_only(request: Any, session: Any) -> None:
    id = request.path_params.get("id", "")
    if id == "new" or app.minted_here(id):
        return
    owner = await app.redis.hget(app.redis_key("gateways"), id.partition(".")[0])
    raise Refuse(404, "no such thing") if owner is None else Refuse.misdirected(owner.decode() + request.path)


@app.on_connect("/thing/{id}")
async def enter(conn: Connection, id: str) -> None:
    await conn.send({"id": app.mint_id() if id == "new" else id, "slot": app.slot})


@app.on_message
async def asked(conn: Connection, message: Any) -> None:
    match message:
        case {"score": int(score), "of": str(name)}:
            await app.redis.zadd(app.redis_key("scores"), {name: score}, gt=True)
            best = await app.redis.zrange(app.redis_key("scores"), 0, 9, desc=True, withscores=True)
            await conn.send([[player.decode(), int(points)] for player, points in best])
        case "watch":
            await conn.join("all")
        case {"tell": text}:
            conn.publish("all", text)

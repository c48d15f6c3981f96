"""Matches, each kept by the affinity key of its players (``--key path:/match/{id}``) and moved with them.

Every message counts one on in its match, and is answered with the count.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from stickygw import App, Connection

app = App(codec="json")
matches: dict[str, dict[str, Any]] = {}


@app.on_connect("/match/{id}")
async def enter(conn: Connection, id: str) -> None:
    assert conn.key == id
    match = matches.setdefault(id, {"count": 0, "born_in": os.getpid(), "moves": 0})
    await conn.send({"entered": match["count"], **facts(id)})


@app.on_message("/match/{id}")
async def move(conn: Connection, message: Any, id: str) -> None:
    match = matches[id]
    match["count"] += 1
    count = match["count"]
    if message == "slow":
        await asyncio.sleep(0.3)
    await conn.send({"count": count, "asked": message, **facts(id)})


def is_refusing() -> bool:
    """Whether the file is there that a test makes."""
    return Path(os.environ.get("REFUSING", "")).is_file()


def facts(id: str) -> dict[str, Any]:
    """Where a match is."""
    match = matches[id]
    here = {"pid": os.getpid(), "slot": app.slot, "generation": app.generation}
    return {**here, "born_in": match["born_in"], "moves": match["moves"]}


@app.on_key_out
async def out(key: str) -> dict[str, Any]:
    print(f"out {key}", flush=True)
    return matches.pop(key)


@app.on_key_in
async def back(key: str, match: dict[str, Any]) -> None:
    assert key not in matches, "a match is in one place"
    if is_refusing():
        raise RuntimeError("these rules are not what they were")
    await asyncio.sleep(0.01)
    matches[key] = match
    match["moves"] += 1
    print(f"in {key} {json.dumps(match)}", flush=True)

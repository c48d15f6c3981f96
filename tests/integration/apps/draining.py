"""An application that a worker has to drain, and one that blocks its loop. What it prints is in the worker's log."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from stickygw import App, Connection

app = App(codec="json", static=Path.cwd())
stuck = asyncio.Event()


@app.on_start
async def start() -> None:
    print("app: starting", flush=True)
    await asyncio.sleep(0.2)  # orders that come now must not be lost


@app.on_handshake
async def who(request: Any, session: Any) -> None:
    if request.path == "/slow":
        print("app: shaking hands", flush=True)
        await asyncio.sleep(0.3)


@app.on_message
async def asked(conn: Connection, message: dict[str, Any]) -> None:
    match message["do"]:
        case "work":
            await conn.send({"started": "work"})
            await asyncio.sleep(message["seconds"])
            print("app: work finished", flush=True)
        case "wait for ever":
            await conn.send({"started": "wait for ever"})
            await stuck.wait()
        case "spin":
            spin(message["seconds"])
        case "keep the GIL":
            print("app: keeping the GIL", flush=True)
            count_for_ever()
        case "who":
            await conn.send({"workers": app.workers})


def spin(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        factorise(2**20 + 7)


def factorise(number: int) -> list[int]:
    return [factor for factor in range(1, number) if number % factor == 0]


def count_for_ever() -> None:
    sum(range(10**15))  # one C function


@app.on_disconnect
async def left(conn: Connection, code: int, reason: str) -> None:
    print(f"app: left {code}", flush=True)


@app.on_stop
async def stop() -> None:
    print("app: on_stop", flush=True)

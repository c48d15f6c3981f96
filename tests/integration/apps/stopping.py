"""Applications that end well, badly or not at all. What they print is in the gateway's log."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from stickygw import App, Connection

app = App(codec="json")
stuck = asyncio.Event()


@app.on_message
async def asked(conn: Connection, message: dict[str, Any]) -> None:
    match message["do"]:
        case "work":
            await conn.send({"started": "work"})
            await asyncio.sleep(message["seconds"])
            conn.session["work"] = "finished"
            if "leaves" in message:  # for where nobody can read what is printed
                leave(message["leaves"])
            print("app: work finished", flush=True)
            await conn.send({"finished": "work"})
        case "wait for ever":
            await conn.send({"started": "wait for ever"})
            await wait_for_what_never_comes()
        case "block for ever":
            await conn.send({"started": "block for ever"})
            await asyncio.sleep(0)  # the answer goes out
            time.sleep(600)  # noqa: ASYNC251 - what an application should never do
        case "die":
            os._exit(3)
        case _:
            await conn.send({"slot": app.slot, "pid": os.getpid(), "fields": dict(conn.session)})


def leave(name: str) -> None:
    Path(name).touch()


async def wait_for_what_never_comes() -> None:
    await stuck.wait()


@app.on_disconnect
async def left(conn: Connection, code: int, reason: str) -> None:
    print(f"app: left {code}", flush=True)


@app.on_stop
async def stop() -> None:
    print("app: on_stop", flush=True)


unstartable = App()


@unstartable.on_start
async def start() -> None:
    raise RuntimeError("the application's own reason")


slow_to_start = App()


@slow_to_start.on_start
async def start_for_ever() -> None:
    print("app: starting", flush=True)
    await stuck.wait()


crashing_at_its_end = App()


@crashing_at_its_end.on_message
async def nothing(conn: Connection, message: str | bytes) -> None:
    """The message is of no interest."""


@crashing_at_its_end.on_stop
async def crash() -> None:
    os._exit(3)

"""An application that offloads its own functions, and one whose workers talk to each other."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from stickygw import App, Connection, TellError

app = App(codec="json")
told: list[Any] = []
asked_for_ever = asyncio.Event()


def pid_of_call() -> int:
    return os.getpid()


def spin(started: str) -> None:
    """Compute for ever; the file `started` names the process."""
    file = Path(started)
    file.with_suffix(".part").write_text(str(os.getpid()))
    file.with_suffix(".part").rename(file)
    while True:
        pass


def sleep_in_thread(seconds: float) -> None:
    time.sleep(seconds)


@app.on_message
async def asked(conn: Connection, message: dict[str, Any]) -> None:
    match message["do"]:
        case "pids":
            await conn.send([os.getpid(), await app.offload(pid_of_call)])
        case "spin":
            await app.offload(spin, message["started"])
        case "sleep":
            try:
                await app.offload(sleep_in_thread, 600.0, kind="thread", timeout=0.05)
            except TimeoutError:
                await conn.send("given up")
        case "told":
            await conn.send(told)
        case "asked":
            await conn.send(asked_for_ever.is_set())
        case "tell":
            await app.tell("news", message["payload"], to=message["to"])
        case "ask":
            try:
                await conn.send({"answer": await app.ask("who", message.get("payload"), to=message["to"])})
            except TellError as error:
                await conn.send({"error": str(error)})
        case _:
            await conn.send({"slot": app.slot, "pid": os.getpid()})


@app.on_tell("news")
def news(payload: Any) -> None:
    told.append(payload)


@app.on_tell("who")
async def who(payload: Any) -> dict[str, Any]:
    if payload == "never":
        asked_for_ever.set()
        await asyncio.Event().wait()
    return {"slot": app.slot, "payload": payload}


cannot_start = App()


@cannot_start.on_start
async def start() -> None:
    await cannot_start.offload(time.sleep, 600.0, timeout=0.2)

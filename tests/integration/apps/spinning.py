"""Echoes, says who it is, and does what handlers must not do: ``spin SECONDS`` keeps the event loop for so long."""

from __future__ import annotations

import os
import time

from stickygw import App, Connection

app = App()


@app.on_message
def said(conn: Connection, message: str | bytes) -> None:
    if message == "who":
        message = f"{app.slot} {os.getpid()}"
    elif isinstance(message, str) and message.startswith("spin "):
        spin(float(message.removeprefix("spin ")))
    conn.send(message)


def spin(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass

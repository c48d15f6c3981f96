"""Everybody is in one room, and what a client says goes to everybody."""

from __future__ import annotations

from typing import Any

from stickygw import App, Connection

app = App()


@app.on_connect
def enter(conn: Connection) -> None:
    conn.join("lobby")


@app.on_message
def said(conn: Connection, message: Any) -> Any:
    return conn.publish("lobby", message)

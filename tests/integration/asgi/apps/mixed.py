"""Native WebSockets, static files and an ASGI application on one port."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edges import app as asgi

from stickygw import App, Connection

app = App(http=asgi, static=Path(__file__).parents[1] / "pages")


def make() -> Any:
    """For ``--factory``."""
    return asgi


@app.on_connect("/native")
async def enter(conn: Connection) -> None:
    await conn.send("native")

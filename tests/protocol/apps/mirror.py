"""An application that shows each client the request that opened its connection, and sends back what comes."""

from __future__ import annotations

from typing import Any

from stickygw import App, Connection

app = App(codec="json")


@app.on_connect
async def enter(conn: Connection) -> None:
    request = conn.request
    fields = [[name.lower(), value] for name, value in request.headers.raw_items()]
    await conn.send({"path": request.path, "query": request.query_string, "fields": fields})


@app.on_message
async def asked(conn: Connection, message: Any) -> None:
    await conn.send(message)

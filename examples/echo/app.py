"""Sends every message back: the smallest application, and what the benchmarks talk to.

    stickygw run examples/echo/app.py:app

Text comes back as text, bytes as bytes; any path will do.
"""

from stickygw import App, Connection

app = App()


@app.on_message
async def echo(conn: Connection, message: str | bytes) -> None:
    await conn.send(message)

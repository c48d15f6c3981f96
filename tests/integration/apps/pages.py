"""An application with pages: the folder is named by the variable SITE."""

from __future__ import annotations

import os
from typing import Any

from stickygw import App, Connection

app = App(codec="json", static=os.environ["SITE"])


@app.on_message
async def asked(conn: Connection, message: Any) -> None:
    await conn.send({"slot": app.slot, "session": conn.session.id})

"""The probe, but that its start takes as many seconds as STARTS_IN says; the first worker of a slot starts at once."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from probe import app  # beside this file, which the loader puts on the path

STARTED = Path(os.environ["STARTED_FOLDER"])


@app.on_start
async def start_slowly() -> None:
    mark = STARTED / str(app.slot)
    if mark.exists():
        await asyncio.sleep(float(os.environ["STARTS_IN"]))
    mark.touch()

"""What has to be done though nobody may wait for it any more: `begin`, `to_its_end`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger("stickygw.sessions")

_begun: set[asyncio.Task[None]] = set()
"""The event loop itself has weak references only. As many as there are locks and moves at an end, each of which has
time limits at the store."""


def begin(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Do `work` in a task that nobody has to hold."""
    task = asyncio.create_task(work, name="end of an exchange with the session store")
    _begun.add(task)
    task.add_done_callback(_begun.discard)
    return task


async def to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Do `work`, and raise what it raises. Who is cancelled meanwhile leaves at once, and the work goes on.

    In a task of its own: a cancel scope of anyio's cancels each wait anew, that in a ``finally`` too.
    """
    task = begin(work)
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        task.add_done_callback(_log_failure)
        raise
    task.result()


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("what had to be done after a cancellation failed: %s", error)

"""Trying again when somebody else changed the same field first: `retried`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from stickygw.sessions.base import SessionConflict

CONFLICT_SECONDS = 0.002
"""Of several who change one field at once, those who were late try again within so much time, then within
twice as much, and so on, up to `MAX_CONFLICT_SECONDS`."""

MAX_CONFLICT_SECONDS = 0.064

T = TypeVar("T")


async def retried(attempt: Callable[[], Awaitable[T]], *, attempts: int, jitter: Callable[[], float]) -> T:
    """What the first `attempt` without a `SessionConflict` returns, or else the last one's `SessionConflict`.

    `attempts`: at least one. `jitter` gives numbers from 0 to 1.
    """
    for number in range(attempts - 1):
        try:
            return await attempt()
        except SessionConflict:
            await asyncio.sleep(jitter() * min(CONFLICT_SECONDS * 2**number, MAX_CONFLICT_SECONDS))
    return await attempt()

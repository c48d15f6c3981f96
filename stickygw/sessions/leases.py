"""A session for one at a time: `leased`."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from stickygw.errors import SessionUnavailable
from stickygw.sessions.base import SessionStore
from stickygw.types import SessionId

log = logging.getLogger("stickygw.sessions")

RETRY_SECONDS = 0.05
"""Whoever waits for a lease asks again within so much time."""


@asynccontextmanager
async def leased(
    store: SessionStore,
    id: SessionId,
    seconds: float,
    *,
    wait: float,
    clock: Callable[[], float],
    jitter: Callable[[], float],
) -> AsyncIterator[None]:
    """Have the lease of a session in this block, for `seconds` at most: it ends by itself.

    Raises `TimeoutError` when others have it for `wait` seconds, give or take one answer of the store, and
    `SessionUnavailable`. `clock` and `jitter`: see `Session`.
    """
    token = secrets.token_hex(16)
    # No timeout around it: who is interrupted while the store is asked does not know whether the lease was had.
    give_up_at = clock() + wait
    while not await store.lease(id, token, seconds):
        if clock() >= give_up_at:
            raise TimeoutError(f"the session was locked by others for {wait:g} s")
        await asyncio.sleep(jitter() * RETRY_SECONDS)
    try:
        yield
    finally:
        try:
            await store.release_lease(id, token)
        except SessionUnavailable as error:
            log.warning("a session stays locked for up to %g s: %s", seconds, error)

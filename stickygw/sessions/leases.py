"""A session for one at a time: `leased`."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from stickygw.errors import SessionUnavailable
from stickygw.sessions.base import SessionStore
from stickygw.sessions.endings import begin, to_its_end
from stickygw.types import SessionId

log = logging.getLogger("stickygw.sessions")

RETRY_SECONDS = 0.05
"""Whoever waits for a lease asks again within so much time."""

RELEASE_RETRY_SECONDS = 0.5
"""So often it is tried to give back a lease that was had, perhaps, when the store did not answer."""


class _Lease:
    """One, and its token: `before_release` is done first at the end, and only if it was set."""

    before_release: Callable[[], Awaitable[None]] | None = None

    def __init__(self, store: SessionStore, id: SessionId, seconds: float, clock: Callable[[], float]) -> None:
        self._store = store
        self._id = id
        self._seconds = seconds
        self._clock = clock
        self._token = secrets.token_hex(16)

    async def take(self, wait: float, jitter: Callable[[], float]) -> None:
        # No timeout around it: who is interrupted while the store is asked does not know whether the lease was had.
        give_up_at = self._clock() + wait
        try:
            while not await self._store.lease(self._id, self._token, self._seconds):
                if self._clock() >= give_up_at:
                    raise TimeoutError(f"the session was locked by others for {wait:g} s")
                await asyncio.sleep(jitter() * RETRY_SECONDS)
        except (SessionUnavailable, asyncio.CancelledError):
            begin(self._release_if_had())
            raise

    async def end(self) -> None:
        try:
            if self.before_release is not None:
                await self.before_release()
        finally:
            try:
                await self._store.release_lease(self._id, self._token)
            except SessionUnavailable as error:
                log.warning("a session stays locked for up to %g s: %s", self._seconds, error)

    async def _release_if_had(self) -> None:
        """Nobody knows whether it was: try until it would have ended by itself."""
        ends_at = self._clock() + self._seconds
        while True:
            try:
                await self._store.release_lease(self._id, self._token)
            except SessionUnavailable as error:
                log.debug("a session is locked, perhaps, and by nobody: %s", error)
            else:
                return
            if self._clock() >= ends_at:
                return
            await asyncio.sleep(RELEASE_RETRY_SECONDS)


@asynccontextmanager
async def leased(
    store: SessionStore,
    id: SessionId,
    seconds: float,
    *,
    wait: float,
    clock: Callable[[], float],
    jitter: Callable[[], float],
) -> AsyncIterator[_Lease]:
    """Have the lease of a session in this block, for `seconds` at most: it ends by itself.

    What the block sets as the lease's `before_release` is done at its end, whatever ends it, and then the lease is
    given back, whatever that raised. Who is cancelled does not wait for it: see `to_its_end`.

    Raises `TimeoutError` when others have it for `wait` seconds, give or take one answer of the store, and
    `SessionUnavailable`. `clock` and `jitter`: see `Session`.
    """
    lease = _Lease(store, id, seconds, clock)
    await lease.take(wait, jitter)
    try:
        yield lease
    finally:
        await to_its_end(lease.end())

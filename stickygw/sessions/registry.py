"""The sessions in use on this worker, one object for each id: `Sessions`."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from stickygw.errors import SessionUnavailable
from stickygw.sessions.base import SessionStore
from stickygw.sessions.session import TOUCH_SECONDS, Session
from stickygw.types import SessionId

log = logging.getLogger("stickygw.sessions")

TOUCH_BATCH = 8
"""So many sessions are touched at once: half of the store's connections, so that the others are served
meanwhile."""


def new_session_id() -> SessionId:
    """An id that nobody can guess."""
    return SessionId(secrets.token_hex(16))


@dataclass(slots=True)
class _Entry:
    session: Session
    users: int = 0
    loading: asyncio.Task[None] | None = None


class Sessions:
    """Connections of one visitor share one `Session` object: reads cost no round trip, and they see each
    other's writes.

    Between `start` and `stop` a stored session lives as long as it is in use, however quiet its connections
    are: its life is extended every `touch_interval` seconds, which is a quarter of its `ttl` and at most
    `TOUCH_SECONDS` if not given. `timeout` and `clock`: see `Session`.

    Its size is that of the connections and requests that hold a session, which are bounded elsewhere.
    """

    def __init__(
        self,
        store: SessionStore,
        *,
        ttl: int,
        clock: Callable[[], float] = time.monotonic,
        touch_interval: float | None = None,
        timeout: float = 1.0,
    ) -> None:
        self._store = store
        self._ttl = ttl
        self._clock = clock
        self._touch_interval = min(TOUCH_SECONDS, ttl / 4) if touch_interval is None else touch_interval
        self._timeout = timeout
        self._entries: dict[SessionId, _Entry] = {}
        self._toucher: asyncio.Task[None] | None = None

    @property
    def session_count(self) -> int:
        """How many are in use."""
        return len(self._entries)

    def start(self) -> None:
        """Keep the sessions in use alive, in a task of its own."""
        self._toucher = asyncio.create_task(self._keep_alive(), name="session toucher")

    async def stop(self) -> None:
        """End that task."""
        if self._toucher is not None:
            self._toucher.cancel()
            await asyncio.wait({self._toucher})
            self._toucher = None

    async def open(self, id: SessionId | None) -> Session:
        """The session of a visitor; None makes a new one, for which nothing is stored yet.

        What is stored is loaded, or loaded again when the session is in use already; opens of one id that
        meet share one load. Each open needs one `release`, unless it raised `SessionUnavailable`.
        """
        if id is None:
            id = new_session_id()
            self._entries[id] = _Entry(self._session(id), users=1)
            return self._entries[id].session
        entry = self._entries.get(id)
        if entry is None:
            entry = self._entries[id] = _Entry(self._session(id))
        entry.users += 1
        if entry.loading is None:
            # A task of its own: an opener that is cancelled must not take the load from the others.
            entry.loading = asyncio.create_task(self._load(entry))
            entry.loading.add_done_callback(_retrieve)
        loading = entry.loading
        try:
            await asyncio.wait({loading})
            loading.result()
        except BaseException:
            self._leave(entry)
            raise
        return entry.session

    def release(self, session: Session) -> None:
        """An opener is done with `session`, which it has flushed. The last one drops it from memory."""
        entry = self._entries[session.id]
        self._leave(entry)
        if entry.users == 0 and session.is_dirty:
            log.warning("a session ends with fields that could not be saved")

    def _session(self, id: SessionId) -> Session:
        return Session(
            id,
            self._store,
            ttl=self._ttl,
            clock=self._clock,
            touch_interval=self._touch_interval,
            timeout=self._timeout,
        )

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(self._touch_interval)
            try:
                await self._touch_due()
            except Exception:
                log.exception("a defect ended a round of touches; the next one comes")

    async def _touch_due(self) -> None:
        """One round: each session in use that is due, whatever becomes of the others. An outage is one warning."""
        due = [entry.session for entry in self._entries.values() if entry.session.is_touch_due]
        is_told = False
        for start in range(0, len(due), TOUCH_BATCH):
            touches = (session.touch() for session in due[start : start + TOUCH_BATCH])
            for outcome in await asyncio.gather(*touches, return_exceptions=True):
                if not isinstance(outcome, SessionUnavailable):
                    if outcome is not None:
                        log.error("a defect while a session was touched", exc_info=outcome)
                elif not is_told:
                    is_told = True
                    log.warning("sessions in use cannot be touched: %s", outcome)

    async def _load(self, entry: _Entry) -> None:
        try:
            await entry.session.refresh()
        finally:
            entry.loading = None

    def _leave(self, entry: _Entry) -> None:
        entry.users -= 1
        if entry.users == 0:
            del self._entries[entry.session.id]


def _retrieve(loading: asyncio.Task[None]) -> None:
    """Look at the outcome of a load whose openers may all be gone: a failure that nobody needs is no defect."""
    if not loading.cancelled():
        loading.exception()

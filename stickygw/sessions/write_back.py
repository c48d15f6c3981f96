"""Sessions whose changes the store did not take, kept until it does: `WriteBack`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from stickygw.errors import SessionEnded, SessionUnavailable
from stickygw.observability.counters import Counters
from stickygw.sessions.session import Session
from stickygw.types import SessionId

log = logging.getLogger("stickygw.sessions")

MAX_QUEUED = 1000
"""So many sessions of one worker wait for the store at most; each holds what it holds in use anyway."""

RETRY_SECONDS = 1.0
"""The store is tried so often, by one session, while others wait."""

WRITES_AT_ONCE = 8
"""Half of the store's connections, so that the others serve handlers meanwhile."""


class WriteBack:
    """Writes queued sessions as soon as the store answers, the longest waiting first. It keeps no copies: all that is
    dirty when a session's turn comes is written, so of several changes the last one.

    `on_left` is called with each session that leaves the queue, written or not; it must neither wait nor raise.
    `timeout`: seconds for one last attempt when it is stopped. Counts ``session_writes_queued``, and of those
    ``session_writes_written_back`` and ``session_writes_lost`` (the session had ``ended``, the worker was ``stopped``
    before the store was back, or a ``defect``): once for each time that a session was queued.
    """

    def __init__(self, *, counters: Counters, on_left: Callable[[Session], None], timeout: float) -> None:
        self._counters = counters
        self._on_left = on_left
        self._timeout = timeout
        self._is_stopped = False
        self._queued: dict[SessionId, Session] = {}
        self._ended = 0  # in this round
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None  # only while something waits

    def __contains__(self, id: SessionId) -> bool:
        return id in self._queued

    def add(self, session: Session) -> bool:
        """Write back what the store did not take of `session`. False: there is no room for it, or no time any more."""
        if session.id not in self._queued:
            if not session.is_dirty:
                return True  # its life was not extended: that stays due
            if self._is_stopped or len(self._queued) >= MAX_QUEUED:
                return False
            self._queued[session.id] = session
            self._counters.add("session_writes_queued")
            self._start()
        session.is_queued = True
        return True

    def forget(self, session: Session) -> None:
        """Another worker has it, and writes what it has to write. Nothing happens if it does not wait."""
        self._leave(session)

    def wake(self) -> None:
        """The store answers, as it seems."""
        self._woken.set()

    async def stop(self) -> None:
        """Try once more, take nothing from now on, and say what is lost."""
        self._is_stopped = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        if self._queued:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._timeout):
                    await self._round()
        if self._queued:
            log.error("changes of %d session(s) are lost: the store was not back at the end", len(self._queued))
        for session in list(self._queued.values()):
            self._lose(session, "stopped")

    # Rounds

    def _start(self) -> None:
        if self._task is None or self._task.done():
            log.warning("the store is away: what sessions have to write is queued")
            self._woken.clear()
            self._task = asyncio.create_task(self._write_on(), name="session write-back")

    async def _write_on(self) -> None:
        while self._queued:
            with suppress(TimeoutError):
                async with asyncio.timeout(RETRY_SECONDS):
                    await self._woken.wait()
            self._woken.clear()
            await self._round()
        log.info("nothing waits for the store any more")

    async def _round(self) -> None:
        """Write what waits: one to see whether the store answers, then several at once, until none of them is taken."""
        waiting = list(self._queued.values())
        count = 1
        while waiting:
            batch, waiting = waiting[:count], waiting[count:]
            if not any(await asyncio.gather(*(self._write(session) for session in batch))):
                break
            count = WRITES_AT_ONCE
        if self._ended:
            log.warning("changes of %d session(s) are lost: they had ended", self._ended)
            self._ended = 0

    async def _write(self, session: Session) -> bool:
        """Write one session; whether the store answered."""
        try:
            await session.write_changes()
            session.is_queued = False  # its flushes wait for the store again: or who never pauses would never leave
            await session.write_changes()  # what was flushed into the queue meanwhile
        except SessionUnavailable as error:
            log.debug("a queued session cannot be written now: %s", error)
            session.is_queued = True
            if self._queued.get(session.id) is session:  # else it was forgotten meanwhile
                self._queued[session.id] = self._queued.pop(session.id)  # if it is due to this one, others go first
            return False
        except SessionEnded:
            self._ended += 1
            self._lose(session, "ended")
        except Exception:
            log.exception("a defect: changes of a session are lost")
            self._lose(session, "defect")
        else:
            if not session.is_queued:  # queued again, by a flush that met a store that is away again
                self._leave(session)
                self._counters.add("session_writes_written_back")
        return True

    def _lose(self, session: Session, reason: str) -> None:
        self._leave(session)
        self._counters.add("session_writes_lost", reason)

    def _leave(self, session: Session) -> None:
        if self._queued.get(session.id) is not session:
            return  # it was forgotten meanwhile; perhaps its client has come back, to another object
        del self._queued[session.id]
        session.is_queued = False
        self._on_left(session)

"""Workers of a killed primary that live but do not come: their loop stands still. They are watched, and ended."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable

from stickygw.primary.processes import WatchedProcess

log = logging.getLogger("stickygw.adoption")

ABORT_SECONDS = 1.0
"""After SIGABRT, on which it writes where it stands, one has so long; then it is killed."""


def _nothing() -> None:
    """Nobody wants to know."""


class Stragglers:
    """At most those that the roll named. `on_changed()` whenever one of them has come, or is gone.

    `is_theirs(pid)`: whether a number is still that of a worker; it is asked once it cannot change.
    """

    def __init__(self, is_theirs: Callable[[int], bool]) -> None:
        self._is_theirs = is_theirs
        self.on_changed: Callable[[], None] = _nothing
        self._processes: dict[int, WatchedProcess] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._all_gone = asyncio.Event()
        self._all_gone.set()

    @property
    def pids(self) -> list[int]:
        """The process ids of those that live and have not come."""
        return list(self._processes)

    def add(self, pid: int) -> None:
        """Watch one, if it still lives."""
        try:
            process = WatchedProcess(pid, child=None, on_exit=lambda _status: self._gone(pid))
        except ProcessLookupError:
            return
        except OSError as error:
            log.error("pid %d is not watched, and has to be ended by hand: %s", pid, error)
            return
        if not self._is_theirs(pid):
            process.leave()
            return
        self._processes[pid] = process
        self._all_gone.clear()

    def discard(self, pid: int) -> None:
        """It has come, if it is one of them: it is the fleet's now."""
        process = self._processes.pop(pid, None)
        if process is not None:
            process.leave()
            self._changed()

    def end_after(self, seconds: float) -> None:
        """End those that have not come by then: SIGABRT, then SIGKILL."""
        if self._processes:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._abort)

    def terminate(self) -> None:
        """The gateway stops: SIGTERM. Who does not hear it is ended as before."""
        for process in self._processes.values():
            process.signal(signal.SIGTERM)

    async def wait_gone(self) -> None:
        """Return when none is left. What `end_after` does ends this wait."""
        await self._all_gone.wait()

    def kill(self) -> None:
        """SIGKILL those that are left, with what they started, and wait for those that are our children. Idempotent."""
        for pid, process in self._processes.items():
            log.error("worker killed pid=%d: it has not come, and did not end", pid)
            process.kill_session()
            process.forget()
        self._processes.clear()
        self.close()
        self._changed()

    def close(self) -> None:
        """Watch no more; they live on. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for process in self._processes.values():
            process.leave()
        self._processes.clear()
        self._all_gone.set()

    def _abort(self) -> None:
        for pid, process in self._processes.items():
            log.error("worker hung pid=%d: it has not come; it is ended, and its traceback shows what blocks it", pid)
            process.takes_session_along = True
            process.signal(signal.SIGABRT)
        self._timer = asyncio.get_running_loop().call_later(ABORT_SECONDS, self._kill)

    def _kill(self) -> None:
        self._timer = None
        for process in self._processes.values():
            process.kill_session()

    def _gone(self, pid: int) -> None:
        del self._processes[pid]
        self._changed()

    def _changed(self) -> None:
        if not self._processes:
            self._all_gone.set()
        self.on_changed()

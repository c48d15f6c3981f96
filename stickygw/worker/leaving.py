"""The end of a process that nobody else ends: `leave_after`, and `OrphanWatch` for one whose loop stands still."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from time import monotonic, sleep

from stickygw.errors import ExitCode

log = logging.getLogger("stickygw.worker")

LOOK_SECONDS = 0.5
"""How often it is looked whether there is a primary."""

SAY_SECONDS = 1.0
"""The last line of the log may take so long."""


def leave_after(seconds: float) -> None:
    """End this process after so many seconds, whatever its loop and its tasks do, unless it has ended by then."""
    why = f"the application did not end in {seconds:g} s, and no primary is there to end it: leaving"
    timer = threading.Timer(seconds, _leave, args=[why])
    timer.daemon = True
    timer.start()


class OrphanWatch:
    """Ends this process once it has had no primary for `seconds`, from `start` on, whatever its loop and its tasks do.

    `is_alone()` is asked in a thread, since a loop that stands still hears neither that its primary is gone nor that
    its time is over. A C function that keeps the GIL stops this thread too: such a process is left to the next primary.
    """

    def __init__(self, is_alone: Callable[[], bool], *, seconds: float) -> None:
        self._is_alone = is_alone
        self._seconds = seconds
        self._since = 0.0  # the loop writes it too; a reference is replaced in one step
        self._is_stopped = False
        # A daemon: no exit waits for it, and it waits for every exit.
        self._thread = threading.Thread(target=self._look_on, name="orphan watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self.count_anew()
        self._thread.start()

    def count_anew(self) -> None:
        """The loop turns, and hears only now that the primary is gone: the process has its time from now on."""
        self._since = monotonic()

    def stop(self) -> None:
        """Look no more: something else ends the process. Idempotent."""
        self._is_stopped = True

    def _look_on(self) -> None:
        while monotonic() - self._since < self._seconds:
            sleep(LOOK_SECONDS)
            if self._is_stopped:
                return
            if not self._is_alone():
                self.count_anew()
        _leave(f"there was no primary for {self._seconds:g} s, and the application did not end: leaving")


def _leave(why: str) -> None:
    try:
        # Beside the end, not before it: who stands still may do so in a line of the log, and hold its lock.
        saying = threading.Thread(target=log.error, args=["%s", why], daemon=True)
        saying.start()
        saying.join(SAY_SECONDS)
    finally:
        os._exit(ExitCode.FORCED_STOP)

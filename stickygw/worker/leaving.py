"""The end of a process whose application will not end, and which nobody else ends: `leave_after`."""

from __future__ import annotations

import logging
import os
import threading

from stickygw.errors import ExitCode

log = logging.getLogger("stickygw.worker")


def leave_after(seconds: float) -> None:
    """End this process after so many seconds, whatever its loop and its tasks do, unless it has ended by then."""
    timer = threading.Timer(seconds, _leave, args=[seconds])
    timer.daemon = True
    timer.start()


def _leave(seconds: float) -> None:
    log.error("the application did not end in %g s, and no primary is there to end it: leaving", seconds)
    os._exit(ExitCode.FORCED_STOP)

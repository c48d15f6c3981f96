"""A thread that sees an event loop stand still, and says which handler holds it.

A C function that does not give up the GIL stops this thread too. Then the primary, who hears nothing, ends the process
with SIGABRT, on which faulthandler writes where every thread stands.
"""

from __future__ import annotations

import logging
import sys
import sysconfig
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from types import FrameType

from stickygw.wire.link import Blocked

log = logging.getLogger("stickygw.worker")

BLOCKED_SECONDS = 1.0
"""A loop that does not turn for so long is blocked: that is told, and again whenever the time has doubled."""

LOOK_SECONDS = 0.25
"""How often the thread looks."""

STOP_SECONDS = 1.0
"""How long `stop` waits for the thread, which may be at its last log line."""

MAX_WHERE = 300
"""Characters that name a place in the code."""

_PACKAGE = f"{Path(__file__).parents[1]}/"
_INSTALLED = ("/site-packages/", "/dist-packages/")
_STDLIB = ("<frozen ", *(f"{sysconfig.get_path(name)}/" for name in ("stdlib", "platstdlib")))


class Alarm:
    """When a blocked loop is worth telling of. Pure: times are monotonic seconds."""

    __slots__ = ("_next_seconds", "_turned_at")

    def __init__(self) -> None:
        self._turned_at = 0.0
        self._next_seconds = BLOCKED_SECONDS

    def is_due(self, turned_at: float, now: float) -> bool:
        """Whether it is told now that the loop last turned at `turned_at`."""
        if turned_at != self._turned_at:
            self._turned_at = turned_at
            self._next_seconds = BLOCKED_SECONDS
        if now - turned_at < self._next_seconds:
            return False
        while self._next_seconds <= now - turned_at:
            self._next_seconds *= 2
        return True


class LoopWatch:
    """Watches the loop of the thread that made it, which calls `turned` several times a second.

    A blocked loop is logged, and given to `tell`, in the watching thread. The loop itself logs how long it was blocked.
    """

    def __init__(self, tell: Callable[[Blocked], object]) -> None:
        self._tell = tell
        self._watched = threading.get_ident()
        self._turned_at = 0.0  # the loop writes it, the thread reads it; a reference is replaced in one step
        self._is_over = threading.Event()
        # A daemon: no exit waits for it, whatever becomes of the loop.
        self._thread = threading.Thread(target=self._look_on, name="loop watch", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._turned_at = monotonic()
        self._thread.start()

    def turned(self) -> None:
        """The loop turns."""
        now = monotonic()
        seconds, self._turned_at = now - self._turned_at, now
        if seconds >= BLOCKED_SECONDS:
            log.warning("the event loop turns again; it was blocked for %.1f s", seconds)

    def stop(self) -> None:
        """Watch no more."""
        self._is_over.set()
        self._thread.join(STOP_SECONDS)

    def _look_on(self) -> None:
        alarm = Alarm()
        while not self._is_over.wait(LOOK_SECONDS):
            turned_at = self._turned_at
            if alarm.is_due(turned_at, monotonic()):
                self._report(monotonic() - turned_at)

    def _report(self, seconds: float) -> None:
        where = place(sys._current_frames().get(self._watched))
        # The primary first: if the loop stands in a write to a standard error that nobody reads, so will we.
        self._tell(Blocked(where, seconds))
        log.warning("the event loop is blocked for %.1f s by %s", seconds, where)


def place(innermost: FrameType | None) -> str:
    """Where a thread stands, as "handler (file:line), now in function (file:line)".

    The handler is the application's outermost function: the first, from outside, that is neither ours nor of the
    standard library nor of an installed package, unless the application itself is installed.
    """
    if innermost is None:
        return "a thread that is over"
    frames: list[FrameType] = []
    frame: FrameType | None = innermost
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    theirs = [frame for frame in reversed(frames) if not _is_ours(frame) and not _is_of_stdlib(frame)]
    handler = next((frame for frame in theirs if not _is_installed(frame)), theirs[0] if theirs else None)
    here = _shown(innermost)
    text = f"no handler, now in {here}" if handler is None else _shown(handler)
    if handler is not None and handler is not innermost:
        text += f", now in {here}"
    return text[:MAX_WHERE]


def _is_ours(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_PACKAGE)


def _is_installed(frame: FrameType) -> bool:
    return any(folder in frame.f_code.co_filename for folder in _INSTALLED)


def _is_of_stdlib(frame: FrameType) -> bool:
    # Packages lie below the standard library.
    return frame.f_code.co_filename.startswith(_STDLIB) and not _is_installed(frame)


def _shown(frame: FrameType) -> str:
    code = frame.f_code
    return f"{code.co_qualname} ({Path(code.co_filename).name}:{frame.f_lineno})"

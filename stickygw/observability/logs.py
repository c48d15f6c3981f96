"""Log set-up of a process: all processes of a gateway write lines to one standard error.

An application's records come out here too, from whatever logger: the root logger has the same handler. Its own
``logging.config`` may change that for its records. Ours go on: see `restore_own_logs`.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Literal

from stickygw.observability.formats import OURS, JsonFormat, Speaker, TextFormat

STDERR = 2


class StderrHandler(logging.Handler):
    """One write for each record, so that lines of several processes do not mix (on a pipe: up to 4 KiB, pipe(7))."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write `record`; whatever fails is told on standard error as `logging` does it, and raises nothing."""
        try:
            data = self.format(record).encode("utf-8", "backslashreplace") + b"\n"
            while data:
                data = data[os.write(STDERR, data) :]
        except Exception:  # noqa: BLE001 - a log line is never worth the caller's work
            self.handleError(record)


def set_up_logs(
    process: Literal["primary", "worker"],
    level: str,
    log_format: Literal["auto", "text", "json"] = "auto",
    *,
    slot: int | None = None,
    generation: int | None = None,
    access_log: bool = True,
) -> None:
    """Log from `level` ("debug" … "error") on, other loggers than ours from "info" on at the least.

    "auto" is text if standard error is a terminal, else JSON. `access_log`: whether access lines are written.
    """
    # Without a standard error, descriptor 2 may be anything by now, a client's socket too.
    handler = StderrHandler() if sys.stderr is not None else logging.NullHandler()
    is_text = log_format == "text" or (log_format == "auto" and os.isatty(STDERR))
    speaker = Speaker(process, slot, generation)
    handler.setFormatter(TextFormat(speaker) if is_text else JsonFormat(speaker))
    ours, root = logging.getLogger(OURS), logging.getLogger()
    ours.propagate = False
    ours.handlers[:] = root.handlers[:] = [handler]
    ours.setLevel(level.upper())
    root.setLevel(max(logging.INFO, ours.level))
    logging.getLogger("stickygw.access").setLevel(logging.NOTSET if access_log else logging.WARNING)


def restore_own_logs() -> None:
    """Let our loggers speak after ``logging.config``, which by default disables all that it is not told of."""
    for name, logger in logging.root.manager.loggerDict.items():
        if isinstance(logger, logging.Logger) and (name == OURS or name.startswith(f"{OURS}.")):
            logger.disabled = False


def let_go_of_streams() -> None:
    """For the end of a process: what standard output and error cannot take any more, since the terminal or the pipe's
    reader is gone, is dropped. Python would make it the exit status 120."""
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())

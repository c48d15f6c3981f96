"""Log set-up of a process: one line a record on standard error, with the process's name."""

from __future__ import annotations

import logging


def set_up_logs(process: str, level: str) -> None:
    """Log to standard error from `level` ("debug" … "error") on; `process` is "primary" or "worker 2"."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)-7s {process}: %(message)s", datefmt="%H:%M:%S"))
    root = logging.getLogger("stickygw")
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    root.propagate = False

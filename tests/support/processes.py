"""Finding and ending every process that a test has started, however deep and in whatever session it runs.

A process that a test starts gets a mark in its environment, and its children inherit it: so even a worker whose
parent was killed is found. Reads /proc, so Linux only.
"""

from __future__ import annotations

import os
import secrets
import signal
import time
from pathlib import Path

POLL_SECONDS = 0.02
"""How often a condition of the operating system, which tells nobody of it, is looked at."""

_MARK = "TEST_PROCESS_MARK"


def new_mark() -> str:
    """A mark for one test's processes."""
    return secrets.token_hex(8)


def marked(environment: dict[str, str], mark: str) -> dict[str, str]:
    """`environment` with `mark`, for the first process of a test."""
    return environment | {_MARK: mark}


def processes(mark: str) -> set[int]:
    """The ids of the living processes that carry `mark`. One that has ended and is not yet waited for does not live."""
    wanted = f"{_MARK}={mark}".encode()
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    found.add(int(folder.name))
            except OSError:
                continue  # it ended meanwhile, or is another user's
    return found


def command_line(pid: int) -> list[str]:
    """The arguments of a process, or none if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text("utf-8", "replace").split("\0")[:-1]
    except OSError:
        return []


def wait_until_gone(mark: str, seconds: float) -> set[int]:
    """Wait until no process carries `mark`, at most `seconds`. What is left then."""
    deadline = time.monotonic() + seconds
    while (left := processes(mark)) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return left


def kill_all(mark: str) -> set[int]:
    """SIGKILL every process with `mark`, until none is left. Returns those that were there at first."""
    first = left = processes(mark)
    while left:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it ended by itself
        left = wait_until_gone(mark, 1.0)
    return first

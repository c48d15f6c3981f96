"""Finding and ending every process that a test has started, however deep and in whatever session it runs.

A test chooses a mark: the name of a folder that no other test has. Its first process carries the mark in its
environment and the children inherit it, so that even a worker whose parent was killed is found. Valkey writes its title
over its environment, but names a file in the folder there. Reads /proc, so Linux only.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

POLL_SECONDS = 0.02
"""How often a condition of the operating system, which tells nobody of it, is looked at."""


def marked(environment: dict[str, str], mark: str) -> dict[str, str]:
    """`environment` with `mark`, for the first process of a test."""
    return environment | {"TEST_PROCESS_MARK": mark}


def processes(mark: str) -> set[int]:
    """The ids of the living processes that carry `mark`. One that has ended and is not yet waited for does not live."""
    wanted = mark.encode()
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and folder.name != str(os.getpid()):
            try:
                if wanted in (folder / "environ").read_bytes() or wanted in (folder / "cmdline").read_bytes():
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


def kill_all(mark: str) -> None:
    """SIGKILL every process with `mark`, until none is left."""
    looks_without_any = 0
    while looks_without_any < 2:  # one that is just executing its program shows no environment for a moment
        found = processes(mark)
        looks_without_any = 0 if found else looks_without_any + 1
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it ended by itself
        time.sleep(POLL_SECONDS)

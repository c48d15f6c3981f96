"""A process that nobody else ends ends itself, whatever its application does."""

from __future__ import annotations

import subprocess
import sys

from stickygw.errors import ExitCode

WILL_NOT_END = """
import asyncio
from stickygw.worker.leaving import leave_after

async def for_ever():
    while True:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            print("no", flush=True)

leave_after({seconds})
asyncio.run({main})
"""


def run(seconds: float, main: str) -> subprocess.CompletedProcess[str]:
    script = WILL_NOT_END.format(seconds=seconds, main=main)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)


def test_an_application_that_will_not_end_is_left_when_its_time_is_over() -> None:
    done = run(0.05, "for_ever()")
    assert done.returncode == ExitCode.FORCED_STOP
    assert "the application did not end in 0.05 s, and no primary is there to end it: leaving" in done.stderr


def test_one_that_ends_in_time_ends_as_ever() -> None:
    done = run(60, "asyncio.sleep(0)")
    assert (done.returncode, done.stderr) == (0, "")

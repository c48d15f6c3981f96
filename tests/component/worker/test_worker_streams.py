"""What a worker writes when nobody reads it any more, with descriptors to be had and without."""

from __future__ import annotations

import subprocess
import sys

START = """
import os, resource, sys
from stickygw.worker.streams import leave_dead_streams
reading, writing = os.pipe()
os.dup2(writing, 1)
os.close(reading)
os.close(writing)
"""
NO_DESCRIPTOR = """
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
"""
LEAVE = """
leave_dead_streams()
os.write(1, b"to nobody")
"""


def run(*script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "".join(script)], capture_output=True, text=True, timeout=30, check=False
    )


def test_what_nobody_reads_goes_nowhere_and_raises_nothing() -> None:
    assert run(START, LEAVE).stderr == ""


def test_without_a_descriptor_the_dead_stream_stays_and_the_log_says_so() -> None:
    done = run(START, NO_DESCRIPTOR, "leave_dead_streams()\nprint('lives', file=sys.stderr)\n")
    assert done.returncode == 0, done
    assert done.stderr.startswith("stream 1 is read by nobody and stays: ")
    assert done.stderr.endswith("\nlives\n")


def test_a_stream_that_is_read_is_left_as_it_is() -> None:
    script = "from stickygw.worker.streams import leave_dead_streams\nleave_dead_streams()\nprint('heard')\n"
    assert run(script).stdout == "heard\n"

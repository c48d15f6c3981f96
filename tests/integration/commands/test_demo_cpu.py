"""`make demo-cpu`: the tables it prints, and what they must show."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stickygw.config.cpus import available_cpus

COMPARE = Path(__file__).resolve().parents[3] / "examples" / "cpu_bound" / "compare.py"
needs_two_cpus = pytest.mark.skipif(available_cpus() < 2, reason="there is nothing to gain with one CPU")
KEPT = re.compile(r"On this machine (\d+) bare processes gain (\d\.\d\d)× on the same work: (\d\.\d\d) of it is kept\.")


def compared(*options: str) -> str:
    done = subprocess.run([sys.executable, str(COMPARE), *options], capture_output=True, text=True, timeout=110)
    print(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@contextmanager
def one_cpu() -> Iterator[None]:
    """What is started meanwhile may use one CPU."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.long
@needs_two_cpus
def test_the_tables_are_whole_even_of_a_tiny_run() -> None:
    said = compared("--work-ms", "2", "--seconds", "0.4", "--rounds", "1")
    assert re.search(r"(?m)^1 worker +\d+\.\d +\d+\.\d ms +\d+\.\d ms +1\.00×$", said)
    assert re.search(rf"(?m)^{available_cpus()} workers +\d+\.\d +\d+\.\d ms +\d+\.\d ms +\d\.\d\d×$", said)
    assert KEPT.search(said)
    assert re.search(r"(?m)^The best of 1 rounds; the clients themselves took \d+\.\d% of a CPU\.$", said)
    assert re.search(r"(?m)^app\.offload +\d+\.\d\d ms +\d+\.\d\d ms$", said)


def test_one_cpu_has_nothing_to_gain_and_is_told_so() -> None:
    with one_cpu():
        said = compared("--work-ms", "2", "--seconds", "0.4", "--rounds", "1")
    assert "This process may use 1 CPU only: a second worker has nothing to gain here." in said
    assert "speed-up" not in said
    assert "app.offload" in said

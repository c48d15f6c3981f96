"""How many CPUs this process may use, which is not how many the machine has."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

Workers = int | Literal["auto", "auto-1"]
"""The setting `workers`."""

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")


def worker_count(workers: Workers, *, cpus: int | None = None) -> int:
    """How many workers the setting means, at least 1, with `cpus` CPUs; None: `available_cpus`."""
    if workers == "auto" or workers == "auto-1":
        found = available_cpus() if cpus is None else cpus
        return found if workers == "auto" else max(1, found - 1)
    return workers


def excess_workers(workers: Workers, *, cpus: int | None = None) -> str | None:
    """One line for a setting that names more workers than there are CPUs: allowed, but they take turns."""
    found = available_cpus() if cpus is None else cpus
    if isinstance(workers, str) or workers <= found:
        return None
    return f"workers: {workers}, but affinity mask and CPU quota leave this process {found}: they will take turns"


def available_cpus(*, proc: Path = PROC, cgroups: Path = CGROUPS) -> int:
    """The CPUs in this process's affinity mask (taskset, cpusets), or fewer where a container's quota allows fewer."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cpus_within(affinity, _quotas(_text(proc / "self" / "cgroup"), cgroups))


def cpus_within(affinity: int, quotas: Iterable[str]) -> int:
    """At most `affinity`, and at most what each quota gives, rounded up: a share of a CPU still wants a process.

    A quota is ``MICROSECONDS PERIOD`` as in ``cpu.max``; ``max``, or a number below 1, says that there is none.
    """
    limits = [math.ceil(int(quota) / int(period)) for quota, period in map(_pair, quotas) if _is_limit(quota, period)]
    return max(1, min(affinity, *limits)) if limits else max(1, affinity)


def _pair(text: str) -> tuple[str, str]:
    quota, _, period = " ".join(text.split()).partition(" ")
    return quota, period


def _is_limit(quota: str, period: str) -> bool:
    return quota.isdecimal() and period.isdecimal() and int(quota) > 0 and int(period) > 0


def _quotas(membership: str, cgroups: Path) -> Iterator[str]:
    """The quotas of the groups that ``/proc/self/cgroup`` names, and of all groups around them: each one binds.

    A group that is not there has none: inside a container, version 1 names groups as the host sees them.
    """
    for line in membership.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        is_version_2 = not controllers
        if is_version_2 or "cpu" in controllers.split(","):
            root = cgroups if is_version_2 else cgroups / "cpu"
            group = root / path.lstrip("/")
            for folder in (group, *(parent for parent in group.parents if parent.is_relative_to(root))):
                if is_version_2:
                    yield _text(folder / "cpu.max")
                else:
                    yield f"{_text(folder / 'cpu.cfs_quota_us')} {_text(folder / 'cpu.cfs_period_us')}"


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except OSError:  # not Linux, no such group or controller, or hidden from us: no limit that we can know
        return ""

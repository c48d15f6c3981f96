"""What the operating system knows of a process: CPU time, memory, descriptors, sockets."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used, in kernel ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def descriptors(pid: int) -> int:
    """How many descriptors it has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def is_held(local_port: int, remote_port: int) -> bool:
    """Whether a process holds the TCP socket at `local_port`. For one that was closed, the kernel alone goes on."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ports = [f"{port:04X}" for port in (local_port, remote_port)]
    return any([row[1][-4:], row[2][-4:]] == ports and row[9] != "0" for row in rows)


async def cpu_share(pid: int, seconds: float) -> float:
    """The share of one core that a process uses over the next `seconds`."""
    before, started = cpu_seconds(pid), time.monotonic()
    await asyncio.sleep(seconds)
    return (cpu_seconds(pid) - before) / (time.monotonic() - started)


def quantile(values: list[float], share: float) -> float:
    """The value below which `share` of `values` lie."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def memory_mib(pid: int) -> float:
    """The resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

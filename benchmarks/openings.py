"""CPU that one connection costs the primary and its worker."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from support.gateway import ECHO, Gateway

from benchmarks.load import opened
from benchmarks.measure import ROUNDS, cpu_seconds, figure

CONNECTIONS = 1000


def run() -> dict[str, Any]:
    """Microseconds of CPU for one connection with a browser's head.

    The primary is measured with a signed cookie in the head. The worker is measured without one, so that there is no
    session to be read; adopting and upgrading is told apart from the end.
    """
    primary_us, open_us, end_us = [], [], []
    with Gateway(ECHO, workers=1) as gateway:
        worker = gateway.worker_pids()[0]
        with opened(gateway.port, 50) as warm:
            cookie = warm[0].cookie
        for _ in range(ROUNDS):
            before = cpu_seconds(gateway.pid)
            with opened(gateway.port, CONNECTIONS, cookie=cookie):
                primary_us.append((cpu_seconds(gateway.pid) - before) / CONNECTIONS * 1e6)
            settle(gateway.port)
            before = cpu_seconds(worker)
            with opened(gateway.port, CONNECTIONS):
                middle = cpu_seconds(worker)
                open_us.append((middle - before) / CONNECTIONS * 1e6)
            settle(gateway.port)
            end_us.append((cpu_seconds(worker) - middle) / CONNECTIONS * 1e6)
    return {
        "primary_us": asdict(figure(primary_us)),
        "worker_adopt_and_upgrade_us": asdict(figure(open_us)),
        "worker_end_us": asdict(figure(end_us)),
    }


def settle(port: int) -> None:
    """Return when the worker has done all that came before: it works in order, and this is the last in the queue."""
    with opened(port, 2):
        pass

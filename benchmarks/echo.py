"""CPU that one echoed message costs, through the gateway and without one."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict
from typing import Any

from support.gateway import ECHO, ROOT, Gateway

from benchmarks.load import WebSocketClient, opened, text_frame
from benchmarks.measure import cpu_seconds, figure, pairs

CONNECTIONS = 20
MESSAGES = 400
PAYLOAD_BYTES = 64


def run() -> dict[str, Any]:
    """Microseconds of CPU for one message of `PAYLOAD_BYTES`, and the ratio of the two sides."""
    command = [sys.executable, "-m", "benchmarks.direct", ECHO]
    with (
        Gateway(ECHO, workers=1) as gateway,
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as direct,
    ):
        assert direct.stdout is not None
        port = int(direct.stdout.readline())
        worker = gateway.worker_pids()[0]
        with opened(gateway.port, CONNECTIONS) as through, opened(port, CONNECTIONS) as without:
            cost(through, [worker, gateway.pid])
            cost(without, [direct.pid])
            measured = pairs(lambda: cost(through, [worker, gateway.pid]), lambda: cost(without, [direct.pid]))
        assert direct.stdin is not None
        direct.stdin.close()
    return {
        "gateway_us": asdict(figure([first for first, _ in measured])),
        "direct_us": asdict(figure([second for _, second in measured])),
        "ratio": asdict(figure([first / second for first, second in measured])),
    }


def cost(clients: list[WebSocketClient], pids: list[int]) -> float:
    """Microseconds of CPU of the processes for one echoed message.

    Every client sends, then all answers are read: a server that is waited for after each message spends most of its
    time falling asleep and waking up, and how dear that is depends on the machine (here 11 or 40 µs, by the hour).
    """
    frame = text_frame(PAYLOAD_BYTES)
    before = sum(map(cpu_seconds, pids))
    for _ in range(MESSAGES):
        for client in clients:
            client.send(frame)
        for client in clients:
            client.wait_answer(PAYLOAD_BYTES + 2)
    return (sum(map(cpu_seconds, pids)) - before) / (MESSAGES * len(clients)) * 1e6

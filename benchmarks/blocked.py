"""How long an echo takes while a handler on another slot spins, and while an unrelated process does."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import asdict
from typing import Any

from support.gateway import ROOT, Gateway
from websockets.frames import Frame, Opcode

from benchmarks.load import WebSocketClient, opened, text_frame
from benchmarks.measure import figure, pairs

SPINNING = str(ROOT / "tests/integration/apps/spinning.py") + ":app"
CLIENTS = 10
ECHOES = 2000
PAYLOAD_BYTES = 64
SPIN_SECONDS = 1.0
SPIN = f"import time\nuntil = time.monotonic() + {SPIN_SECONDS}\nwhile time.monotonic() < until: pass"


def run() -> dict[str, Any]:
    """Milliseconds, the 99th percentile of echoes on the slot that does not spin, and the ratio of the two sides."""
    with (
        Gateway(SPINNING, "--first-visit", "round_robin", workers=2) as gateway,
        opened(gateway.port, 2) as (spinning, other),
        opened(gateway.port, CLIENTS, cookie=other.cookie) as clients,
    ):
        latency(clients, 100)
        measured = pairs(lambda: beside_a_handler(spinning, clients), lambda: beside_a_process(clients))
    return {
        "p99_beside_handler_ms": asdict(figure([first for first, _ in measured])),
        "p99_beside_process_ms": asdict(figure([second for _, second in measured])),
        "ratio": asdict(figure([first / second for first, second in measured])),
    }


def beside_a_handler(spinning: WebSocketClient, clients: list[WebSocketClient]) -> float:
    text = f"spin {SPIN_SECONDS}".encode()
    spinning.send(Frame(Opcode.TEXT, text).serialize(mask=True))
    try:
        return latency(clients, ECHOES)
    finally:
        spinning.wait_answer(len(text) + 2)


def beside_a_process(clients: list[WebSocketClient]) -> float:
    with subprocess.Popen([sys.executable, "-S", "-c", SPIN]):
        return latency(clients, ECHOES)


def latency(clients: list[WebSocketClient], echoes: int) -> float:
    """The 99th percentile of so many echoes, one at a time from each client in turn, within `SPIN_SECONDS`."""
    frame, taken = text_frame(PAYLOAD_BYTES), []
    until = time.monotonic() + SPIN_SECONDS * 0.8
    while len(taken) < echoes and time.monotonic() < until:
        client = clients[len(taken) % len(clients)]
        began = time.perf_counter()
        client.send(frame)
        client.wait_answer(PAYLOAD_BYTES + 2)
        taken.append((time.perf_counter() - began) * 1e3)
    return sorted(taken)[int(len(taken) * 0.99)]

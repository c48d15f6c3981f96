"""CPU that an ASGI application's request and echoed message cost, against uvicorn with the same protocol classes."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from support.gateway import Gateway
from support.uvicorn_server import Uvicorn

from benchmarks.echo import CONNECTIONS, MESSAGES, cost
from benchmarks.load import opened
from benchmarks.measure import cpu_seconds, figure, pairs

APPS = Path(__file__).parent / "apps"

UNPINGED = "600"
"""Seconds between pings: longer than this takes, for its clients answer none."""

LIKE_OURS = ("--ws-ping-interval", UNPINGED, "--ws-per-message-deflate", "false")

ROUNDS = 31

REQUEST = (
    b"GET /greeting/%d HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: benchmark/1.0\r\n"
    b"Accept: */*\r\nAccept-Encoding: gzip, deflate\r\n%b\r\n"
)


def run() -> dict[str, Any]:
    """Microseconds of CPU for one GET on a connection that is kept alive and for one echoed message of a WebSocket, and
    how many of them our worker does in a CPU-second for each that uvicorn does.

    Clients mostly send the same fields with each request, and proxies of many clients do not: both are measured.
    """
    figures: dict[str, Any] = {}
    with (
        Gateway(f"{APPS / 'asgi_echo.py'}:app", "--set", f"ping_interval={UNPINGED}", workers=1) as gateway,
        Uvicorn("asgi_echo:app", directory=str(APPS), options=LIKE_OURS) as uvicorn,
    ):
        ours, theirs = [gateway.worker_pids()[0], gateway.pid], [uvicorn.pid]
        with kept_alive(gateway.port) as through, kept_alive(uvicorn.port) as direct:
            for name, traced in (("get", False), ("get_traced", True)):
                our_cost = partial(get_cost, through, ours, traced=traced)
                figures |= compared(name, our_cost, partial(get_cost, direct, theirs, traced=traced))
        with opened(gateway.port, CONNECTIONS) as web, opened(uvicorn.port, CONNECTIONS) as sockets:
            figures |= compared("echo", lambda: cost(web, ours), lambda: cost(sockets, theirs))
    return figures


def compared(name: str, ours: Callable[[], float], theirs: Callable[[], float]) -> dict[str, Any]:
    """The figures of one comparison."""
    ours()
    theirs()
    measured = pairs(ours, theirs, rounds=ROUNDS)
    return {
        f"{name}_us": asdict(figure([first for first, _ in measured])),
        f"{name}_uvicorn_us": asdict(figure([second for _, second in measured])),
        f"{name}_throughput_ratio": asdict(figure([second / first for first, second in measured])),
    }


@contextmanager
def kept_alive(port: int) -> Iterator[list[socket.socket]]:
    """`CONNECTIONS` connections that are kept alive."""
    clients = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(CONNECTIONS)]
    try:
        yield clients
    finally:
        for client in clients:
            client.close()


def get_cost(clients: list[socket.socket], pids: list[int], *, traced: bool) -> float:
    """Microseconds of CPU of the processes for one request; sent and awaited as in `benchmarks.echo.cost`.

    `traced`: each request has an id of its own in a field.
    """
    before = sum(map(cpu_seconds, pids))
    for number in range(MESSAGES):
        request = REQUEST % (number, b"X-Request-Id: %d\r\n" % number if traced else b"")
        for client in clients:
            client.sendall(request)
        for client in clients:
            answer = b""
            while not answer.endswith(b"Hello, world!"):  # uvicorn sends head and body apart
                answer += client.recv(4096)
    return (sum(map(cpu_seconds, pids)) - before) / (MESSAGES * len(clients)) * 1e6

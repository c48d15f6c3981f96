"""CPU that a message to a room costs, against `websockets.broadcast` with a Redis bridge written by hand."""

from __future__ import annotations

import select
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from support.gateway import ROOT, Gateway
from support.valkey import ValkeyServer
from websockets.frames import Frame, Opcode

from benchmarks.load import WebSocketClient, opened
from benchmarks.measure import cpu_seconds, figure, pairs

APP = f"{Path(__file__).parent / 'apps' / 'lobby.py'}:app"

RECEIVERS = 1000
PROCESSES = 2
PAYLOAD_BYTES = 128
FRAME_BYTES = PAYLOAD_BYTES + 4
FRAME = Frame(Opcode.TEXT, b"x" * PAYLOAD_BYTES).serialize(mask=True)
MESSAGES = 200
OUTSTANDING = (4, 16)
PACE_SECONDS = 0.02
SECRET = "not a secret: " + "x" * 32


@dataclass
class Heard:
    """`cpu_seconds` of the servers; the 99th percentile of how long a message took to a receiver, and the longest time
    that this process did not look, in milliseconds."""

    deliveries: int
    cpu_seconds: float
    p99_ms: float
    lag_ms: float

    @property
    def per_cpu_second(self) -> float:
        return self.deliveries / self.cpu_seconds


@dataclass
class Crowd:
    """The clients of one server, and the processes whose CPU is counted."""

    clients: list[WebSocketClient]
    pids: list[int]

    def hear(self, due: Callable[[int], int]) -> Heard:
        """One client says `MESSAGES`, of which ``due(complete)`` may have been said when so many have been heard by
        everybody; until all have been."""
        before = sum(map(cpu_seconds, self.pids))
        sockets = {client.sock.fileno(): client.sock for client in self.clients}
        received = dict.fromkeys(sockets, 0)
        said_at: list[float] = []
        heard_by = [0] * MESSAGES
        took: list[float] = []
        complete, buffer, lag = 0, bytearray(1 << 16), 0.0
        with select.epoll() as epoll:
            for fd in sockets:
                epoll.register(fd, select.EPOLLIN)
            looked_at = deadline = time.monotonic()
            deadline += 60
            while complete < MESSAGES:
                if looked_at > deadline:
                    raise TimeoutError(f"{complete} of {MESSAGES} messages were heard by everybody")
                missing = min(MESSAGES, due(complete)) - len(said_at)
                if missing > 0:
                    said_at += [time.monotonic()] * missing
                    self.clients[0].sock.sendall(FRAME * missing)
                events = epoll.poll(0.001, 64)
                now = time.monotonic()
                lag, looked_at = max(lag, now - looked_at), now
                for fd, _ in events:
                    first = received[fd] // FRAME_BYTES
                    received[fd] += sockets[fd].recv_into(buffer)
                    for message in range(first, received[fd] // FRAME_BYTES):
                        heard_by[message] += 1
                        took.append(now - said_at[message])
                while complete < MESSAGES and heard_by[complete] == len(self.clients):
                    complete += 1
        spent = sum(map(cpu_seconds, self.pids)) - before
        return Heard(len(took), spent, statistics.quantiles(took, n=100)[-1] * 1000, lag * 1000)

    def saturated(self, outstanding: int) -> Heard:
        """So many messages are under way at any time."""
        return self.hear(lambda complete: complete + outstanding)

    def paced(self) -> Heard:
        """A message every `PACE_SECONDS`, whatever has been heard."""
        began = time.monotonic()
        return self.hear(lambda complete: int((time.monotonic() - began) / PACE_SECONDS))


def run() -> dict[str, Any]:
    """Thousands of deliveries for each CPU-second of the servers, and how many of ours for each of the other's; paced,
    how long deliveries took too."""
    figures: dict[str, Any] = {}
    with ExitStack() as stack:
        valkey = ValkeyServer()
        valkey.start()
        stack.callback(valkey.close)
        ours = stack.enter_context(gateway_crowd(valkey.url))
        theirs = stack.enter_context(peer_crowd(valkey.url))
        for outstanding in OUTSTANDING:
            measured = compared(partial(ours.saturated, outstanding), partial(theirs.saturated, outstanding))
            figures |= throughput(str(outstanding), measured)
        measured = compared(ours.paced, theirs.paced)
        figures |= throughput("paced", measured)
        figures |= {
            "gateway_paced_p99_ms": asdict(figure([one.p99_ms for one, _ in measured])),
            "broadcast_paced_p99_ms": asdict(figure([other.p99_ms for _, other in measured])),
            "gateway_paced_client_lag_ms": asdict(figure([one.lag_ms for one, _ in measured])),
            "broadcast_paced_client_lag_ms": asdict(figure([other.lag_ms for _, other in measured])),
        }
    return figures


def compared(ours: Callable[[], Heard], theirs: Callable[[], Heard]) -> list[tuple[Heard, Heard]]:
    """Both sides in turns, after one round that does not count."""
    ours()
    theirs()
    return pairs(ours, theirs)


def throughput(name: str, measured: list[tuple[Heard, Heard]]) -> dict[str, Any]:
    """The figures of one comparison."""
    return {
        f"gateway_{name}_k": asdict(figure([one.per_cpu_second / 1000 for one, _ in measured])),
        f"broadcast_{name}_k": asdict(figure([other.per_cpu_second / 1000 for _, other in measured])),
        f"ratio_{name}": asdict(figure([one.per_cpu_second / other.per_cpu_second for one, other in measured])),
    }


@contextmanager
def gateway_crowd(url: str) -> Iterator[Crowd]:
    """The gateway's workers, and clients that first visits have spread over them."""
    options = ["--redis", url, "--first-visit", "round_robin"]
    options += ["--set", "ping_interval=600", "--set", f"secret={SECRET}"]
    with Gateway(APP, *options, workers=PROCESSES) as gateway:
        while len(gateway.worker_pids()) < PROCESSES:
            time.sleep(0.05)  # the gateway is ready with its first worker
        with opened(gateway.port, RECEIVERS) as clients:
            yield Crowd(clients, [gateway.pid, *gateway.worker_pids().values()])


@contextmanager
def peer_crowd(url: str) -> Iterator[Crowd]:
    """As many processes of the other, each with its share of the clients."""
    command = [sys.executable, "-m", "benchmarks.peers.broadcast_bridge", url]
    with ExitStack() as stack:
        clients: list[WebSocketClient] = []
        pids = []
        for _ in range(PROCESSES):
            server = stack.enter_context(
                subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            assert server.stdin is not None
            assert server.stdout is not None
            stack.callback(server.stdin.close)
            clients += stack.enter_context(opened(int(server.stdout.readline()), RECEIVERS // PROCESSES))
            pids.append(server.pid)
        yield Crowd(clients, pids)

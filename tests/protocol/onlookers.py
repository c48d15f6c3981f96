"""Who looks on while others misbehave: a client that must not notice anything, and the worker's memory and sockets.

Linux only: it reads /proc.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from support.client import Client
from support.gateway import Gateway

PROBE = f"{Path(__file__).parents[1] / 'integration' / 'apps' / 'probe.py'}:app"

MIB = 1 << 20

MAX_GROWTH = 16 * MIB
"""So much more memory than before is none: buffers that Python and malloc keep."""

MAX_WAIT = 5.0
"""Seconds that somebody else may wait for an answer, on a machine that is busy with other tests."""


class Bystander:
    """A client that asks and is answered, all the time; `worst` is its longest wait in seconds."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.answers = 0
        self.worst = 0.0

    async def ask(self) -> None:
        """One question, answered rightly."""
        started = time.monotonic()
        assert await self._client.ask(number=self.answers) == {"number": self.answers}
        self.answers += 1
        self.worst = max(self.worst, time.monotonic() - started)

    async def ask_on(self) -> None:
        """Ask until cancelled, one question behind the other."""
        while True:
            await self.ask()


@asynccontextmanager
async def bystander(gateway: Gateway, *, asks_on: bool = True) -> AsyncIterator[Bystander]:
    """Somebody else, who is served well for as long as the context lasts."""
    async with Client(gateway.ws_url) as client:
        other = Bystander(client)
        await other.ask()
        asking = asyncio.create_task(other.ask_on()) if asks_on else None
        try:
            yield other
            assert asking is None or not asking.done()
        finally:
            if asking is not None:
                asking.cancel()
                await asyncio.wait([asking])
    print(f"bystander: {other.answers} answers, longest wait {other.worst * 1000:.0f} ms")
    assert other.worst < MAX_WAIT


class Memory:
    """The worker's resident memory, from here on: `growth` is the most that it had more than at first, in bytes."""

    def __init__(self, gateway: Gateway) -> None:
        self._process = Path(f"/proc/{gateway.worker_pids()[0]}")
        (self._process / "clear_refs").write_text("5")  # the high-water mark begins anew
        self._before = self._kibibytes("VmRSS:")

    @property
    def growth(self) -> int:
        return (self._kibibytes("VmHWM:") - self._before) * 1024

    def _kibibytes(self, name: str) -> int:
        lines = (self._process / "status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name))


def client_sockets(gateway: Gateway) -> int:
    """How many TCP sockets the worker holds. (Its connections to the store are Unix sockets.)"""
    inodes = {line.split()[9] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]}
    links = [os.readlink(file) for file in Path(f"/proc/{gateway.worker_pids()[0]}/fd").iterdir()]
    return sum(link.removeprefix("socket:[").removesuffix("]") in inodes for link in links)

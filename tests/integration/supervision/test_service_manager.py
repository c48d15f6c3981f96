"""What systemd hears of a gateway that it runs, from its start through a reload to its stop."""

from __future__ import annotations

import asyncio
import secrets
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.gateway import ECHO, Gateway
from support.waiting import wait_until

from stickygw.errors import ExitCode

WATCHDOG_SECONDS = 0.4
SECONDS = 20.0


class Manager:
    """The service manager's end of NOTIFY_SOCKET."""

    def __init__(self) -> None:
        name = f"stickygw-test-{secrets.token_hex(6)}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{name}")
        self._socket.setblocking(False)
        self.environment = {"NOTIFY_SOCKET": f"@{name}", "WATCHDOG_USEC": str(int(WATCHDOG_SECONDS * 1e6))}

    async def hears(self) -> list[str]:
        """The next message."""
        async with asyncio.timeout(SECONDS):
            return (await asyncio.get_running_loop().sock_recv(self._socket, 4096)).decode().split("\n")

    async def hears_of_a_change(self) -> list[str]:
        """The next one but for the watchdog's food."""
        async with asyncio.timeout(SECONDS):
            while (message := await self.hears()) == ["WATCHDOG=1"]:
                pass
            return message

    def forget(self) -> None:
        """Drop what has come and was not read."""
        try:
            while True:
                self._socket.recv(4096)
        except BlockingIOError:
            return

    def close(self) -> None:
        self._socket.close()


def environment_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.fixture
def manager() -> Iterator[Manager]:
    manager = Manager()
    yield manager
    manager.close()


async def test_the_service_manager_hears_of_start_reload_and_stop_and_that_the_gateway_lives(manager: Manager) -> None:
    gateway = Gateway(ECHO, workers=1, environment=manager.environment)
    try:
        await asyncio.to_thread(gateway.start)
        assert await manager.hears() == ["READY=1"], "and nothing before it"
        for _ in range(3):
            assert await manager.hears() == ["WATCHDOG=1"]
        environment = environment_of(gateway.worker_pids()[0])
        assert b"NOTIFY_SOCKET" not in environment
        assert b"WATCHDOG_USEC" not in environment

        asked = time.monotonic()
        gateway.send_signal(signal.SIGHUP)
        state, when = await manager.hears_of_a_change()
        assert state == "RELOADING=1"
        assert asked <= int(when.removeprefix("MONOTONIC_USEC=")) / 1e6 <= time.monotonic()
        assert await manager.hears_of_a_change() == ["READY=1"]
        await wait_until(lambda: "slot 0: generation 2 is ready" in gateway.log)

        # A primary that stands still is what the watchdog is for.
        gateway.send_signal(signal.SIGSTOP)
        await wait_until(lambda: is_stopped(gateway.pid))
        manager.forget()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(WATCHDOG_SECONDS):
                await manager.hears()
        gateway.send_signal(signal.SIGCONT)
        assert await manager.hears() == ["WATCHDOG=1"]

        gateway.send_signal(signal.SIGTERM)
        assert await manager.hears_of_a_change() == ["STOPPING=1"]
        assert await asyncio.to_thread(gateway.wait) == ExitCode.OK
    finally:
        await asyncio.to_thread(gateway.close)

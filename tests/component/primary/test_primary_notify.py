"""What systemd hears, through a socket as it makes them."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stickygw.primary.notify import Notifier


class Manager:
    """The service manager's end."""

    def __init__(self, name: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + name[1:] if name.startswith("@") else name)
        self._socket.setblocking(False)
        self.environment = {"NOTIFY_SOCKET": name}

    async def heard(self) -> list[str]:
        async with asyncio.timeout(10):
            return (await asyncio.get_running_loop().sock_recv(self._socket, 4096)).decode().split("\n")

    def heard_nothing(self) -> bool:
        try:
            return not self._socket.recv(4096)
        except BlockingIOError:
            return True

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, short_dir: Path) -> Iterator[Manager]:
    manager = Manager(f"@stickygw{short_dir}" if request.param == "abstract" else str(short_dir / "notify"))
    yield manager
    manager.close()


async def test_each_state_is_told_as_sd_notify_has_it(manager: Manager) -> None:
    notifier = Notifier(manager.environment)
    notifier.ready()
    assert await manager.heard() == ["READY=1"]
    before = time.monotonic_ns() // 1000
    notifier.reloading()
    state, when = await manager.heard()
    assert state == "RELOADING=1"
    assert before <= int(when.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
    notifier.stopping()
    assert await manager.heard() == ["STOPPING=1"]
    notifier.status("4 workers\nREADY=0")
    assert await manager.heard() == ["STATUS=4 workers READY=0"]
    notifier.close()


@pytest.mark.parametrize("names_us", [False, True])
async def test_the_watchdog_is_fed_twice_in_its_time_from_ready_on_until_the_end(
    manager: Manager, names_us: bool
) -> None:
    loop = asyncio.get_running_loop()
    pid = str(os.getpid()) if names_us else ""
    notifier = Notifier(manager.environment | {"WATCHDOG_USEC": "400000", "WATCHDOG_PID": pid})
    notifier.status("starting")
    assert await manager.heard() == ["STATUS=starting"]
    assert manager.heard_nothing()
    notifier.ready()
    assert await manager.heard() == ["READY=1"]
    times = []
    for _ in range(3):
        assert await manager.heard() == ["WATCHDOG=1"]
        times.append(loop.time())
    assert times[2] - times[1] > 0.15
    assert notifier._alive_every == 0.2
    notifier.ready()
    assert await manager.heard() == ["READY=1"]
    assert manager.heard_nothing(), "a second watchdog would say at once that it lives"
    notifier.close()
    notifier.close()
    assert notifier._timer is None


@pytest.mark.parametrize(
    "variables",
    [{}, {"WATCHDOG_USEC": "400000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "0"}],
)
async def test_a_watchdog_that_is_not_ours_is_not_fed(manager: Manager, variables: dict[str, str]) -> None:
    notifier = Notifier(manager.environment | variables)
    notifier.ready()
    assert await manager.heard() == ["READY=1"]
    assert notifier._timer is None
    assert manager.heard_nothing()


def test_children_inherit_none_of_its_variables() -> None:
    environment = {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "HOME": "/"}
    Notifier(environment)
    assert environment == {"HOME": "/"}


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}])
def test_without_a_socket_that_is_ours_nothing_happens(
    environment: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    Notifier(environment).ready()
    assert caplog.records == []


@pytest.mark.parametrize("name", ["/no/such/socket", "/" + "x" * 200, "@nobody-listens-here"])
def test_a_manager_that_cannot_be_told_is_logged_once(name: str, caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": name})
    notifier.ready()
    notifier.stopping()
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.getMessage().startswith("systemd cannot be told READY=1: ")


async def test_a_manager_that_does_not_read_holds_nobody_up_for_long(manager: Manager) -> None:
    notifier = Notifier(manager.environment)
    started = time.monotonic()
    while not notifier._has_failed:  # until its queue is full
        notifier.status("x")
    assert time.monotonic() - started < 5

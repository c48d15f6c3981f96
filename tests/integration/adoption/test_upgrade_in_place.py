"""`stickygw upgrade`, and SIGUSR2: the primary becomes the newest code, and no client notices."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.adoption import MOVING, MOVING_FILE, assert_all_echo, assert_logged, children, riders_at, settled
from support.gateway import IN_TURNS, Gateway, running_gateway
from support.moving_clients import Rider
from support.moving_load import riding
from support.raw import upgrade
from support.steering import command, status
from support.waiting import wait_until

from stickygw.errors import ExitCode

SLOW_SECONDS = 0.5
"""So long a slow client takes for the rest of its request, once the new code was checked: less than `CLEAR_SECONDS`."""


class Opener:
    """Opens one WebSocket after the other, each for one echo."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.served = 0
        self.failed: list[str] = []

    async def run(self) -> None:
        while True:
            rider = Rider(5000, "comes-and-goes")
            try:
                await rider.connect(self._port)
                rider.echo()
                await wait_until(lambda rider=rider: rider.echoes_got or rider.ended.done(), seconds=20)  # type: ignore[misc]
                assert rider.faults == []
                assert rider.echoes_got == 1
                self.served += 1
            except (OSError, AssertionError, TimeoutError) as error:
                self.failed.append(repr(error))
            finally:
                rider.abort()


@asynccontextmanager
async def opening(gateway: Gateway) -> AsyncIterator[Opener]:
    opener = Opener(gateway.port)
    task = asyncio.create_task(opener.run())
    try:
        yield opener
        before = opener.served
        await wait_until(lambda: opener.served > before + 5)
    finally:
        task.cancel()
        await asyncio.wait([task])
    assert opener.failed == []


def assert_no_zombies(gateway: Gateway) -> None:
    """The primary's children are its workers and its Valkey, and all live."""
    found = children(gateway.pid)
    assert not [child for child in found.items() if child[1][0] == "Z"]
    assert set(gateway.worker_pids().values()) < found.keys()
    assert len(found) == len(gateway.worker_pids()) + 1


async def test_clients_under_load_miss_nothing_of_two_upgrades() -> None:
    async with running_gateway(MOVING, *IN_TURNS, workers=2) as gateway:
        pid = gateway.pid
        async with riding(gateway.port, count=60, rooms=5, echoes_a_second=5) as ride, opening(gateway) as opener:
            done = await command(gateway, "upgrade")
            assert done.returncode == 0, done
            assert "generation 2 runs in 2 slots" in done.stdout
            assert await settled(gateway) == 2
            assert_no_zombies(gateway)
            served = opener.served

            gateway.send_signal(signal.SIGUSR2)
            await wait_until(lambda: "generation 3 runs in 2 slots" in gateway.log, seconds=40)
            assert await settled(gateway) == 3
            await wait_until(lambda: opener.served > served)
            assert_no_zombies(gateway)

            await ride.figures(0.5)
            await ride.end()
            assert ride.faults == []
            assert {rider.generations >= {1, 2, 3} for rider in ride.riders} == {True}
            assert (gateway.pid, (await status(gateway))["pid"]) == (pid, pid)
        assert "Traceback" not in gateway.log


@pytest.mark.long
async def test_who_was_still_sending_the_request_is_served_before_the_upgrade() -> None:
    async with running_gateway(MOVING, *IN_TURNS, workers=2) as gateway:
        request = upgrade("/in/half")
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        try:
            writer.write(request[:-10])

            async def is_pending() -> bool:
                return bool((await status(gateway))["pending"] == 1)

            await wait_until(is_pending)
            upgrading = asyncio.create_task(command(gateway, "upgrade"))
            await wait_until(lambda: is_checking(gateway), seconds=30)
            await wait_until(lambda: not is_checking(gateway), seconds=30)
            await asyncio.sleep(SLOW_SECONDS)
            assert not upgrading.done()
            writer.write(request[-10:])
            async with asyncio.timeout(20):
                assert (await reader.readline()).startswith(b"HTTP/1.1 101 ")
            assert (await upgrading).returncode == 0
        finally:
            writer.close()


def is_checking(gateway: Gateway) -> bool:
    """Whether the new code is being asked if it would start."""
    return any("--dry-run" in line for state, line in children(gateway.pid).values() if state != "Z")


@pytest.mark.long
async def test_an_upgrade_runs_new_code_and_new_settings(tmp_path: Path) -> None:
    app, config = tmp_path / "upgraded.py", tmp_path / "gateway.toml"
    app.write_text(MOVING_FILE.read_text())
    config.write_text("move_grace = 4.0\n")
    async with (
        running_gateway(f"{app}:app", *IN_TURNS, "--config", str(config), workers=2) as gateway,
        riders_at(gateway, 4) as riders,
    ):
        app.write_text(MOVING_FILE.read_text().replace("version = 1", "version = 2"))
        config.write_text("move_grace = 5.0\nmax_message = 8192\n")
        done = await command(gateway, "upgrade")
        assert done.returncode == 0, done
        await assert_logged(gateway, "the adopted workers run with another")
        assert {(await rider.who())["version"] for rider in riders} == {2}
        assert not any(rider.ended.done() for rider in riders)


async def test_code_that_would_not_start_is_refused_and_everything_goes_on(tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text("move_grace = 4.0\n")
    async with (
        running_gateway(MOVING, *IN_TURNS, "--config", str(config), workers=2) as gateway,
        riding(gateway.port, count=10, rooms=2, echoes_a_second=5) as ride,
        opening(gateway),
    ):
        pids = gateway.worker_pids()
        config.write_text("move_grace = 'for ever'\n")
        done = await command(gateway, "upgrade")
        assert done.returncode == ExitCode.COMMAND, done
        assert "the new code would not start, so this one goes on" in done.stderr
        assert "move_grace" in done.stderr
        gateway.send_signal(signal.SIGUSR2)
        await assert_logged(gateway, "no upgrade: the new code would not start")
        await ride.end()
        assert ride.faults == []
        assert gateway.worker_pids() == pids
        assert_no_zombies(gateway)


async def test_an_upgrade_is_refused_while_a_reload_is_under_way() -> None:
    async with running_gateway(MOVING, *IN_TURNS, workers=2) as gateway, riders_at(gateway, 2) as riders:
        # Handlers that work hold up the reload: their connections move when they are done.
        for rider in riders:
            rider.tell(do="work", seconds=2.0)
        reloading = asyncio.create_task(command(gateway, "reload"))

        async def is_reloading() -> bool:
            return str((await status(gateway))["state"]).startswith("reload")

        await wait_until(is_reloading, seconds=20)
        done = await command(gateway, "upgrade")
        assert done.returncode == ExitCode.COMMAND, done
        assert "wait for the end of: reload" in done.stderr
        assert (await reloading).returncode == 0
        assert [await rider.answer() for rider in riders] == [{"worked": 1}] * 2
        assert await settled(gateway) == 2
        assert not any(rider.ended.done() for rider in riders)


CANNOT_EXECUTE = """
import os, sys
if "stickygw.primary" in sys.orig_argv:
    def refuse(*_):
        raise OSError(7, "Argument list too long")
    os.execve = refuse
"""


async def test_an_upgrade_that_the_operating_system_refuses_is_told_and_everything_goes_on(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(CANNOT_EXECUTE)
    environment = {"PYTHONPATH": str(tmp_path)}
    async with (
        running_gateway(MOVING, *IN_TURNS, workers=1, environment=environment) as gateway,
        riders_at(gateway, 2) as riders,
    ):
        pids = gateway.worker_pids()
        done = await command(gateway, "upgrade")
        assert done.returncode == ExitCode.COMMAND, done
        said = "the upgrade failed, and this code goes on: [Errno 7] Argument list too long"
        assert (done.stdout, done.stderr.splitlines()[-1]) == ("", f"error: {said}")
        await assert_logged(gateway, said)
        await assert_all_echo(riders)
        assert (await status(gateway))["state"] == "running"
        assert gateway.worker_pids() == pids
        async with riders_at(gateway, 1) as newcomers:
            await assert_all_echo(newcomers)

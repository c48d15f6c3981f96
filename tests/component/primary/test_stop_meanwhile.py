"""A stop in the start, or in the last moment before an upgrade, is heard; and it ends workers that have not come."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from found_rig import TARGET, coming_worker, left_settings, pids_in_roll, standing_still, write_roll
from supervised_rig import is_alive
from support.waiting import wait_until

from stickygw.errors import ExitCode, RuntimeDirError
from stickygw.primary import ground, main, orphans
from stickygw.primary.main import Primary
from stickygw.primary.processes import WatchedProcess

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR2)


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(ground, "raise_descriptor_limit", lambda: 1024)
    before = {number: signal.getsignal(number) for number in HANDLED}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number: signal.Signals) -> None:
    """To the primary, which is this process."""
    os.kill(os.getpid(), number)


# --- the start --------------------------------------------------------------------------------------------------------


async def starting(directory: Path, caplog: pytest.LogCaptureFixture, **settings: Any) -> asyncio.Future[ExitCode]:
    """A primary that waits for those in the roll."""
    caplog.set_level(logging.INFO)
    serving = asyncio.ensure_future(Primary(left_settings(directory, **settings), TARGET, []).serve())
    await wait_until(lambda: "of a killed primary still serve: adopting them" in caplog.text)
    return serving


async def test_a_stop_in_the_start_ends_the_workers_that_were_to_be_adopted(
    short_dir: Path, caplog: pytest.LogCaptureFixture
):
    with standing_still() as stands, coming_worker(left_settings(short_dir), is_draining=True) as comes:
        write_roll(short_dir, stands, comes)
        serving = await starting(short_dir, caplog)
        send(signal.SIGTERM)
        async with asyncio.timeout(10):
            assert await serving == ExitCode.OK
        assert not is_alive(stands)
        assert not is_alive(comes)


@pytest.mark.parametrize("is_at_once", [False, True])
async def test_a_second_signal_kills_those_that_do_not_end(
    short_dir: Path, caplog: pytest.LogCaptureFixture, is_at_once: bool
):
    with standing_still(signal.SIGTERM) as stands:
        write_roll(short_dir, stands)
        serving = await starting(short_dir, caplog)
        send(signal.SIGTERM)
        if not is_at_once:
            await wait_until(lambda: "ending 1 worker of a killed primary" in caplog.text)
            assert is_alive(stands)
        send(signal.SIGINT)
        async with asyncio.timeout(10):
            assert await serving == ExitCode.OK
        assert not is_alive(stands)


async def test_a_stop_in_the_start_says_whom_it_could_not_end(
    short_dir: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(orphans, "KILL_SECONDS", 0.05)
    monkeypatch.setattr(WatchedProcess, "kill_session", lambda self: None)  # as if the kernel held it
    with standing_still(signal.SIGTERM) as stands:
        write_roll(short_dir, stands)
        serving = await starting(short_dir, caplog, stop_timeout=0.5)
        send(signal.SIGTERM)
        with pytest.raises(RuntimeDirError, match=f"pid {stands};"):
            async with asyncio.timeout(10):
                await serving


# --- later ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ignored", "code"), [((), ExitCode.OK), ((signal.SIGTERM,), ExitCode.FORCED_STOP)])
async def test_a_stop_ends_those_that_have_not_come(
    short_dir: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    ignored: tuple[signal.Signals, ...],
    code: ExitCode,
):
    monkeypatch.setattr(orphans, "KNOCK_SECONDS", 0.3)
    monkeypatch.setattr(main, "KILL_SECONDS", 0.2)
    settings = left_settings(short_dir, stop_timeout=1.0)
    with standing_still(*ignored) as stands, coming_worker(settings) as comes:
        write_roll(short_dir, stands, comes)
        serving = await starting(short_dir, caplog, stop_timeout=1.0)
        await wait_until(lambda: "the workers of all slots are ready" in caplog.text)
        send(signal.SIGTERM)
        async with asyncio.timeout(10):
            assert await serving == code
        assert not is_alive(stands)
        assert not is_alive(comes)
        assert pids_in_roll(short_dir) == set()


# --- an upgrade -------------------------------------------------------------------------------------------------------


class PreparedGateway:
    """A gateway whose upgrade is prepared; what it was told is in `calls`."""

    def __init__(self, *comes: signal.Signals) -> None:
        self.calls: list[str] = []
        self.hand_overs = SimpleNamespace(connections=7)
        self.control = self
        self._comes = comes

    async def drain(self, seconds: float) -> None:
        """The answers to commands go out; meanwhile the signals come."""
        for number in self._comes:
            send(number)

    async def start(self) -> None:
        self.calls.append("control")

    def give_up_upgrade(self, why: str) -> None:
        self.calls.append(why)

    def become_anew(self, environment: dict[str, str]) -> None:
        assert signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self.calls.append("anew")
        raise OSError("it would not")


async def became_anew(gateway: Any, directory: Path) -> Primary:
    primary = Primary(left_settings(directory), TARGET, [])
    await primary._become_anew(gateway)
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(HANDLED)
    return primary


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_in_the_last_moment_before_an_upgrade_stops_the_gateway(short_dir: Path, number: signal.Signals):
    gateway = PreparedGateway(number)
    primary = await became_anew(gateway, short_dir)
    assert gateway.calls == ["no upgrade: the gateway is to stop", "control"]
    assert primary._is_to_stop()


async def test_without_one_the_new_code_is_executed_while_signals_wait(short_dir: Path):
    gateway = PreparedGateway()
    primary = await became_anew(gateway, short_dir)
    assert gateway.calls == ["anew", "the upgrade failed, and this code goes on: it would not", "control"]
    assert not primary._is_to_stop()

"""Offloaded work in a real gateway: any target's functions, and no process that outlives its worker."""

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest
from support.client import Client
from support.gateway import Gateway, running_gateway
from support.waiting import wait_until

from stickygw.errors import ExitCode

APPS = Path(__file__).parent / "apps"
HEAVY = f"{APPS / 'heavy.py'}:app"


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and not reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # gone before, or while it was read
        return False


async def spinning(client: Client, folder: Path) -> int:
    """Let the worker offload what never ends; the process that does it."""
    started = folder / "started"
    await client.send({"do": "spin", "started": str(started)})
    await wait_until(started.exists)
    return int(started.read_text())


@pytest.mark.parametrize("target", [HEAVY, pytest.param("heavy:app", marks=pytest.mark.long)])
async def test_functions_of_the_applications_own_module_run_in_another_process(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if target == "heavy:app":
        monkeypatch.chdir(APPS)  # a module is looked for where the gateway is started
    async with running_gateway(target, workers=1) as gateway:
        async with Client(gateway.ws_url) as client:
            worker, process = await client.ask(do="pids")
            assert worker == gateway.worker_pids()[0] != process
            assert await client.ask(do="pids") == [worker, process], "it serves again"
        assert await asyncio.to_thread(gateway.stop) == ExitCode.OK, "no process is left"
        assert "Traceback" not in gateway.log


async def test_a_killed_worker_takes_its_processes_with_it(tmp_path: Path) -> None:
    async with running_gateway(HEAVY, workers=1) as gateway, Client(gateway.ws_url) as client:
        pid = await spinning(client, tmp_path)
        os.kill(gateway.worker_pids()[0], signal.SIGKILL)
        await wait_until(lambda: not is_alive(pid))


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, ExitCode.FORCED_STOP), pytest.param(signal.SIGINT, ExitCode.OK, marks=pytest.mark.long)],
    ids=["term", "ctrl-c"],
)
async def test_a_call_that_never_ends_is_cut_in_the_stop(number: signal.Signals, code: int, tmp_path: Path) -> None:
    async with running_gateway(HEAVY, "--set", "stop_timeout=3", workers=1) as gateway:
        async with Client(gateway.ws_url) as client:
            pid = await spinning(client, tmp_path)
            asked = time.monotonic()
            assert await asyncio.to_thread(gateway.stop, number) == code
            assert time.monotonic() - asked < 10
        assert not is_alive(pid)
        assert "worker killed" not in gateway.log, "it ended by itself"


def test_a_start_that_fails_does_not_wait_for_what_it_offloaded() -> None:
    gateway = Gateway(f"{APPS / 'heavy.py'}:cannot_start", workers=1)
    try:
        gateway.launch()
        assert gateway.wait() == ExitCode.TARGET
        assert "TimeoutError" in gateway.log
        assert "worker killed" not in gateway.log
    finally:
        gateway.close()


async def test_no_stop_waits_for_a_thread() -> None:
    async with running_gateway(HEAVY, workers=1) as gateway:
        async with Client(gateway.ws_url) as client:
            assert await client.ask(do="sleep") == "given up"
        asked = time.monotonic()
        assert await asyncio.to_thread(gateway.stop) == ExitCode.OK
        assert time.monotonic() - asked < 10, "stop_timeout is 30"

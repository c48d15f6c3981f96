"""How a gateway ends that was started in a terminal: Ctrl-C, a window that is closed, nohup."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.client import Client
from support.closes import close_of
from support.gateway import ROOT
from support.terminal import CTRL_C, Terminal
from support.waiting import wait_until

from stickygw.errors import ExitCode

STOPPING = f"{Path(__file__).parent / 'apps' / 'stopping.py'}:app"
SECONDS = 20.0
CTRL_C_SECONDS = 1.5
"""What the connections have after Ctrl-C. In a graceful stop they have `stop_timeout`, 30."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, as the names of Unix sockets must be, and no other test's."""
    with tempfile.TemporaryDirectory(prefix="sg-") as folder:
        yield Path(folder)


@asynccontextmanager
async def gateway_on_a_terminal(folder: Path, *, before: str = "", redirected: str = "") -> AsyncIterator[Terminal]:
    """One worker, as the terminal's foreground job, ready."""
    words = [sys.executable, "-m", "stickygw.cli", "run", STOPPING, "--workers", "1", "--bind", "127.0.0.1:0"]
    words += ["--runtime-dir", f"{folder}/run", "--state-dir", f"{folder}/state"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(ROOT)}
    command = f"{before} {shlex.join(words)} {redirected}"
    with Terminal(command, cwd=folder, environment=environment, mark=folder.name) as terminal:
        yield terminal


async def url_in(terminal: Terminal) -> str:
    found = await asyncio.to_thread(terminal.wait_for, r"(?m)^ready: http(://127\.0\.0\.1:\d+)", SECONDS)
    return f"ws{found[1]}"


async def test_ctrl_c_gives_the_prompt_back_soon_whatever_handlers_do(folder: Path) -> None:
    async with gateway_on_a_terminal(folder) as terminal, Client(await url_in(terminal)) as client:
        await client.ask(do="wait for ever")
        typed = time.monotonic()
        terminal.type(CTRL_C)
        assert (await close_of(client.connection))[0] == 1001
        code = await asyncio.to_thread(terminal.wait, SECONDS)
        took = time.monotonic() - typed
    print(f"Ctrl-C took {took:.2f} s (promised: 2)")
    assert code == ExitCode.OK
    assert CTRL_C_SECONDS * 0.7 < took < 10
    assert "Traceback" not in terminal.shown


@pytest.mark.long
async def test_a_terminal_that_is_closed_is_a_graceful_stop(folder: Path) -> None:
    async with gateway_on_a_terminal(folder) as terminal, Client(await url_in(terminal)) as client:
        await client.ask(do="work", seconds=CTRL_C_SECONDS + 0.5, leaves=str(folder / "finished"))
        terminal.hang_up()
        assert (await close_of(client.connection))[0] == 1001
        assert await asyncio.to_thread(terminal.wait, SECONDS) == ExitCode.OK
    assert (folder / "finished").exists(), "after Ctrl-C it would not have had the time"


async def test_under_nohup_a_gateway_outlives_its_terminal(folder: Path) -> None:
    """nohup(1) ignores SIGHUP for the command that it becomes."""
    log = folder / "log"
    async with gateway_on_a_terminal(folder, before="nohup", redirected="> log 2>&1") as terminal:
        await wait_until(lambda: log.exists() and "\nready: " in log.read_text(), seconds=SECONDS)
        [url] = re.findall(r"(?m)^ready: http(\S+)$", log.read_text())
        async with Client(f"ws{url}") as client:
            before = await client.ask(do="who")
            terminal.hang_up()
            async with Client(f"ws{url}") as visitor:  # behind whatever the signal does, which comes before
                assert await visitor.ask(do="who") == before
            assert await client.ask(do="who") == before
            os.kill(terminal.pid, signal.SIGTERM)
            assert (await close_of(client.connection))[0] == 1001
        assert await asyncio.to_thread(terminal.wait, SECONDS) == ExitCode.OK
    assert "stopping (SIGTERM)" in log.read_text()
    assert "SIGHUP" not in log.read_text()

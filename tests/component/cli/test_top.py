"""``stickygw top`` on a terminal: it shows and steers, and gives the terminal back however it ends."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.commands import default_dir, environment, stickygw
from support.fake_primary import STATUS, FakePrimary, failure, fake_primary
from support.terminal import CTRL_C, Terminal
from support.waiting import wait_until

from stickygw.errors import ExitCode
from stickygw.ipc import control
from stickygw.testing.processes import command_line, processes
from stickygw.wire.control import Request

SECONDS = 20.0
TOP = f"{shlex.quote(sys.executable)} -m stickygw.cli top"
CTRL_Z = b"\x1a"
UP = b"\x1b[A"
LEFT = "\x1b[?1049l"
"""Back from the alternate screen (xterm's DECRST 1049)."""
CURSOR = "\x1b[?25h"


@pytest.fixture
async def primary(short_dir: Path) -> AsyncIterator[FakePrimary]:
    async with fake_primary(default_dir(short_dir)) as primary:
        yield primary


@pytest.fixture
def terminal(short_dir: Path, primary: FakePrimary) -> Iterator[Terminal]:
    """``top`` as a job of a shell, and then the terminal's mode and the exit code."""
    script = f"set -m; {TOP}; code=$?; stty -a; echo code=$code"
    with Terminal(
        f"sh -c {shlex.quote(script)}", cwd=short_dir, environment=environment(short_dir), mark=short_dir.name
    ) as terminal:
        yield terminal


async def sees(terminal: Terminal, pattern: str) -> None:
    await asyncio.to_thread(terminal.wait_for, pattern, SECONDS)


async def assert_ended(terminal: Terminal, code: int) -> None:
    """It has ended with `code`, and the terminal is as it was."""
    assert await asyncio.to_thread(terminal.wait, SECONDS) == 0
    after = terminal.shown.rpartition(LEFT)[2]
    assert CURSOR in terminal.shown
    assert "Traceback" not in terminal.shown
    assert f"code={code}\n" in after, terminal.shown
    mode = after.replace(";", "").split()
    assert {"icanon", "echo", "isig"} <= set(mode)
    assert "susp = ^Z" in after


async def test_it_shows_the_workers_and_what_changes_every_second(primary, terminal: Terminal) -> None:
    await sees(terminal, r"slot\S* \S*state .*queued")
    await sees(terminal, r"0    \S*ready +\S* +3 20311 ")
    await sees(terminal, "r reload")
    primary.answers["status"] = STATUS | {"target": "other.py:app"}
    await sees(terminal, "other.py:app")
    terminal.type(b"q")
    await assert_ended(terminal, ExitCode.OK)


async def test_keys_give_orders_and_the_bottom_line_says_what_becomes_of_them(primary, terminal: Terminal) -> None:
    primary.answers["scale"] = failure(ExitCode.COMMAND, "a reload is under way")
    await sees(terminal, "r reload")
    terminal.type(b"+")
    await sees(terminal, "scale 5: a reload is under way")
    terminal.type(b"-")
    await sees(terminal, "scale 3: a reload is under way")
    terminal.type(UP + b"d")
    await sees(terminal, "drain slot: _")
    terminal.type(UP + b"2")
    await sees(terminal, "drain 2: drained")
    terminal.type(b"q")
    await assert_ended(terminal, ExitCode.OK)
    assert [request for request in primary.requests if request[0] != "status"] == [
        ("scale", {"slots": 5}),
        ("scale", {"slots": 3}),
        ("drain", {"slot": 2}),
    ]


async def test_it_goes_on_showing_while_an_order_is_carried_out_and_takes_no_other(primary, terminal: Terminal) -> None:
    end = asyncio.Event()

    async def reload(_: Request) -> dict[str, Any]:
        await end.wait()
        return {"message": "reloaded: generation 4"}

    primary.answers["reload"] = reload
    primary.progress["reload"] = ["slot 0: ready"]
    await sees(terminal, "r reload")
    terminal.type(b"r")
    await sees(terminal, "reload: slot 0: ready")
    primary.answers["status"] = STATUS | {"state": "as good as reloaded"}
    await sees(terminal, "as good as reloaded")
    terminal.type(b"+")
    await sees(terminal, "scale 5: not yet, reload is under way")
    end.set()
    await sees(terminal, "reload: reloaded: generation 4")
    terminal.type(b"q")
    await assert_ended(terminal, ExitCode.OK)
    assert not primary.asked("scale")


async def test_ctrl_c_leaves_and_ctrl_z_does_not(primary, terminal: Terminal) -> None:
    await sees(terminal, "r reload")
    terminal.type(CTRL_Z)
    primary.answers["status"] = STATUS | {"target": "still.py:app"}
    await sees(terminal, "still.py:app")
    terminal.type(CTRL_C)
    await assert_ended(terminal, ExitCode.OK)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_that_ends_it_gives_the_terminal_back(short_dir: Path, terminal: Terminal, number: int) -> None:
    await sees(terminal, "r reload")
    top = next(pid for pid in processes(short_dir.name) if "stickygw.cli" in command_line(pid))
    os.kill(top, number)
    await assert_ended(terminal, 128 + number)


async def test_a_gateway_that_ends_is_an_error_after_the_screen(short_dir: Path, terminal: Terminal, primary) -> None:
    await sees(terminal, "r reload")
    primary.server.close()
    await assert_ended(terminal, ExitCode.NO_GATEWAY)
    assert "error: no gateway answers at " in terminal.shown.rpartition(LEFT)[2]


async def test_a_connection_that_is_lost_is_made_anew(primary, terminal: Terminal, monkeypatch) -> None:
    monkeypatch.setattr(control, "IDLE_SECONDS", 0.2)
    await sees(terminal, "r reload")
    await wait_until(lambda: len(primary.asked("status")) >= 4)
    terminal.type(b"q")
    await assert_ended(terminal, ExitCode.OK)


async def test_a_closed_terminal_ends_it(primary, short_dir: Path) -> None:
    with Terminal(TOP, cwd=short_dir, environment=environment(short_dir), mark=short_dir.name) as terminal:
        await sees(terminal, "r reload")
        terminal.hang_up()
        await wait_until(lambda: not processes(short_dir.name))


async def test_without_a_terminal_it_names_the_command_for_that(primary, short_dir: Path) -> None:
    done = await stickygw(short_dir, "top")
    assert done.code == ExitCode.USAGE
    assert "top needs a terminal; `stickygw status` does not" in done.err

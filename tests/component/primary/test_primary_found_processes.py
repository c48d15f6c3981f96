"""Processes that somebody else has started: their end is told, and their number is never another's."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from support.waiting import loop_turns, wait_until

from stickygw.primary.processes import WatchedProcess


@contextmanager
def not_our_child() -> Iterator[int]:
    """A process that somebody else has started, and has not reaped; it sleeps."""
    script = "import subprocess, sys; child = subprocess.Popen(['sleep', '60'], start_new_session=True);"
    script += "print(child.pid, flush=True); sys.stdin.read(); child.kill()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        yield int(parent.stdout.readline())
        assert parent.stdin is not None
        parent.stdin.close()


def one_that_has_ended() -> int:
    with subprocess.Popen(["true"]) as process:
        return process.pid


def one_that_reads_and_exits(status: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sh", "-c", f"read line; exit {status}"], stdin=subprocess.PIPE, start_new_session=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_the_end_of_a_process_that_is_no_child_is_told_once_without_its_status(number: signal.Signals):
    with not_our_child() as pid:
        exits: list[int | None] = []
        process = WatchedProcess(pid, child=None, on_exit=exits.append)
        assert process.is_alive
        process.signal(number) if number is signal.SIGTERM else process.kill_session()
        await wait_until(lambda: exits)
        assert (exits, process.is_alive) == ([None], False)
        process.signal(signal.SIGTERM)
        process.kill_session()
        process.forget()
        await loop_turns()
        assert exits == [None]


async def test_a_process_that_does_not_live_cannot_be_watched():
    pid = one_that_has_ended()
    had = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ProcessLookupError):
        WatchedProcess(pid, child=None, on_exit=lambda status: None)
    assert len(os.listdir("/proc/self/fd")) == had


async def test_one_that_this_process_had_started_before_it_was_executed_anew_is_reaped_with_its_status():
    child = one_that_reads_and_exits(7)
    exits: asyncio.Queue[int | None] = asyncio.Queue()
    WatchedProcess(child.pid, child=None, on_exit=exits.put_nowait)
    assert child.stdin is not None
    child.stdin.close()
    async with asyncio.timeout(10):
        assert await exits.get() == 7
    assert child.poll() == 0, "Popen has nothing to reap, and says this then"


async def test_such_a_one_is_killed_and_reaped_though_the_loop_reads_its_descriptor_without_blocking():
    child = one_that_reads_and_exits(7)
    process = WatchedProcess(child.pid, child=None, on_exit=lambda status: None)
    process.kill_session()
    process.forget()
    assert child.poll() == 0, "Popen has nothing to reap, and says this then"
    assert child.stdin is not None
    child.stdin.close()


async def test_one_that_is_left_lives_on_and_its_end_is_not_told():
    had = len(os.listdir("/proc/self/fd"))
    with not_our_child() as pid:
        exits: list[int | None] = []
        process = WatchedProcess(pid, child=None, on_exit=exits.append)
        process.leave()
        process.leave()
        assert not process.is_alive
        os.kill(pid, 0)
        os.kill(pid, signal.SIGKILL)
        await loop_turns()
    assert exits == []
    await wait_until(lambda: len(os.listdir("/proc/self/fd")) == had)

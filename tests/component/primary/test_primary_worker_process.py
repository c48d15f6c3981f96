"""One worker's process and link: messages in order and bounded, and an end that is told once."""

from __future__ import annotations

import os
import select
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from supervised_rig import BEGIN, is_alive, supervised
from support.waiting import wait_until

from stickygw.primary.worker_process import MAX_UNSENT, WorkerProcess, launched
from stickygw.types import GatewayId, Slot, WorkerId
from stickygw.wire.link import Configure, Drain, Message, MoveIn, MoveOut, Ready, Resize, Stop


class Heard:
    """What a process has called back, in order."""

    def __init__(self) -> None:
        self.calls: list[object] = []

    def message(self, process: WorkerProcess, message: Message) -> None:
        self.calls.append(message)

    def cut_off(self, process: WorkerProcess) -> None:
        self.calls.append("cut off")

    def gone(self, process: WorkerProcess, status: int | None) -> None:
        self.calls.append(status)


@asynccontextmanager
async def worker(directory: Path, script: str) -> AsyncIterator[tuple[WorkerProcess, Heard]]:
    """A process that runs `script`; its notes go to the file "mark"."""
    program = textwrap.dedent(BEGIN) + textwrap.dedent(script)
    heard = Heard()
    configure = Configure(Slot(0), 1, 1, GatewayId("0badcafe"), "app:app", {})
    process = WorkerProcess(
        launched(configure, [], lambda slot, fd: [sys.executable, "-c", program, str(fd), str(directory / "mark")]),
        WorkerId(1),
        Slot(0),
        on_message=heard.message,
        on_cut_off=heard.cut_off,
        on_gone=heard.gone,
    )
    try:
        yield process, heard
    finally:
        process.kill_now()


async def test_messages_for_a_worker_that_does_not_read_wait_in_order_and_are_bounded(short_dir: Path):
    script = """
    while not os.path.exists(mark):
        time.sleep(0.01)
    numbers = []
    while not numbers or numbers[-1]:
        numbers.append(decode(link.recv(1 << 17)).workers)
    is_whole = numbers == [*range(1, len(numbers)), 0]
    sys.exit(0 if is_whole else 1)
    """
    async with worker(short_dir, script) as (process, heard):
        sent = 1
        while process.send(Resize(sent)):
            sent += 1
        assert sent > MAX_UNSENT
        (short_dir / "mark").touch()
        # Though there is room now, and the loop has not turned since: this one is still behind the others.
        select.select([], [process.link._datagrams._sock], [], 10)
        assert not process.send(Resize(0))
        await wait_until(lambda: process.send(Resize(0)))
        await wait_until(lambda: len(heard.calls) == 2)
        assert heard.calls == ["cut off", 0]


def descriptors() -> int:
    """Open in this process."""
    return len(os.listdir("/proc/self/fd"))


def fill(process: WorkerProcess) -> None:
    """Send until its link takes no more, and nothing waits yet."""
    while process.link.send(Resize(0)):
        pass


@pytest.fixture
def memory() -> Iterator[int]:
    """A descriptor of a file that says "for the move"."""
    fd = os.memfd_create("memory")
    os.write(fd, b"for the move")
    yield fd
    os.close(fd)


async def test_a_descriptor_waits_for_a_full_link_with_its_message_and_is_let_go_when_sent(
    short_dir: Path, memory: int
):
    script = """
    while not os.path.exists(mark):
        time.sleep(0.01)
    seen = []
    while seen[-1:] != ["Stop"]:
        data, fds, *_ = socket.recv_fds(link, 1 << 17, 2)
        seen += [type(decode(data)).__name__] if fds or not isinstance(decode(data), Resize) else []
        seen += [os.pread(fd, 99, 0) for fd in fds]
    sys.exit(0 if seen == ["MoveIn", b"for the move", "MoveOut", b"for the move", "Stop"] else 1)
    """
    async with worker(short_dir, script) as (process, heard):
        fill(process)
        before = descriptors()
        copy = os.dup(memory)
        assert process.send(MoveIn(Slot(0)), copy)
        assert process.send(MoveOut(Slot(0)), copy)
        assert process.send(Stop(5.0, 0.0))
        os.close(copy)
        assert descriptors() == before + 2
        (short_dir / "mark").touch()
        await wait_until(lambda: len(heard.calls) == 2)
        assert heard.calls == ["cut off", 0]
        assert descriptors() < before


async def test_descriptors_that_wait_for_a_worker_that_dies_are_closed(short_dir: Path, memory: int):
    async with worker(short_dir, "time.sleep(60)") as (process, heard):
        fill(process)
        before = descriptors()
        for _ in range(5):
            assert process.send(MoveIn(Slot(0)), memory)
        assert descriptors() == before + 5
        process.kill()
        await wait_until(lambda: len(heard.calls) == 2)
        assert descriptors() < before


async def test_descriptors_that_wait_for_a_worker_that_is_killed_now_are_closed(short_dir: Path, memory: int):
    async with worker(short_dir, "time.sleep(60)") as (process, _):
        fill(process)
        before = descriptors()
        assert process.send(MoveIn(Slot(0)), memory)
        process.kill_now()
        assert not process.send(MoveIn(Slot(0)), memory)
        assert descriptors() < before


async def test_where_too_many_messages_wait_no_descriptor_is_copied(short_dir: Path, memory: int):
    async with worker(short_dir, "time.sleep(60)") as (process, _):
        while process.send(Resize(0)):
            pass
        before = descriptors()
        assert not process.send(MoveIn(Slot(0)), memory)
        assert descriptors() == before


async def test_one_that_is_cut_off_is_sent_nothing_more(short_dir: Path, memory: int):
    async with worker(short_dir, "link.close(); time.sleep(60)") as (process, heard):
        await wait_until(lambda: heard.calls == ["cut off"])
        before = descriptors()
        assert not process.send(MoveIn(Slot(0)), memory)
        assert not process.send(Drain(5.0, 0.0))
        assert descriptors() == before


async def test_the_last_words_come_before_the_end(short_dir: Path):
    async with worker(short_dir, "say(Ready()); sys.exit(7)") as (_, heard):
        await wait_until(lambda: 7 in heard.calls)
        assert heard.calls == [Ready(), "cut off", 7]


async def test_a_descriptor_that_a_worker_sends_is_closed(short_dir: Path):
    script = "socket.send_fds(link, [encode(Ready())], [0]); link.recv(1)"
    async with worker(short_dir, script) as (_, heard):
        before = len(os.listdir("/proc/self/fd"))
        await wait_until(lambda: heard.calls)
        assert len(os.listdir("/proc/self/fd")) == before


async def test_who_is_killed_now_calls_nothing_back(short_dir: Path):
    async with worker(short_dir, "say(Ready()); time.sleep(60)") as (process, heard):
        await wait_until(lambda: heard.calls)
        process.kill_now()
        assert not is_alive(process.pid)
        process.kill_now()
        assert not process.link.send(Resize(1))
        assert heard.calls == [Ready()]


async def test_what_a_worker_has_no_business_to_send_is_told_and_forgotten(
    short_dir: Path, caplog: pytest.LogCaptureFixture
):
    script = "say(Ready()); say(Resize(7)); link.recv(1)"
    async with supervised(short_dir, script, slots=1) as gateway:
        await wait_until(lambda: "slot=0: a worker does not send Resize" in caplog.text)
        assert gateway.rig.view(0).is_ready

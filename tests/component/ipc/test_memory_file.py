"""States and copies of any length come whole or not at all; what waits in memory files is counted and bounded."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
from support.waiting import wait_until

from stickygw.ipc import memory_file
from stickygw.ipc.datagrams import datagram_pair
from stickygw.ipc.memory_file import read_copy, read_state, send_copy, send_state
from stickygw.ipc.move_link import MAX_UNSENT_BYTES, MoveLink
from stickygw.types import HandOverId
from stickygw.wire.move import MAX_MESSAGE_BYTES, MAX_STATE_BYTES, Carried, Copy, MoveMessage, decode

LONG = os.urandom(300 * 1024)


class Copies:
    """What `read_copy` makes of what comes; the descriptors are closed."""

    def __init__(self) -> None:
        self.calls: list[bytes | None] = []
        self.beside: list[int] = []

    def message(self, message: MoveMessage, fds: list[int]) -> None:
        assert isinstance(message, Copy)
        assert message.channel == b"room"
        self.calls.append(read_copy(message.data, fds))
        self.beside.append(len(fds))
        for fd in fds:
            os.close(fd)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def sending(sock: socket.socket) -> MoveLink:
    return MoveLink(sock, on_message=lambda message, fds: None, on_closed=lambda: None)


@asynccontextmanager
async def linked() -> AsyncIterator[tuple[MoveLink, Copies]]:
    """One end, and what comes out at the other; no descriptor is left behind."""
    before = descriptors()
    ours, theirs = datagram_pair()
    copies = Copies()
    link = sending(ours)
    other = MoveLink(theirs, on_message=copies.message, on_closed=lambda: None)
    yield link, copies
    link.close()
    other.close()
    assert descriptors() == before


@contextmanager
def limit(which: int, most: int) -> Iterator[None]:
    """Of this process, for so long."""
    soft, hard = resource.getrlimit(which)
    resource.setrlimit(which, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(which, (soft, hard))


@pytest.mark.parametrize("size", [1, MAX_STATE_BYTES, MAX_STATE_BYTES + 1, len(LONG), 5 << 20])
async def test_a_copy_of_any_length_comes_whole(size: int) -> None:
    data = os.urandom(size)
    async with linked() as (link, copies):
        send_copy(link, b"room", data)
        send_copy(link, b"room", b"next")
        await wait_until(lambda: len(copies.calls) == 2)
        assert copies.calls == [data, b"next"]
        assert copies.beside == [0 if size <= MAX_STATE_BYTES else 1, 0]


async def test_a_copy_whose_descriptor_was_lost_is_left_out_and_told(caplog: pytest.LogCaptureFixture) -> None:
    async with linked() as (link, copies):
        link.send(Copy(b"room", b""))
        send_copy(link, b"room", b"next")
        await wait_until(lambda: len(copies.calls) == 2)
        assert copies.calls == [None, b"next"]
    assert "a message is lost to who has moved: its state was lost" in caplog.text


async def test_a_reader_at_its_limit_of_descriptors_misses_that_copy_only() -> None:
    async with linked() as (link, copies):
        send_copy(link, b"room", LONG)
        with limit(resource.RLIMIT_NOFILE, 3):
            await wait_until(lambda: copies.calls)
        send_copy(link, b"room", LONG)
        await wait_until(lambda: len(copies.calls) == 2)
        assert copies.calls == [None, LONG]


async def test_a_copy_that_is_longer_than_is_read_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async with linked() as (link, copies):
        monkeypatch.setattr(memory_file, "MAX_COPY_BYTES", len(LONG))
        send_copy(link, b"room", LONG + b"!")
        send_copy(link, b"room", LONG)
        await wait_until(lambda: len(copies.calls) == 2)
        assert copies.calls == [None, LONG]


async def test_without_a_descriptor_to_have_a_copy_is_left_out_and_told(caplog: pytest.LogCaptureFixture) -> None:
    async with linked() as (link, copies):
        with limit(resource.RLIMIT_NOFILE, 3):
            send_copy(link, b"room", LONG)
            send_copy(link, b"room", b"short")
        await wait_until(lambda: copies.calls)
        assert copies.calls == [b"short"]
    assert "Too many open files" in caplog.text


async def test_where_files_may_not_be_as_long_nothing_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    async with linked() as (link, copies):
        with limit(resource.RLIMIT_FSIZE, len(LONG) - 1):
            send_copy(link, b"room", LONG)
            with pytest.raises(OSError, match="File too large"):
                send_state(link, lambda state: Carried(HandOverId(1), state), LONG)
            send_copy(link, b"room", LONG[:-1])
        await wait_until(lambda: copies.calls)
        assert copies.calls == [LONG[:-1]]
    assert "File too large" in caplog.text


async def test_long_copies_that_wait_fill_the_link_and_what_comes_then_is_left_out() -> None:
    before = descriptors()
    ours, theirs = datagram_pair()
    theirs.setblocking(False)
    link = sending(ours)
    for _ in range(1000):
        send_copy(link, b"room", LONG)
    waiting = descriptors() - before - 2
    assert link.is_full
    assert MAX_UNSENT_BYTES <= waiting * len(LONG) <= MAX_UNSENT_BYTES + 2 * len(LONG)
    assert len(link.take_back()) == waiting
    assert not link.is_full
    link.close()
    theirs.close()
    assert descriptors() == before


async def test_a_state_comes_last_among_its_descriptors() -> None:
    ours, theirs = datagram_pair()
    link = sending(ours)
    other = os.memfd_create("other")
    send_state(link, lambda state: Carried(HandOverId(7), state), LONG, (other,))
    data, fds, _, _ = socket.recv_fds(theirs, MAX_MESSAGE_BYTES, 2)
    assert decode(data) == Carried(HandOverId(7), b"")
    assert os.fstat(fds[0]).st_ino == os.fstat(other).st_ino
    assert read_state(fds, max_bytes=len(LONG)) == LONG
    for fd in (other, *fds):
        os.close(fd)
    link.close()
    theirs.close()

"""How a worker finds the next primary, and tells it all: also one that dies, or does not read, meanwhile."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.waiting import wait_until

from stickygw.ipc.link import Link, link_pair
from stickygw.ipc.peer import Peer
from stickygw.types import HandOverId, Slot
from stickygw.wire.link import MAX_HOLDINGS, Hold, Holdings, Message, Orphan, Resize
from stickygw.worker import reunion
from stickygw.worker.reunion import NextPrimary, find_primary, report

ORPHAN = Orphan(Slot(1), 3, 2, "app:app", {}, is_draining=False)


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sg-") as name:
        yield Path(name) / "workers"


def listen(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.bind(str(path))
    sock.listen(4)
    return sock


def listen_in_its_place(path: Path) -> socket.socket:
    path.unlink()
    return listen(path)


class Primary:
    """The other end of a link: reads only what it is asked to."""

    def __init__(self) -> None:
        self.calls: list[Message | str] = []
        self.sock, theirs = link_pair()
        theirs.setblocking(False)
        self.next = NextPrimary(
            theirs,
            on_message=lambda message, fd: self.calls.append(message),
            on_closed=lambda: self.calls.append("gone"),
        )

    def read(self) -> Link:
        """From now on; what it hears are its `said`."""
        self.said: list[Message] = []
        self.fds: list[int] = []
        return Link(self.sock, on_message=self._hear, on_closed=lambda: None)

    def _hear(self, message: Message, fd: int) -> None:
        self.said.append(message)
        if fd >= 0:
            self.fds.append(fd)


@asynccontextmanager
async def primary() -> AsyncIterator[Primary]:
    at = Primary()
    try:
        yield at
    finally:
        at.sock.close()
        at.next.link.close()


# --- looking ----------------------------------------------------------------------------------------------------------


async def test_a_primary_is_found_as_soon_as_it_listens(path: Path):
    finding = asyncio.create_task(find_primary(path))
    await asyncio.sleep(0)
    left = listen(path)  # one that was killed has left its file
    left.close()
    await asyncio.sleep(0)
    assert not finding.done()
    with listen_in_its_place(path) as door:
        async with asyncio.timeout(10):
            found = await finding
        with found:
            assert found.getpeername() == str(path)
            assert not found.getblocking()
            door.accept()[0].close()


async def test_one_of_another_user_is_not_spoken_to(path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[object] = []

    def other(sock: object) -> Peer:
        asked.append(sock)
        return Peer(4711, os.geteuid() + (len(asked) < 3))

    monkeypatch.setattr(reunion, "peer_of", other)
    with listen(path):
        async with asyncio.timeout(10):
            found = await find_primary(path)
        found.close()
    assert len(asked) == 3


# --- telling ----------------------------------------------------------------------------------------------------------


async def test_all_is_told_in_parts_that_fit_and_the_name_comes_last():
    connections = [(HandOverId(number), b"k" if number % 2 else None) for number in range(MAX_HOLDINGS * 2 + 1)]
    learnt = [b"%d" % number for number in range(MAX_HOLDINGS + 1)]
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        async with primary() as at:
            reading = at.read()
            assert await at.next.told(
                lambda link: report(link, listeners=[one, two], connections=connections, learnt=learnt, orphan=ORPHAN)
            )
            await wait_until(lambda: at.said[-1:] == [ORPHAN])
            assert at.said[:2] == [Hold(0), Hold(1)]
            assert len(at.fds) == 2
            for fd, listener in zip(at.fds, (one, two), strict=True):
                with socket.socket(fileno=fd) as copy:
                    assert copy.getsockname() == listener.getsockname()
            parts = [said for said in at.said if isinstance(said, Holdings)]
            assert [tuple(held) for part in parts for held in part.connections] == connections
            assert [key for part in parts for key in part.learnt] == learnt
            assert max(max(len(part.connections), len(part.learnt)) for part in parts) == MAX_HOLDINGS
            reading.close()
            await wait_until(lambda: at.calls == ["gone"])


async def test_a_primary_that_reads_later_is_told_all_all_the_same():
    connections = [(HandOverId(number), b"a key of some length" * 5) for number in range(MAX_HOLDINGS * 200)]
    async with primary() as at:
        telling = asyncio.create_task(
            at.next.told(lambda link: report(link, listeners=[], connections=connections, learnt=[], orphan=ORPHAN))
        )
        await wait_until(lambda: not at.next.link.send(Resize(0)))  # its queue is full
        assert not telling.done()
        at.read()
        async with asyncio.timeout(20):
            assert await telling
        await wait_until(lambda: at.said[-1:] == [ORPHAN])
        held = [tuple(held) for said in at.said if isinstance(said, Holdings) for held in said.connections]
        assert held == connections


async def test_one_that_dies_while_it_is_told_is_not_told_of_again():
    connections = [(HandOverId(number), b"a key of some length" * 5) for number in range(MAX_HOLDINGS * 200)]
    async with primary() as at:
        telling = asyncio.create_task(
            at.next.told(lambda link: report(link, listeners=[], connections=connections, learnt=[], orphan=ORPHAN))
        )
        await wait_until(lambda: not at.next.link.send(Resize(0)))
        at.sock.close()
        async with asyncio.timeout(10):
            assert not await telling
        assert at.next.link.is_closed
        assert at.calls == []


async def test_a_wait_that_is_over_closes_the_link():
    async def for_ever(link: Link) -> None:
        await asyncio.Event().wait()

    async with primary() as at:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await at.next.told(for_ever)
        assert at.next.link.is_closed


async def test_what_a_report_raises_is_raised_and_the_link_closed():
    async def fail(link: Link) -> None:
        raise OSError(24, "no descriptor")

    async with primary() as at:
        with pytest.raises(OSError, match="no descriptor"):
            await at.next.told(fail)
        assert at.next.link.is_closed

"""A move link: what does not fit waits, with descriptors of its own, and nothing is lost, doubled or leaked."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from support.waiting import loop_turns, wait_until

from stickygw.ipc.datagrams import datagram_pair
from stickygw.ipc.move_link import MAX_UNSENT_BYTES, MoveLink
from stickygw.types import HandOverId
from stickygw.wire.move import (
    MAX_MESSAGE_BYTES,
    MAX_STATE_BYTES,
    Adopted,
    Carried,
    Copy,
    Finished,
    MoveError,
    MoveMessage,
    decode,
    encode,
)

STATE = bytes(MAX_STATE_BYTES)


class Heard:
    """What came over one end; the inodes of what was beside each message are kept, the descriptors closed."""

    def __init__(self) -> None:
        self.calls: list[object] = []
        self.inodes: list[list[int]] = []

    def message(self, message: MoveMessage, fds: list[int]) -> None:
        self.calls.append(message)
        self.inodes.append([os.fstat(fd).st_ino for fd in fds])
        for fd in fds:
            os.close(fd)

    def closed(self) -> None:
        self.calls.append("closed")


class Crowded(socket.socket):
    """Takes no descriptor while `is_crowded`, though there is room: as when too many are in flight (unix(7))."""

    is_crowded = True
    refused = 0

    def sendmsg(self, buffers: Any, ancillary: Any = (), *more: Any) -> int:
        if ancillary and self.is_crowded:
            self.refused += 1
            raise OSError(errno.ETOOMANYREFS, os.strerror(errno.ETOOMANYREFS))
        return super().sendmsg(buffers, ancillary, *more)


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def memory() -> Iterator[int]:
    """A descriptor to send."""
    fd = os.memfd_create("memory")
    yield fd
    os.close(fd)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def listening(sock: socket.socket, heard: Heard) -> MoveLink:
    return MoveLink(sock, on_message=heard.message, on_closed=heard.closed)


def carried(number: int, state: bytes = STATE) -> Carried:
    return Carried(HandOverId(number), state)


def fill(link: MoveLink, memory: int) -> int:
    """Send until messages wait; how many are sent or wait."""
    for number in range(10_000):
        before = open_descriptors()
        link.send(carried(number), (memory,))
        if open_descriptors() > before:
            return number + 1
    raise AssertionError("the socket is never full")


async def test_messages_and_their_descriptors_come_in_order_however_full_the_link_is(heard: Heard, memory: int) -> None:
    before = open_descriptors()
    ours, theirs = datagram_pair()
    link = listening(ours, Heard())
    sent: list[MoveMessage] = []
    second = os.memfd_create("second")
    for number in range(64):
        sent.append(carried(number) if number % 3 else Adopted(HandOverId(number)))
        link.send(sent[-1], (memory, second)[: number % 3])
    told: list[int] = []
    link.when_sent(lambda: told.append(len(heard.calls)))
    assert told == []  # most of them wait
    expected = [os.fstat(memory).st_ino, os.fstat(second).st_ino]
    os.close(second)  # those that wait are with copies
    other = listening(theirs, heard)
    await wait_until(lambda: len(heard.calls) == len(sent))
    assert heard.calls == sent
    assert heard.inodes == [expected[: number % 3] for number in range(64)]
    assert len(told) == 1
    link.when_sent(lambda: told.append(-1))
    assert told[1:] == [-1]  # at once
    link.close()
    other.close()
    assert open_descriptors() == before


async def test_a_message_does_not_overtake_those_that_wait_though_there_is_room(heard: Heard, memory: int) -> None:
    ours, theirs = datagram_pair()
    theirs.setblocking(False)
    link = listening(ours, Heard())
    count = fill(link, memory)
    got = [decode(theirs.recv(MAX_MESSAGE_BYTES)) for _ in range(2)]  # room, and the loop has not turned since
    link.send(Finished())
    other = listening(theirs, heard)
    await wait_until(lambda: Finished() in heard.calls)
    assert [*got, *heard.calls] == [*(carried(number) for number in range(count)), Finished()]
    link.close()
    other.close()


async def test_it_says_when_too_much_waits_and_when_no_more(heard: Heard) -> None:
    ours, theirs = datagram_pair()
    link = listening(ours, Heard())
    data = bytes(64 * 1024)
    sent = 0
    while not link.is_full:
        link.send(Copy(b"room", data))
        sent += 1
    assert MAX_UNSENT_BYTES <= sent * len(data) <= MAX_UNSENT_BYTES + (1 << 20)
    link.send(Finished())  # who sends all the same is not refused
    other = listening(theirs, heard)
    await wait_until(lambda: Finished() in heard.calls)
    assert len(heard.calls) == sent + 1
    assert not link.is_full
    link.close()
    other.close()


async def test_what_waits_when_the_link_is_closed_leaks_nothing_and_is_not_sent(memory: int) -> None:
    before = open_descriptors()
    ours, theirs = datagram_pair()
    heard = Heard()
    link = listening(ours, heard)
    fill(link, memory)
    told: list[bool] = []
    link.when_sent(lambda: told.append(True))
    link.close()
    link.close()
    link.send(Finished(), (memory,))
    link.when_sent(lambda: told.append(True))
    theirs.close()
    await asyncio.sleep(0)
    assert open_descriptors() == before
    assert told == []
    assert heard.calls == []
    assert link.is_closed


async def test_what_waits_can_be_taken_back_and_what_was_sent_comes(heard: Heard, memory: int) -> None:
    before = open_descriptors()
    ours, theirs = datagram_pair()
    link = listening(ours, Heard())
    count = fill(link, memory) + 1
    link.send(carried(count - 1), (memory,))
    told: list[bool] = []
    link.when_sent(lambda: told.append(True))
    taken_back = link.take_back()
    assert link.take_back() == []
    assert not link.is_full
    assert taken_back == [carried(count - 2), carried(count - 1)]
    link.send(Finished())  # this one waits, or not: it comes last
    other = listening(theirs, heard)
    await wait_until(lambda: Finished() in heard.calls)
    assert heard.calls == [*(carried(number) for number in range(count - 2)), Finished()]
    assert told == []
    link.close()
    other.close()
    assert open_descriptors() == before


async def test_what_waits_for_a_peer_that_dies_leaks_nothing(memory: int) -> None:
    before = open_descriptors()
    ours, theirs = datagram_pair()
    heard = Heard()
    link = listening(ours, heard)
    fill(link, memory)
    told: list[bool] = []
    link.when_sent(lambda: told.append(True))
    theirs.close()
    await wait_until(lambda: heard.calls)
    link.send(Finished(), (memory,))
    assert heard.calls == ["closed"]
    assert told == []
    assert not link.is_full
    assert open_descriptors() == before


async def test_what_a_dead_peer_had_sent_comes_first_with_its_descriptors(heard: Heard, memory: int) -> None:
    before = open_descriptors()
    ours, theirs = datagram_pair()
    peer, link = listening(theirs, Heard()), listening(ours, heard)
    link.send(Adopted(HandOverId(9)))  # that it has not read
    sent = [carried(number, b"state") for number in range(20)]
    for message in sent:
        peer.send(message, (memory,))
    peer.close()
    await wait_until(lambda: "closed" in heard.calls)
    assert heard.calls == [*sent, "closed"]
    assert heard.inodes == [[os.fstat(memory).st_ino]] * 20
    assert open_descriptors() == before


async def test_what_is_no_message_is_logged_its_descriptors_closed_and_the_next_is_read(
    heard: Heard, memory: int, caplog: pytest.LogCaptureFixture
) -> None:
    before = open_descriptors()
    ours, theirs = datagram_pair()
    link = listening(ours, heard)
    socket.send_fds(theirs, [b"\xc1"], [memory, memory])
    theirs.send(encode(Finished()))
    await wait_until(lambda: heard.calls)
    assert heard.calls == [Finished()]
    assert "move: 1 bytes that are no message of a move" in caplog.text
    link.close()
    theirs.close()
    assert open_descriptors() == before


async def test_what_is_too_long_is_refused_and_the_link_goes_on(heard: Heard, memory: int) -> None:
    before = open_descriptors()
    ours, theirs = datagram_pair()
    link, other = listening(ours, Heard()), listening(theirs, heard)
    with pytest.raises(MoveError):
        link.send(Copy(b"room", bytes(MAX_MESSAGE_BYTES)), (memory,))
    link.send(Finished())
    await wait_until(lambda: heard.calls == [Finished()])
    link.close()
    other.close()
    assert open_descriptors() == before


async def test_without_a_descriptor_for_a_copy_that_message_is_not_sent_and_the_others_are(
    heard: Heard, memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_descriptors()
    ours, theirs = datagram_pair()
    link = listening(ours, Heard())
    count = fill(link, memory)
    dup, copies = os.dup, [memory]

    def one_more(fd: int) -> int:
        if not copies:
            raise OSError("no descriptor left")
        copies.pop()
        return dup(fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "dup", one_more)
        with pytest.raises(OSError, match="no descriptor left"):
            link.send(carried(count), (memory, memory))  # the first copy can be had
    link.send(Finished())
    other = listening(theirs, heard)
    await wait_until(lambda: Finished() in heard.calls)
    assert heard.calls == [*(carried(number) for number in range(count)), Finished()]
    link.close()
    other.close()
    assert open_descriptors() == before


async def test_who_closes_when_all_is_sent_has_sent_all(heard: Heard, memory: int) -> None:
    ours, theirs = datagram_pair()
    link = listening(ours, Heard())
    count = fill(link, memory)
    link.send(Finished())
    link.when_sent(link.close)
    other = listening(theirs, heard)
    await wait_until(lambda: "closed" in heard.calls)
    assert heard.calls == [*(carried(number) for number in range(count)), Finished(), "closed"]
    assert link.is_closed
    assert other.is_closed


async def test_while_the_kernel_takes_no_descriptor_the_link_waits_and_does_not_spin(heard: Heard, memory: int) -> None:
    ours, theirs = datagram_pair()
    crowded = Crowded(fileno=ours.detach())
    link, other = listening(crowded, Heard()), listening(theirs, heard)
    sent = [carried(number, b"state") for number in range(3)]
    for message in sent:
        link.send(message, (memory,))
    await loop_turns(500)
    assert heard.calls == []
    assert 1 <= crowded.refused < 100
    crowded.is_crowded = False
    await wait_until(lambda: len(heard.calls) == len(sent))
    assert heard.calls == sent
    assert heard.inodes == [[os.fstat(memory).st_ino]] * len(sent)
    link.close()
    other.close()


async def test_who_closes_while_the_kernel_takes_no_descriptor_tries_no_more_and_leaks_nothing(
    heard: Heard, memory: int
) -> None:
    failed: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context))
    before = open_descriptors()
    ours, theirs = datagram_pair()
    crowded = Crowded(fileno=ours.detach())
    link = listening(crowded, heard)
    link.send(carried(0, b"state"), (memory,))
    await wait_until(lambda: crowded.refused > 1)
    link.close()
    theirs.close()
    refused, again = crowded.refused, link._datagrams._again
    assert again is not None
    assert again.cancelled()
    await loop_turns()
    assert (open_descriptors(), heard.calls, crowded.refused, failed) == (before, [], refused, [])

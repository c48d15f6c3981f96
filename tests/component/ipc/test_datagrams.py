"""Whole datagrams with descriptors beside them: in order, bounded in each turn, to the last word of who dies."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import threading
from collections.abc import Iterator

import pytest
from support.waiting import loop_turns, wait_until

from stickygw.ipc.datagrams import MAX_DESCRIPTORS, MAX_MESSAGES_PER_WAKE, Datagrams, datagram_pair

MAX_BYTES = 4096


class Heard:
    """What came over one end, and how many descriptors were with each."""

    def __init__(self) -> None:
        self.data: list[bytes] = []
        self.fds: list[list[int]] = []
        self.ends = 0

    def datagram(self, data: bytes, fds: list[int]) -> None:
        self.data.append(data)
        self.fds.append(fds)

    def closed(self) -> None:
        self.ends += 1

    def close_fds(self) -> None:
        while self.fds:
            for fd in self.fds.pop():
                os.close(fd)


@pytest.fixture
def heard() -> Iterator[Heard]:
    heard = Heard()
    yield heard
    heard.close_fds()


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def listening(sock: socket.socket, heard: Heard) -> Datagrams:
    return Datagrams(sock, max_bytes=MAX_BYTES, on_datagram=heard.datagram, on_closed=heard.closed)


def fill(datagrams: Datagrams) -> int:
    """Send until nothing fits; how many did."""
    sent = 0
    while datagrams.send(b"%d" % sent):
        sent += 1
    return sent


def read_all(sock: socket.socket) -> int:
    """Read what has come, as a peer that is no loop's; how many."""
    sock.setblocking(False)
    count = 0
    try:
        while sock.recv(MAX_BYTES):
            count += 1
    except BlockingIOError:
        pass
    return count


async def test_datagrams_come_whole_and_in_order(heard: Heard) -> None:
    ours, theirs = datagram_pair()
    one, other = listening(ours, Heard()), listening(theirs, heard)
    sent = [bytes([number]) * (1 + 17 * number) for number in range(200)]
    for data in sent:
        assert one.send(data)
        await asyncio.sleep(0)
    await wait_until(lambda: len(heard.data) == len(sent))
    assert heard.data == sent
    one.close()
    other.close()


async def test_descriptors_come_beside_their_own_datagram_and_no_child_inherits_them(heard: Heard) -> None:
    ours, theirs = datagram_pair()
    one, other = listening(ours, Heard()), listening(theirs, heard)
    memories = [os.memfd_create(f"memory {number}") for number in range(MAX_DESCRIPTORS)]
    for count in (0, 2, 1, 0, 2):
        assert one.send(b"%d" % count, memories[:count])
    await wait_until(lambda: len(heard.data) == 5)
    assert [(int(data), len(fds)) for data, fds in zip(heard.data, heard.fds, strict=True)] == [
        *((0, 0), (2, 2), (1, 1), (0, 0), (2, 2))
    ]
    assert [os.fstat(fd).st_ino for fd in heard.fds[1]] == [os.fstat(fd).st_ino for fd in memories]  # in order
    assert not any(os.get_inheritable(fd) for fds in heard.fds for fd in fds)
    assert all(stat.S_ISREG(os.fstat(fd).st_mode) for fd in memories)  # ours are still ours
    for fd in memories:
        os.close(fd)
    one.close()
    other.close()


async def test_a_full_socket_takes_nothing_more_and_says_when_it_does(heard: Heard) -> None:
    ours, theirs = datagram_pair()
    one = listening(ours, Heard())
    memory = os.memfd_create("memory")
    sent = fill(one)
    before = open_descriptors()
    assert not one.send(b"one more", [memory])
    assert open_descriptors() == before
    told: list[bool] = []
    one.wait_writable(lambda: told.append(one.send(b"after", [memory])))
    await loop_turns()
    assert told == []
    assert read_all(theirs) == sent
    await wait_until(lambda: told == [True])
    data, fds, *_ = socket.recv_fds(theirs, MAX_BYTES, 2)
    assert (data, len(fds)) == (b"after", 1)
    await loop_turns()
    assert told == [True]  # once
    for fd in (*fds, memory):
        os.close(fd)
    one.close()
    theirs.close()


async def test_whoever_waits_is_not_called_after_close() -> None:
    ours, theirs = datagram_pair()
    one = listening(ours, Heard())
    fill(one)
    told: list[str] = []
    one.wait_writable(lambda: told.append("before"))
    one.close()
    one.wait_writable(lambda: told.append("after"))
    read_all(theirs)
    await loop_turns()
    assert told == []
    assert not one.send(b"late")
    theirs.close()


async def test_a_busy_peer_leaves_the_loop_its_turns(heard: Heard) -> None:
    ours, theirs = datagram_pair()
    one, other = listening(ours, Heard()), listening(theirs, heard)
    sent = fill(one)
    assert sent > MAX_MESSAGES_PER_WAKE
    seen: list[int] = []
    while len(heard.data) < sent:
        await asyncio.sleep(0)
        seen.append(len(heard.data))
    assert max(after - before for before, after in zip([0, *seen], seen, strict=False)) <= MAX_MESSAGES_PER_WAKE
    one.close()
    other.close()


async def test_what_a_peer_said_before_its_death_comes_before_its_end(heard: Heard) -> None:
    ours, theirs = datagram_pair()
    one = listening(ours, heard)
    assert one.send(b"that the peer never read")  # so that its end is a reset
    memory = os.memfd_create("memory")
    for number in range(3 * MAX_MESSAGES_PER_WAKE):
        socket.send_fds(theirs, [b"%d" % number], [memory] * (number % 3))
    theirs.close()
    os.close(memory)
    await wait_until(lambda: heard.ends)
    assert [int(data) for data in heard.data] == list(range(3 * MAX_MESSAGES_PER_WAKE))
    assert [len(fds) for fds in heard.fds] == [number % 3 for number in range(3 * MAX_MESSAGES_PER_WAKE)]
    assert one.is_closed
    one.close()
    await asyncio.sleep(0)
    assert heard.ends == 1


async def test_who_closes_hears_of_no_end_and_keeps_no_descriptor(heard: Heard) -> None:
    before = open_descriptors()
    ours, theirs = datagram_pair()
    memory = os.memfd_create("memory")
    one, other = listening(ours, Heard()), listening(theirs, heard)
    for _ in range(10):
        assert one.send(b"unread", [memory])
    other.close()
    other.close()
    one.close()
    os.close(memory)
    await asyncio.sleep(0)
    assert heard.data == []
    assert heard.ends == 0
    assert open_descriptors() == before


async def test_who_closes_within_a_datagram_gets_no_other(heard: Heard) -> None:
    ours, theirs = datagram_pair()

    def first_and_last(data: bytes, fds: list[int]) -> None:
        heard.datagram(data, fds)
        one.close()

    one = Datagrams(ours, max_bytes=MAX_BYTES, on_datagram=first_and_last, on_closed=heard.closed)
    for data in (b"first", b"second"):
        theirs.send(data)
    await wait_until(lambda: heard.data)
    await asyncio.sleep(0)
    theirs.close()
    assert heard.data == [b"first"]
    assert heard.ends == 0


async def test_a_thread_may_send_beside_the_loop_until_it_is_closed(heard: Heard) -> None:
    ours, theirs = datagram_pair()
    one, other = listening(ours, Heard()), listening(theirs, heard)
    sent = [0, 0]
    stop = threading.Event()

    def keep_sending() -> None:
        while not stop.is_set():
            sent[0] += one.send_from_thread(b"thread %d" % sent[0])

    thread = threading.Thread(target=keep_sending)
    thread.start()
    while min(sent) < 200:
        sent[1] += one.send(b"loop %d" % sent[1])
        await asyncio.sleep(0)
    stop.set()
    await asyncio.to_thread(thread.join)
    await wait_until(lambda: len(heard.data) == sum(sent))
    for place, name in enumerate((b"thread", b"loop")):
        assert [data for data in heard.data if data.startswith(name)] == [
            b"%s %d" % (name, number) for number in range(sent[place])
        ]
    one.close()
    assert not one.send_from_thread(b"late")
    other.close()


async def test_that_the_peer_is_gone_can_be_seen_though_the_loop_has_not_heard_of_it() -> None:
    ours, theirs = datagram_pair()
    one = listening(ours, Heard())
    assert not one.is_peer_gone()
    one.send(b"unread")
    theirs.send(b"unread too")
    assert not one.is_peer_gone()
    theirs.close()
    assert one.is_peer_gone()
    assert not one.is_closed
    one.close()
    assert one.is_peer_gone()

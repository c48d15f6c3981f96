"""A worker's link outlives the primary at its other end."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from support.waiting import wait_until

from stickygw.ipc.lasting_link import LastingLink
from stickygw.ipc.link import Link, link_pair
from stickygw.wire.link import Message, Ready, Resize


class Ends:
    """The worker's lasting link, and the primaries at the other end, one after the other."""

    def __init__(self, at_end: ExitStack) -> None:
        self._at_end = at_end
        self.heard: list[Message | str] = []
        self.said: list[Message] = []
        ours, theirs = link_pair()
        self.primary: socket.socket | Link = ours
        at_end.callback(ours.close)
        self.link = LastingLink(theirs, on_message=self._hear, on_closed=lambda: self.heard.append("closed"))
        at_end.callback(lambda: self.link._link.close())

    def next_primary(self) -> Link:
        """Attach to another one; its end."""
        ours, theirs = link_pair()
        primary = Link(ours, on_message=lambda message, fd: self.said.append(message), on_closed=lambda: None)
        self._at_end.callback(primary.close)
        link = Link(theirs, on_message=self._hear, on_closed=lambda: self.heard.append("closed"))
        self._at_end.callback(link.close)
        self.link.attach(link)
        return primary

    def fill(self) -> None:
        while self.link.send(Resize(0)):
            pass

    async def kill_primary(self) -> None:
        before = self.heard.count("closed")
        self.primary.close()
        await wait_until(lambda: self.heard.count("closed") > before)
        assert self.link.is_closed

    def _hear(self, message: Message, fd: int) -> None:
        self.heard.append(message)


@pytest.fixture
def at_end() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


async def test_nothing_can_be_sent_without_a_primary_and_again_to_the_next(at_end: ExitStack):
    ends = Ends(at_end)
    await ends.kill_primary()
    assert not ends.link.send(Ready())
    assert not ends.link.send_from_thread(Ready())
    primary = ends.next_primary()
    assert not ends.link.is_closed
    assert ends.link.send(Ready())
    assert ends.link.send_from_thread(Resize(3))
    await wait_until(lambda: ends.said == [Ready(), Resize(3)])
    assert primary.send(Resize(2))
    await wait_until(lambda: ends.heard == ["closed", Resize(2)])


async def test_who_waited_when_the_primary_died_is_called_for_the_next(at_end: ExitStack):
    ends = Ends(at_end)
    called: list[str] = []
    ends.fill()
    for name in ("first", "second"):
        ends.link.wait_writable(lambda name=name: called.append(name))  # type: ignore[misc]
    await ends.kill_primary()
    ends.link.wait_writable(lambda: called.append("third"))
    assert called == []
    ends.next_primary()
    await wait_until(lambda: sorted(called) == ["first", "second", "third"])


async def test_who_waits_only_while_there_is_none_is_called_once(at_end: ExitStack):
    ends = Ends(at_end)
    await ends.kill_primary()
    called: list[bool] = []
    ends.link.wait_writable(lambda: called.append(ends.link.send(Ready())))
    ends.next_primary()
    await wait_until(lambda: called)
    await wait_until(lambda: ends.said == [Ready()])
    assert called == [True]


async def test_who_waits_again_while_it_is_called_is_called_again(at_end: ExitStack):
    ends = Ends(at_end)
    called: list[int] = []

    def again() -> None:
        called.append(len(called))
        if len(called) < 3:
            ends.link.wait_writable(again)

    ends.link.wait_writable(again)
    await wait_until(lambda: called == [0, 1, 2])


async def test_one_primary_after_the_other_is_outlived(at_end: ExitStack):
    ends = Ends(at_end)
    for count in range(1, 4):
        await ends.kill_primary()
        ends.primary = ends.next_primary()
        assert ends.heard.count("closed") == count

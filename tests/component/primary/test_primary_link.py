"""All who wait for a full link are called when it takes messages again."""

from __future__ import annotations

import pytest
from support.waiting import wait_until

from stickygw.ipc.link import Link, link_pair
from stickygw.types import HandOverId
from stickygw.wire.link import Ended


@pytest.mark.parametrize("is_closed_by_the_first", [False, True])
async def test_all_who_wait_are_called_in_order_unless_the_link_is_closed(is_closed_by_the_first: bool):
    ours, theirs = link_pair()
    theirs.setblocking(False)
    link = Link(ours, on_message=lambda message, fd: None, on_closed=lambda: None)
    called: list[str] = []
    while link.send(Ended([HandOverId(1)])):
        pass

    def first() -> None:
        called.append("first")
        if is_closed_by_the_first:
            link.close()

    link.wait_writable(lambda: called.append("second"))
    link.wait_writable(first)  # whoever waits last is called first
    while True:
        try:
            theirs.recv(1 << 17)
        except BlockingIOError:
            break
    await wait_until(lambda: called)  # all are called in one turn
    assert called == (["first"] if is_closed_by_the_first else ["first", "second"])
    link.close()
    theirs.close()

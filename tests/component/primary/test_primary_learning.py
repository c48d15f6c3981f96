"""Ids that a worker registers: in the table before it is told so, and told in order whatever its link takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from primary_rig import Rig, running_rig
from supervised_rig import supervised
from support.waiting import wait_until

from stickygw.primary import learning
from stickygw.primary.learning import Learning
from stickygw.types import Slot, WorkerId
from stickygw.wire.link import Learn, Learnt

WORKER = WorkerId(1)
KEY = b"header:x-id\x00a"


class Fixture:
    """`Learning` on a rig's router, with a link that may be full."""

    def __init__(self, rig: Rig) -> None:
        self.router = rig.router
        self.counters = rig.counters
        self.is_full = False
        self.sent: list[Learnt] = []
        self.waiting: list[Callable[[], None]] = []
        self.learning = Learning(rig.router, send=self._send, wait_writable=self._wait_writable, counters=rig.counters)

    def _send(self, worker: WorkerId, message: Learnt) -> bool:
        if not self.is_full:
            self.sent.append(message)
        return not self.is_full

    def _wait_writable(self, worker: WorkerId, callback: Callable[[], None]) -> None:
        self.waiting.append(callback)

    def learn(self, *tickets: int) -> None:
        for ticket in tickets:
            self.learning.received(WORKER, Slot(1), Learn(ticket, [KEY]))

    def drain(self) -> None:
        """The link takes messages again."""
        self.is_full = False
        waiting, self.waiting = self.waiting, []
        for callback in waiting:
            callback()


async def test_key_is_known_when_its_worker_is_told(tmp_path: Path) -> None:
    async with running_rig(tmp_path) as rig:
        fixture = Fixture(rig)
        fixture.learn(7)
        assert fixture.sent == [Learnt(7)]
        assert fixture.router.knows(KEY, 0.0)
        assert fixture.counters.value("ids_learnt") == 1


async def test_words_that_a_full_link_does_not_take_follow_in_order(tmp_path: Path) -> None:
    async with running_rig(tmp_path) as rig:
        fixture = Fixture(rig)
        fixture.is_full = True
        fixture.learn(1, 2)
        assert len(fixture.waiting) == 1

        fixture.drain()
        fixture.learn(3)
        assert fixture.sent == [Learnt(1), Learnt(2), Learnt(3)]


async def test_words_that_wait_are_bounded_and_those_for_a_worker_that_is_gone_forgotten(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(learning, "MAX_WAITING", 2)
    async with running_rig(tmp_path) as rig:
        fixture = Fixture(rig)
        fixture.is_full = True
        fixture.learn(1, 2, 3)
        fixture.drain()
        assert fixture.sent == [Learnt(2), Learnt(3)]

        fixture.is_full = True
        fixture.learn(4)
        fixture.learning.gone(WORKER)
        fixture.drain()
        assert fixture.sent == [Learnt(2), Learnt(3)]


LEARN = """
    say(Ready())
    if configure.slot == 1:
        say(Learn(5, [b"header:x-id\\x00a"]))
    while data := link.recv(1 << 17):
        match decode(data):
            case Learnt(ticket):
                note("learnt", ticket)
            case Stop() | Drain():
                sys.exit(0)
"""


async def test_supervisor_brings_the_ids_of_workers_and_the_word_back(tmp_path: Path) -> None:
    async with supervised(tmp_path, LEARN) as gateway:
        await wait_until(lambda: gateway.notes() == ["1.1 learnt 5"])
        assert gateway.rig.counters.value("ids_learnt") == 1
        await gateway.stop()

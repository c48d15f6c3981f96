"""The door by which workers of a killed primary come in, what they say there, and what is counted of them."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from primary_rig import Rig, head_of
from support.waiting import loop_turns, wait_until

from stickygw.ipc.link import Link, link_pair
from stickygw.ipc.peer import Peer
from stickygw.primary import adoption
from stickygw.primary.adoption import MAX_LISTENERS, AdoptionDoor, FoundWorker
from stickygw.types import HandOverId, Slot, WorkerId
from stickygw.wire.link import Ended, Heartbeat, Hold, Holdings, Message, Orphan, Ready, Taken

MakeRig = Callable[..., Awaitable[Rig]]

ORPHAN = Orphan(Slot(1), 3, 2, "app:app", {}, is_draining=False)
BEAT = Heartbeat(0.0, 1, 1, 0, 0, 0, 0.0, 1 << 20, {})


class Door:
    """An open door, and those who have said who they are."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "workers"
        self.known: list[FoundWorker] = []
        self.door = AdoptionDoor(self.path, self.known.append)
        self._knocking: list[Link] = []

    def knock(self) -> Link:
        """A worker's end."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.connect(str(self.path))
        sock.setblocking(False)
        self.is_let_go = False
        link = Link(sock, on_message=lambda message, fd: None, on_closed=self._let_go)
        self._knocking.append(link)
        return link

    async def wait_let_go(self) -> None:
        await wait_until(lambda: self.is_let_go)

    def _let_go(self) -> None:
        self.is_let_go = True

    def close(self) -> None:
        self.door.close()
        for worker in self.known:
            worker.close()
        for link in self._knocking:
            link.close()


@pytest.fixture
def door(short_dir: Path) -> Iterator[Callable[[], Door]]:
    """Opens one; the loop must run."""
    opened: list[Door] = []

    def open_one() -> Door:
        door = Door(short_dir)
        opened.append(door)
        door.door.open()
        return door

    yield open_one
    assert not any(door.path.exists() for door in opened)


@asynccontextmanager
async def opened(make: Callable[[], Door]) -> AsyncIterator[Door]:
    door = make()
    had = len(os.listdir("/proc/self/fd"))
    try:
        yield door
    finally:
        door.close()
        await loop_turns()
        assert len(os.listdir("/proc/self/fd")) < had, "a descriptor is left"


@contextmanager
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


# --- the door ---------------------------------------------------------------------------------------------------------


async def test_a_worker_is_known_once_it_has_said_who_it_is(door: Callable[[], Door]):
    async with opened(door) as at:
        with listening() as listener:
            link = at.knock()
            assert link.send(Hold(0), listener.fileno())
            assert link.send(Holdings([(HandOverId(7), b"key"), (HandOverId(8), None)], []))
            assert link.send(Holdings([(HandOverId(9), None)], []))
            assert link.send(Holdings([], [b"id"]))
            await loop_turns()
            assert at.known == []
            assert link.send(ORPHAN)
            await wait_until(lambda: at.known)
            [worker] = at.known
            assert (worker.pid, worker.known) == (os.getpid(), ORPHAN)
            assert worker.connections == [(7, b"key"), (8, None), (9, None)]
            assert worker.learnt == [b"id"]
            assert worker.listeners[0].getsockname() == listener.getsockname()
            worker.close()
            assert worker.listeners == {}
            await at.wait_let_go()


async def test_a_process_of_another_user_is_not_let_in(door: Callable[[], Door], monkeypatch: pytest.MonkeyPatch):
    async with opened(door) as at:
        monkeypatch.setattr(adoption, "peer_of", lambda sock: Peer(4711, os.geteuid() + 1))
        link = at.knock()
        link.send(ORPHAN)
        await at.wait_let_go()
        assert at.known == []


async def test_what_does_not_belong_before_the_name_is_dropped_with_its_descriptor(door: Callable[[], Door]):
    async with opened(door) as at:
        with listening() as listener:
            link = at.knock()
            for message in (Ready(), Hold(-1), Hold(MAX_LISTENERS), Taken([HandOverId(1)]), Hold(0), Hold(0)):
                assert link.send(message, listener.fileno())
            assert link.send(Hold(1))  # without one
            assert link.send(ORPHAN)
            await wait_until(lambda: at.known)
            assert list(at.known[0].listeners) == [0]


async def test_what_is_said_behind_the_name_waits_for_who_takes_it_over(door: Callable[[], Door]):
    async with opened(door) as at:
        link = at.knock()
        said: list[Message] = [BEAT, Ended([HandOverId(7)]), Ended([HandOverId(8)])]
        for message in (ORPHAN, *said):
            assert link.send(message)
        await wait_until(lambda: at.known)
        await loop_turns()
        heard: list[Message | str] = []
        at.known[0].listen(lambda message, fd: heard.append(message), lambda: heard.append("closed"))
        assert heard == []
        await loop_turns()
        assert heard == said
        link.send(BEAT)
        link.close()
        await wait_until(lambda: heard[-1] == "closed")
        assert heard == [*said, BEAT, "closed"]


async def test_a_worker_that_ends_after_it_said_who_it_is_is_told_of_behind_what_it_said(door: Callable[[], Door]):
    async with opened(door) as at:
        link = at.knock()
        assert link.send(ORPHAN)
        assert link.send(BEAT)
        link.close()
        await wait_until(lambda: at.known and at.known[0].is_lost)
        heard: list[Message | str] = []
        at.known[0].listen(lambda message, fd: heard.append(message), lambda: heard.append("closed"))
        await loop_turns()
        assert heard == [BEAT, "closed"]


async def test_a_worker_that_dies_half_way_is_forgotten(door: Callable[[], Door]):
    async with opened(door) as at:
        link = at.knock()
        assert link.send(Holdings([(HandOverId(7), None)], []))
        await wait_until(lambda: at.door._coming)
        link.close()
        await wait_until(lambda: not at.door._coming)
        assert at.known == []


async def test_a_closed_door_lets_go_who_has_not_said_who_it_is(door: Callable[[], Door]):
    async with opened(door) as at:
        at.knock()
        await wait_until(lambda: at.door._coming)
        at.door.close()
        await at.wait_let_go()
        assert not at.path.exists()
        at.door.open()  # as after an upgrade that failed
        at.knock().send(ORPHAN)
        await wait_until(lambda: at.known)


async def test_the_door_is_this_user_s_alone_and_takes_the_place_of_one_that_was_left(short_dir: Path):
    left = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    left.bind(str(short_dir / "workers"))
    left.close()
    at = Door(short_dir)
    at.door.open()
    try:
        assert at.path.stat().st_mode & 0o777 == 0o600
    finally:
        at.close()


# --- hand-overs -------------------------------------------------------------------------------------------------------

KEY = b"header:x-room\x00kitchen"


class Adopted:
    """The primary's hand-overs, and workers from before that have connections."""

    def __init__(self, rig: Rig) -> None:
        self.hand_overs = rig.hand_overs
        self.rig = rig
        self._ids = iter(range(100, 200))

    def adopt(self, slot: int, *held: tuple[int, bytes | None], is_draining: bool = False) -> WorkerId:
        ours, theirs = link_pair()
        link = Link(ours, on_message=lambda message, fd: None, on_closed=lambda: None)
        self.rig._to_close += [link, theirs]
        worker = WorkerId(next(self._ids))
        connections = [(HandOverId(id), key) for id, key in held]
        self.hand_overs.takers.adopt(worker, Slot(slot), link, connections, is_draining=is_draining)
        if not is_draining:
            self.hand_overs.worker_is_up(worker, Slot(slot), link)
        return worker

    def end(self, worker: WorkerId, *ids: int) -> None:
        self.hand_overs.received(worker, Ended([HandOverId(id) for id in ids]))

    def slot_of_key(self) -> int | None:
        """Where the key in use leads; None: nobody has it."""
        return self.rig.table.get_live(KEY)


async def adopting(make_rig: MakeRig) -> Adopted:
    return Adopted(await make_rig(slots=2, keys=("header:x-room",)))


async def test_adopted_connections_and_keys_are_counted_until_they_end(make_rig: MakeRig):
    at = await adopting(make_rig)
    worker = at.adopt(1, (7, KEY), (8, None), (9, KEY))
    assert (at.hand_overs.connections_of(worker), at.hand_overs.connections, at.hand_overs.underway) == (3, 3, 0)
    assert at.rig.view(1).connections == 3
    assert at.slot_of_key() == 1
    at.end(worker, 7, 8)
    assert at.slot_of_key() == 1
    at.end(worker, 9)
    assert at.slot_of_key() is None
    assert (at.hand_overs.connections, at.rig.view(1).connections) == (0, 0)


async def test_a_newcomer_with_the_key_of_an_adopted_connection_reaches_its_slot(make_rig: MakeRig):
    at = await adopting(make_rig)
    workers = [at.rig.slot_up(0), at.rig.slot_up(1)]
    at.adopt(1, (7, KEY), is_draining=True)
    for count in (1, 2, 3):
        await at.rig.client(head_of("/", "X-Room: kitchen"))
        await workers[1].wait_offers(count)
    assert workers[0].offers == []


@pytest.mark.parametrize("is_draining_first", [False, True])
async def test_a_connection_that_moved_while_no_primary_lived_is_its_new_worker_s(
    make_rig: MakeRig, is_draining_first: bool
):
    at = await adopting(make_rig)
    if is_draining_first:
        old = at.adopt(0, (7, KEY), (8, None), is_draining=True)
        new = at.adopt(0, (7, KEY))
    else:
        new = at.adopt(0, (7, KEY))
        old = at.adopt(0, (7, KEY), (8, None), is_draining=True)
    of = at.hand_overs.connections_of
    assert (of(old), of(new), at.hand_overs.connections) == (1, 1, 2)
    at.end(old, 7, 8)
    assert (of(old), of(new)) == (0, 1)
    assert at.slot_of_key() == 0
    at.end(new, 7)
    assert at.slot_of_key() is None


async def test_what_a_draining_one_had_when_it_died_may_still_have_come_to_another(make_rig: MakeRig):
    at = await adopting(make_rig)
    old = at.adopt(0, (7, KEY), is_draining=True)
    at.hand_overs.worker_is_down(old)
    assert at.slot_of_key() == 0
    new = at.adopt(1, (7, KEY))
    assert (at.hand_overs.connections_of(new), at.slot_of_key()) == (1, 1)
    at.end(new, 7)
    assert at.slot_of_key() is None


async def test_who_was_adopted_and_dies_leaves_no_count_and_no_key(make_rig: MakeRig):
    at = await adopting(make_rig)
    worker = at.adopt(1, (7, KEY), (8, None))
    at.hand_overs.worker_is_down(worker)
    assert at.hand_overs.connections == 0
    assert at.slot_of_key() is None
    assert not at.rig.view(1).is_ready

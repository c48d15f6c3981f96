"""A connection that has moved is its new worker's: it is counted there, and its key stays alive, whoever dies when."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from primary_rig import Client, FakeWorker, Rig, head_of
from support.waiting import wait_until

from stickygw.primary import takers
from stickygw.types import Slot
from stickygw.wire.link import Offer

MakeRig = Callable[..., Awaitable[Rig]]

KITCHEN = head_of("/", "X-Room: kitchen")
KEY = b"header:x-room\x00kitchen"


class Move:
    """A slot whose worker `old` has served somebody in the kitchen, and was told to give what it has to `new`."""

    def __init__(self, rig: Rig, old: FakeWorker, new: FakeWorker, client: Client, offer: Offer) -> None:
        self.rig = rig
        self.old = old
        self.new = new
        self.client = client
        self.offer = offer

    @property
    def counts(self) -> tuple[int, int, int]:
        """Of the old worker, of the new one, and of all."""
        of = self.rig.hand_overs.connections_of
        return of(self.old.id), of(self.new.id), self.rig.hand_overs.connections

    @property
    def is_key_in_use(self) -> bool:
        """Whether the key has a connection: if not, it is forgotten long before."""
        return self.rig.table.get(KEY, asyncio.get_running_loop().time() + 100) == 0

    async def wait_counts(self, *counts: int) -> None:
        await wait_until(lambda: self.counts == counts)

    async def wait_down(self, worker: FakeWorker) -> None:
        """Return when the primary knows of its end."""
        await wait_until(lambda: worker.id not in self.rig.hand_overs.takers._all)


async def begin_move(make_rig: MakeRig, *, is_taken: bool = True) -> Move:
    rig = await make_rig(slots=1, keys=("header:x-room",))
    old = rig.slot_up(0)
    client = await rig.client(KITCHEN)
    [offer] = await old.wait_offers(1)
    assert old.read(offer) == KITCHEN
    if is_taken:
        old.take(offer)
        await rig.wait_counted("hand_overs", "taken")
    new = rig.slot_up(0)
    rig.hand_overs.takers.begin_to_move(old.id)
    move = Move(rig, old, new, client, offer)
    assert move.counts == (1, 0, 1)
    return move


async def test_who_has_moved_is_counted_at_the_new_worker_until_its_end(make_rig: MakeRig):
    move = await begin_move(make_rig)
    move.new.adopt(move.offer, of=move.old)
    await move.wait_counts(0, 1, 1)
    assert move.rig.view(0).connections == 1
    move.new.end(move.offer)
    await move.wait_counts(0, 0, 0)
    assert move.rig.view(0).connections == 0
    assert await move.client.read_to_end() == b""
    assert not move.is_key_in_use


async def test_the_key_of_one_that_has_moved_outlives_the_old_worker_and_ends_with_it(make_rig: MakeRig):
    move = await begin_move(make_rig)
    move.new.adopt(move.offer, of=move.old)
    await move.wait_counts(0, 1, 1)
    move.old.die()
    await move.wait_down(move.old)
    assert move.counts == (0, 1, 1)
    assert move.is_key_in_use
    move.new.end(move.offer)
    await move.wait_counts(0, 0, 0)
    assert not move.is_key_in_use


async def test_who_was_adopted_keeps_its_key_though_its_old_worker_is_gone_before_that_is_told(make_rig: MakeRig):
    move = await begin_move(make_rig)
    move.new.sockets[move.offer.id] = move.old.sockets[move.offer.id].dup()
    move.old.die()
    await move.wait_down(move.old)
    assert move.counts == (0, 0, 0)
    assert move.is_key_in_use
    move.new.adopt(move.offer, of=move.new)
    await move.wait_counts(0, 1, 1)
    assert move.is_key_in_use
    assert not move.rig.hand_overs.takers._left
    move.new.end(move.offer)
    await move.wait_counts(0, 0, 0)
    assert not move.is_key_in_use


async def test_what_nobody_adopts_of_a_worker_that_died_in_a_move_is_over_after_a_while(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(takers, "LEFT_SECONDS", 0.05)
    move = await begin_move(make_rig)
    move.old.die()
    await move.wait_down(move.old)
    assert move.is_key_in_use
    await wait_until(lambda: not move.is_key_in_use)
    assert not move.rig.hand_overs.takers._left
    assert move.rig.counters.value("moves", "lost") == 1


async def test_who_comes_within_that_while_is_not_over_at_its_end(make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(takers, "LEFT_SECONDS", 0.05)
    move = await begin_move(make_rig)
    move.new.sockets[move.offer.id] = move.old.sockets[move.offer.id].dup()
    move.old.die()
    await move.wait_down(move.old)
    over = asyncio.get_running_loop().time() + 0.1
    move.new.adopt(move.offer, of=move.new)
    await wait_until(lambda: asyncio.get_running_loop().time() > over)
    assert move.counts == (0, 1, 1)
    assert move.is_key_in_use


async def test_who_moves_before_it_is_told_that_it_was_taken_is_taken_and_moved_once(make_rig: MakeRig):
    move = await begin_move(make_rig, is_taken=False)
    move.new.adopt(move.offer, of=move.old)
    await move.wait_counts(0, 1, 1)
    assert move.rig.counters.value("hand_overs", "taken") == 1
    move.old.take(move.offer)
    move.old.die()
    await move.wait_down(move.old)  # and so all that it said is read
    assert move.counts == (0, 1, 1)
    assert move.rig.counters.value("hand_overs", "taken") == 1
    assert move.rig.counters.value("hand_overs", "saved") == 0
    move.new.end(move.offer)
    assert await move.client.read_to_end() == b""  # the primary has let go of its copy


async def test_one_whose_taking_a_dead_worker_never_told_is_counted_where_it_came_and_offered_to_nobody(
    make_rig: MakeRig,
):
    move = await begin_move(make_rig, is_taken=False)
    move.new.sockets[move.offer.id] = move.old.sockets[move.offer.id].dup()
    move.old.die()
    await move.rig.wait_counted("hand_overs", "lost")
    move.new.adopt(move.offer, of=move.new)
    await move.wait_counts(0, 1, 1)
    assert move.new.offers == []
    move.new.end(move.offer)
    await move.wait_counts(0, 0, 0)


async def test_a_new_worker_that_dies_takes_those_along_that_have_moved_to_it(make_rig: MakeRig):
    move = await begin_move(make_rig)
    move.new.adopt(move.offer, of=move.old)
    await move.wait_counts(0, 1, 1)
    move.new.die()
    await move.wait_down(move.new)
    assert await move.client.read_to_end() == b""
    assert move.counts == (0, 0, 0)
    assert not move.is_key_in_use


async def test_a_new_worker_that_dies_before_leaves_those_with_the_old_one_that_had_not_moved(make_rig: MakeRig):
    move = await begin_move(make_rig)
    move.new.die()
    await move.wait_down(move.new)
    assert move.counts == (1, 0, 1)
    assert move.is_key_in_use
    move.old.end(move.offer)
    await move.wait_counts(0, 0, 0)
    assert not move.is_key_in_use


# --- to another slot --------------------------------------------------------------------------------------------------


async def test_a_key_goes_with_its_connection_to_another_slot_and_is_free_at_its_end(make_rig: MakeRig):
    rig = await make_rig(slots=2, keys=("header:x-room",))
    workers = [rig.slot_up(0), rig.slot_up(1)]
    await rig.client(KITCHEN)
    await wait_until(lambda: rig.table.get_live(KEY) is not None)
    at = rig.table.get_live(KEY)
    old, new = workers if at == 0 else workers[::-1]
    [offer] = await old.wait_offers(1)
    assert old.read(offer) == KITCHEN
    old.take(offer)
    await rig.wait_counted("hand_overs", "taken")
    rig.hand_overs.takers.begin_to_move(old.id)
    rig.hand_overs.close_slot(Slot(at or 0))
    new.adopt(offer, of=old)
    await wait_until(lambda: rig.hand_overs.connections_of(new.id) == 1)

    assert rig.hand_overs.takers.moved_from(old.id) == (1, 0)
    assert rig.counters.value("moves", "moved") == 1
    now = asyncio.get_running_loop().time()
    assert rig.table.get(KEY, now + 100) == 1 - (at or 0)
    await rig.client(KITCHEN)
    await new.wait_offers(1)
    new.end(offer)
    await wait_until(lambda: rig.table._live[KEY].taken == {})
    assert rig.table._live[KEY].coming == 1

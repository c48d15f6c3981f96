"""A slot outlives its workers, and the gateway outlives its slots: what becomes of the connections meanwhile."""

from __future__ import annotations

import asyncio
import gc
import os
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path

from primary_rig import FakeWorker, Rig, cookie_for, head_of, running_rig
from support.waiting import wait_until

from stickygw.primary.hand_over import MAX_HOPS
from stickygw.types import Slot
from stickygw.wire.link import DeclineReason, Offer

MakeRig = Callable[..., Awaitable[Rig]]

HEAD = head_of()
KITCHEN = head_of("/", "X-Room: kitchen")
KITCHEN_KEY = b"header:x-room\x00kitchen"
BY_ROOM = ("header:x-room",)


async def offered(rig: Rig, worker: FakeWorker, head: bytes = HEAD) -> Offer:
    """The offer that comes of one more client with this head."""
    before = len(worker.offers)
    await rig.client(head)
    return (await worker.wait_offers(before + 1))[-1]


async def taken(rig: Rig, worker: FakeWorker, head: bytes = HEAD) -> Offer:
    """The same, and the worker has it."""
    before = rig.counters.value("hand_overs", "taken")
    offer = await offered(rig, worker, head)
    worker.take(offer)
    await rig.wait_counted("hand_overs", "taken", before + 1)
    return offer


def paths(worker: FakeWorker) -> list[bytes]:
    return [worker.read(offer).split()[1] for offer in worker.offers]


def slot_of_key(rig: Rig, *, in_seconds: float = 100.0) -> Slot | None:
    """Where the kitchen is then; None: an entry that nobody keeps alive is over."""
    return rig.table.get(KITCHEN_KEY, asyncio.get_running_loop().time() + in_seconds)


# --- a slot's next worker ---------------------------------------------------------------------------------------------


async def test_who_comes_after_a_switch_goes_to_the_new_worker(make_rig: MakeRig):
    rig = await make_rig(slots=1)
    old = rig.slot_up(0)
    await taken(rig, old)
    new = rig.slot_up(0)
    await taken(rig, new)
    assert (len(old.offers), len(new.offers)) == (1, 1)
    assert rig.view(0).connections == 1  # the owner's; the old one's are told in all
    assert (rig.hand_overs.connections_of(old.id), rig.hand_overs.connections_of(new.id)) == (1, 1)
    assert rig.hand_overs.connections == 2


async def test_what_a_retired_worker_says_still_counts(make_rig: MakeRig):
    rig = await make_rig(slots=1, keys=BY_ROOM)
    old = rig.slot_up(0)
    held, offer = await taken(rig, old, KITCHEN), await offered(rig, old, KITCHEN)
    rig.slot_up(0)
    old.take(offer)
    await rig.wait_counted("hand_overs", "taken", 2)
    assert rig.hand_overs.connections_of(old.id) == 2
    old.end(held)
    await wait_until(lambda: rig.hand_overs.connections_of(old.id) == 1)
    assert slot_of_key(rig) == 0
    old.end(offer)
    await wait_until(lambda: rig.hand_overs.connections == 0)
    assert slot_of_key(rig) is None


async def test_what_a_retired_worker_declines_goes_to_its_slots_new_worker(make_rig: MakeRig):
    rig = await make_rig()
    old, other = rig.slot_up(0), rig.slot_up(1)
    offer = await offered(rig, old, head_of("/", cookie_for(0)))
    new = rig.slot_up(0)
    old.decline(offer, DeclineReason.STOPPING)
    [again] = await new.wait_offers(1)
    assert (again.reason, again.cookie_slot) == ("cookie", None)
    assert new.read(again) == head_of("/", cookie_for(0))
    assert other.offers == []


async def test_what_is_declined_while_the_slot_has_no_worker_waits_for_the_next(make_rig: MakeRig):
    rig = await make_rig(slots=2)
    old, other = rig.slot_up(0), rig.slot_up(1)
    offer = await offered(rig, old, head_of("/", cookie_for(0)))
    rig.slot_up(0).die()
    await wait_until(lambda: not rig.view(0).is_ready)
    old.decline(offer, DeclineReason.STOPPING)
    await rig.wait_counted("hand_overs", "queued")
    await rig.slot_up(0).wait_offers(1)
    assert other.offers == []


async def test_one_that_each_worker_of_its_slot_declines_gets_503_in_the_end(make_rig: MakeRig):
    rig = await make_rig(slots=1)
    worker = rig.slot_up(0)
    client = await rig.client(HEAD)
    for _ in range(MAX_HOPS + 1):
        [offer] = await worker.wait_offers(1)
        retired, worker = worker, rig.slot_up(0)
        retired.decline(offer, DeclineReason.STOPPING)
    assert (await client.read_to_end()).startswith(b"HTTP/1.1 503 ")
    assert rig.counters.value("refusals", "too_many_hops") == 1


async def test_what_a_retired_worker_left_unread_goes_to_the_new_one_at_once_and_in_order(make_rig: MakeRig):
    rig = await make_rig(slots=1)
    unread, _ = rig.slot_up_unread(0)
    for number in range(4):
        await rig.client(head_of(f"/{number}"))
        await wait_until(lambda number=number: rig.hand_overs.connections == number + 1)
    new = rig.slot_up(0)
    unread.close()
    await new.wait_offers(4)
    assert paths(new) == [b"/0", b"/1", b"/2", b"/3"]
    assert rig.hand_overs.connections == 4


async def test_the_end_of_a_retired_worker_leaves_its_slot_to_the_new_one(make_rig: MakeRig):
    rig = await make_rig(slots=1, keys=BY_ROOM)
    old = rig.slot_up(0)
    await taken(rig, old, KITCHEN)
    new = rig.slot_up(0)
    held = await taken(rig, new, KITCHEN)
    old.die()
    await wait_until(lambda: rig.hand_overs.connections == 1)
    assert rig.view(0).is_ready
    assert slot_of_key(rig) == 0  # the new one's connection keeps it
    new.end(held)
    await wait_until(lambda: slot_of_key(rig) is None)


async def test_who_waited_for_a_stalled_worker_goes_to_the_next_one_in_order(make_rig: MakeRig):
    rig = await make_rig(slots=1, slot_wait=0.2)
    stalled, _ = rig.slot_up_unread(0)
    await rig.client(head_of("/unanswered"))
    await wait_until(lambda: not rig.view(0).is_ready)
    for number in range(3):
        await rig.client(head_of(f"/{number}"))
        await rig.wait_counted("hand_overs", "queued", number + 1)
    new = rig.slot_up(0)
    assert rig.view(0).is_ready
    stalled.close()
    await new.wait_offers(4)
    assert paths(new) == [b"/0", b"/1", b"/2", b"/unanswered"]


async def test_a_full_link_of_the_worker_before_holds_nobody_up(make_rig: MakeRig):
    rig = await make_rig(slots=1)
    _full, old = rig.slot_up_unread(0, send_buffer=1)
    for number in range(20):
        await rig.client(head_of(f"/{number}"))
        await wait_until(lambda number=number: rig.hand_overs.connections == number + 1)
    sent = rig.hand_overs.connections_of(old)
    assert sent < 20
    new = rig.slot_up(0, send_buffer=1)  # nor is it forgotten that this one's is full
    await new.wait_offers(20 - sent)
    assert paths(new) == [b"/%d" % number for number in range(sent, 20)]


# --- slots that come and go -------------------------------------------------------------------------------------------


async def test_who_waits_for_a_slot_that_is_closed_goes_elsewhere_at_once(make_rig: MakeRig):
    rig = await make_rig(slot_wait=0.2)
    other = rig.slot_up(0)
    await rig.client(head_of("/", cookie_for(1)))
    await rig.wait_counted("hand_overs", "queued")
    rig.hand_overs.close_slot(Slot(1))
    [offer] = await other.wait_offers(1)
    assert (offer.reason, offer.session, offer.cookie_slot) == ("runner_up", "a" * 32, None)
    assert [view.slot for view in rig.hand_overs.views] == [0]
    later = await offered(rig, other, head_of("/", cookie_for(1)))
    assert (later.reason, later.session, later.cookie_slot) == ("session_hash", "a" * 32, Slot(0))
    other.take(offer, later)
    # Nobody waits there any more: the wait that ends first is one that began afterwards.
    rig.hand_overs.open_slot(Slot(2))
    await rig.client(head_of("/after", cookie_for(2)))
    [*_, after] = await other.wait_offers(3)
    assert (after.reason, other.read(after)) == ("runner_up", head_of("/after", cookie_for(2)))
    assert rig.counters.value("hand_overs", "slot_wait") == 1


async def test_what_a_closed_slots_worker_did_not_take_goes_elsewhere(make_rig: MakeRig):
    rig = await make_rig(slots=3)
    other, closed = rig.slot_up(0), rig.slot_up(1)
    unread, _ = rig.slot_up_unread(2)
    declined = await offered(rig, closed, head_of("/", cookie_for(1)))
    await rig.client(head_of("/left", cookie_for(2)))
    await wait_until(lambda: rig.view(2).connections == 1)
    for slot in (1, 2):
        rig.hand_overs.close_slot(Slot(slot))
    closed.decline(declined, DeclineReason.STOPPING)
    await other.wait_offers(1)
    unread.close()
    await other.wait_offers(2)
    assert paths(other) == [b"/", b"/left"]
    assert {offer.reason for offer in other.offers} == {"runner_up"}


async def test_a_closed_slots_worker_keeps_its_connections_and_their_keys_end_with_them(make_rig: MakeRig):
    rig = await make_rig(slots=1, keys=BY_ROOM)
    closed = rig.slot_up(0)
    held = [await taken(rig, closed, KITCHEN) for _ in range(2)]
    rig.hand_overs.open_slot(Slot(1))
    other = rig.slot_up(1)
    rig.hand_overs.close_slot(Slot(0))
    assert (rig.hand_overs.connections, rig.hand_overs.connections_of(closed.id)) == (2, 2)
    closed.end(held[0])
    await wait_until(lambda: rig.hand_overs.connections == 1)
    assert slot_of_key(rig) is not None
    came = await taken(rig, other, KITCHEN)  # it goes where a slot is, and the key with it
    assert slot_of_key(rig) == 1
    closed.die()
    await wait_until(lambda: rig.hand_overs.connections == 1)
    assert slot_of_key(rig) == 1
    other.end(came)
    await wait_until(lambda: slot_of_key(rig) is None)


async def test_a_slot_that_is_opened_again_is_a_new_one(make_rig: MakeRig):
    rig = await make_rig()
    other, before = rig.slot_up(0), rig.slot_up(1)
    await taken(rig, before, head_of("/", cookie_for(1)))
    rig.hand_overs.close_slot(Slot(1))
    rig.hand_overs.open_slot(Slot(1))
    assert [(view.slot, view.is_ready, view.connections) for view in rig.hand_overs.views] == [
        (0, True, 0),
        (1, False, 0),
    ]
    await rig.client(head_of("/", cookie_for(1)))
    await rig.wait_counted("hand_overs", "queued")
    before.die()
    await wait_until(lambda: rig.hand_overs.connections == 1)
    [offer] = await rig.slot_up(1).wait_offers(1)
    assert offer.reason == "cookie"
    assert other.offers == []


async def test_the_views_are_in_the_order_of_the_slots(make_rig: MakeRig):
    rig = await make_rig(slots=50)
    for slot in (30, 7, 49):
        rig.slot_up(slot)
    assert [view.slot for view in rig.hand_overs.views] == list(range(50))


# --- slots out of service ---------------------------------------------------------------------------------------------


async def test_the_clients_of_a_drained_slot_are_served_by_another_and_keep_their_cookie(make_rig: MakeRig):
    rig = await make_rig()
    drained, other = rig.slot_up(0), rig.slot_up(1)
    rig.hand_overs.set_drained(Slot(0), True)
    assert rig.view(0).is_drained
    own = await offered(rig, other, head_of("/", cookie_for(0)))
    assert (own.reason, own.session, own.cookie_slot) == ("runner_up", "a" * 32, None)
    await offered(rig, other)  # nor does it get a first visit
    assert drained.offers == []
    rig.hand_overs.set_drained(Slot(0), False)
    assert (await offered(rig, drained, head_of("/", cookie_for(0)))).reason == "cookie"


async def test_who_waits_for_a_slot_that_is_drained_or_is_declined_there_goes_elsewhere(make_rig: MakeRig):
    rig = await make_rig(slots=3)
    before = rig.slot_up(0)
    late = await offered(rig, before, head_of("/late", cookie_for(0)))
    drained, other = rig.slot_up(0), rig.slot_up(2)
    declined = await offered(rig, drained, head_of("/declined", cookie_for(0)))
    await rig.client(head_of("/waits", cookie_for(1)))
    await rig.wait_counted("hand_overs", "queued")
    for slot in (0, 1):
        rig.hand_overs.set_drained(Slot(slot), True)
    await other.wait_offers(1)
    drained.decline(declined, DeclineReason.STOPPING)
    await other.wait_offers(2)
    before.decline(late, DeclineReason.STOPPING)
    await other.wait_offers(3)
    assert paths(other) == [b"/waits", b"/declined", b"/late"]


async def test_what_a_drained_slots_worker_left_unread_goes_elsewhere(make_rig: MakeRig):
    rig = await make_rig()
    unread, _ = rig.slot_up_unread(0)
    other = rig.slot_up(1)
    await rig.client(head_of("/left", cookie_for(0)))
    await wait_until(lambda: rig.view(0).connections == 1)
    rig.hand_overs.set_drained(Slot(0), True)
    unread.close()
    await other.wait_offers(1)
    assert paths(other) == [b"/left"]


async def test_where_all_slots_are_drained_who_comes_gets_503(make_rig: MakeRig):
    rig = await make_rig(slots=1)
    rig.slot_up(0)
    rig.hand_overs.set_drained(Slot(0), True)
    client = await rig.client(HEAD)
    assert (await client.read_to_end()).startswith(b"HTTP/1.1 503 ")


# --- the end ----------------------------------------------------------------------------------------------------------


async def test_nothing_is_left_of_slots_and_workers_after_the_close(short_dir: Path):
    before = len(os.listdir("/proc/self/fd"))
    async with running_rig(short_dir, slots=3) as rig:
        old = rig.slot_up(0)
        await taken(rig, old, head_of("/", cookie_for(0)))
        await offered(rig, old, head_of("/", cookie_for(0)))
        await offered(rig, rig.slot_up(0), head_of("/", cookie_for(0)))
        await rig.client(head_of("/", cookie_for(2)))  # waits
        rig.slot_up_unread(1, send_buffer=1)
        for _ in range(20):
            await rig.client(head_of("/", cookie_for(1)))
        await rig.wait_counted("hand_overs", "queued", 3)
        rig.hand_overs.close_slot(Slot(1))
        rig.hand_overs.close()
        assert rig.hand_overs.connections == 0
        left = [weakref.ref(rig.hand_overs), weakref.ref(rig.hand_overs._slots)]
    assert len(os.listdir("/proc/self/fd")) == before
    del rig, old
    await wait_until(lambda: gc.collect() >= 0 and not any(ref() for ref in left))  # no timer of the loop's holds it

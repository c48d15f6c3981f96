"""A connection reaches one worker; what a worker did not take another serves, and nobody waits without a bound."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest
from primary_rig import Client, FakeWorker, Rig, cookie_for, head_of
from support.waiting import loop_turns, wait_until

from stickygw.primary.hand_over import MAX_HOPS
from stickygw.types import Slot
from stickygw.wire.link import DeclineReason

MakeRig = Callable[..., Awaitable[Rig]]

HEAD = head_of()


async def refused(client: Client) -> bytes:
    """The whole 503 that the client got."""
    answer = await client.read_to_end()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nRetry-After: " in answer
    assert b"\r\nConnection: close\r\n" in answer
    return answer


async def test_the_offer_carries_the_decision(make_rig: MakeRig):
    rig = await make_rig()
    rig.slot_up(0)
    worker = rig.slot_up(1)
    client = await rig.client(head_of("/", cookie_for(1)))
    [offer] = await worker.wait_offers(1)
    assert (offer.session, offer.reason, offer.cookie_slot) == ("a" * 32, "cookie", None)
    assert offer.issued > 0
    assert (offer.host, offer.port) == client.sock.getsockname()


async def test_the_primary_lets_go_of_what_was_taken(make_rig: MakeRig):
    rig = await make_rig(slots=1)
    worker = rig.slot_up(0)
    client = await rig.client(HEAD)
    [offer] = await worker.wait_offers(1)
    worker.take(offer)
    await rig.wait_counted("hand_overs", "taken")
    assert worker.read(offer) == HEAD
    worker.sockets[offer.id].close()  # no shutdown: a copy of ours would keep the connection open
    assert await client.read_to_end() == b""


async def test_connections_are_counted_from_the_route_to_the_end(make_rig: MakeRig):
    rig = await make_rig(slots=1)
    worker = rig.slot_up(0)
    for count in (1, 2):
        await rig.client(HEAD)
        await worker.wait_offers(count)
        assert rig.view(0).connections == count
    worker.take(*worker.offers)
    await rig.wait_counted("hand_overs", "taken", 2)
    assert rig.view(0).connections == 2
    worker.end(worker.offers[0])
    await wait_until(lambda: rig.view(0).connections == 1)


@pytest.mark.parametrize("why", list(DeclineReason))
async def test_what_a_worker_declines_goes_to_the_runner_up(make_rig: MakeRig, why: DeclineReason):
    rig = await make_rig()
    first, second = rig.slot_up(0), rig.slot_up(1)
    await rig.client(head_of("/", cookie_for(0)))
    [offer] = await first.wait_offers(1)
    first.decline(offer, why)
    [again] = await second.wait_offers(1)
    assert (again.reason, again.cookie_slot) == ("runner_up", None)
    assert second.read(again) == head_of("/", cookie_for(0))
    assert [view.connections for view in rig.hand_overs.views] == [0, 1]


async def test_what_every_worker_declines_gets_503(make_rig: MakeRig):
    rig = await make_rig()
    workers = [rig.slot_up(0), rig.slot_up(1)]
    client = await rig.client(head_of("/", cookie_for(0)))
    for worker in workers:
        [offer] = await worker.wait_offers(1)
        worker.decline(offer)
    await refused(client)
    assert [view.connections for view in rig.hand_overs.views] == [0, 0]


async def test_a_connection_is_sent_on_so_often_and_then_gets_503(make_rig: MakeRig):
    rig = await make_rig(slots=MAX_HOPS + 2)
    workers = [rig.slot_up(slot) for slot in range(MAX_HOPS + 2)]
    client = await rig.client(HEAD)
    for _ in range(MAX_HOPS + 1):
        await wait_until(lambda: any(worker.sockets for worker in workers))
        worker = next(worker for worker in workers if worker.sockets)
        worker.decline(worker.offers[-1])
    await refused(client)
    assert rig.counters.value("refusals", "too_many_hops") == 1


async def test_offers_that_a_dead_worker_left_unread_go_to_its_successor_in_order(make_rig: MakeRig):
    rig = await make_rig(slots=1)
    unread, _ = rig.slot_up_unread(0)
    clients = [await rig.client(head_of(f"/{number}")) for number in range(5)]
    await wait_until(lambda: rig.view(0).connections == 5)
    unread.close()
    await rig.wait_counted("hand_overs", "saved", 5)
    worker = rig.slot_up(0)
    offers = await worker.wait_offers(5)
    paths = [worker.read(offer).split()[1] for offer in offers]
    assert sorted(paths) == [b"/0", b"/1", b"/2", b"/3", b"/4"]
    assert [offer.id for offer in offers] == sorted(offer.id for offer in offers)
    worker.take(*offers)
    await rig.wait_counted("hand_overs", "taken", 5)
    worker.die()
    for client in clients:
        assert await client.read_to_end() == b""


async def test_offers_that_a_dead_worker_left_unread_go_to_another_slot_after_the_wait(make_rig: MakeRig):
    rig = await make_rig(slot_wait=0.1)
    unread, _ = rig.slot_up_unread(0)
    other = rig.slot_up(1)
    await rig.client(head_of("/", cookie_for(0)))
    await wait_until(lambda: rig.view(0).connections == 1)
    unread.close()
    [offer] = await other.wait_offers(1)
    assert (offer.reason, offer.session, offer.cookie_slot) == ("runner_up", "a" * 32, None)
    assert other.read(offer) == head_of("/", cookie_for(0))
    assert [view.connections for view in rig.hand_overs.views] == [0, 1]


async def test_what_a_dead_worker_had_begun_to_read_is_closed_and_not_served_twice(make_rig: MakeRig):
    rig = await make_rig(slots=1)
    worker = rig.slot_up(0)
    client = await rig.client(HEAD)
    [offer] = await worker.wait_offers(1)
    assert worker.sockets[offer.id].recv(10) == HEAD[:10]
    worker.die()
    with pytest.raises(ConnectionResetError):  # the kernel's word for bytes that nobody will read
        await client.read_to_end()
    assert rig.counters.value("hand_overs", "lost") == 1
    successor = rig.slot_up(0)
    await loop_turns()
    assert successor.offers == []


async def test_a_dead_workers_last_words_count_before_its_offers_are_routed_again(make_rig: MakeRig):
    rig = await make_rig(slots=1)
    worker = rig.slot_up(0)
    taken, left = await rig.client(head_of("/taken")), await rig.client(head_of("/left"))
    offers = await worker.wait_offers(2)
    by_path = {worker.sockets[offer.id].recv(100, socket.MSG_PEEK).split()[1]: offer for offer in offers}
    worker.take(by_path[b"/taken"])
    worker.read(by_path[b"/taken"])
    worker.die()  # in the same turn: the primary finds the acknowledgement and the end together
    await wait_until(lambda: not rig.view(0).is_ready)
    successor = rig.slot_up(0)
    [again] = await successor.wait_offers(1)
    assert successor.read(again) == head_of("/left")
    assert await taken.read_to_end() == b""
    left.sock.close()


async def test_a_connection_that_kills_its_workers_does_not_kill_them_all(make_rig: MakeRig):
    rig = await make_rig(slots=1)
    client = await rig.client(HEAD)
    for _ in range(MAX_HOPS + 1):
        worker = rig.slot_up(0)
        await worker.wait_offers(1)
        worker.die()
        await wait_until(lambda: not rig.view(0).is_ready)
    await refused(client)
    assert rig.counters.value("refusals", "too_many_hops") == 1


async def test_a_client_waits_for_its_own_slot(make_rig: MakeRig):
    rig = await make_rig()
    other = rig.slot_up(1)
    await rig.client(head_of("/", cookie_for(0)))
    await rig.wait_counted("hand_overs", "queued")
    [offer] = await rig.slot_up(0).wait_offers(1)
    assert offer.reason == "cookie"
    assert other.offers == []


async def test_a_client_whose_slot_stays_away_is_served_by_the_runner_up(make_rig: MakeRig):
    rig = await make_rig(slot_wait=0.1)
    other = rig.slot_up(1)
    await rig.client(head_of("/", cookie_for(0)))
    [offer] = await other.wait_offers(1)
    assert (offer.reason, offer.cookie_slot) == ("runner_up", None)


async def test_a_client_for_whom_no_slot_comes_back_gets_503(make_rig: MakeRig):
    rig = await make_rig(slot_wait=0.1)
    await refused(await rig.client(HEAD))


async def test_the_queue_of_a_slot_is_bounded(make_rig: MakeRig):
    rig = await make_rig(slots=1, slot_queue=2)
    for count in (1, 2):
        await rig.client(HEAD)
        await rig.wait_counted("hand_overs", "queued", count)
    await refused(await rig.client(HEAD))
    assert rig.counters.value("refusals", "slot_queue_full") == 1
    await rig.slot_up(0).wait_offers(2)


async def test_a_full_slot_is_passed_over_without_waiting(make_rig: MakeRig):
    rig = await make_rig(max_connections=1)
    first, second = rig.slot_up(0), rig.slot_up(1)
    await rig.client(head_of("/", cookie_for(0)))
    await first.wait_offers(1)
    await rig.client(head_of("/", cookie_for(0)))
    await second.wait_offers(1)
    await refused(await rig.client(head_of("/", cookie_for(0))))
    first.take(first.offers[0])
    first.end(first.offers[0])
    await wait_until(lambda: not rig.view(0).is_full)
    await rig.client(head_of("/", cookie_for(0)))
    await first.wait_offers(2)


async def test_what_does_not_fit_a_full_link_follows_when_the_worker_reads(make_rig: MakeRig):
    rig = await make_rig(slots=1)
    unread = rig.slot_up_unread(0, send_buffer=1)
    clients = [await rig.client(head_of(f"/{number}")) for number in range(60)]
    await wait_until(lambda: rig.view(0).connections == 60)
    assert rig.counters.value("hand_overs", "queued") > 0
    worker = FakeWorker(*unread)
    offers = await worker.wait_offers(60)
    assert [offer.id for offer in offers] == sorted(offer.id for offer in offers)
    assert {worker.read(offer).split()[1] for offer in offers} == {b"/%d" % number for number in range(60)}
    worker.die()
    for client in clients:
        client.sock.close()


async def test_the_end_of_a_worker_ends_its_keys(make_rig: MakeRig):
    rig = await make_rig(slots=1, keys=("header:x-room",))
    worker = rig.slot_up(0)
    await rig.client(head_of("/", "X-Room: kitchen"))
    await rig.client(head_of("/", "X-Room: kitchen"))
    offers = await worker.wait_offers(2)
    worker.take(*offers)
    await rig.wait_counted("hand_overs", "taken", 2)
    key = b"header:x-room\x00kitchen"
    now = asyncio.get_running_loop().time()
    assert rig.table.get(key, now + 1) == 0
    worker.die()
    await wait_until(lambda: not rig.view(0).is_ready)
    assert rig.table.get(key, now + 100) is None


async def test_a_key_whose_connection_was_turned_away_is_not_kept(make_rig: MakeRig):
    rig = await make_rig(slots=1, keys=("header:x-room",), slot_wait=0.05)
    await refused(await rig.client(head_of("/", "X-Room: kitchen")))
    assert rig.table.get(b"header:x-room\x00kitchen", asyncio.get_running_loop().time() + 100) is None


async def test_the_stop_turns_away_who_waits_and_who_is_declined(make_rig: MakeRig):
    rig = await make_rig()
    worker = rig.slot_up(1)
    waiting = await rig.client(head_of("/", cookie_for(0)))
    await rig.wait_counted("hand_overs", "queued")
    declined = await rig.client(head_of("/", cookie_for(1)))
    [offer] = await worker.wait_offers(1)
    rig.hand_overs.stop()
    await refused(waiting)
    worker.decline(offer, DeclineReason.STOPPING)
    await refused(declined)
    rig.hand_overs.worker_is_down(worker.id)
    assert rig.hand_overs.connections == 0


@pytest.mark.parametrize("waiters", [2, 3])
async def test_those_of_one_key_who_waited_for_a_dead_worker_and_who_comes_next_meet(make_rig: MakeRig, waiters: int):
    rig = await make_rig(slots=3, keys=("header:x-room",), slot_wait=0.2)
    kitchen = head_of("/", "X-Room: kitchen")
    workers = [rig.slot_up(slot) for slot in range(3)]
    await rig.client(kitchen)
    await wait_until(lambda: any(worker.offers for worker in workers))
    home = next(slot for slot, worker in enumerate(workers) if worker.offers)
    workers[home].take(*workers[home].offers)
    await rig.wait_counted("hand_overs", "taken")
    workers[home].die()
    await wait_until(lambda: not rig.view(home).is_ready)
    for count in range(1, waiters + 1):
        await rig.client(kitchen)
        await rig.wait_counted("hand_overs", "queued", count)
    others = [worker for worker in workers if worker is not workers[home]]
    await wait_until(lambda: sum(len(worker.offers) for worker in others) == waiters)
    there = next(worker for worker in others if worker.offers)
    assert len(there.offers) == waiters
    there.take(*there.offers)
    await rig.wait_counted("hand_overs", "taken", 1 + waiters)
    rig.slot_up(home)
    await rig.client(kitchen)
    await there.wait_offers(waiters + 1)


async def test_who_still_waits_when_the_slot_is_back_follows_its_key_to_where_it_has_gone(make_rig: MakeRig):
    rig = await make_rig(keys=("header:x-room",))
    kitchen = head_of("/", "X-Room: kitchen")
    workers = [rig.slot_up(slot) for slot in (0, 1)]
    await rig.client(kitchen)
    await wait_until(lambda: any(worker.offers for worker in workers))
    home = next(slot for slot, worker in enumerate(workers) if worker.offers)
    other = workers[1 - home]
    workers[home].take(*workers[home].offers)
    await rig.wait_counted("hand_overs", "taken")
    workers[home].die()
    await wait_until(lambda: not rig.view(home).is_ready)
    for count in (1, 2):
        await rig.client(kitchen)
        await rig.wait_counted("hand_overs", "queued", count)
    rig.end_longest_wait()
    await other.wait_offers(1)
    assert rig.view(home).connections == 1
    back = rig.slot_up(home)
    await other.wait_offers(2)
    await loop_turns()
    assert back.offers == []


async def test_a_worker_that_leaves_an_offer_lie_gets_no_more_until_it_answers(make_rig: MakeRig):
    rig = await make_rig(slot_wait=0.1)
    stalled = rig.slot_up_unread(0)
    other = rig.slot_up(1)
    await rig.client(head_of("/first", cookie_for(0)))
    await wait_until(lambda: not rig.view(0).is_ready)
    await rig.client(HEAD)  # a new visitor is not sent there
    other.take(*await other.wait_offers(1))
    await rig.client(head_of("/own", cookie_for(0)))  # its own client waits, and is then served by another
    [_, detoured] = await other.wait_offers(2)
    assert (detoured.reason, other.read(detoured)) == ("runner_up", head_of("/own", cookie_for(0)))
    await rig.client(head_of("/late", cookie_for(0)))
    await rig.wait_counted("hand_overs", "queued", 2)
    worker = FakeWorker(*stalled)
    [first] = await worker.wait_offers(1)
    worker.take(first)
    await worker.wait_offers(2)  # the one that waited comes as soon as the stall is over
    assert rig.view(0).is_ready
    worker.die()


async def test_a_worker_that_stalls_is_waited_for_without_spinning(make_rig: MakeRig):
    rig = await make_rig(slots=1, slot_wait=0.1)
    rig.slot_up_unread(0)
    await rig.client(HEAD)
    await wait_until(lambda: not rig.view(0).is_ready)
    await rig.client(HEAD)
    await rig.wait_counted("hand_overs", "queued")
    assert not rig.hand_overs._slots[Slot(0)].is_flush_due

"""However a head arrives, it is handed over once, whole and unread; what is no head is answered and never hangs."""

from __future__ import annotations

import asyncio
import errno
import struct
from collections.abc import Awaitable, Callable

import pytest
from primary_rig import Client, FakeWorker, Rig, head_of
from support.waiting import loop_turns, wait_until

from stickygw.routing.request_head import MAX_HEAD_BYTES

MakeRig = Callable[..., Awaitable[Rig]]

HEAD = head_of()
SHORT_HEAD = b"GET /ws HTTP/1.1\r\nHost: a\r\n\r\n"
"""For tests that send it byte by byte."""
FRAME = b"\x81\x80mask"
V2 = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11" + struct.pack("!H4B4BHH", 12, 203, 0, 113, 9, 127, 0, 0, 1, 4321, 80)
V1 = b"PROXY TCP4 203.0.113.9 127.0.0.1 4321 80\r\n"

both_families = pytest.mark.parametrize("is_unix", [False, True], ids=["tcp", "unix"])


async def assert_serves(rig: Rig, worker: FakeWorker) -> None:
    """A good client is still served."""
    before = len(worker.offers)
    client = await rig.client(HEAD)
    offers = await worker.wait_offers(before + 1)
    assert worker.read(offers[-1]) == HEAD
    worker.take(offers[-1])
    worker.end(offers[-1])
    assert await client.read_to_end() == b""


async def refused_with(client: Client, status: int) -> None:
    answer = await client.read_to_end()
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nConnection: close\r\n" in answer


@both_families
async def test_a_head_cut_at_any_byte_is_handed_over_once_and_unread(make_rig: MakeRig, is_unix: bool):
    rig = await make_rig(slots=1, is_unix=is_unix)
    worker = rig.slot_up(0)
    for cut in range(1, len(SHORT_HEAD)):
        wakes = rig.counters.value("wakes")
        client = await rig.client(SHORT_HEAD[:cut])
        await wait_until(lambda: rig.intake.pending == 1)
        await client.send(SHORT_HEAD[cut:])
        offers = await worker.wait_offers(cut)
        assert worker.read(offers[-1]) == SHORT_HEAD
        assert rig.counters.value("wakes") - wakes <= 2 + 1
        client.sock.close()
    await loop_turns()
    assert len(worker.offers) == len(SHORT_HEAD) - 1


@both_families
async def test_a_head_sent_byte_by_byte_wakes_the_primary_once_a_byte(make_rig: MakeRig, is_unix: bool):
    rig = await make_rig(slots=1, is_unix=is_unix)
    worker = rig.slot_up(0)
    client = await rig.client(SHORT_HEAD[:1])
    await rig.wait_counted("wakes")  # what is there when the wait begins counts as an arrival
    for sent, byte in enumerate(SHORT_HEAD[1:], start=2):
        await client.send(bytes([byte]))
        await rig.wait_counted("wakes", count=sent)
    [offer] = await worker.wait_offers(1)
    assert worker.read(offer) == SHORT_HEAD
    await loop_turns()
    assert rig.counters.value("wakes") == len(SHORT_HEAD)


@both_families
async def test_nobody_is_woken_while_a_half_head_waits(make_rig: MakeRig, is_unix: bool):
    rig = await make_rig(slots=1, is_unix=is_unix)
    await rig.client(HEAD[:20])
    await wait_until(lambda: rig.intake.pending == 1)
    await loop_turns(500)
    assert rig.counters.value("wakes") <= 1


async def test_a_frame_behind_the_head_is_left_for_the_worker(make_rig: MakeRig):
    rig = await make_rig(slots=1)
    worker = rig.slot_up(0)
    await rig.client(HEAD + FRAME)
    [offer] = await worker.wait_offers(1)
    assert worker.read(offer) == HEAD + FRAME


@both_families
async def test_a_client_that_closes_its_side_behind_a_whole_head_is_served(make_rig: MakeRig, is_unix: bool):
    rig = await make_rig(slots=1, is_unix=is_unix)
    worker = rig.slot_up(0)
    client = await rig.client(HEAD[:9])
    await wait_until(lambda: rig.intake.pending == 1)
    await client.send(HEAD[9:])
    client.finish()
    [offer] = await worker.wait_offers(1)
    assert worker.read(offer) == HEAD


@both_families
async def test_a_client_that_closes_half_way_gets_400(make_rig: MakeRig, is_unix: bool):
    rig = await make_rig(slots=1, is_unix=is_unix)
    worker = rig.slot_up(0)
    client = await rig.client(HEAD[:40])
    await wait_until(lambda: rig.intake.pending == 1)
    client.finish()
    await refused_with(client, 400)
    assert rig.counters.value("refusals", "head_cut") == 1
    await assert_serves(rig, worker)


async def test_a_client_that_closes_without_a_byte_gets_none(make_rig: MakeRig):
    rig = await make_rig(slots=1, is_unix=True)
    client = await rig.connect()
    await wait_until(lambda: rig.intake.pending == 1)
    client.finish()
    assert await client.read_to_end() == b""
    await wait_until(lambda: rig.intake.pending == 0)


async def test_a_client_that_resets_half_way_is_forgotten(make_rig: MakeRig):
    rig = await make_rig(slots=1)
    worker = rig.slot_up(0)
    client = await rig.client(HEAD[:40])
    await wait_until(lambda: rig.intake.pending == 1)
    client.reset()
    await wait_until(lambda: rig.intake.pending == 0)
    assert len(rig.refusals) == 0
    await assert_serves(rig, worker)


@both_families
async def test_a_slow_head_gets_408_however_often_a_byte_comes(make_rig: MakeRig, is_unix: bool):
    rig = await make_rig(slots=1, is_unix=is_unix, header_timeout=0.2)
    client = await rig.client(HEAD[:1])
    await wait_until(lambda: rig.intake.pending == 1)
    sent = 1
    while rig.intake.pending:
        await client.send(HEAD[sent : sent + 1])
        sent += 1
        assert sent < len(HEAD), "the deadline moved"
        await asyncio.sleep(0.02)  # a tenth of the deadline: time itself is under test
    await refused_with(client, 408)


async def test_a_silent_client_is_closed_without_a_byte(make_rig: MakeRig):
    rig = await make_rig(slots=1, is_unix=True, header_timeout=0.1)
    client = await rig.connect()
    assert await client.read_to_end() == b""
    assert rig.counters.value("refusals", "header_timeout") == 1


async def test_a_head_too_large_gets_a_whole_431_though_the_client_sends_on(make_rig: MakeRig):
    rig = await make_rig(slots=1)
    worker = rig.slot_up(0)
    client = await rig.client(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * (2 * MAX_HEAD_BYTES))
    await refused_with(client, 431)
    await assert_serves(rig, worker)


@pytest.mark.parametrize(
    "opening", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"r" * 500, V2 + HEAD], ids=["tls", "proxy-v2"]
)
async def test_what_does_not_speak_http_is_closed_without_a_byte_and_without_a_reset(make_rig: MakeRig, opening: bytes):
    rig = await make_rig(slots=1)
    worker = rig.slot_up(0)
    client = await rig.client(opening)
    assert await client.read_to_end() == b""
    await assert_serves(rig, worker)


@pytest.mark.parametrize(
    "opening",
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", V1 + HEAD, b"GET / HTTP/1.1\r\n\r\n", b"hello\r\n"],
    ids=["http2", "proxy-v1", "no-host", "garbage"],
)
async def test_what_is_no_good_request_gets_a_whole_400(make_rig: MakeRig, opening: bytes):
    rig = await make_rig(slots=1)
    worker = rig.slot_up(0)
    client = await rig.client(opening)
    await refused_with(client, 400)
    await assert_serves(rig, worker)


async def test_an_answer_is_whole_even_where_nobody_can_linger(make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("stickygw.primary.refusal.MAX_LINGERING", 0)
    rig = await make_rig(slots=1)
    client = await rig.client(b"hello\r\n")
    await refused_with(client, 400)
    assert len(rig.refusals) == 0


async def test_a_refused_client_that_never_closes_is_cut(make_rig: MakeRig):
    rig = await make_rig(slots=1)
    client = await rig.client(b"hello\r\n")
    await refused_with(client, 400)
    assert len(rig.refusals) == 1
    await wait_until(lambda: len(rig.refusals) == 0, seconds=5)


@both_families
@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
async def test_a_trusted_peers_proxy_header_names_the_client_wherever_it_is_cut(
    make_rig: MakeRig, header: bytes, is_unix: bool
):
    rig = await make_rig(slots=1, is_unix=is_unix, trusted=("127.0.0.1", "unix"))
    worker = rig.slot_up(0)
    opening = header + HEAD
    for count, cut in enumerate(range(1, len(header) + 8), start=1):
        client = await rig.client(opening[:cut])
        await wait_until(lambda: rig.intake.pending == 1)
        await client.send(opening[cut:])
        offer = (await worker.wait_offers(count))[-1]
        assert (offer.host, offer.port) == ("203.0.113.9", 4321)
        assert worker.read(offer) == HEAD
        client.sock.close()


async def test_a_trusted_peer_may_do_without_a_proxy_header(make_rig: MakeRig):
    rig = await make_rig(slots=1, trusted=("127.0.0.1",))
    worker = rig.slot_up(0)
    client = await rig.client(HEAD)
    [offer] = await worker.wait_offers(1)
    assert (offer.host, offer.port) == client.sock.getsockname()


async def test_a_trusted_proxys_forwarded_address_is_the_client(make_rig: MakeRig):
    rig = await make_rig(slots=1, trusted=("127.0.0.1",))
    worker = rig.slot_up(0)
    await rig.client(head_of("/", "X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https"))
    [offer] = await worker.wait_offers(1)
    assert (offer.host, offer.port, offer.is_secure) == ("203.0.113.9", 0, True)


@pytest.mark.parametrize("bound", ["max_pending", "max_pending_per_address"])
async def test_half_open_connections_are_bounded(make_rig: MakeRig, bound: str):
    rig = await make_rig(slots=1, **{bound: 2})
    worker = rig.slot_up(0)
    first = await rig.client(HEAD[:9])
    await rig.client(HEAD[:9])
    await wait_until(lambda: rig.intake.pending == 2)
    third = await rig.client(HEAD[:9])
    answer = await third.read_to_end()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nRetry-After: " in answer
    await assert_serves(rig, worker)  # a whole head never waits
    await first.send(HEAD[9:])
    await worker.wait_offers(2)
    await rig.client(HEAD[:9])
    await wait_until(lambda: rig.intake.pending == 2)  # there is room again


async def test_a_trusted_proxys_half_open_connections_are_not_counted_as_one_clients(make_rig: MakeRig):
    rig = await make_rig(slots=1, trusted=("127.0.0.1",), max_pending_per_address=1)
    for count in range(1, 4):
        await rig.client(HEAD[:9])
        await wait_until(lambda count=count: rig.intake.pending == count)


async def test_at_the_stop_half_heads_get_503(make_rig: MakeRig):
    rig = await make_rig(slots=1)
    client = await rig.client(HEAD[:9])
    await wait_until(lambda: rig.intake.pending == 1)
    rig.intake.close()
    await refused_with(client, 503)


async def test_who_cannot_be_waited_for_gets_503_and_nothing_of_it_is_kept(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
):
    rig = await make_rig(slots=1, max_pending_per_address=1)

    class NoWatchLeft:
        """An epoll at fs.epoll.max_user_watches."""

        def register(self, fd: int, events: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(rig.intake._arrivals, "_epoll", NoWatchLeft())
        client = await rig.client(HEAD[:20])
        await refused_with(client, 503)
    assert rig.counters.value("refusals", "not_watched") == 1
    assert rig.intake.pending == 0
    await rig.client(HEAD[:20])
    await wait_until(lambda: rig.intake.pending == 1)

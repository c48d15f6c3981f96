"""Without descriptors accepting rests, answers the first in the queue, and comes back; it never spins."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from found_rig import descriptors
from primary_rig import Client, Rig, head_of, no_descriptor_left
from support.waiting import loop_turns, wait_until

from stickygw.primary.acceptor import LOG_EVERY_SECONDS, PAUSE_SECONDS

MakeRig = Callable[..., Awaitable[Rig]]

HEAD = head_of()


async def test_accepting_rests_without_descriptors_and_goes_on_with_them(
    make_rig: MakeRig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("stickygw.primary.acceptor.PAUSE_SECONDS", 1.5)  # it is not over before we have looked
    rig = await make_rig(slots=1)
    clients: list[Client] = [await rig.connect() for _ in range(3)]
    rig.acceptor._rest()  # nobody is accepted before all are in the kernel's queue
    for client in clients:
        await client.send(HEAD)
    with no_descriptor_left():
        rig.acceptor.start()
        await loop_turns(200)
        assert rig.counters.value("accept_pauses", "EMFILE") == 1
        await asyncio.sleep(PAUSE_SECONDS / 2)  # time itself is under test: it rests, and does not spin
        assert rig.counters.value("accept_pauses", "EMFILE") == 1
    answer = await clients[0].read_to_end()
    assert answer.startswith(b"HTTP/1.1 503 ")
    worker = rig.slot_up(0)
    for offer in await worker.wait_offers(2):
        assert worker.read(offer) == HEAD
    assert [record.getMessage() for record in caplog.records if record.name == "stickygw.accept"] == [
        "cannot accept: Too many open files; resting 1500 ms at a time"
    ]


async def test_one_line_a_second_is_logged_while_descriptors_are_missing(
    make_rig: MakeRig, caplog: pytest.LogCaptureFixture
):
    rig = await make_rig(slots=1)
    rig.acceptor._rest()
    for _ in range(10):
        await (await rig.connect()).send(HEAD)
    with no_descriptor_left():
        begun = asyncio.get_running_loop().time()
        rig.acceptor.start()
        await wait_until(lambda: rig.counters.value("accept_pauses", "EMFILE") >= 4)
        took = asyncio.get_running_loop().time() - begun
        assert rig.counters.value("accept_pauses", "EMFILE") <= 5
    assert took >= 2.9 * PAUSE_SECONDS, "a rest between two"
    lines = [record.getMessage() for record in caplog.records if record.name == "stickygw.accept"]
    assert set(lines) == {"cannot accept: Too many open files; resting 150 ms at a time"}
    assert len(lines) <= 1 + took / LOG_EVERY_SECONDS


async def test_after_close_nobody_is_accepted(make_rig: MakeRig):
    rig = await make_rig(slots=1)
    address = rig.listener.sock.getsockname()
    rig.acceptor.close()
    rig.acceptor.close()
    had = descriptors()
    rig.acceptor.start()  # as an upgrade that is cancelled by the stop does
    assert descriptors() == had
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*address)

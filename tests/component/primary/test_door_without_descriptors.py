"""Without a descriptor for a worker that knocks, the door rests, and lets it in later."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from primary_rig import no_descriptor_left
from support.waiting import loop_turns, wait_until

from stickygw.primary import adoption
from stickygw.primary.adoption import AdoptionDoor, FoundWorker
from stickygw.types import Slot
from stickygw.wire.link import Orphan
from stickygw.wire.link_codec import encode

SAID = "a worker cannot come in: "


@pytest.fixture
def knocking() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)


async def test_while_no_descriptor_is_left_it_rests_and_the_log_says_so_once(
    short_dir: Path, knocking: socket.socket, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(adoption, "REST_SECONDS", 60.0)
    door = AdoptionDoor(short_dir / "workers", lambda worker: None)
    door.open()
    with knocking, no_descriptor_left():
        knocking.connect(str(short_dir / "workers"))
        await wait_until(lambda: SAID in caplog.text)
        await loop_turns(20)
        assert caplog.text.count(SAID) == 1
        rest = door._rest
        door.close()
        assert rest is not None
        assert rest.cancelled()


async def test_it_looks_again_by_itself_and_lets_in_who_has_waited(
    short_dir: Path, knocking: socket.socket, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(adoption, "REST_SECONDS", 0.01)
    known: list[FoundWorker] = []
    door = AdoptionDoor(short_dir / "workers", known.append)
    door.open()
    with knocking:
        with no_descriptor_left():
            knocking.connect(str(short_dir / "workers"))
            await wait_until(lambda: caplog.text.count(SAID) > 1)
        knocking.send(encode(Orphan(Slot(0), 1, 1, "app:app", {}, is_draining=False)))
        await wait_until(lambda: known)
        known[0].close()
    door.close()

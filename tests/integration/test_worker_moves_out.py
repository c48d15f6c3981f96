"""One worker process that is told to give its connections away, to others that are not there."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from support.closes import close_of
from support.lone_worker import LoneWorker, lone_worker
from support.valkey import ValkeyServer

from stickygw.errors import ExitCode
from stickygw.ipc.datagrams import datagram_pair
from stickygw.types import Slot
from stickygw.wire.link import Drain, Moved, MoveOut

APP = f"{Path(__file__).parent / 'apps' / 'moving.py'}:app"


def send_link(worker: LoneWorker, slot: int) -> socket.socket:
    """Our end of a link to the worker of `slot`."""
    ours, theirs = datagram_pair()
    with theirs:
        assert worker.link.send(MoveOut(Slot(slot)), theirs.fileno())
    return ours


@pytest.mark.parametrize("slots", [(), (0,), (1, 2)], ids=["no link", "its own slot", "others"])
async def test_a_worker_whose_successors_are_dead_drains_all_and_says_so(
    tmp_path: Path, valkey: ValkeyServer, prefix: str, slots: tuple[int, ...]
) -> None:
    async with lone_worker(APP, tmp_path, redis=valkey.url, prefix=prefix) as worker:
        await worker.wait_ready()
        async with worker.client("/in/a") as client, worker.client("/in/a") as other:
            assert "slot" in json.loads(await client.recv())
            assert "slot" in json.loads(await other.recv())
            for slot in slots:
                send_link(worker, slot).close()
            worker.send(Drain(20.0, 0.0))
            assert [(await close_of(each))[0] for each in (client, other)] == [1012, 1012]
            assert await worker.wait_end() == ExitCode.OK
    assert worker.all_said(Moved) == [Moved(0, 0, 2)]
    assert "Traceback" not in worker.log


async def test_a_link_that_comes_after_the_order_to_drain_is_closed(
    tmp_path: Path, valkey: ValkeyServer, prefix: str
) -> None:
    async with lone_worker(APP, tmp_path, redis=valkey.url, prefix=prefix) as worker:
        await worker.wait_ready()
        async with worker.client("/in/a") as client:
            assert "slot" in json.loads(await client.recv())
            worker.send(Drain(20.0, 0.0))
            with send_link(worker, 1) as ours:
                assert (await close_of(client))[0] == 1012
                await worker.wait_end()
                assert ours.recv(1) == b""
    assert "a MoveOut where none belongs" in worker.log

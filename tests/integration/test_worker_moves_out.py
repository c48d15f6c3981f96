"""One worker process that is told to give its connections away, to others that are not there."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import tempfile
import time
from pathlib import Path

import pytest
from support.closes import close_of
from support.lone_worker import LoneWorker, lone_worker
from support.raw import upgrade
from support.valkey import ValkeyServer
from support.waiting import wait_until

from stickygw.config.places import WORKERS_SOCKET
from stickygw.errors import ExitCode
from stickygw.ipc.datagrams import datagram_pair
from stickygw.primary.adoption import AdoptionDoor, FoundWorker
from stickygw.types import Slot
from stickygw.wire.link import Deliver, Drain, Message, Moved, MoveOut

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


FILLS = """
from stickygw import App

app = App()

@app.on_tell("fill")
def fill(_):
    for _ in range(8):
        app.tell("x", bytes(60_000))
    print("full", flush=True)
"""


def read_nothing_until_logged(worker: LoneWorker, text: str) -> None:
    """Hold the event loop, and so the primary's end of the link."""
    give_up = time.monotonic() + 30.0
    while text not in worker.log:
        assert time.monotonic() < give_up, worker.log
        time.sleep(0.01)


async def test_what_became_of_a_move_is_said_behind_a_full_link(
    tmp_path: Path, valkey: ValkeyServer, prefix: str
) -> None:
    (tmp_path / "app.py").write_text(FILLS)
    async with lone_worker("app.py:app", tmp_path, redis=valkey.url, prefix=prefix) as worker:
        await worker.wait_ready()
        worker.send(Deliver(0, "command", "fill", b"\xc0"))
        read_nothing_until_logged(worker, "full")
        worker.send(Drain(20.0, 0.0))  # nobody is connected: it could end at once
        read_nothing_until_logged(worker, "moved 0 connections")
        assert await worker.wait_end() == ExitCode.OK
    assert worker.all_said(Moved) == [Moved(0, 0, 0)]


async def test_what_became_of_a_move_is_said_to_the_next_primary_if_there_was_none(
    tmp_path: Path, valkey: ValkeyServer, prefix: str
) -> None:
    said: list[Message] = []
    found: list[FoundWorker] = []

    def adopt(worker: FoundWorker) -> None:
        found.append(worker)
        assert worker.known.is_draining
        worker.listen(lambda message, fd: said.append(message), lambda: None)

    with tempfile.TemporaryDirectory(prefix="sg-") as name:
        door = AdoptionDoor(Path(name) / WORKERS_SOCKET, adopt)
        async with lone_worker(APP, tmp_path, redis=valkey.url, prefix=prefix, runtime_dir=Path(name)) as worker:
            await worker.wait_ready()
            with await worker.arrival(upgrade("/in/a")) as client:
                # It answers no close frame, so the drain takes a while.
                async with asyncio.timeout(10):
                    answer = await asyncio.get_running_loop().sock_recv(client, 4096)
                assert answer.startswith(b"HTTP/1.1 101 ")
                worker.signal(signal.SIGSTOP)
                worker.send(Drain(20.0, 0.0))
                worker.link.close()
                worker.signal(signal.SIGCONT)
                await worker.wait_log("moved 0 connections")
                door.open()
                await wait_until(lambda: Moved(0, 0, 1) in said)
        door.close()
        for worker_found in found:
            worker_found.close()
    assert [message for message in said if isinstance(message, Moved)] == [Moved(0, 0, 1)]

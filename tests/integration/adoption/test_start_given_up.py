"""A worker whose primary dies before the application has started does not wait for it without end."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from support.lone_worker import lone_worker
from support.valkey import ValkeyServer
from support.waiting import wait_until

from stickygw.errors import ExitCode
from stickygw.wire.link import Hold, Stop

APP = """
import asyncio
from stickygw import App
from stickygw.worker import main

main.GIVING_UP_SECONDS = {seconds}
app = App()

@app.on_start
async def start():
    print("starting", flush=True)
    while True:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            print("cancelled", flush=True)
            if {obeys}:
                raise
"""


def is_listened_at(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except ConnectionRefusedError:
            return False
    return True


@pytest.mark.parametrize("is_stopped_before", [False, True])
async def test_an_application_that_will_not_be_cancelled_is_left_and_the_address_is_free_at_once(
    tmp_path: Path, valkey: ValkeyServer, prefix: str, is_stopped_before: bool
) -> None:
    (tmp_path / "app.py").write_text(APP.format(seconds=2.0, obeys=False))
    path = tmp_path / "web"
    async with lone_worker("app.py:app", tmp_path, redis=valkey.url, prefix=prefix) as worker:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            assert worker.link.send(Hold(0), listener.fileno())
        await worker.wait_log("starting")
        assert is_listened_at(path)
        if is_stopped_before:
            worker.send(Stop(30.0, 0.0))
            await worker.wait_log("cancelled")
        worker.link.close()
        await wait_until(lambda: not is_listened_at(path))
        assert "leaving" not in worker.log
        assert await worker.wait_end() == ExitCode.FORCED_STOP
        assert "the application did not end in 2 s, and no primary is there to end it" in worker.log


async def test_one_that_lets_itself_be_cancelled_ends_well(tmp_path: Path, valkey: ValkeyServer, prefix: str) -> None:
    (tmp_path / "app.py").write_text(APP.format(seconds=60, obeys=True))
    async with lone_worker("app.py:app", tmp_path, redis=valkey.url, prefix=prefix) as worker:
        await worker.wait_log("starting")
        worker.link.close()
        assert await worker.wait_end() == ExitCode.OK
        assert "cancelled" in worker.log

"""A worker that no primary adopts ends, also if its application would not, or its event loop stands still."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from support.lone_worker import LoneWorker, lone_worker
from support.valkey import ValkeyServer
from support.waiting import wait_until

from stickygw.errors import ExitCode
from stickygw.wire.link import Stop

STUBBORN = """
import asyncio
from stickygw import App
from stickygw.worker import main

main.ORPHAN_STOP_SECONDS = main.GIVING_UP_SECONDS = 0.5
app = App()

@app.on_start
def start():
    app.stays = asyncio.ensure_future(stay())

async def stay():
    while True:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            print("no", flush=True)
"""

BLOCKED = """
import time
from stickygw import App

app = App()

@app.on_message
def said(conn, message):
    print("standing still", flush=True)
    time.sleep(1000)
"""

ORPHANED = "the primary is gone; serving"


def orphaned(worker: LoneWorker, after: str) -> None:
    """Its primary dies, and something else tells it to end."""
    if after == "a stop":
        worker.send(Stop(0.5, 0.0))
    worker.link.close()
    if after == "SIGTERM":
        worker.signal(signal.SIGTERM)


@pytest.mark.parametrize("after", ["worker_orphan_timeout", "SIGTERM", "a stop"])
async def test_an_application_that_will_not_be_cancelled_is_left(
    tmp_path: Path, valkey: ValkeyServer, prefix: str, after: str
) -> None:
    (tmp_path / "app.py").write_text(STUBBORN)
    timeout = 0.5 if after == "worker_orphan_timeout" else 600.0
    async with lone_worker(
        "app.py:app",
        tmp_path,
        redis=valkey.url,
        prefix=prefix,
        runtime_dir=tmp_path,
        worker_orphan_timeout=timeout,
        stop_timeout=0.5,
    ) as worker:
        await worker.wait_ready()
        orphaned(worker, after)
        assert await worker.wait_end() == ExitCode.FORCED_STOP
        assert "no\n" in worker.log, "the test sees what it is about"
        assert "the application did not end in 1 s, and no primary is there to end it: leaving" in worker.log


@pytest.mark.long  # a stop's time is over before it is left
@pytest.mark.parametrize("is_first", [True, False])
async def test_one_whose_loop_stands_still_is_left_whether_it_has_heard_of_its_primary_s_end_or_not(
    tmp_path: Path, valkey: ValkeyServer, prefix: str, is_first: bool
) -> None:
    (tmp_path / "app.py").write_text(BLOCKED)
    async with lone_worker(
        "app.py:app", tmp_path, redis=valkey.url, prefix=prefix, runtime_dir=tmp_path, worker_orphan_timeout=3.0
    ) as worker:
        await worker.wait_ready()
        async with worker.client() as client:
            if not is_first:
                worker.link.close()
                await worker.wait_log(ORPHANED)
            await client.send("stand still")
            await worker.wait_log("standing still")
            if is_first:
                worker.link.close()
            await wait_until(lambda: worker.has_ended, seconds=40)
        assert await worker.wait_end() == ExitCode.FORCED_STOP
        assert (ORPHANED in worker.log) is not is_first
        assert "there was no primary for 17 s, and the application did not end: leaving" in worker.log

"""What a worker process says of itself: heartbeats, who blocks its loop, and a traceback when it is ended for that."""

import json
import re
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from support.lone_worker import LoneWorker, lone_worker
from support.observed import cpu_seconds
from support.valkey import ValkeyServer
from support.waiting import wait_until

from stickygw.errors import ExitCode
from stickygw.wire.link import Blocked, Failed

APP = f"{Path(__file__).parent / 'apps' / 'draining.py'}:app"


@pytest.fixture
async def worker(tmp_path: Path, valkey: ValkeyServer, prefix: str) -> AsyncIterator[LoneWorker]:
    async with lone_worker(APP, tmp_path, redis=valkey.url, prefix=prefix) as worker:
        await worker.wait_ready()
        yield worker


async def test_every_second_a_heartbeat_says_how_the_worker_is(worker: LoneWorker) -> None:
    async with worker.client() as client, worker.client():
        for _ in range(3):
            await client.send(json.dumps({"do": "who"}))
            await client.recv()
        await wait_until(lambda: worker.beats and worker.beats[-1].connections == 2)
        beat = worker.beats[-1]
        assert (beat.served, beat.received, beat.sent, beat.queued) == (2, 3, 3, 0)
        assert beat.rss > 8 << 20
        assert 0 <= beat.cpu < 2
        assert beat.report == {}
    await wait_until(lambda: worker.beats[-1].connections == 0)
    assert (worker.beats[-1].served, worker.beats[-1].received, worker.beats[-1].sent) == (2, 3, 3)


async def test_a_handler_that_blocks_the_loop_is_named_while_it_does(worker: LoneWorker) -> None:
    async with worker.client() as client:
        await client.send(json.dumps({"do": "spin", "seconds": 3.0}))
        await wait_until(lambda: worker.all_said(Blocked))
        told = worker.all_said(Blocked)[0]
        assert re.fullmatch(r"asked \(draining\.py:\d+\), now in (factorise|spin)\S* \(draining\.py:\d+\)", told.where)
        assert told.seconds >= 1.0
        beats = len(worker.beats)
        await wait_until(lambda: len(worker.beats) > beats)
        assert worker.said.index(told) < worker.said.index(worker.beats[beats])
        assert worker.beats[beats].lag > 1.0
        assert worker.beats[beats].cpu > 0.05
    assert re.search(r"WARNING .*: the event loop is blocked for \d\.\d s by asked \(draining\.py:\d+\)", worker.log)
    await worker.wait_log("the event loop turns again; it was blocked for ")


@pytest.mark.long
async def test_a_c_function_that_keeps_the_gil_shows_in_the_traceback_of_sigabrt(worker: LoneWorker) -> None:
    async with worker.client() as client:
        await client.send(json.dumps({"do": "keep the GIL"}))
        await worker.wait_log("app: keeping the GIL")
        beats, busy = len(worker.beats), cpu_seconds(worker.pid)
        await wait_until(lambda: cpu_seconds(worker.pid) >= busy + 2.5, seconds=60)  # at it all the time, and silent
        assert len(worker.beats) <= beats + 1
        assert worker.all_said(Blocked) == [], "the watch, too, is silent"
        worker.signal(signal.SIGABRT)
        assert await worker.wait_end() == -signal.SIGABRT
    handler = r'File ".*draining\.py", line \d+ in '
    assert re.search(rf"{handler}count_for_ever\n +{handler}asked", worker.log)
    assert "Fatal Python error: Aborted" in worker.log


async def test_readiness_is_said_behind_a_link_that_on_start_has_filled(
    tmp_path: Path, valkey: ValkeyServer, prefix: str
) -> None:
    (tmp_path / "full.py").write_text(
        "from stickygw import App\napp = App()\n@app.on_start\ndef fill():\n"
        "    for _ in range(8):\n        app.tell('x', bytes(60_000))\n"
    )
    async with lone_worker("full.py:app", tmp_path, redis=valkey.url, prefix=prefix) as worker:
        _read_nothing_until(lambda: "ready: slot 0" in worker.log)
        await worker.wait_ready()


def _read_nothing_until(holds: Callable[[], bool]) -> None:
    """Hold the event loop, and so the primary's end of the link."""
    give_up = time.monotonic() + 30.0
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.01)


async def test_why_it_cannot_start_is_said_whatever_bytes_are_in_it(
    tmp_path: Path, valkey: ValkeyServer, prefix: str
) -> None:
    (tmp_path / "odd.py").write_text(
        "from stickygw import App\napp = App()\n@app.on_start\ndef fail():\n"
        "    raise RuntimeError('no file caf\\udce9')\n"
    )
    async with lone_worker("odd.py:app", tmp_path, redis=valkey.url, prefix=prefix) as worker:
        assert await worker.wait_end() == ExitCode.TARGET
    assert worker.all_said(Failed) == [Failed(r"RuntimeError: no file caf\udce9")]

"""The end of all workers: asked, waited for, and forced only where they do not end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from primary_rig import head_of
from supervised_rig import NOTE_ALL, SERVE, Supervised, is_alive, supervised
from support.waiting import wait_until

from stickygw.errors import ExitCode
from stickygw.supervision import events as to


async def test_a_stop_ends_all_workers_and_none_is_restarted(short_dir: Path):
    async with supervised(short_dir, NOTE_ALL) as gateway:
        await gateway.wait_ready()
        pids = [gateway.pid(slot) for slot in (0, 1)]
        await gateway.stop(grace_seconds=5)
        assert not any(is_alive(pid) for pid in pids)
        assert sorted(gateway.notes()) == [f"{slot}.1 Stop(grace_seconds=5, spread_seconds=0.25)" for slot in (0, 1)]
        fleet = gateway.supervisor.fleet
        assert (fleet.was_forced, fleet.has_crashed, fleet.members, fleet.doing) == (False, False, [], "stopping")


async def test_a_command_in_the_stop_is_refused_and_one_under_way_is_told_of_it(short_dir: Path):
    script = "if configure.generation > 1: time.sleep(60)"
    async with supervised(short_dir, script, SERVE, slots=1) as gateway:
        await gateway.wait_ready()
        under_way = asyncio.ensure_future(gateway.do(to.Reload()))
        await wait_until(lambda: (0, 2) in gateway.generations())
        await gateway.stop()
        for finished in (await under_way, await gateway.do(to.Scale(2))):
            assert (finished.text, finished.is_well) == ("the gateway stops", False)
        assert not gateway.supervisor.fleet.was_forced


async def test_a_worker_that_is_not_ready_is_ended_by_sigterm(short_dir: Path):
    script = """
    if configure.slot == 1:
        def told(*_):
            note("SIGTERM")
            sys.exit(0)
        signal.signal(signal.SIGTERM, told)
        note("starts")
        time.sleep(60)
    """
    async with supervised(short_dir, script, SERVE) as gateway:
        await wait_until(lambda: gateway.rig.view(0).is_ready and gateway.notes())
        await gateway.stop()
        assert gateway.notes() == ["1.1 starts", "1.1 SIGTERM"]
        assert not gateway.supervisor.fleet.was_forced
        assert not gateway.supervisor.fleet.has_crashed


async def test_a_worker_that_says_it_cut_connections_makes_the_stop_forced(short_dir: Path):
    script = SERVE.replace("sys.exit(0)", f"sys.exit({int(ExitCode.FORCED_STOP)})")
    async with supervised(short_dir, script, slots=1) as gateway:
        await gateway.wait_ready()
        await gateway.stop()
        assert gateway.supervisor.fleet.was_forced


FORKS = """
child = os.fork()
if child:
    note(child)
    say(Ready())
time.sleep(60)
"""
"""Serves nobody and ends by no word, and has started a process that does the same."""


async def worker_and_child(gateway: Supervised) -> tuple[int, int]:
    """The processes of slot 0, whose worker `FORKS`."""
    await gateway.wait_ready()
    return gateway.pid(0), int(gateway.notes()[0].split()[1])


async def test_kill_ends_workers_that_do_not_stop_with_what_they_started(short_dir: Path):
    script = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    async with supervised(short_dir, script, FORKS, slots=1) as gateway:
        worker, child = await worker_and_child(gateway)
        gateway.supervisor.stop(grace_seconds=5, spread_seconds=0)
        assert gateway.supervisor.fleet.members
        gateway.supervisor.kill()
        assert not is_alive(worker)
        await wait_until(lambda: not is_alive(child))
        await gateway.supervisor.wait_gone()
        gateway.supervisor.kill()


async def test_a_worker_that_does_not_stop_in_time_is_killed_with_what_it_started(short_dir: Path):
    async with supervised(short_dir, FORKS, slots=1) as gateway:
        worker, child = await worker_and_child(gateway)
        await gateway.stop(grace_seconds=0.2)
        assert gateway.supervisor.fleet.was_forced
        assert not is_alive(worker)
        await wait_until(lambda: not is_alive(child))


@pytest.mark.parametrize(
    ("end", "told"), [("os.abort()", "SIGABRT"), ("sys.exit(1)", "status 1")], ids=["signal", "status"]
)
async def test_a_worker_that_crashes_in_the_stop_is_told(
    short_dir: Path, caplog: pytest.LogCaptureFixture, end: str, told: str
):
    async with supervised(short_dir, SERVE.replace("sys.exit(0)", end), slots=1) as gateway:
        await gateway.wait_ready()
        await gateway.stop()
        assert gateway.supervisor.fleet.has_crashed
        assert f"worker died slot=0 in the stop: exited with {told}" in caplog.text


async def test_a_worker_that_is_killed_in_the_stop_has_not_crashed(short_dir: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("stickygw.supervision.roster.ENDING_SECONDS", 0.1)
    script = """
    say(Ready())
    link.recv(1 << 17)
    link.close()
    time.sleep(60)
    """
    async with supervised(short_dir, script, slots=1) as gateway:
        await gateway.wait_ready()
        await gateway.stop()
        assert gateway.supervisor.fleet.was_forced
        assert not gateway.supervisor.fleet.has_crashed


async def test_the_stop_reaches_a_worker_whose_link_was_full(short_dir: Path):
    script = """
    say(Ready())
    while not os.path.exists(mark):
        time.sleep(0.01)
    while data := link.recv(1 << 17):
        if isinstance(decode(data), Stop):
            sys.exit(0)
    """
    async with supervised(short_dir, script, slots=1) as gateway:
        await gateway.wait_ready()
        for _ in range(400):
            await gateway.rig.client(head_of())
        await gateway.rig.wait_counted("hand_overs", "queued")
        gateway.supervisor.stop(grace_seconds=5, spread_seconds=0)
        gateway.rig.hand_overs.stop()
        gateway.mark.touch()
        async with asyncio.timeout(10):
            await gateway.supervisor.wait_gone()
        assert not gateway.supervisor.fleet.was_forced
        assert not gateway.supervisor.fleet.has_crashed

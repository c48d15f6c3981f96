"""What a killed primary has left is waited for, ended, or kept for the next one; its addresses stay where they are."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from found_rig import coming_worker, descriptors, left_settings, standing_still, write_roll
from supervised_rig import is_alive
from support.waiting import loop_turns, wait_until

from stickygw.config.places import ROLL
from stickygw.errors import BindError, OperatorError, RuntimeDirError
from stickygw.ipc.link import link_pair
from stickygw.primary import ground, orphans
from stickygw.primary.adoption import FoundWorker
from stickygw.primary.ground import Ground
from stickygw.primary.orphans import Orphans
from stickygw.primary.processes import WatchedProcess


@pytest.fixture(autouse=True)
def _limits_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ground, "raise_descriptor_limit", lambda: 1024)


@pytest.fixture
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not come is not waited for."""
    monkeypatch.setattr(orphans, "KNOCK_SECONDS", 0.05)


# --- those that do not come -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("short_wait")
async def test_who_does_not_come_is_watched_until_it_does(short_dir: Path):
    settings = left_settings(short_dir)
    with standing_still() as stands, coming_worker(settings) as comes:
        write_roll(short_dir, stands, comes)
        left = Orphans(short_dir)
        os.kill(comes, signal.SIGSTOP)
        await left.wait()
        assert set(left.stragglers.pids) == {stands, comes}
        os.kill(comes, signal.SIGCONT)
        await wait_until(lambda: [worker.pid for worker in left.found] == [comes])
        assert left.stragglers.pids == [stands]
        left.close()
        assert is_alive(stands)


# --- ending them ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("short_wait")
@pytest.mark.parametrize("is_upgrade", [False, True])
async def test_without_adoption_those_of_a_killed_primary_are_ended_and_those_of_an_upgraded_one_are_not(
    short_dir: Path, is_upgrade: bool
):
    with standing_still() as pid:
        write_roll(short_dir, pid, is_upgrade=is_upgrade)
        at = Ground(left_settings(short_dir, adopt=False))
        await at.prepare()
        at.close()
        assert is_alive(pid) is is_upgrade


WRITE_ROLL = """
import sys
from pathlib import Path
from stickygw.primary.roll import RollFile
RollFile(Path(sys.argv[1])).write([int(sys.argv[2])], (), is_upgrade=True)
"""


def leave_an_upgrade(directory: Path, pid: int) -> None:
    """As a primary with that worker does which dies in the middle of its upgrade."""
    subprocess.run([sys.executable, "-c", WRITE_ROLL, str(directory / ROLL), str(pid)], timeout=30, check=True)


@pytest.mark.usefixtures("short_wait")
async def test_without_adoption_those_of_one_that_died_in_its_upgrade_are_ended_and_with_it_they_have_their_turn(
    short_dir: Path,
):
    with standing_still() as pid:
        leave_an_upgrade(short_dir, pid)
        left = Orphans(short_dir)
        assert (left.is_upgrade, left.is_own) == (True, False)
        at = Ground(left_settings(short_dir, adopt=False))
        await at.prepare()
        at.close()
        assert not is_alive(pid)


@pytest.mark.parametrize("is_alone", [True, False])
async def test_one_that_lives_on_after_all_is_named_and_no_defect(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch, is_alone: bool
):
    monkeypatch.setattr(orphans, "KILL_SECONDS", 0.05)
    with standing_still(signal.SIGTERM) as held, standing_still() as willing:
        monkeypatch.setattr(WatchedProcess, "kill_session", lambda self: None)  # as if the kernel held it
        write_roll(short_dir, held, *([] if is_alone else [willing]))
        had = descriptors()
        left = Orphans(short_dir)
        with pytest.raises(RuntimeDirError, match=rf"have not ended 0\.05 s after SIGKILL: pid {held};"):
            await left.end(0.05)
        assert descriptors() == had
        assert (is_alive(held), is_alive(willing)) == (True, is_alone)


async def test_who_is_being_ended_is_killed_when_nobody_waits_any_more(short_dir: Path):
    with standing_still(signal.SIGTERM) as pid:
        write_roll(short_dir, pid)
        ending = asyncio.create_task(Orphans(short_dir).end(60.0))
        await loop_turns()
        ending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ending
        assert not is_alive(pid)


# --- their addresses --------------------------------------------------------------------------------------------------


async def test_a_start_that_is_refused_leaves_the_file_where_workers_serve(short_dir: Path):
    path = short_dir / "web"
    no_directory = short_dir / "file"
    no_directory.touch()
    settings = left_settings(short_dir, bind=(f"unix:{path}",))
    with coming_worker(settings, listens=[path]) as pid:
        write_roll(short_dir, pid)
        refused = Ground(settings.model_copy(update={"state_dir": no_directory, "gateway_id": None}))
        with pytest.raises(OperatorError):
            await refused.prepare()
        assert [listener.url for listener in refused.listeners] == [f"unix:{path}"]
        refused.close()
        assert is_alive(pid)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


async def test_a_start_that_is_stopped_ends_the_workers_and_removes_the_file(short_dir: Path):
    path = short_dir / "web"
    settings = left_settings(short_dir, bind=(f"unix:{path}",))
    with coming_worker(settings, listens=[path]) as pid:
        write_roll(short_dir, pid)
        at = Ground(settings)
        await at.prepare()
        await at.end_orphans(10.0)
        at.close()
        assert (is_alive(pid), path.exists()) == (False, False)


@pytest.fixture
async def kept(short_dir: Path) -> AsyncIterator[tuple[Orphans, Path]]:
    """One that has come with a socket at that path."""
    path = short_dir / "web"
    left = Orphans(short_dir)
    ours, theirs = link_pair()
    worker = FoundWorker(ours, os.getpid(), on_known=lambda _: None, on_lost=lambda _: None)
    worker.listeners[0] = socket.socket(socket.AF_UNIX)
    worker.listeners[0].bind(str(path))
    worker.listeners[0].listen()
    left.found.append(worker)
    yield left, path
    worker.close()
    theirs.close()


async def test_the_socket_that_workers_have_kept_is_taken_over(kept: tuple[Orphans, Path]):
    left, path = kept
    [listener] = left.listeners([f"unix:{path}"])
    assert (listener.keeps_file, left.has_lost_listeners) == (True, False)
    listener.close()
    assert path.is_socket()


async def test_a_socket_whose_file_is_gone_is_bound_anew(kept: tuple[Orphans, Path], caplog: pytest.LogCaptureFixture):
    left, path = kept
    path.unlink()
    with caplog.at_level(logging.WARNING):
        [listener] = left.listeners([f"unix:{path}"])
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        listener.sock.accept()[0].close()
    assert left.has_lost_listeners
    assert "its file is gone" in caplog.text
    assert not listener.keeps_file
    listener.close()
    assert not path.exists()


async def test_a_file_that_has_taken_the_socket_s_place_is_left_alone(kept: tuple[Orphans, Path]):
    left, path = kept
    path.unlink()
    path.write_text("precious")
    had = descriptors()
    with pytest.raises(BindError, match="no socket is there"):
        left.listeners([f"unix:{path}"])
    assert descriptors() == had - 1
    assert path.read_text() == "precious"

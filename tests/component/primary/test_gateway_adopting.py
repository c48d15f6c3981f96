"""A whole gateway adopts: who makes it replace workers, and what it leaves, until then, to the next one."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from found_rig import TARGET, coming_worker, left_settings, pids_in_roll, standing_still, write_roll
from support.waiting import wait_until

from stickygw.config.places import CONTROL_SOCKET, ROLL
from stickygw.errors import CommandError, ExitCode
from stickygw.ipc.control_client import ControlClient
from stickygw.primary import orphans as orphans_module
from stickygw.primary.gateway import Gateway
from stickygw.primary.listener import bind
from stickygw.primary.notify import Notifier
from stickygw.primary.orphans import Orphans
from stickygw.primary.roll import RollFile
from stickygw.primary.stragglers import Stragglers
from stickygw.supervision import events as to

OTHER = {"move_grace": 1.25, "workers": "3"}


async def _never() -> ExitCode:
    raise AssertionError


class Adopting:
    """A gateway of one slot, and what a primary before it has left."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.settings = left_settings(directory, bind=(f"unix:{directory}/web",), **settings)
        self.directory = directory
        self.orphans = Orphans(directory)
        self.listeners = bind(self.settings.bind)
        self.gateway = Gateway(
            self.settings,
            TARGET,
            self.listeners,
            self.orphans,
            arguments=[],
            configured=self.settings,
            notifier=Notifier({}),
            started_at=time.monotonic(),
            on_ready=lambda: None,
            on_failed=lambda reason: None,
            stop=_never,
            upgrade=lambda on_progress: _never(),  # type: ignore[arg-type, return-value]
        )

    @property
    def is_replacing(self) -> bool:
        """Whether workers are being replaced, or slots opened."""
        return self.gateway.caught_up is not None or bool(self.gateway.supervisor.fleet.doing)

    @property
    def adopted(self) -> set[int]:
        """The workers that it has."""
        return set(self.gateway.supervisor.pids)


Left = Callable[..., Awaitable[Adopting]]


@pytest.fixture
async def left(short_dir: Path) -> AsyncIterator[Left]:
    """Makes one that has waited for those processes."""
    async with AsyncExitStack() as stack:

        async def make(*pids: int, **settings: Any) -> Adopting:
            write_roll(short_dir, *pids)
            at = await stack.enter_async_context(_closed_at_last(Adopting(short_dir, **settings)))
            await at.orphans.wait()
            return at

        yield make


@asynccontextmanager
async def _closed_at_last(at: Adopting) -> AsyncIterator[Adopting]:
    try:
        yield at
    finally:
        at.gateway.close()
        at.orphans.close()


# --- who makes a difference -------------------------------------------------------------------------------------------


async def test_owners_that_run_with_other_settings_are_replaced(short_dir: Path, left: Left):
    with coming_worker(left_settings(short_dir), **OTHER) as pid:
        at = await left(pid)
        at.gateway.start()
        assert at.adopted >= {pid}
        assert at.is_replacing


async def test_owners_that_run_the_same_are_left_alone(short_dir: Path, left: Left):
    with coming_worker(left_settings(short_dir)) as pid:
        at = await left(pid)
        at.gateway.start()
        assert (at.adopted, at.is_replacing) == ({pid}, False)


@pytest.mark.parametrize("is_draining", [True, False])
async def test_who_drains_or_gives_what_it_has_to_a_newer_one_makes_no_difference(
    short_dir: Path, left: Left, is_draining: bool
):
    settings = left_settings(short_dir)
    with (
        coming_worker(settings, is_draining=is_draining, target="old:app", **OTHER) as old,
        coming_worker(settings, generation=2) as new,
    ):
        at = await left(old, new)
        at.gateway.start()
        assert (at.adopted, at.is_replacing) == ({old, new}, False)


async def test_a_late_one_whose_slot_is_another_s_makes_no_difference(short_dir: Path, left: Left):
    settings = left_settings(short_dir)
    with coming_worker(settings) as first:
        at = await left(first)
        at.gateway.start()
        with coming_worker(settings, is_draining=True, generation=7, target="old:app", **OTHER) as late:
            await wait_until(lambda: late in at.adopted)
            assert not at.is_replacing
        with coming_worker(settings, generation=7, target="old:app", **OTHER) as late:
            await wait_until(lambda: late in at.adopted)
            assert not at.is_replacing


async def test_one_that_ends_as_it_is_adopted_is_gone_and_another_takes_its_slot(short_dir: Path, left: Left):
    failed: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context))
    with coming_worker(left_settings(short_dir)) as pid:
        at = await left(pid)
        at.gateway.start()
    # Its end, and that of its link, are seen in one turn of the loop.
    await wait_until(lambda: pid not in at.adopted and at.adopted)
    assert failed == []


async def test_a_late_one_that_another_is_about_to_replace_makes_no_difference(
    short_dir: Path, left: Left, monkeypatch: pytest.MonkeyPatch
):
    settings = left_settings(short_dir, workers="2")
    with (
        coming_worker(settings, slots=2) as first,
        coming_worker(settings, 1, slots=2, target="old:app", **OTHER) as late,
    ):
        os.kill(late, signal.SIGSTOP)
        monkeypatch.setattr(orphans_module, "KNOCK_SECONDS", 0.5)
        at = await left(first, late, workers="2")
        monkeypatch.setattr(at.gateway.supervisor, "_command", lambda slot, fd: ["sleep", "60"])
        at.gateway.start()
        os.kill(late, signal.SIGCONT)
        await wait_until(lambda: late in at.adopted)
        record = at.gateway.supervisor.fleet.slots[1]
        assert record.owner is not None
        assert record.coming is not None
        assert not at.is_replacing


async def test_workers_that_keep_another_socket_open_than_we_do_are_replaced(short_dir: Path, left: Left):
    with coming_worker(left_settings(short_dir)) as pid:
        at = await left(pid)
        at.orphans.has_lost_listeners = True
        at.gateway.start()
        assert at.is_replacing


# --- what is left to the next one -------------------------------------------------------------------------------------


async def test_copies_of_listeners_that_came_too_late_to_be_used_are_closed(short_dir: Path, left: Left):
    path = short_dir / "theirs"
    with coming_worker(left_settings(short_dir), listens=[path]) as pid:
        at = await left(pid)
        [worker] = at.orphans.found
        [copy] = worker.listeners.values()
        assert copy.getsockname() == str(path)
        at.gateway.start()
        assert (copy.fileno(), worker.listeners) == (-1, {})


async def test_a_socket_s_file_stays_until_the_workers_are_ours(short_dir: Path, left: Left):
    with coming_worker(left_settings(short_dir)) as pid:
        at = await left(pid)
        [listener] = at.listeners
        listener.keeps_file = True
        at.gateway.start()
        at.gateway.close()
        assert listener.path is not None
        assert not listener.path.exists()


async def test_a_gateway_that_was_never_started_leaves_the_roll_and_the_workers(short_dir: Path, left: Left):
    with coming_worker(left_settings(short_dir)) as pid:
        at = await left(pid)
        at.gateway.close()
        at.orphans.close()
        assert pids_in_roll(short_dir) == {pid}


async def test_who_has_not_come_stays_in_the_roll_until_it_is_gone_and_has_the_time_of_one_that_is_silent(
    short_dir: Path, left: Left, monkeypatch: pytest.MonkeyPatch
):
    given: list[float] = []
    monkeypatch.setattr(Stragglers, "end_after", lambda self, seconds: given.append(seconds))
    monkeypatch.setattr(orphans_module, "KNOCK_SECONDS", 0.5)
    settings = left_settings(short_dir, heartbeat_timeout=7.0)
    with coming_worker(settings) as comes, standing_still() as stands:
        at = await left(comes, stands, heartbeat_timeout=7.0)
        at.gateway.start()
        assert pids_in_roll(short_dir) == {comes, stands}
        assert given == [7.0]
        os.kill(stands, signal.SIGKILL)
        await wait_until(lambda: not at.orphans.stragglers.pids)
        assert pids_in_roll(short_dir) == at.adopted == {comes}
        assert str(stands) not in (short_dir / ROLL).read_text()


async def test_one_that_comes_late_is_not_ended_for_it(short_dir: Path, left: Left, monkeypatch: pytest.MonkeyPatch):
    with coming_worker(left_settings(short_dir)) as first, coming_worker(left_settings(short_dir)) as late:
        monkeypatch.setattr(orphans_module, "KNOCK_SECONDS", 0.5)
        os.kill(late, signal.SIGSTOP)
        at = await left(first, late)
        at.gateway.start()
        assert at.orphans.stragglers.pids == [late]
        os.kill(late, signal.SIGCONT)
        await wait_until(lambda: late in at.adopted)
        assert at.orphans.stragglers.pids == []


async def test_a_gateway_that_ends_leaves_neither_the_roll_nor_one_who_has_not_come(
    short_dir: Path, left: Left, monkeypatch: pytest.MonkeyPatch
):
    with standing_still(signal.SIGTERM) as stands:
        monkeypatch.setattr(orphans_module, "KNOCK_SECONDS", 0.01)
        at = await left(stands)
        at.gateway.start()
        at.gateway.close()
        assert pids_in_roll(short_dir) == set()
        assert at.orphans.stragglers.pids == []
        assert not (short_dir / ROLL).exists()


# --- an upgrade -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_caught_up_before", [False, True])
async def test_who_asks_what_became_of_an_upgrade_that_could_not_be_executed_is_told_why(
    short_dir: Path, left: Left, monkeypatch: pytest.MonkeyPatch, has_caught_up_before: bool
):
    def refuse(*_: Any) -> None:
        assert RollFile(short_dir / ROLL).read().is_own
        raise OSError(7, "Argument list too long")

    def ask() -> dict[str, Any]:
        with ControlClient(short_dir / CONTROL_SOCKET) as client:
            return client.request("upgraded")

    monkeypatch.setattr(os, "execve", refuse)
    with coming_worker(left_settings(short_dir)) as pid:
        at = await left(pid)
        at.gateway.start()
        if has_caught_up_before:
            at.gateway.caught_up = asyncio.get_running_loop().create_future()
            at.gateway.caught_up.set_result(to.Finished(1, "generation 2 runs in 1 slot", is_well=True))
        with pytest.raises(OSError, match="Argument list too long"):
            at.gateway.become_anew({})
        at.gateway.give_up_upgrade("the upgrade failed, and this code goes on")
        found = RollFile(short_dir / ROLL).read()
        assert (found.pids, found.is_upgrade) == ((pid,), False)
        await at.gateway.control.start()
        with pytest.raises(CommandError, match="the upgrade failed, and this code goes on"):
            await asyncio.to_thread(ask)

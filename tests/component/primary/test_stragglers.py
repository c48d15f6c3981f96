"""Workers that live and do not come are watched; they are ended in time, or left, and nobody else is touched."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from found_rig import descriptors, standing_still
from supervised_rig import is_alive

from stickygw.primary import stragglers
from stickygw.primary.stragglers import Stragglers

TERM, ABRT = signal.SIGTERM, signal.SIGABRT


class Watched:
    """Stragglers, and what they had told their owner when one changed."""

    def __init__(self, *, is_theirs: bool = True) -> None:
        self.stragglers = Stragglers(lambda pid: is_theirs)
        self.changes: list[list[int]] = []
        self.stragglers.on_changed = lambda: self.changes.append(self.stragglers.pids)

    async def wait_gone(self) -> None:
        async with asyncio.timeout(10):
            await self.stragglers.wait_gone()


@contextmanager
def watched(*pids: int) -> Iterator[Watched]:
    """All of `pids`; no descriptor is left."""
    had = descriptors()
    at = Watched()
    for pid in pids:
        at.stragglers.add(pid)
    assert at.stragglers.pids == list(pids)
    yield at
    at.stragglers.close()
    assert descriptors() == had


async def test_one_that_comes_is_watched_no_more_and_one_that_ends_is_gone():
    with standing_still() as comes, standing_still() as ends, watched(comes, ends) as at:
        at.stragglers.discard(comes)
        at.stragglers.discard(comes)
        assert at.changes == [[ends]]
        at.stragglers.terminate()
        await at.wait_gone()
        assert at.changes == [[ends], []]
        assert is_alive(comes)


async def test_one_that_has_not_come_in_time_is_ended_with_its_traceback(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stragglers, "ABORT_SECONDS", 60.0)
    with standing_still(TERM) as pid, watched(pid) as at:
        at.stragglers.end_after(0.01)
        await at.wait_gone()
        assert not is_alive(pid)


async def test_one_that_ignores_even_that_is_killed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stragglers, "ABORT_SECONDS", 0.01)
    with standing_still(TERM, ABRT) as pid, watched(pid) as at:
        at.stragglers.end_after(0.01)
        await at.wait_gone()
        assert (at.stragglers.pids, is_alive(pid)) == ([], False)


async def test_at_the_end_of_a_stop_those_that_are_left_are_killed_at_once():
    with standing_still(TERM) as pid, watched(pid) as at:
        at.stragglers.terminate()
        at.stragglers.kill()
        assert not is_alive(pid)
        assert at.changes == [[]]
        await at.wait_gone()


async def test_those_that_are_left_to_the_next_primary_live_on():
    with standing_still() as pid, watched(pid) as at:
        at.stragglers.end_after(60.0)
        at.stragglers.close()
        await at.wait_gone()
        assert (at.stragglers.pids, is_alive(pid)) == ([], True)


async def test_a_process_that_has_got_the_number_of_a_worker_is_left_alone():
    with standing_still() as pid:
        had = descriptors()
        at = Watched(is_theirs=False)
        at.stragglers.add(pid)
        assert (at.stragglers.pids, descriptors()) == ([], had)
        at.stragglers.kill()
        assert is_alive(pid)
        await at.wait_gone()


async def test_one_that_is_gone_already_is_not_waited_for():
    with standing_still() as pid:
        pass
    with watched() as at:
        at.stragglers.add(pid)
        assert at.stragglers.pids == []
        await at.wait_gone()

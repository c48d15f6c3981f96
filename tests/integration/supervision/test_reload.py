"""New code for a running gateway, while its clients are at it."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from support.gateway import Gateway
from support.steering import command, status, wait_for_status
from support.visitors import Visitor, closes_of, crowd
from support.waiting import wait_until

from stickygw.errors import ExitCode

APPS = Path(__file__).parents[1] / "apps"


class Site:
    """The application's file, which the tests write anew. `target` is the application, `target_by_hand` the same with
    coroutines, whose connections cannot move."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "site_app.py"
        self.target = f"{self._file}:app"
        self.target_by_hand = f"{self._file}:by_hand"
        self.write(1)

    def write(self, version: int, more: str = "") -> None:
        """The tally application as version `version`, with some lines more."""
        code = f"import sys\nsys.path.append({str(APPS)!r})\nimport tally\nfrom tally import app, by_hand\n{more}\n"
        # No two versions have one size, by which, and by whole seconds, Python knows old bytecode.
        self._file.write_text(f"{code}tally.version = {version}\n{'#' * version}\n")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


async def came_back(visitors: list[Visitor], version: int) -> None:
    """Wait until all have met the application's `version`."""
    await wait_until(lambda: all(visitor.stays[-1]["version"] == version for visitor in visitors), seconds=30)


def assert_nobody_left_its_slot(visitors: list[Visitor]) -> None:
    """Each came back to its slot and its session, and no visit was forgotten."""
    for visitor in visitors:
        first, *_, last = visitor.stays
        assert {stay["slot"] for stay in visitor.stays} == {first["slot"]}
        assert visitor.session == first["session"]
        assert visitor.client.cookies_set == 1
        # Whoever was closed before it had met anybody was there nevertheless.
        assert last["fields"]["visits"] >= len(visitor.stays) - visitor.moves


def assert_nobody_noticed(visitors: list[Visitor], *, reloads: int = 1) -> None:
    """Each is on its first connection, through so many generations of workers, in its slot and its session."""
    assert not closes_of(visitors)
    assert {visitor.moves for visitor in visitors} == {reloads}
    assert {visitor.stays[-1]["fields"]["visits"] for visitor in visitors} == {1}
    assert_nobody_left_its_slot(visitors)


def assert_went_well(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == ExitCode.OK, done


# --- code that starts -------------------------------------------------------------------------------------------------


BUSY = [(2, 40), pytest.param(4, 400, marks=[pytest.mark.long, pytest.mark.alone])]
"""Workers and visitors."""


async def reload_under_load(site: Site, target: str, *, workers: int, visitors: int) -> tuple[str, list[Visitor]]:
    """New code for that many visitors, beside plain requests, none of which may fail; what the command printed."""
    with Gateway(target, workers=workers) as gateway:
        async with crowd(gateway) as people:
            for path in ("/healthz", "/tally.py") * 2:
                people.hammer(path)
            await people.add(*["/"] * visitors)
            site.write(2)
            done = await command(gateway, "reload")
            assert_went_well(done)
            await came_back(people.visitors, 2)
            requests = people.requests
            await wait_until(lambda: people.requests > requests)
    for slot in range(workers):
        assert f"slot {slot}: generation 2 is ready" in done.stderr
    assert {stay["generation"] for visitor in people.visitors for stay in visitor.stays} == {1, 2}
    print(f"{visitors} visitors in {workers} slots; beside the reload {people.requests} plain requests were answered")
    return done.stdout, people.visitors


@pytest.mark.parametrize(("workers", "visitors"), BUSY)
async def test_a_reload_under_load_closes_nobody_and_loses_nothing(site: Site, workers: int, visitors: int) -> None:
    said, people = await reload_under_load(site, site.target, workers=workers, visitors=visitors)
    # What is counted as closed are plain requests, which were finished.
    assert said.startswith(f"generation 2 runs in {workers} slots; {visitors} connections moved, ")
    assert_nobody_noticed(people)


@pytest.mark.parametrize(("workers", "visitors"), BUSY)
async def test_a_reload_sends_those_away_who_cannot_move_refuses_nobody_and_loses_nothing(
    site: Site, workers: int, visitors: int
) -> None:
    said, people = await reload_under_load(site, site.target_by_hand, workers=workers, visitors=visitors)
    assert said.startswith(f"generation 2 runs in {workers} slots; 0 connections moved, ")
    assert set(closes_of(people)) == {1012}
    assert_nobody_left_its_slot(people)


async def begin_reload(gateway: Gateway) -> asyncio.Task[subprocess.CompletedProcess[str]]:
    """The reload command, once the gateway is at it."""
    reload = asyncio.create_task(command(gateway, "reload"))

    async def is_under_way() -> bool:
        return str((await status(gateway))["state"]).startswith("reloading")

    await wait_until(is_under_way)
    return reload


@pytest.mark.long
async def test_a_second_reload_waits_for_the_first(site: Site) -> None:
    with Gateway(site.target, workers=2) as gateway:
        async with crowd(gateway) as people:
            await people.add(*["/"] * 20)
            site.write(2)
            first = await begin_reload(gateway)
            site.write(3)
            second = await command(gateway, "reload")
            assert_went_well(second)
            assert_went_well(await first)
            await came_back(people.visitors, 3)
            assert (await status(gateway))["generation"] == 3
    assert "waits for the end of: reloading" in second.stderr
    assert second.stdout == "generation 3 runs in 2 slots; 20 connections moved, 0 closed\n"
    assert not closes_of(people.visitors)
    assert_nobody_left_its_slot(people.visitors)


@pytest.mark.long
async def test_sighup_without_a_terminal_reloads(site: Site) -> None:
    with Gateway(site.target, workers=2) as gateway:
        async with crowd(gateway) as people:
            await people.add(*["/"] * 10)
            site.write(2)
            gateway.send_signal(signal.SIGHUP)
            await came_back(people.visitors, 2)
        assert_nobody_noticed(people.visitors)


@pytest.mark.long
async def test_a_worker_that_crashes_in_a_reload_takes_only_its_own_clients(site: Site) -> None:
    with Gateway(site.target, workers=3) as gateway:
        async with crowd(gateway) as people:
            await people.add(*["/"] * 30)
            site.write(2)
            reload = await begin_reload(gateway)
            gateway.kill_worker(2)
            assert_went_well(await reload)
            await came_back(people.visitors, 2)
            await wait_for_status(gateway, state="running", generation=2)
    for visitor in people.visitors:
        crashes = Counter(visitor.closes)[1006]
        assert crashes == (visitor.slot == 2), visitor.closes
        assert set(visitor.closes) <= {1006}
    assert_nobody_left_its_slot(people.visitors)


# --- code that does not -----------------------------------------------------------------------------------------------

RAISES_AT_IMPORT = "raise RuntimeError('no such table')"
RAISES_IN_ON_START = "@app.on_start\ndef start():\n    raise RuntimeError('no connection')"
HANGS_IN_ON_START = "import time\n@app.on_start\ndef hang():\n    time.sleep(600)"


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (RAISES_AT_IMPORT, "site_app.py failed with RuntimeError: no such table"),
        pytest.param(RAISES_IN_ON_START, "RuntimeError: no connection", marks=pytest.mark.long),
    ],
    ids=["at import", "in on_start"],
)
async def test_code_that_cannot_start_changes_nothing_and_the_command_says_why(site: Site, code: str, why: str) -> None:
    with Gateway(site.target, workers=2) as gateway:
        async with crowd(gateway) as people:
            people.hammer("/healthz")
            await people.add(*["/"] * 20)
            site.write(2, code)
            assert_target_is_broken(await command(gateway, "reload"), why)
            assert gateway.wait_for_line("Traceback")
            assert gateway.wait_for_line(code.rpartition("\n")[2].strip())
            assert not closes_of(people.visitors)
            site.write(3)
            assert_went_well(await command(gateway, "reload"))
            await came_back(people.visitors, 3)
    assert_nobody_noticed(people.visitors)


@pytest.mark.long
async def test_code_that_does_not_get_ready_is_given_up_and_its_traceback_shown(site: Site) -> None:
    with Gateway(site.target, "--set", "start_timeout=5", workers=2) as gateway:  # a good start may take 2 s
        async with crowd(gateway) as people:
            await people.add(*["/"] * 20)
            site.write(2, HANGS_IN_ON_START)
            assert_target_is_broken(await command(gateway, "reload"), "not ready in 5 s (start_timeout)")
            assert gateway.wait_for_line(" in hang")
            assert not closes_of(people.visitors)
            site.write(3)
            assert_went_well(await command(gateway, "reload"))
            await came_back(people.visitors, 3)


def assert_target_is_broken(done: subprocess.CompletedProcess[str], why: str) -> None:
    assert done.returncode == ExitCode.TARGET, done
    assert done.stderr.startswith("error: slot 0 got no new worker: "), done
    assert why in done.stderr
    assert "; the one before it serves on; 0 of 2 slots run generation" in done.stderr


# --- watched files ----------------------------------------------------------------------------------------------------


@pytest.mark.long
async def test_watched_files_reload_as_they_change_and_the_old_code_serves_on_while_they_are_broken(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # it is watched, too
    with Gateway(site.target, "--watch", workers=2) as gateway:
        async with crowd(gateway) as people:
            await people.add(*["/"] * 10)
            site.write(2)
            await came_back(people.visitors, 2)
            site.write(3, RAISES_AT_IMPORT)
            await asyncio.to_thread(gateway.wait_for_line, "slot 0 got no new worker: importing ")
            assert {(await visitor.in_another_tab())["version"] for visitor in people.visitors} == {2}
            site.write(4)
            await came_back(people.visitors, 4)
    assert not closes_of(people.visitors)
    assert {visitor.moves for visitor in people.visitors} == {2}
    assert_nobody_left_its_slot(people.visitors)
    assert "reloading: site_app.py changed" in gateway.log
    assert "raise RuntimeError('no such table')" in gateway.log

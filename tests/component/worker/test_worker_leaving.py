"""A process that nobody else ends ends itself, whatever its application does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from stickygw.errors import ExitCode
from stickygw.worker import leaving
from stickygw.worker.leaving import OrphanWatch

WILL_NOT_END = """
import asyncio, logging, time
from stickygw.worker import leaving
from stickygw.worker.leaving import OrphanWatch, leave_after
leaving.LOOK_SECONDS = 0.01

async def for_ever():
    while True:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            print("no", flush=True)

{begin}
asyncio.run({main})
"""


def run(begin: str, main: str) -> subprocess.CompletedProcess[str]:
    script = WILL_NOT_END.format(begin=begin, main=main)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)


def test_an_application_that_will_not_end_is_left_when_its_time_is_over() -> None:
    done = run("leave_after(0.05)", "for_ever()")
    assert done.returncode == ExitCode.FORCED_STOP
    assert "the application did not end in 0.05 s, and no primary is there to end it: leaving" in done.stderr


def test_one_that_ends_in_time_ends_as_ever() -> None:
    done = run("leave_after(60)", "asyncio.sleep(0)")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_process_whose_loop_stands_still_is_left_when_it_was_alone_for_its_time() -> None:
    done = run("OrphanWatch(lambda: True, seconds=0.05).start()", "asyncio.sleep(0, time.sleep(60))")
    assert done.returncode == ExitCode.FORCED_STOP
    assert "there was no primary for 0.05 s, and the application did not end: leaving" in done.stderr


class Clock:
    """Stands still but for `sleep`. An `OrphanWatch` of ten seconds by it is over at `ended_at`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.ended_at = 0.0
        monkeypatch.setattr(leaving, "monotonic", lambda: self.now)
        monkeypatch.setattr(leaving, "sleep", self._sleep)
        monkeypatch.setattr(leaving, "_leave", self._leave)

    def _sleep(self, seconds: float) -> None:
        self.now += seconds

    def _leave(self, why: str) -> None:
        self.ended_at = self.now

    def watch(self, is_alone: Callable[[OrphanWatch], bool]) -> None:
        watch = OrphanWatch(lambda: is_alone(watch), seconds=10.0)
        watch.count_anew()
        watch._look_on()


@pytest.mark.parametrize("back_at", [1000.5, 1003.0, 1009.5])
def test_one_that_another_primary_has_adopted_has_its_time_from_that_one_s_end_on(
    monkeypatch: pytest.MonkeyPatch, back_at: float
) -> None:
    clock = Clock(monkeypatch)
    clock.watch(lambda _: not back_at <= clock.now < 1050.0)
    assert 1059.0 <= clock.ended_at <= 1060.0


def test_one_that_hears_late_that_its_primary_is_gone_has_its_time_from_then_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)

    def hears_at_1007(watch: OrphanWatch) -> bool:
        if clock.now == 1007.0:
            watch.count_anew()
        return True

    clock.watch(hears_at_1007)
    assert clock.ended_at == 1017.0


def test_one_that_is_told_to_stop_has_the_time_that_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)

    def is_told_at_1005(watch: OrphanWatch) -> bool:
        if clock.now == 1005.0:
            watch.stop()
        return True

    clock.watch(is_told_at_1005)
    assert clock.ended_at == 0.0


def test_one_that_stands_still_in_its_log_is_left_all_the_same() -> None:
    begin = """
class Stuck(logging.Handler):
    def emit(self, record):
        print("stuck", flush=True)
        time.sleep(60)
logging.getLogger("stickygw").addHandler(Stuck())
leaving.SAY_SECONDS = 0.05
OrphanWatch(lambda: True, seconds=0.05).start()
"""
    done = run(begin, "asyncio.sleep(0, time.sleep(60))")
    assert (done.returncode, done.stdout) == (ExitCode.FORCED_STOP, "stuck\n")

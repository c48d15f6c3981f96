"""The list of living workers, which the next primary reads."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stickygw.primary.roll import Roll, RollFile
from stickygw.types import Slot


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "workers.json"


def test_who_was_written_and_lives_is_read(path: Path) -> None:
    RollFile(path).write([os.getppid(), os.getpid()], [Slot(2), Slot(1)], is_upgrade=True)
    found = RollFile(path).read()
    assert set(found.pids) == {os.getpid(), os.getppid()}
    assert found.drained == (1, 2)
    assert (found.is_upgrade, found.is_own) == (True, True)
    assert not path.with_name("workers.json.new").exists()


EXECUTED_ANEW = """
import os, sys
from pathlib import Path
from stickygw.primary.roll import RollFile
roll = RollFile(Path(sys.argv[1]))
if len(sys.argv) == 2:
    roll.write([os.getppid()], [], is_upgrade=True)
    os.execv(sys.executable, [sys.executable, *sys.argv, "anew"])
print(roll.read().is_upgrade, roll.read().is_own)
"""


def test_an_upgrade_is_that_of_the_process_that_is_executed_anew_and_of_no_other(path: Path) -> None:
    script = path.with_name("primary.py")
    script.write_text(EXECUTED_ANEW)
    done = subprocess.run(
        [sys.executable, str(script), str(path)], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.split() == ["True", "True"]
    found = RollFile(path).read()
    assert (found.is_upgrade, found.is_own) == (True, False)
    RollFile(path).write([os.getpid()], [])
    found = RollFile(path).read()
    assert (found.is_upgrade, found.is_own) == (False, False)


def test_a_process_that_has_the_number_of_one_that_was_to_be_upgraded_is_another(path: Path) -> None:
    RollFile(path).write([], [], is_upgrade=True)
    told = json.loads(path.read_text())
    told["upgrade"][1] += 1
    path.write_text(json.dumps(told))
    assert not RollFile(path).read().is_own


def test_without_a_file_there_is_nobody(path: Path) -> None:
    assert RollFile(path).read() == Roll()


def test_a_process_that_has_the_number_of_an_earlier_one_does_not_count(path: Path) -> None:
    RollFile(path).write([os.getpid()], [])
    told = json.loads(path.read_text())
    told["workers"][0][1] += 1
    path.write_text(json.dumps(told))
    assert RollFile(path).read().pids == ()


def test_one_that_has_ended_does_not_count_reaped_or_not(path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        RollFile(path).write([process.pid], [])
        assert RollFile(path).read().pids == (process.pid,)
        process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert RollFile(path).read().pids == ()
    assert RollFile(path).read().pids == ()


def test_one_that_had_ended_when_it_was_written_never_counts(path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    RollFile(path).write([gone.pid], [])
    assert RollFile(path).read().pids == ()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"workers": 1, "drained": [], "upgrade": false}',
        '{"workers": [[1]], "drained": [], "upgrade": false}',
        '{"workers": [], "drained": ["x"], "upgrade": false}',
        '{"workers": [], "drained": []}',
        "\u00fc",
    ],
)
def test_what_cannot_be_read_is_nobody_and_is_logged(text: str, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_text(text)
    with caplog.at_level(logging.ERROR):
        assert RollFile(path).read() == Roll()
    assert "so no workers are adopted" in caplog.text


def test_one_that_cannot_be_written_is_logged_and_written_the_next_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "later" / "workers.json"
    roll = RollFile(path)
    roll.write([os.getpid()], [])
    assert "cannot be written" in caplog.text
    path.parent.mkdir()
    roll.write([os.getpid()], [])
    assert RollFile(path).read().pids == (os.getpid(),)


def test_the_same_is_not_written_again_and_a_removed_one_may_be_gone_already(path: Path) -> None:
    roll = RollFile(path)
    roll.write([os.getpid()], [])
    path.unlink()
    roll.write([os.getpid()], [])
    assert not path.exists()
    roll.remove()
    roll.write([], [])
    assert RollFile(path).read() == Roll()

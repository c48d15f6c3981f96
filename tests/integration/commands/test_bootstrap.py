"""`scripts/bootstrap` finds an interpreter that works, and says what is wrong when there is none."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


class Machine:
    """A PATH with a shell and the programs that a test puts there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.link("sh", shutil.which("sh") or "/bin/sh")

    def link(self, name: str, program: str) -> None:
        (self.folder / name).symlink_to(program)

    def script(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{text}\n", "utf-8")
        path.chmod(0o755)
        return path

    def bootstrap(self, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run it with an argument that it does not know, so that nothing is installed."""
        command = [str(self.folder / "sh"), str(ROOT / "scripts" / "bootstrap"), "no-such-extra"]
        environment = {"PATH": str(self.folder), **variables}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def was_python_found(done: subprocess.CompletedProcess[str]) -> bool:
    return done.returncode == 2 and done.stderr.startswith("usage: ")


def test_python3_is_taken_when_nothing_newer_has_a_name(machine: Machine) -> None:
    machine.link("python3", sys.executable)
    assert was_python_found(machine.bootstrap())


def test_a_shim_that_fails_is_passed_over(machine: Machine) -> None:
    machine.script("python3.14", "echo 'no such version is installed' >&2; exit 127")
    machine.link("python3", sys.executable)
    assert was_python_found(machine.bootstrap())


def test_the_newest_name_wins(machine: Machine) -> None:
    machine.script("python3.14", 'case $1 in -c) ;; *) echo "this is 3.14" ;; esac')
    machine.link("python3", sys.executable)
    assert machine.bootstrap().stdout == "this is 3.14\n"


def test_the_interpreter_that_was_named_is_taken(machine: Machine) -> None:
    machine.script("python3", "exit 1")
    assert was_python_found(machine.bootstrap(PYTHON=sys.executable))


def test_no_python_is_one_sentence(machine: Machine) -> None:
    done = machine.bootstrap()
    assert done.returncode == 1
    assert done.stderr == ("No Python 3.11 or newer on PATH: install one, or name it with PYTHON=/path/to/python3.\n")


def test_an_old_interpreter_that_was_named_is_one_sentence(machine: Machine) -> None:
    machine.link("python3", sys.executable)  # good, but not what was asked for
    old = machine.script("python3.9", "exit 1")  # what the version check of an old one gives
    done = machine.bootstrap(PYTHON=str(old))
    assert done.returncode == 1
    assert done.stderr == f"PYTHON={old} does not run, or is older than 3.11: name another one.\n"

"""`make demo` as a stranger runs it: a clean checkout, Python, make and a shell, a terminal, Ctrl-C."""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from support.processes import kill_all, marked, new_mark, wait_until_gone

ROOT = Path(__file__).resolve().parents[3]
INSTALL_SECONDS = 240.0
"""For the first run, which installs; it takes some 15 s with a package index nearby."""
START_SECONDS = 30.0
"""For a further run. Ten times what is promised."""
STOP_SECONDS = 20.0
"""From Ctrl-C until the last process has ended. Ten times what is promised."""

CTRL_C = b"\x03"

# One group: the tests share one checkout, and installing takes most of their time.
pytestmark = [pytest.mark.timeout(INSTALL_SECONDS + 120), pytest.mark.xdist_group("demo")]


class Terminal:
    """A command on a terminal of its own, as its foreground job: what is typed and what is shown."""

    def __init__(self, command: str, *, cwd: Path, environment: dict[str, str]) -> None:
        self._mark = new_mark()
        self._keyboard, screen = os.openpty()
        # The shell leads a session without a terminal, so the first one that it opens becomes its own (tty(7)).
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", f'exec {command} <"$0" >"$0" 2>&1', os.ttyname(screen)],
            cwd=cwd,
            env=marked(environment, self._mark),
            start_new_session=True,
        )
        os.close(screen)
        self.shown = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        kill_all(self._mark)
        self._process.wait()
        os.close(self._keyboard)

    def type(self, keys: bytes) -> None:
        os.write(self._keyboard, keys)

    def wait_for(self, pattern: str, seconds: float) -> re.Match[str]:
        """Wait until `pattern` is on the screen."""
        deadline = time.monotonic() + seconds
        while (found := re.search(pattern, self.shown)) is None:
            if not self._read(deadline):
                raise AssertionError(f"no {pattern!r} within {seconds} s on the screen:\n{self.shown}")
        return found

    def wait(self, seconds: float) -> int:
        """Wait until the command has ended, with all its processes; its exit status as `subprocess` gives it."""
        deadline = time.monotonic() + seconds
        while self._read(deadline):
            pass
        left = wait_until_gone(self._mark, deadline - time.monotonic())
        assert not left, f"processes {left} still run; the screen:\n{self.shown}"
        return self._process.wait(max(0.0, deadline - time.monotonic()))

    def _read(self, deadline: float) -> bool:
        """Read what comes next. False: nobody can write any more, or the deadline has passed."""
        ready, _, _ = select.select([self._keyboard], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return False
        try:
            data = os.read(self._keyboard, 65536)
        except OSError:  # EIO: the last process has let go of the terminal
            return False
        self.shown += data.decode("utf-8", "replace").replace("\r\n", "\n")
        return bool(data)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working tree as a fresh clone would have it: nothing that git ignores."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    folder = tmp_path_factory.mktemp("clone")
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A PATH with make, Python and a shell only; directories of its own; pip configured as it is here."""
    programs = tmp_path_factory.mktemp("bin")
    python = getattr(sys, "_base_executable", sys.executable)
    for name, program in {"python3": python, "make": shutil.which("make"), "sh": shutil.which("sh")}.items():
        if program is None:
            pytest.skip(f"no {name} on PATH")
        (programs / name).symlink_to(Path(program).resolve())
    kept = {name: value for name, value in os.environ.items() if name in ("HOME", "LANG") or name.startswith("PIP_")}
    # Not pytest's folder: the names of Unix sockets are short.
    directory = Path(f"/tmp/sgd-{new_mark()}")
    directory.mkdir(mode=0o700)
    yield kept | {"PATH": str(programs), "XDG_RUNTIME_DIR": str(directory), "XDG_STATE_HOME": str(directory / "state")}
    shutil.rmtree(directory)


def test_demo_runs_from_a_clean_checkout_and_ctrl_c_ends_it(checkout: Path, environment: dict[str, str]) -> None:
    with Terminal("make demo BIND=127.0.0.1:0", cwd=checkout, environment=environment) as terminal:
        ready = terminal.wait_for(r"(?m)^ready: (http://127\.0\.0\.1:\d+)", INSTALL_SECONDS)
        assert "Installing" in terminal.shown
        with urllib.request.urlopen(ready[1], timeout=START_SECONDS) as answer:
            assert b"stickygw chat" in answer.read()
        assert_ctrl_c_ends(terminal)


def test_second_demo_installs_nothing(checkout: Path, environment: dict[str, str]) -> None:
    prepare = ["sh", "scripts/bootstrap", "runtime"]
    subprocess.run(prepare, cwd=checkout, env=environment, check=True, capture_output=True)
    installed = sorted(checkout.glob(".venv/lib/*/site-packages/*"))
    with Terminal("make demo BIND=127.0.0.1:0", cwd=checkout, environment=environment) as terminal:
        terminal.wait_for(r"(?m)^ready: ", START_SECONDS)
        assert "Installing" not in terminal.shown
        assert_ctrl_c_ends(terminal)
    assert sorted(checkout.glob(".venv/lib/*/site-packages/*")) == installed


def test_second_ctrl_c_ends_the_demo_at_once(checkout: Path, environment: dict[str, str]) -> None:
    with Terminal("make demo BIND=127.0.0.1:0", cwd=checkout, environment=environment) as terminal:
        terminal.wait_for(r"(?m)^ready: ", INSTALL_SECONDS)
        terminal.type(CTRL_C + CTRL_C)
        terminal.wait(STOP_SECONDS)
        assert "Traceback" not in terminal.shown


def assert_ctrl_c_ends(terminal: Terminal) -> None:
    """One line, no traceback, nothing of make's, no process left."""
    before = len(terminal.shown)
    terminal.type(CTRL_C)
    terminal.wait(STOP_SECONDS)
    said = terminal.shown[before:].removeprefix("^C")
    assert len(said.strip().splitlines()) == 1, said
    assert "Traceback" not in said
    assert "make:" not in said

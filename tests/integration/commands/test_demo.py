"""`make demo` as a stranger runs it: a clean checkout, Python, make and a shell, a terminal, Ctrl-C.

What it installs takes half a minute of the machine. The quick tests find an environment that is finished, in the same
checkout: what they show is all the rest.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.terminal import CTRL_C, Terminal
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

ROOT = Path(__file__).resolve().parents[3]
INSTALL_SECONDS = 240.0
"""For the first run, which installs; it takes some 15 s with a package index nearby."""
START_SECONDS = 30.0
"""For a further run. Ten times what is promised: 3 s."""
STOP_SECONDS = 20.0
"""From Ctrl-C until the last process has ended. Ten times what is promised: 2 s."""

pytestmark = pytest.mark.timeout(INSTALL_SECONDS + 120)


@pytest.fixture(scope="module", params=["prepared", pytest.param("clean", marks=pytest.mark.long)])
def checkout(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working tree as a fresh clone would have it: nothing that git ignores. Prepared, it has a .venv as well."""
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
    if request.param == "prepared":
        prepare(folder)
    return folder


def prepare(checkout: Path) -> None:
    """Give it a finished .venv, with the packages that these tests run with and its own code in front of them."""
    empty = [sys._base_executable, "-m", "venv", "--without-pip", str(checkout / ".venv")]  # type: ignore[attr-defined]
    subprocess.run(empty, check=True)
    [packages] = checkout.glob(".venv/lib/*/site-packages")
    (packages / "borrowed.pth").write_text(f"{checkout}\n{sysconfig.get_path('purelib')}\n")
    said = "from environment import STAMP, fingerprint; STAMP.write_text(f'{fingerprint()} runtime', 'utf-8')"
    subprocess.run([sys._base_executable, "-c", said], cwd=checkout / "scripts", check=True)  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PATH with make, Python and a shell, and nothing else."""
    folder = tmp_path_factory.mktemp("bin")
    python = getattr(sys, "_base_executable", sys.executable)
    for name, program in {"python3": python, "make": shutil.which("make"), "sh": shutil.which("sh")}.items():
        if program is None:
            pytest.skip(f"no {name} on PATH")
        (folder / name).symlink_to(Path(program).resolve())
    return folder


@pytest.fixture
def demo(checkout: Path, programs: Path) -> Iterator[Terminal]:
    """`make demo`, just started, with the machine's pip configuration and directories of its own."""
    kept = {name: value for name, value in os.environ.items() if name in ("HOME", "LANG") or name.startswith("PIP_")}
    with tempfile.TemporaryDirectory(prefix="sg-") as folder:  # pytest's are too long for names of Unix sockets
        environment = kept | {"PATH": str(programs), "XDG_RUNTIME_DIR": folder, "XDG_STATE_HOME": f"{folder}/state"}
        mark = Path(folder).name
        with Terminal("make demo BIND=127.0.0.1:0", cwd=checkout, environment=environment, mark=mark) as terminal:
            yield terminal


def test_demo_runs_and_ctrl_c_ends_it(demo: Terminal) -> None:
    ready = demo.wait_for(r"(?m)^ready: (http://127\.0\.0\.1:\d+)", INSTALL_SECONDS)
    with urllib.request.urlopen(ready[1], timeout=START_SECONDS) as answer:
        assert b"stickygw chat" in answer.read()
    with connect(f"ws{ready[1].removeprefix('http')}/ws/lobby") as visitor:
        assert '"welcome"' in visitor.recv(timeout=START_SECONDS)
        assert_ctrl_c_ends(demo)
        with pytest.raises(ConnectionClosed) as closed:
            visitor.recv(timeout=START_SECONDS)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1001


def test_second_demo_installs_nothing(checkout: Path, demo: Terminal) -> None:
    demo.wait_for(r"(?m)^ready: ", INSTALL_SECONDS)
    assert_ctrl_c_ends(demo)
    installed = sorted(checkout.glob(".venv/lib/*/site-packages/*"))
    started = time.monotonic()
    demo.run()
    demo.wait_for(r"(?m)^ready: ", START_SECONDS)
    print(f"a further demo is ready after {time.monotonic() - started:.2f} s")
    assert "Installing" not in demo.shown
    assert_ctrl_c_ends(demo)
    assert sorted(checkout.glob(".venv/lib/*/site-packages/*")) == installed


def test_second_ctrl_c_ends_the_demo_at_once(demo: Terminal) -> None:
    demo.wait_for(r"(?m)^ready: ", INSTALL_SECONDS)
    typed = time.monotonic()
    demo.type(CTRL_C + CTRL_C)
    demo.wait(STOP_SECONDS)
    print(f"two Ctrl-C end everything in {time.monotonic() - typed:.2f} s")
    assert "Traceback" not in demo.shown


def assert_ctrl_c_ends(terminal: Terminal) -> None:
    """One line, no traceback, nothing of make's, no process left."""
    before = len(terminal.shown)
    typed = time.monotonic()
    terminal.type(CTRL_C)
    terminal.wait(STOP_SECONDS)
    print(f"Ctrl-C ends everything in {time.monotonic() - typed:.2f} s")
    said = terminal.shown[before:].removeprefix("^C")
    assert len(said.strip().splitlines()) == 1, said
    assert "Traceback" not in said
    assert "make:" not in said

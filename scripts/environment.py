"""Makes .venv hold what the demo ("runtime") or the tests ("test") need. Standard library only.

A stamp written last says what .venv was made of. While it matches, nothing is done; when it is missing or
says something else, as after an install that broke, .venv is made anew. Nothing outside .venv is touched.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "stickygw-stamp"
EXTRAS = {"runtime": "", "test": "[test]"}

PLATFORM = "Python {0.major}.{0.minor} on {1.sysname} {1.machine}".format(sys.version_info, os.uname())
NO_VENV = (
    "This Python cannot make a virtual environment: install its venv module (Debian, Ubuntu: "
    "apt install python3-venv), uv, or virtualenv, and run this again."
)
NO_WHEEL = (
    f"There is no ready-made package (wheel) of {{name}} for {PLATFORM}, and nothing is compiled here: "
    "choose another interpreter with PYTHON=…"
)
NO_INDEX = "pip could not reach its package index: look at the network or pip's configuration, and run this again."


class CannotPrepareError(Exception):
    """What is missing; the message says what to do."""


def fingerprint() -> str:
    """What .venv is made of: the dependencies, the interpreter, and the place (scripts name their path)."""
    parts = ((ROOT / "pyproject.toml").read_text("utf-8"), sys.version, sys.base_prefix, str(ROOT))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def installed(wanted: str) -> str | None:
    """Which of `EXTRAS` a finished install of these `wanted` ingredients has left, or None."""
    if not PYTHON.exists():  # a link whose interpreter was removed
        return None
    try:
        made_of, _, extra = STAMP.read_text("utf-8").partition(" ")
    except OSError:
        return None
    return extra if made_of == wanted else None


def ways_to_create() -> Iterator[list[str]]:
    """Commands that make a virtual environment with pip in it, the plainest first."""
    # An activated .venv is found first on PATH; it cannot make its own successor.
    python: str = getattr(sys, "_base_executable", sys.executable)
    if find_spec("ensurepip") is not None:
        yield [python, "-m", "venv", str(VENV)]
    if uv := shutil.which("uv"):
        yield [uv, "venv", "--quiet", "--seed", "--python", python, str(VENV)]
    if virtualenv := shutil.which("virtualenv"):
        yield [virtualenv, "--quiet", "--python", python, str(VENV)]


def create() -> None:
    """Replace .venv by an empty environment. Raises `CannotPrepareError` when no way works."""
    for command in ways_to_create():
        shutil.rmtree(VENV, ignore_errors=True)
        made = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if made.returncode == 0:
            return
        print(made.stdout, made.stderr, sep="", end="", file=sys.stderr)
    raise CannotPrepareError(NO_VENV)


def install(extra: str) -> None:
    """Install the project, editable, and its dependencies as wheels.

    Raises `CannotPrepareError` when pip fails, after its output.
    """
    project = f"{ROOT}{EXTRAS[extra]}"
    command = [str(PYTHON), "-m", "pip", "install", "--quiet", "--no-input"]
    command += ["--disable-pip-version-check", "--only-binary", ":all:", "--editable", project]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return
    print(done.stdout, end="", file=sys.stderr)
    raise CannotPrepareError(what_to_do(done.stdout))


def what_to_do(pip_output: str) -> str:
    """The sentence that follows a failed install."""
    if "Retrying (" in pip_output:
        return NO_INDEX
    for line in pip_output.splitlines():
        _, found, name = line.partition("No matching distribution found for ")
        if found:
            return NO_WHEEL.format(name=name.strip())
    return "pip could not install the dependencies; its own words are above."


def prepare(extra: str) -> None:
    """Make .venv hold `extra`. Raises `CannotPrepareError`."""
    wanted = fingerprint()
    present = installed(wanted)
    if present in (extra, "test"):  # the tests' environment has all that the demo needs
        return
    print(f"Installing into .venv with {PLATFORM} (once; it takes a minute or less) …", flush=True)
    if present is None:
        create()
    STAMP.unlink(missing_ok=True)
    install(extra)
    STAMP.write_text(f"{wanted} {extra}", "utf-8")


def main() -> int:
    if len(sys.argv) != 2 or sys.argv[1] not in EXTRAS:
        print(f"usage: scripts/bootstrap {' | '.join(EXTRAS)}", file=sys.stderr)
        return 2
    try:
        prepare(sys.argv[1])
    except CannotPrepareError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; the next run begins anew.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

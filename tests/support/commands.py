"""``stickygw …`` as a process beside the test's event loop, which may be the gateway that it commands."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str


def default_dir(base: Path, name: str = "8000") -> Path:
    """The runtime directory that a gateway has without ``--runtime-dir``, if `base` is $XDG_RUNTIME_DIR."""
    return base / f"stickygw-{os.geteuid()}" / name


def environment(base: Path) -> dict[str, str]:
    """That of a command whose user's runtime directories are in `base`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("STICKYGW_")}
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return inherited | {"XDG_RUNTIME_DIR": str(base), "PYTHONPATH": paths, "COLUMNS": "80", "LINES": "24"}


async def stickygw(base: Path, *arguments: str, stdin: str = "", **variables: str) -> Done:
    """Run ``stickygw`` with `arguments` to its end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "stickygw.cli", *arguments),
        env=environment(base) | variables,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(SECONDS):
        out, err = await process.communicate(stdin.encode())
    assert process.returncode is not None
    return Done(process.returncode, out.decode(), err.decode())

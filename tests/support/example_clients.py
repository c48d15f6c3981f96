"""Runs the client of an example as its reader would, and reads what it prints."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

CLIENT_SECONDS = 100.0
"""After which the client is killed; its own deadlines are shorter."""


@dataclass(frozen=True)
class Outcome:
    """What a client said at its end."""

    served: int
    asked: int
    workers: set[int]
    transports: list[str]
    """Which it ended on; a client that has no choice says nothing."""
    text: str
    """All of it."""


async def run_client(client: Path, *arguments: object) -> Outcome:
    """Run it to its end. Its exit code must agree with what it says."""
    command = [sys.executable, str(client), *map(str, arguments)]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=CLIENT_SECONDS, check=False
    )
    text = done.stdout + done.stderr
    served = re.search(r"(?m)^served: (\d+) of (\d+)$", done.stdout)
    workers = re.search(r"(?m)^workers:(.*)$", done.stdout)
    assert served is not None, text
    assert workers is not None, text
    transports = re.findall(r"(?m)^transport: (\S+)$", done.stdout)
    outcome = Outcome(int(served[1]), int(served[2]), {int(pid) for pid in workers[1].split()}, transports, text)
    assert done.returncode == (outcome.served < outcome.asked), text
    return outcome

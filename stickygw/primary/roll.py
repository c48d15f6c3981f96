"""The list of the workers that live, in the runtime directory: what the next primary reads if this one is killed."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from stickygw.types import Slot

log = logging.getLogger("stickygw.adoption")


@dataclass(frozen=True, slots=True)
class Roll:
    """`pids` of the workers; `drained`: the slots that an operator has drained; `is_upgrade`: the primary was to be
    upgraded, and then it is the workers' turn; `is_own`: that primary is this very process, executed anew."""

    pids: tuple[int, ...] = ()
    drained: tuple[Slot, ...] = ()
    is_upgrade: bool = False
    is_own: bool = False


class RollFile:
    """The file at `path`. Each process stands in it with its number and its start, for numbers come again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = ""

    def write(self, pids: Iterable[int], drained: Iterable[Slot], *, is_upgrade: bool = False) -> None:
        """Replace it. With `is_upgrade` this process, which exec leaves its number and its start, is about to be
        upgraded. A file that cannot be written is logged: without it the next primary finds nobody to adopt."""
        workers = [_named(pid) for pid in sorted(pids)]
        upgraded = _named(os.getpid()) if is_upgrade else None
        text = json.dumps({"workers": workers, "drained": sorted(drained), "upgrade": upgraded})
        if text == self._written:
            return
        unfinished = self._path.with_name(self._path.name + ".new")
        try:
            unfinished.write_text(text, "ascii")
            unfinished.replace(self._path)
        except OSError as error:
            log.error("%s cannot be written: %s", self._path, error.strerror)
        else:
            self._written = text

    def read(self) -> Roll:
        """What the primary before has left: the workers of it that still live. Empty: there are none."""
        try:
            found = json.loads(self._path.read_text("ascii"))
            pids = [int(pid) for pid, started in found["workers"] if started and _started(pid) == started]
            drained = tuple(Slot(int(slot)) for slot in found["drained"])
            upgraded = found["upgrade"]
            return Roll(tuple(pids), drained, is_upgrade=bool(upgraded), is_own=upgraded == _named(os.getpid()))
        except FileNotFoundError:
            return Roll()
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.error("%s cannot be read, so no workers are adopted: %s", self._path, error)
            return Roll()

    def remove(self) -> None:
        """No worker is left. Idempotent."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s cannot be removed: %s", self._path, error.strerror)


def _named(pid: int) -> list[int]:
    return [pid, _started(pid)]


def _started(pid: int) -> int:
    """When a process was started, in the kernel's clock ticks since the boot (proc(5)); 0: it is gone, or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except OSError:
        return 0
    fields = stat.rpartition(")")[2].split()  # the name before it may have anything in it
    return 0 if fields[0] in ("Z", "X") else int(fields[19])

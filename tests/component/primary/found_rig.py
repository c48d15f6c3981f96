"""Processes that a primary before this one has left: workers that come, and such as stand still."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stickygw.config.places import ROLL, WORKERS_SOCKET
from stickygw.config.settings import Settings
from stickygw.primary.roll import RollFile

TARGET = "app:app"

COMES = """
import json, signal, socket, sys, time
from stickygw.types import Slot
from stickygw.wire.link import *
from stickygw.wire.link_codec import *
door, facts = sys.argv[1], json.loads(sys.argv[2])
listeners = []
for address in facts.pop("listens"):
    listeners.append(socket.socket(socket.AF_UNIX))
    listeners[-1].bind(address)
    listeners[-1].listen()
print("looking", flush=True)
while True:
    link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        link.connect(door)
        for number, listener in enumerate(listeners):
            socket.send_fds(link, [encode(Hold(number))], [listener.fileno()])
        link.send(encode(Orphan(**facts)))
        while data := link.recv(1 << 17):
            if isinstance(decode(data), (Stop, Drain)) and not facts["is_draining"]:
                sys.exit(0)
    except OSError:
        time.sleep(0.01)
"""


@contextmanager
def standing_still(*ignored: signal.Signals) -> Iterator[int]:
    """The process id of one that does nothing, and is not ended by the signals `ignored`."""
    trap = f"trap '' {' '.join(number.name[3:] for number in ignored)};" if ignored else ""
    with _ended_at_last(["sh", "-c", f"{trap} echo up; exec sleep 60"]) as pid:
        yield pid


@contextmanager
def coming_worker(
    settings: Settings,
    slot: int = 0,
    *,
    generation: int = 1,
    slots: int = 1,
    is_draining: bool = False,
    listens: Iterable[Path] = (),
    target: str = TARGET,
    **other: Any,
) -> Iterator[int]:
    """The process id of one that knocks at each primary of `settings`, and says that it runs with these settings but
    for the `other` ones. It ends when it is told to, unless it drains already."""
    assert settings.runtime_dir is not None
    facts = {
        "slot": slot,
        "generation": generation,
        "workers": slots,
        "target": target,
        "settings": settings.to_wire() | other,
        "is_draining": is_draining,
        "listens": [str(path) for path in listens],
    }
    door = settings.runtime_dir / WORKERS_SOCKET
    with _ended_at_last([sys.executable, "-c", COMES, str(door), json.dumps(facts)]) as pid:
        yield pid


@contextmanager
def _ended_at_last(command: list[str]) -> Iterator[int]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.kill()


def left_settings(directory: Path, **more: Any) -> Settings:
    """Of a gateway in `directory` that starts nothing and keeps nothing."""
    given: dict[str, Any] = {
        "bind": ("127.0.0.1:0",),
        "workers": "1",
        "runtime_dir": directory,
        "redis": {"url": "redis://127.0.0.1:1"},
        "secret": ("not a secret but long enough to be one",),
        "gateway_id": "0badcafe",
    }
    return Settings(**given | more)


def write_roll(directory: Path, *pids: int, is_upgrade: bool = False) -> None:
    """What the primary before has left there."""
    RollFile(directory / ROLL).write(pids, (), is_upgrade=is_upgrade)


def pids_in_roll(directory: Path) -> set[int]:
    """Those that the next primary would look for."""
    return set(RollFile(directory / ROLL).read().pids)


def descriptors() -> int:
    """How many this process has open."""
    return len(os.listdir("/proc/self/fd"))

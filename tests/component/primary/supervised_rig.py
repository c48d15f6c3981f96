"""A supervisor with real processes, each of which runs a few lines of script in place of a worker."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from primary_rig import Rig, running_rig
from support.waiting import wait_until

from stickygw.primary.learning import Learning
from stickygw.primary.supervisor import Supervisor
from stickygw.primary.tells import Tells
from stickygw.supervision import events as to
from stickygw.supervision.fleet import Fleet
from stickygw.supervision.roster import Limits
from stickygw.types import GatewayId, Slot, WorkerId
from stickygw.wire.link import Configure

BEGIN = """
    import array, os, signal, socket, sys, time
    from stickygw.wire.link import *
    from stickygw.wire.link_codec import *
    link = socket.socket(fileno=int(sys.argv[1]))
    link.set_inheritable(False)
    configure = decode(link.recv(1 << 17))
    assert isinstance(configure, Configure)
    say = lambda message: link.send(encode(message))
    beat = lambda connections=0, report={}: say(Heartbeat(0.125, connections, 7, 3, 20, 10, 0.5, 1 << 20, report))
    mark = sys.argv[2]
    def note(*words):
        with open(mark, "a") as file:
            print(f"{configure.slot}.{configure.generation}", *words, file=file)
"""
"""`mark` is a file of the test's own, in which each worker may `note` what it has met."""

SERVE = """
    say(Ready())
    while data := link.recv(1 << 17):
        match decode(data):
            case Stop() | Drain():
                sys.exit(0)
"""

NOTE_ALL = """
    say(Ready())
    while data := link.recv(1 << 17):
        message = decode(data)
        note(message)
        match message:
            case Stop() | Drain():
                sys.exit(0)
            case Deliver(ticket, sender, name, payload) if ticket:
                say(Answer(ticket, payload, "" if name == "echo" else f"no {name} here"))
"""
"""Serves, notes all messages, and answers what it is asked."""


class Supervised:
    """The supervisor, and what it has called back."""

    def __init__(self, rig: Rig, supervisor: Supervisor, tells: Tells, mark: Path, events: Events) -> None:
        self.rig = rig
        self.supervisor = supervisor
        self.tells = tells
        self.mark = mark
        self.events = events
        self.progress: list[str] = []

    def owner(self, slot: int) -> WorkerId | None:
        return self.supervisor.owners().get(Slot(slot))

    def pid(self, slot: int) -> int:
        """The process id of the slot's owner, 0 without one."""
        worker = self.owner(slot)
        return (self.supervisor.pid_of(worker) or 0) if worker is not None else 0

    def generations(self) -> list[tuple[int, int]]:
        """(slot, generation) of all workers that are not gone."""
        return [(member.slot, member.generation) for member in self.supervisor.fleet.members]

    async def wait_ready(self) -> None:
        """Return when each slot has a worker that takes connections."""
        await wait_until(lambda: all(view.is_ready for view in self.rig.hand_overs.views))

    async def wait_other(self, slot: int, pid: int) -> None:
        """Return when another process than `pid` owns the slot."""
        await wait_until(lambda: self.pid(slot) not in (0, pid))

    async def do(self, command: to.Command) -> to.Finished:
        return await self.supervisor.ask(command, self.progress.append)

    def notes(self) -> list[str]:
        """What the workers have noted, in order, as "SLOT.GENERATION words"."""
        return self.mark.read_text().splitlines() if self.mark.exists() else []

    async def stop(self, *, grace_seconds: float = 5.0) -> None:
        """Stop, and wait until all are gone."""
        self.supervisor.stop(grace_seconds=grace_seconds, spread_seconds=0.25)
        await self.supervisor.wait_gone()


class Events:
    """What the supervisor told its owner."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.failures: list[str] = []
        self.gone: list[WorkerId] = []


@asynccontextmanager
async def supervised(
    directory: Path,
    *script: str,
    slots: int = 2,
    start_timeout: float = 30.0,
    drain_timeout: float = 5.0,
    drain_spread: float | None = None,
    heartbeat_timeout: float = 30.0,
    max_served: int | None = None,
    **options: Any,
) -> AsyncIterator[Supervised]:
    """A supervisor whose workers run `script`, all parts of it. The generation that it is started with is 1."""
    program = "\n".join(textwrap.dedent(part) for part in (BEGIN, *script))
    mark = directory / "mark"
    limits = Limits(start_timeout, drain_timeout, drain_spread, heartbeat_timeout, max_served=max_served)
    events = Events()
    async with running_rig(directory, slots=0, **options) as rig:

        def gone(worker: WorkerId) -> None:
            events.gone.append(worker)
            tells.gone(worker)
            learning.gone(worker)

        supervisor = Supervisor(
            Fleet(slots, limits=limits, random=lambda: 0.5),
            lambda slot, generation, count: Configure(slot, generation, count, GatewayId("0badcafe"), "app:app", {}),
            hand_overs=rig.hand_overs,
            on_first_ready=lambda: events.names.append("first ready"),
            on_all_ready=lambda: events.names.append("all ready"),
            on_failed=events.failures.append,
            on_tell=lambda worker, slot, message: tells.received(worker, slot, message),
            on_learn=lambda worker, slot, message: learning.received(worker, slot, message),
            on_gone=gone,
            on_changed=lambda: None,
            counters=rig.counters,
            command=lambda slot, fd: [sys.executable, "-c", program, str(fd), str(mark)],
        )
        tells = Tells(
            owners=supervisor.owners,
            least_loaded=lambda: rig.router.least_loaded(rig.hand_overs.views),
            send=supervisor.send,
            wait_writable=supervisor.wait_writable,
            counters=rig.counters,
        )
        learning = Learning(
            rig.router, send=supervisor.send, wait_writable=supervisor.wait_writable, counters=rig.counters
        )
        try:
            supervisor.start()
            yield Supervised(rig, supervisor, tells, mark, events)
        finally:
            tells.close()
            supervisor.kill()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # gone before, or while it was read
        return False

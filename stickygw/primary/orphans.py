"""What a killed primary has left: its workers and their listening sockets. They are waited for, or ended."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Sequence
from pathlib import Path

from stickygw.config.places import ROLL, WORKERS_SOCKET
from stickygw.errors import BindError, RuntimeDirError
from stickygw.observability.words import counted
from stickygw.primary.adoption import AdoptionDoor, FoundWorker
from stickygw.primary.listener import Listener, adopted, bind, is_at
from stickygw.primary.processes import WatchedProcess
from stickygw.primary.roll import RollFile
from stickygw.primary.stragglers import Stragglers
from stickygw.types import Slot

log = logging.getLogger("stickygw.adoption")

KNOCK_SECONDS = 3.0
"""A worker without a primary knocks ten times a second; who does not, because its loop stands still, is not waited for
longer. It may come later."""
LOOK_SECONDS = 0.1
KILL_SECONDS = 5.0
"""The kernel has so long to end one that was killed; that it is not reaped yet makes no difference."""


class Orphans:
    """The workers in the roll of the locked `runtime_dir` that still live."""

    def __init__(self, runtime_dir: Path) -> None:
        self.roll = RollFile(runtime_dir / ROLL)
        left = self.roll.read()
        self._pids = left.pids
        self.drained: tuple[Slot, ...] = left.drained if left.pids else ()
        """The slots that an operator had drained."""
        self.is_upgrade = left.is_upgrade
        """Whether their primary was upgraded, and they are still to run the new code."""
        self.is_own = left.is_own
        """Whether that primary is this very process; else it has died in its upgrade."""
        self.found: list[FoundWorker] = []
        """Those that have come."""
        self.stragglers = Stragglers(lambda pid: pid in self.roll.read().pids)
        """Those that live and have not come. They may yet."""
        self.has_lost_listeners = False
        """Whether a socket of theirs was of no use any more, so that they keep another one open than we do."""
        self.door = AdoptionDoor(runtime_dir / WORKERS_SOCKET, self._come)
        self._news = asyncio.Event()

    async def wait(self) -> None:
        """Open the door, and return when all who live have come in, at most after `KNOCK_SECONDS`. Raises
        `RuntimeDirError`."""
        self.door.open()
        if not self._pids:
            return
        whose = "serve on" if self.is_own else "of a killed primary still serve"
        log.info("%s %s: adopting them", counted(len(self._pids), "worker"), whose)
        try:
            async with asyncio.timeout(KNOCK_SECONDS):
                while missing := self._missing():
                    await self._wait_news()
        except TimeoutError:
            log.warning("not adopted, for they do not answer: %s", ", ".join(f"pid {pid}" for pid in missing))
            for pid in sorted(missing):
                self.stragglers.add(pid)

    async def end(self, seconds: float) -> None:
        """End them: SIGTERM, and SIGKILL after `seconds`. Cancelled, it kills those that are left. Raises
        `RuntimeDirError`: one lives on all the same."""
        self._pids = tuple(set(self._pids) & set(self.roll.read().pids))
        if self._pids:
            log.info("ending %s of a killed primary", counted(len(self._pids), "worker"))
            has_ended = await asyncio.gather(*(_end(pid, seconds) for pid in self._pids))
            left = [pid for pid, ended in zip(self._pids, has_ended, strict=True) if not ended]
            if left:
                pids = ", ".join(f"pid {pid}" for pid in left)
                raise RuntimeDirError(
                    f"workers of a killed primary have not ended {KILL_SECONDS:g} s after SIGKILL: {pids}; the kernel "
                    "holds them, in a file system that does not answer perhaps: start again when they are gone"
                )
            self._pids = self.drained = ()

    def listeners(self, addresses: Sequence[str]) -> list[Listener]:
        """The sockets that they keep, empty if there are none. Raises `BindError`: they listen elsewhere."""
        held = next((worker for worker in self.found if worker.listeners), None)
        if held is None:
            return []
        listeners = [adopted(sock) for _, sock in sorted(held.listeners.items())]
        held.listeners.clear()  # they are ours
        for worker in self.found:
            worker.close_listeners()
        if len(listeners) == len(addresses) and all(map(is_at, listeners, addresses)):
            return self._reachable(listeners)
        for listener in listeners:
            listener.close()
        serving = ", ".join(listener.url for listener in listeners)
        raise BindError(
            f"workers of a killed primary still serve {serving}: start with the same addresses to adopt them, or with "
            "--no-adopt to end them first"
        )

    def _reachable(self, listeners: list[Listener]) -> list[Listener]:
        """The same, but bound anew where clients do not find it. Raises `BindError`, and closes all."""
        try:
            for index, listener in enumerate(listeners):
                if not listener.is_reachable:
                    log.warning("%s: its file is gone, so the socket of the workers is of no use", listener.url)
                    [listeners[index]] = bind([listener.url])
                    listener.sock.close()
                    self.has_lost_listeners = True
        except BindError:
            for listener in listeners:
                listener.close()
            raise
        return listeners

    def close(self) -> None:
        """Those that nobody has adopted look for another primary. Idempotent."""
        self.door.close()
        self.stragglers.close()
        for worker in self.found:
            worker.close()
        self.found.clear()

    def _come(self, worker: FoundWorker) -> None:
        self.stragglers.discard(worker.pid)
        self.found.append(worker)
        self._news.set()

    def _missing(self) -> set[int]:
        living = set(self._pids) & set(self.roll.read().pids)
        return living - {worker.pid for worker in self.found}

    async def _wait_news(self) -> None:
        self._news.clear()
        try:
            async with asyncio.timeout(LOOK_SECONDS):  # one may die instead
                await self._news.wait()
        except TimeoutError:
            return


async def _end(pid: int, seconds: float) -> bool:
    """Whether it has ended."""
    gone = asyncio.Event()
    try:
        process = WatchedProcess(pid, child=None, on_exit=lambda _status: gone.set())
    except OSError:  # it is gone
        return True
    process.signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(seconds):
            await gone.wait()
    except asyncio.CancelledError:
        process.kill_session()
        process.forget()
        raise
    except TimeoutError:
        log.warning("worker pid %d did not end in %g s: killed", pid, seconds)
        process.kill_session()
        try:
            async with asyncio.timeout(KILL_SECONDS):
                await gone.wait()
        except TimeoutError:
            process.leave()
            return False
    return True

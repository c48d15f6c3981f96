"""What steers the fleet from outside: signals, changed files, commands; and what the service manager hears of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from stickygw.primary.notify import Notifier
from stickygw.primary.supervisor import Supervisor
from stickygw.primary.watch import changes
from stickygw.supervision import events as to

log = logging.getLogger("stickygw.supervisor")


class Steering:
    """Asks the supervisor for what is wanted. The outcome of each is in the log, whoever asked."""

    def __init__(self, supervisor: Supervisor, notifier: Notifier) -> None:
        self._supervisor = supervisor
        self._notifier = notifier
        self._reloads = 0
        self._watching: asyncio.Task[None] | None = None
        self._is_closed = False

    def reload(self, on_progress: Callable[[str], None] | None = None) -> asyncio.Future[to.Finished]:
        """Replace all workers by ones with new code."""
        finished = self._supervisor.ask(to.Reload(), on_progress)
        if not finished.done():  # else it was refused, and the service manager has nothing to hear
            self._reloads += 1
            self._notifier.reloading()
            finished.add_done_callback(self._reloaded)
        return finished

    def scale_by(self, step: int) -> None:
        """Have so many slots more, or fewer."""
        self._supervisor.ask(to.ScaleBy(step))

    def watch(self, folders: Iterable[Path], *, ignored: Iterable[Path]) -> None:
        """Reload whenever Python files in `folders` change, until `close`."""
        self._watching = asyncio.get_running_loop().create_task(self._watch(folders, ignored))

    async def close(self) -> None:
        """Watch no more; the service manager hears of no reload that the stop ends."""
        self._is_closed = True
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])

    async def _watch(self, folders: Iterable[Path], ignored: Iterable[Path]) -> None:
        try:
            async for files in changes(folders, ignored=ignored):
                names = ", ".join(sorted(file.name for file in files)[:5])
                log.info("reloading: %s changed", names)
                await self.reload()
        except Exception:  # it is not worth the gateway
            log.exception("changed files are not watched any more")

    def _reloaded(self, _: asyncio.Future[to.Finished]) -> None:
        self._reloads -= 1
        if not self._reloads and not self._is_closed:
            self._notifier.ready()

"""A worker's process and our end of its link. It is gone when the process is reaped and the link read to its end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from stickygw.ipc.link import Link, link_pair
from stickygw.primary.adoption import FoundWorker
from stickygw.primary.processes import WatchedProcess, start_process
from stickygw.types import Slot, WorkerId
from stickygw.wire.link import Configure, Exits, Hold, Message

log = logging.getLogger("stickygw.supervisor")

EXIT_TO_EOF_SECONDS = 0.2
"""A dead worker's link may be held open by what the application forked; after so long it counts as read."""

MAX_UNSENT = 1024
"""Messages that may wait for a full link, connections apart. A worker that reads none of them is silent, and ended."""

Command = Callable[[Slot, int], list[str]]


def worker_command(slot: Slot, link_fd: int) -> list[str]:
    """How a worker is started: a fresh interpreter, with one end of its link and nothing else of ours."""
    return [sys.executable, "-P", "-m", "stickygw.worker", "--link-fd", str(link_fd), "--slot", str(slot)]


OnExit = Callable[[int | None], None]
OnMessage = Callable[[Message, int], None]
OnClosed = Callable[[], None]
Begin = Callable[[OnMessage, OnClosed, OnExit], tuple[Link, WatchedProcess]]
"""Gives a worker's link and its process, with these callbacks. Raises OSError, and then nothing is left of either."""


def launched(configure: Configure, listeners: Sequence[socket.socket], command: Command) -> Begin:
    """A process that is started now. It gets copies of `listeners`, to keep them open if we die."""

    def begin(on_message: OnMessage, on_closed: OnClosed, on_exit: OnExit) -> tuple[Link, WatchedProcess]:
        with ExitStack() as undo:
            ours, theirs = link_pair()
            undo.callback(ours.close)
            with theirs:
                fd = theirs.fileno()
                process = start_process(command(configure.slot, fd), on_exit=on_exit, pass_fds=(fd,))
            undo.callback(process.forget)
            undo.callback(process.kill_session)
            link = Link(ours, on_message=on_message, on_closed=on_closed)
            # The first messages of an empty link always fit.
            link.send(configure)
            for number, listener in enumerate(listeners):
                link.send(Hold(number), listener.fileno())
            undo.pop_all()
            return link, process

    return begin


def adopted(found: FoundWorker) -> Begin:
    """A process that runs already."""

    def begin(on_message: OnMessage, on_closed: OnClosed, on_exit: OnExit) -> tuple[Link, WatchedProcess]:
        process = WatchedProcess(found.pid, child=None, on_exit=on_exit)
        return found.listen(on_message, on_closed), process

    return begin


class WorkerProcess:
    """One worker process and its link, which `begin` gives; raises OSError when it can't.

    `on_message(process, message)` for each message; then, once each and in this order, `on_cut_off(process)` when it
    can say and take nothing more, and `on_gone(process, status)` when it is reaped.
    """

    def __init__(
        self,
        begin: Begin,
        worker: WorkerId,
        slot: Slot,
        *,
        on_message: Callable[[WorkerProcess, Message], None],
        on_cut_off: Callable[[WorkerProcess], None],
        on_gone: Callable[[WorkerProcess, int | None], None],
    ) -> None:
        self.worker = worker
        self.slot = slot
        self._on_message = on_message
        self._on_cut_off = on_cut_off
        self._on_gone = on_gone
        self._unsent: list[tuple[Message, int]] = []
        self._is_cut_off = False
        self._has_exited = False
        self._status: int | None = None
        self._said_status: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.link, self._process = begin(self._received, self._cut_off, self._exited)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def send(self, message: Message, fd: int = -1) -> bool:
        """Send a message, with a copy of `fd`, now or, in order, when the link takes it. False: too many wait, or it
        is cut off.

        Raises OSError when a copy is needed and cannot be had.
        """
        if not self._unsent and self.link.send(message, fd):
            return True
        if self.link.is_closed or len(self._unsent) >= MAX_UNSENT:
            return False
        copy = os.dup(fd) if fd >= 0 else -1
        if not self._unsent:
            self.link.wait_writable(self._send_rest)
        self._unsent.append((message, copy))
        self.link.is_queued_for = True
        return True

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; to one that is gone, nothing."""
        self._process.signal(number)

    def abort(self) -> None:
        """End it with SIGABRT, on which its faulthandler writes where it is, without its loop; then what it started."""
        self._process.takes_session_along = True
        self._process.signal(signal.SIGABRT)

    def kill(self) -> None:
        """SIGKILL it and what it has started."""
        self._process.kill_session()

    def kill_now(self) -> None:
        """The same, and wait for its end; nothing is called back any more. Idempotent."""
        self._wait_no_more()
        self.link.close()
        self._process.kill_session()
        self._process.forget()

    def _received(self, message: Message, fd: int) -> None:
        if fd >= 0:  # no message of a worker carries one
            os.close(fd)
        if isinstance(message, Exits):
            self._said_status = message.status
        else:
            self._on_message(self, message)

    def _send_rest(self) -> None:
        while self._unsent:
            message, fd = self._unsent[0]
            if not self.link.send(message, fd):
                self.link.wait_writable(self._send_rest)
                return
            self._drop_first()
        self.link.is_queued_for = False

    def _drop_first(self) -> None:
        _, fd = self._unsent.pop(0)
        if fd >= 0:
            os.close(fd)

    def _cut_off(self) -> None:
        self._is_cut_off = True
        self._on_cut_off(self)
        if self._has_exited:
            self._gone()

    def _exited(self, status: int | None) -> None:
        self._has_exited, self._status = True, status
        if self._is_cut_off:  # that its link is closed may still be on the way, if it was adopted just now
            self._gone()
        else:
            self._timer = asyncio.get_running_loop().call_later(EXIT_TO_EOF_SECONDS, self._link_outlives)

    def _link_outlives(self) -> None:
        self.link.close()
        self._cut_off()

    def _gone(self) -> None:
        self._wait_no_more()
        # One that is no child of ours is reaped by another; killed, it has said nothing.
        self._on_gone(self, self._said_status if self._status is None else self._status)

    def _wait_no_more(self) -> None:
        while self._unsent:
            self._drop_first()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

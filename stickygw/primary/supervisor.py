"""Keeps one worker process in each slot: starts it, configures it, notices its end, starts another.

What a worker says about connections goes to `stickygw.primary.hand_over`; this file reads the rest.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from stickygw.errors import ExitCode
from stickygw.ipc.link import Link, link_pair
from stickygw.primary.hand_over import HandOvers
from stickygw.primary.processes import WatchedProcess, start_process
from stickygw.supervision.backoff import RestartBackoff
from stickygw.types import Slot
from stickygw.wire.link import Configure, Declined, Ended, Failed, Message, Ready, Stop, Taken

log = logging.getLogger("stickygw.supervisor")

EXIT_TO_EOF_SECONDS = 0.2
"""A dead worker's link may be held open by what the application forked; after so long it counts as read."""
EOF_TO_EXIT_SECONDS = 1.0
"""A worker that closed its link and lives on is of no use: it is killed after so long."""
ABORT_SECONDS = 1.0
"""A hung worker has so long to write its traceback; then it is killed."""

Command = Callable[[Slot, int], list[str]]


def worker_command(slot: Slot, link_fd: int) -> list[str]:
    """How a worker is started: a fresh interpreter, with one end of its link and nothing else of ours."""
    return [sys.executable, "-P", "-m", "stickygw.worker", "--link-fd", str(link_fd), "--slot", str(slot)]


class _Worker:
    """One process in a slot, and our end of its link."""

    __slots__ = (
        "exit_status",
        "failure",
        "has_exited",
        "is_ready",
        "link",
        "process",
        "slot",
        "timer",
        "was_killed",
        "was_ready",
    )

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self.link: Link | None = None
        self.process: WatchedProcess | None = None
        self.is_ready = False
        self.was_ready = False
        self.was_killed = False
        """Whether we have ended it by force."""
        self.has_exited = False
        self.exit_status: int | None = None
        self.failure = ""
        """Why it ends, as far as it or we have said."""
        self.timer: asyncio.TimerHandle | None = None
        """The end of the one wait that it is in: for Ready, for its exit, or for its link's end."""

    def wait_at_most(self, seconds: float, then: Callable[[_Worker], None]) -> None:
        self.wait_no_more()
        self.timer = asyncio.get_running_loop().call_later(seconds, then, self)

    def kill(self) -> None:
        """SIGKILL it and what it has started; `on_exit` comes."""
        if self.process is not None:
            self.was_killed = True
            self.process.kill_session()

    def wait_no_more(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Supervisor:
    """The workers of all slots.

    `on_first_ready` and `on_all_ready` are called once each. `on_failed(reason)` is called when a worker ends before
    any was ever ready: the application does not start. Later deaths never end the gateway: the slot gets a new worker
    at once, then after ever longer waits.
    """

    def __init__(
        self,
        configure: Callable[[Slot], Configure],
        *,
        slots: int,
        hand_overs: HandOvers,
        start_timeout: float,
        on_first_ready: Callable[[], None],
        on_all_ready: Callable[[], None],
        on_failed: Callable[[str], None],
        command: Command = worker_command,
    ) -> None:
        self._configure = configure
        self._command = command
        self._hand_overs = hand_overs
        self._start_timeout = start_timeout
        self._on_first_ready = on_first_ready
        self._on_all_ready = on_all_ready
        self._on_failed = on_failed
        self._loop = asyncio.get_running_loop()
        self._slots = [Slot(slot) for slot in range(slots)]
        self._workers: dict[Slot, _Worker] = {}
        self._backoffs = {slot: RestartBackoff() for slot in self._slots}
        self._restarts: dict[Slot, asyncio.TimerHandle] = {}
        self._never_ready = set(self._slots)
        self._is_stopping = False
        self._all_gone = asyncio.Event()
        self.was_forced = False
        """Whether, in the stop, a worker was killed or said that it cut what was left."""
        self.has_crashed = False
        """Whether, in the stop, a worker that had been ready ended in any other way than with status 0."""

    def pid_of(self, slot: Slot) -> int | None:
        """The process in the slot, if there is one."""
        worker = self._workers.get(slot)
        return worker.process.pid if worker and worker.process else None

    def start(self) -> None:
        """Start a worker in every slot."""
        for slot in self._slots:
            self._start(slot)

    # --- the end ------------------------------------------------------------------------------------------------------

    def stop(self, *, grace_seconds: float, spread_seconds: float) -> None:
        """Ask all workers to end within `grace_seconds`; those that are not ready yet are ended at once."""
        self._is_stopping = True
        for restart in self._restarts.values():
            restart.cancel()
        self._restarts.clear()
        message = Stop(grace_seconds, spread_seconds)
        for worker in self._workers.values():
            if worker.is_ready:
                self._ask_to_stop(worker, message)
            elif worker.process is not None:
                worker.process.signal(signal.SIGTERM)
        self._note_if_all_gone()

    async def wait_gone(self) -> None:
        """Return when no worker is left after `stop`. The caller sets the deadline, and then calls `kill`."""
        await self._all_gone.wait()

    def kill(self) -> None:
        """SIGKILL all that is left, with what they started, and wait for it. Idempotent."""
        was_stopping, self._is_stopping = self._is_stopping, True
        for restart in self._restarts.values():
            restart.cancel()
        for worker in self._workers.values():
            worker.wait_no_more()
            if worker.link is not None:
                worker.link.close()
            if worker.process is not None and worker.process.is_alive:
                self.was_forced = True
                if was_stopping:
                    log.error("worker killed slot=%d: it did not end when it was asked to", worker.slot)
                worker.process.kill_session()
                worker.process.forget()
        self._workers.clear()
        self._note_if_all_gone()

    def _ask_to_stop(self, worker: _Worker, message: Stop) -> None:
        if worker.link is not None and not worker.link.is_closed and not worker.link.send(message):
            worker.link.wait_writable(partial(self._ask_to_stop, worker, message))

    def _note_if_all_gone(self) -> None:
        if self._is_stopping and not self._workers:
            self._all_gone.set()

    # --- what the hand-overs tell -------------------------------------------------------------------------------------

    def hung(self, slot: Slot, seconds: float) -> None:
        """The slot's worker has not answered for `seconds`: end it, with its traceback in the log. Idempotent."""
        worker = self._workers.get(slot)
        if self._is_stopping or worker is None or worker.process is None or worker.failure:
            return
        worker.failure = "it hung"
        log.error(
            "worker hung slot=%d: it has left a connection without an answer for %g s; it is ended, and its traceback "
            "shows what blocks it",
            slot,
            seconds,
        )
        # The worker's faulthandler writes where it is, without its loop.
        worker.process.signal(signal.SIGABRT)
        worker.wait_at_most(ABORT_SECONDS, _Worker.kill)

    # --- a worker's life ----------------------------------------------------------------------------------------------

    def _start(self, slot: Slot) -> None:
        self._restarts.pop(slot, None)
        worker = self._workers[slot] = _Worker(slot)
        try:
            link, process = self._launch(worker)
        except OSError as error:  # no process or descriptor to be had now
            worker.failure = f"cannot start a process: {error}"
            self._gone(worker)
            return
        worker.link, worker.process = link, process
        link.send(self._configure(slot))  # the first message of an empty link always fits
        worker.wait_at_most(self._start_timeout, self._not_ready_in_time)
        log.debug("worker started slot=%d pid=%d", slot, process.pid)

    def _launch(self, worker: _Worker) -> tuple[Link, WatchedProcess]:
        """A process with its link. Raises OSError, and then nothing is left of either."""
        with ExitStack() as undo:
            ours, theirs = link_pair()
            undo.callback(ours.close)
            with theirs:
                process = start_process(
                    self._command(worker.slot, theirs.fileno()),
                    on_exit=partial(self._exited, worker),
                    pass_fds=(theirs.fileno(),),
                )
            undo.callback(process.forget)
            undo.callback(process.kill_session)
            link = Link(ours, on_message=partial(self._said, worker), on_closed=partial(self._link_closed, worker))
            undo.pop_all()
            return link, process

    def _said(self, worker: _Worker, message: Message, fd: int) -> None:
        if isinstance(message, Taken | Ended | Declined):
            self._hand_overs.received(worker.slot, message)
        elif isinstance(message, Ready):
            self._ready(worker)
        elif isinstance(message, Failed):
            worker.failure = message.reason
        else:
            log.error("slot=%d: a worker does not send %s", worker.slot, type(message).__name__)
        if fd >= 0:  # none of these messages carries one
            os.close(fd)

    def _ready(self, worker: _Worker) -> None:
        worker.wait_no_more()
        if self._is_stopping or worker.link is None:
            return
        worker.is_ready = worker.was_ready = True
        log.debug("worker ready slot=%d", worker.slot)
        is_first = len(self._never_ready) == len(self._slots)
        was_incomplete = bool(self._never_ready)
        self._never_ready.discard(worker.slot)
        self._hand_overs.slot_is_up(worker.slot, worker.link)
        if is_first:
            self._on_first_ready()
        if was_incomplete and not self._never_ready:
            self._on_all_ready()

    def _not_ready_in_time(self, worker: _Worker) -> None:
        worker.failure = f"not ready in {self._start_timeout:g} s (start_timeout)"
        worker.kill()

    def _link_closed(self, worker: _Worker) -> None:
        # Not before: until here every acknowledgement has been counted, so what is still in flight was not taken.
        self._hand_overs.slot_is_down(worker.slot)
        worker.is_ready = False
        if worker.has_exited:
            self._gone(worker)
        else:
            worker.wait_at_most(EOF_TO_EXIT_SECONDS, self._lives_without_link)

    def _exited(self, worker: _Worker, status: int | None) -> None:
        worker.has_exited = True
        worker.exit_status = status
        if worker.link is None or worker.link.is_closed:
            self._gone(worker)
        else:
            worker.wait_at_most(EXIT_TO_EOF_SECONDS, self._link_outlives)

    def _lives_without_link(self, worker: _Worker) -> None:
        self.was_forced |= self._is_stopping
        worker.kill()

    def _link_outlives(self, worker: _Worker) -> None:
        if worker.link is not None:
            worker.link.close()
        self._link_closed(worker)

    def _gone(self, worker: _Worker) -> None:
        """Its process is reaped and its link read to the end."""
        worker.wait_no_more()
        del self._workers[worker.slot]
        if self._is_stopping:
            self._note_how_it_stopped(worker)
            self._note_if_all_gone()
            return
        why = worker.failure or f"exited with {_status_text(worker.exit_status)}"
        if len(self._never_ready) == len(self._slots):
            self._on_failed(why)
            return
        delay = self._backoffs[worker.slot].delay(now=self._loop.time(), jitter=random.random())
        log.error("worker died slot=%d: %s; another is started in %.1f s", worker.slot, why, delay)
        self._restarts[worker.slot] = self._loop.call_later(delay, self._start, worker.slot)

    def _note_how_it_stopped(self, worker: _Worker) -> None:
        if worker.exit_status == ExitCode.FORCED_STOP:
            self.was_forced = True
        elif worker.was_ready and worker.exit_status != 0 and not worker.was_killed:
            self.has_crashed = True
            log.error("worker died slot=%d in the stop: exited with %s", worker.slot, _status_text(worker.exit_status))


def _status_text(status: int | None) -> str:
    if status is None or status >= 0:
        return f"status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:  # a real-time signal
        return f"signal {-status}"

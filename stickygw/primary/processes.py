"""A process that is watched by a pidfd: one that we started, or one that we found running."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable


class WatchedProcess:
    """Calls `on_exit(status)` once when the process is gone, and has reaped it by then if it is a child.

    `status` is like `Popen.returncode`, and None for a process that is no child of ours. Signals go through the
    pidfd, so they never reach another process that was given the same number.
    """

    def __init__(
        self, pid: int, *, child: subprocess.Popen[bytes] | None, on_exit: Callable[[int | None], None]
    ) -> None:
        """Raises OSError: there is no such process, or no descriptor to watch it with."""
        self.pid = pid
        self._child = child
        self._on_exit = on_exit
        self.takes_session_along = False
        """Whether, when it ends, what it has started and left in its process group is killed."""
        self._loop = asyncio.get_running_loop()
        self._pidfd = os.pidfd_open(pid)
        try:
            self._leads_group = child is not None or os.getpgid(pid) == pid
            self._loop.add_reader(self._pidfd, self._exited)
        except BaseException:
            os.close(self._pidfd)
            raise

    @property
    def is_alive(self) -> bool:
        """Whether its end has not been seen yet."""
        return self._pidfd >= 0

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; to one that is gone, nothing."""
        if self.is_alive:
            try:
                signal.pidfd_send_signal(self._pidfd, number)
            except ProcessLookupError:
                pass  # it is gone and not yet seen: `on_exit` comes

    def kill_session(self) -> None:
        """SIGKILL it and whatever it started, if it leads a process group of its own (see `start_process`)."""
        if not self.is_alive:
            return
        self._kill_group()
        self.signal(signal.SIGKILL)

    def leave(self) -> None:
        """Stop watching one that lives on, without `on_exit`. Idempotent."""
        if self.is_alive:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def forget(self) -> None:
        """Stop watching, without `on_exit`; a child is reaped, so it must be dead or dying. Idempotent."""
        if self.is_alive:
            self._let_go()

    def _kill_group(self) -> None:
        # As long as it lives, or is not reaped, neither its number nor its group's can be another's.
        if self._leads_group:
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def _exited(self) -> None:
        if self.takes_session_along and self._is_child():
            self._kill_group()
        self._on_exit(self._let_go())

    def _is_child(self) -> bool:
        """Whether it is to be reaped by us: one that was started before this process was executed anew is, too."""
        try:
            os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        return True

    def _let_go(self) -> int | None:
        self._loop.remove_reader(self._pidfd)
        status = self._child.wait() if self._child is not None else self._reaped()
        os.close(self._pidfd)
        self._pidfd = -1
        return status

    def _reaped(self) -> int | None:
        os.set_blocking(self._pidfd, True)  # uvloop has made it another one, by which waitid would not wait
        try:
            ended = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        except ChildProcessError:
            return None
        assert ended is not None, "it waits"
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def start_process(
    command: list[str],
    *,
    on_exit: Callable[[int | None], None],
    pass_fds: tuple[int, ...] = (),
    output: int | None = None,
) -> WatchedProcess:
    """Start `command` in its own session, so that the terminal's Ctrl-C reaches only the primary, and watch it.

    It inherits `pass_fds` and the standard streams; with `output`, standard output and error go to that descriptor.
    Raises OSError, and then nothing runs: nobody would notice the end of a child that is not watched.
    """
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        pass_fds=pass_fds,
        close_fds=True,
        start_new_session=True,
    )
    try:
        return WatchedProcess(child.pid, child=child, on_exit=on_exit)
    except BaseException:
        child.kill()
        child.wait()  # SIGKILL ends this wait
        raise

"""A terminal for tests of commands: keys go to the kernel, which makes the signals, as with a person's."""

from __future__ import annotations

import os
import re
import select
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from stickygw.testing.processes import kill_all, marked, wait_until_gone

CTRL_C = b"\x03"


class Terminal:
    """A command on a terminal of its own, as its foreground job: what is typed and what is shown."""

    def __init__(self, command: str, *, cwd: Path, environment: dict[str, str], mark: str) -> None:
        self._command = command
        self._cwd = cwd
        self._environment = marked(environment, mark)
        self._mark = mark
        self.run()

    def run(self) -> None:
        """Run the command, on a new terminal. It must not be running."""
        self.shown = ""
        self._keyboard, screen = os.openpty()
        # The shell leads a session without a terminal, so the first one that it opens becomes its own (tty(7)).
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", f': <"$0"; exec {self._command}', os.ttyname(screen)],
            cwd=self._cwd,
            env=self._environment,
            stdin=screen,
            stdout=screen,
            stderr=screen,
            start_new_session=True,
        )
        os.close(screen)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        kill_all(self._mark)
        self._process.wait()
        self._close()

    @property
    def pid(self) -> int:
        """The command's process id."""
        return self._process.pid

    def type(self, keys: bytes) -> None:
        os.write(self._keyboard, keys)

    def hang_up(self) -> None:
        """Take the terminal away, as closing its window does: its foreground job gets SIGHUP."""
        self._close()

    def wait_for(self, pattern: str, seconds: float) -> re.Match[str]:
        """Wait until `pattern` is on the screen."""
        deadline = time.monotonic() + seconds
        while (found := re.search(pattern, self.shown)) is None:
            if not self._read(deadline):
                raise AssertionError(f"no {pattern!r} within {seconds} s on the screen:\n{self.shown}")
        return found

    def wait(self, seconds: float) -> int:
        """Wait until the command has ended, with all its processes; its exit status as `subprocess` gives it."""
        deadline = time.monotonic() + seconds
        while self._read(deadline):
            pass
        left = wait_until_gone(self._mark, deadline - time.monotonic())
        assert not left, f"processes {left} still run; the screen:\n{self.shown}"
        self._close()
        return self._process.wait(max(0.0, deadline - time.monotonic()))

    def _read(self, deadline: float) -> bool:
        """Read what comes next. False: nobody can write any more, or the deadline has passed."""
        if self._keyboard < 0:
            return False
        ready, _, _ = select.select([self._keyboard], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return False
        try:
            data = os.read(self._keyboard, 65536)
        except OSError:  # EIO: the last process has let go of the terminal
            return False
        self.shown += data.decode("utf-8", "replace").replace("\r\n", "\n")
        return bool(data)

    def _close(self) -> None:
        if self._keyboard >= 0:
            os.close(self._keyboard)
            self._keyboard = -1

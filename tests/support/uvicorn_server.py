"""uvicorn itself, serving the application that the gateway serves: what ours is compared with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from types import TracebackType
from typing import Self


class Uvicorn:
    """uvicorn with the protocol classes that the gateway uses, on a port that the system chose.

    With several workers it is its parent process that has `pid`.
    """

    def __init__(self, target: str, *, directory: str, options: tuple[str, ...] = (), workers: int = 1) -> None:
        command = [sys.executable, "-m", "uvicorn", target, "--app-dir", directory, "--port", "0", "--no-server-header"]
        command += ["--http", "httptools", "--ws", "websockets-sansio", "--loop", "uvloop", "--no-access-log", *options]
        if workers > 1:
            command += ["--workers", str(workers)]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        self._starting = workers
        self._lines: list[str] = []
        self._port: int | None = None
        self._is_known = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._reader.start()
        if not self._is_known.wait(30) or self._port is None:
            self._end()
            raise AssertionError(f"uvicorn does not start:\n{self.log}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    @property
    def port(self) -> int:
        """Its port."""
        assert self._port is not None
        return self._port

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    @property
    def log(self) -> str:
        """What it has said."""
        return "".join(self._lines)

    def _end(self) -> None:
        try:
            # The whole group: uvicorn's workers outlive a parent that is killed.
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # all have ended
        self._process.wait()
        self._reader.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                self._lines.append(line)
                if "running on http://127.0.0.1:" in line:
                    self._port = int(line.partition("127.0.0.1:")[2].partition(" ")[0])
                # A parent names the port before any worker listens, a single process after its start.
                self._starting -= "Application startup complete." in line
                if self._port is not None and self._starting <= 0:
                    self._is_known.set()
        self._is_known.set()

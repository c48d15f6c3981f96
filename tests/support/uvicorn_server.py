"""uvicorn itself, serving the application that the gateway serves: what ours is compared with."""

from __future__ import annotations

import subprocess
import sys
import threading
from types import TracebackType
from typing import Self


class Uvicorn:
    """A uvicorn process with the protocol classes that the gateway uses, on a port that the system chose."""

    def __init__(self, target: str, *, directory: str, options: tuple[str, ...] = ()) -> None:
        command = [sys.executable, "-m", "uvicorn", target, "--app-dir", directory, "--port", "0", "--no-server-header"]
        command += ["--http", "httptools", "--ws", "websockets-sansio", "--loop", "uvloop", "--no-access-log", *options]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self._lines: list[str] = []
        self._port: int | None = None
        self._is_known = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._reader.start()
        self._is_known.wait(30)
        assert self._port is not None, "".join(self._lines)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()

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

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                self._lines.append(line)
                if "running on http://127.0.0.1:" in line:
                    self._port = int(line.partition("127.0.0.1:")[2].partition(" ")[0])
                    self._is_known.set()
        self._is_known.set()

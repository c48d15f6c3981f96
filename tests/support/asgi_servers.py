"""The ASGI servers that people run, each as a process with one worker, on a Unix socket: `AsgiServer`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from http.client import HTTPConnection
from http.cookies import SimpleCookie
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, unix_connect

SECONDS = 30.0
"""For its start, and for its stop."""

SERVERS = ("uvicorn", "hypercorn", "granian")

_OPTIONS = {
    "uvicorn": ["--uds", "{socket}"],
    "hypercorn": ["--bind", "unix:{socket}", "--graceful-timeout", "5"],
    "granian": ["--uds", "{socket}", "--interface", "asgi", "--workers", "1"],
}


class AsgiServer:
    """`name`, serving `target`, a ``module:name`` of `directory`. As a context: stopped, or killed, at the end."""

    def __init__(self, name: str, target: str, *, directory: Path, environment: Mapping[str, str]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="asgi-server-")
        self.socket = str(Path(self._folder.name) / "s")
        self._log = Path(self._folder.name) / "log"
        options = [option.format(socket=self.socket) for option in _OPTIONS[name]]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", name, *options, target],
                stdout=log,
                stderr=log,
                cwd=directory,
                env={**os.environ, **environment, "PYTHONPATH": str(directory)},
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        deadline = time.monotonic() + SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                log = self.log
                self._end()
                raise AssertionError(f"the server does not start:\n{log}")
            time.sleep(0.02)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    @property
    def log(self) -> str:
        """What it has said."""
        return self._log.read_text()

    def stop(self) -> int:
        """Ask it to end; its exit code. Negative: the signal that it died of."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(SECONDS)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(self.socket)
            except OSError:
                return False
            return True

    def _end(self) -> None:
        try:
            # The whole group: workers outlive a parent that is killed.
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # all have ended
        self._process.wait()
        self._folder.cleanup()


class Visitor:
    """One client of several servers, with one cookie jar."""

    def __init__(self) -> None:
        self._cookies: dict[str, str] = {}

    async def ask(self, server: AsgiServer, path: str, *, method: str = "GET") -> Any:
        """What the server answers as JSON."""
        return await asyncio.to_thread(self._ask, server, path, method)

    async def connect(self, server: AsgiServer, path: str) -> ClientConnection:
        """A WebSocket."""
        connection = await unix_connect(
            server.socket, f"ws://testserver{path}", additional_headers=self._headers, open_timeout=SECONDS
        )
        assert connection.response is not None
        self._take(connection.response.headers.get_all("Set-Cookie"))
        return connection

    @property
    def _headers(self) -> dict[str, str]:
        pairs = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        return {"Cookie": pairs} if pairs else {}

    def _ask(self, server: AsgiServer, path: str, method: str) -> Any:
        connection = HTTPConnection("testserver", timeout=SECONDS)
        connection.sock = socket.socket(socket.AF_UNIX)
        try:
            connection.sock.settimeout(SECONDS)
            connection.sock.connect(server.socket)
            connection.request(method, path, headers=self._headers)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        assert answer.status == 200, body
        self._take(answer.headers.get_all("Set-Cookie") or [])
        return json.loads(body)

    def _take(self, lines: list[str]) -> None:
        for line in lines:
            for name, morsel in SimpleCookie(line).items():
                self._cookies[name] = morsel.value
                if morsel["max-age"] == "0":
                    del self._cookies[name]

"""`Gateway`: a real one for tests, with worker processes and an embedded Valkey, started as an operator would."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from websockets.asyncio.client import ClientConnection, connect

from stickygw.testing.processes import command_line, kill_all, marked, processes, wait_until_gone

READY_SECONDS = 30.0
"""How long a gateway may take to be ready: ten times what it needs on a busy machine with two cores."""

STOP_SECONDS = 20.0
"""How long a stopping gateway may take before it is killed."""

COMMAND_SECONDS = 60.0
"""How long a command may take: one that replaces workers waits until the old ones have drained (`drain_timeout`)."""


class GatewayFailed(AssertionError):
    """The gateway did not do what the test needs; its log is in the message."""


class Gateway:
    """``stickygw run TARGET``, on a port of 127.0.0.1 that the system chooses, with directories of its own.

    `options` are further arguments of the command line; a later one wins over those set here. After `stop`, `start`
    begins again on the same port with the same state. As a context manager it starts, and leaves no process and no
    file behind.
    """

    def __init__(
        self,
        target: str,
        *options: str,
        workers: int = 2,
        environment: dict[str, str] | None = None,
    ) -> None:
        self._target = target
        self._options = options
        self._workers = workers
        self._environment = environment or {}
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._is_at_end = False
        self.urls: list[str] = []
        # The names of Unix sockets are short, and pytest's folders are long.
        self.directory = Path(tempfile.mkdtemp(prefix="sg-"))
        self._mark = self.directory.name
        self.runtime_dir = self.directory / "run"
        self.state_dir = self.directory / "state"

    # Life

    def start(self, *, timeout: float = READY_SECONDS) -> None:
        """Start, and wait until it says that it is ready. Raises `GatewayFailed` when it ends, or says nothing."""
        self.launch()
        ready = self._wait_for(lambda line: line.startswith("ready: "), timeout)
        if ready is None:
            raise GatewayFailed(f"the gateway was not ready within {timeout} s; its log:\n{self.log}")
        self.urls = ready.split()[1:]

    def launch(self) -> None:
        """Start without waiting for anything: for a test of a gateway that cannot start."""
        bind = f"127.0.0.1:{self.port}" if self.urls else "127.0.0.1:0"
        command = [sys.executable, "-m", "stickygw.cli", "run", self._target, "--bind", bind]
        command += ["--workers", str(self._workers), "--set", "log_format=text"]
        command += ["--runtime-dir", str(self.runtime_dir), "--state-dir", str(self.state_dir), *self._options]
        self._process = None  # the end of the log of the one before is not that of the next
        self._lines.clear()
        self._is_at_end = False
        self._process = subprocess.Popen(
            command,
            env=marked({**os.environ, **self._environment}, self._mark),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the primary."""
        self._running().send_signal(number)

    def wait(self, timeout: float = STOP_SECONDS) -> int:
        """Wait for the primary's end; its exit code."""
        try:
            return self._running().wait(timeout)
        except subprocess.TimeoutExpired:
            raise GatewayFailed(f"the gateway did not end within {timeout} s; its log:\n{self.log}") from None

    def stop(self, number: signal.Signals = signal.SIGTERM, *, timeout: float = STOP_SECONDS) -> int:
        """Send a signal and wait until all its processes have ended; the exit code."""
        self.send_signal(number)
        code = self.wait(timeout)
        if left := wait_until_gone(self._mark, timeout):
            names = ", ".join(f"{pid} ({' '.join(command_line(pid))})" for pid in left)
            raise GatewayFailed(f"the gateway has ended, but not {names}; its log:\n{self.log}")
        return code

    def close(self) -> None:
        """End what still runs, gently and then not, and remove its directories. Idempotent."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
            kill_all(self._mark)  # those too that one has left that was killed
            self._process.wait()
            assert self._reader is not None
            self._reader.join()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # For the tests of an application

    @asynccontextmanager
    async def connect(
        self, path: str = "/", *, cookie: str | None = None, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[ClientConnection]:
        """Open a WebSocket with the client of the `websockets` library; it is closed when the context ends.

        `cookie` is what `cookie_of` gave for an earlier connection: the same visitor comes back.
        """
        fields = dict(headers or {}) | ({"Cookie": cookie} if cookie else {})
        async with connect(self.ws_url + path, additional_headers=fields, proxy=None) as connection:
            yield connection

    @staticmethod
    def cookie_of(connection: ClientConnection) -> str | None:
        """The cookie that the gateway set when it opened `connection`, as a browser would send it back."""
        assert connection.response is not None
        set_cookie = connection.response.headers.get("Set-Cookie")
        return set_cookie.partition(";")[0] if set_cookie else None

    def command(
        self, *arguments: str, stdin: str = "", timeout: float = COMMAND_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """Run ``stickygw ARGUMENTS`` for this gateway, ``command("reload")``; its `returncode`, `stdout`, `stderr`.

        Blocks: a coroutine that serves clients meanwhile calls it in a thread.
        """
        try:
            return subprocess.run(
                [sys.executable, "-m", "stickygw.cli", *arguments, "--runtime-dir", str(self.runtime_dir)],
                env=marked({**os.environ, **self._environment}, self._mark),
                input=stdin,
                capture_output=True,
                text=True,
                errors="replace",
                start_new_session=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise GatewayFailed(f"{error}; it had said {error.stderr!r}; the gateway's log:\n{self.log}") from None

    def kill_worker(self, slot: int) -> int:
        """End a slot's worker as a crash would (SIGKILL); the process id it had."""
        pid = self.worker_pids()[slot]
        os.kill(pid, signal.SIGKILL)
        return pid

    def kill_valkey(self) -> int:
        """End the embedded Valkey as a crash would; the process id it had. Its data are in a file and come back."""
        pid = self.valkey_pid()
        assert pid is not None, "there is no embedded Valkey"
        os.kill(pid, signal.SIGKILL)
        return pid

    # Facts

    @property
    def url(self) -> str:
        """The first address it listens on, ``http://127.0.0.1:PORT``."""
        return self.urls[0]

    @property
    def port(self) -> int:
        """Its port."""
        return int(self.url.rpartition(":")[2])

    @property
    def ws_url(self) -> str:
        """`url`, for a WebSocket client."""
        return "ws" + self.url.removeprefix("http")

    @property
    def pid(self) -> int:
        """The primary's process id."""
        return self._running().pid

    @property
    def log(self) -> str:
        """What it has said since it was started, both streams."""
        with self._news:
            return "".join(self._lines)

    def worker_pids(self) -> dict[int, int]:
        """The process id of each slot's worker, of two the newer. One that is just being started may be missing."""
        found = {}
        for pid in sorted(processes(self._mark)):
            arguments = command_line(pid)
            if "stickygw.worker" in arguments and "--slot" in arguments:
                found[int(arguments[arguments.index("--slot") + 1])] = pid
        return found

    def valkey_pid(self) -> int | None:
        """The process id of the embedded Valkey, if it runs."""
        for pid in processes(self._mark):
            if any("valkey-server" in argument for argument in command_line(pid)[:1]):
                return pid
        return None

    def wait_for_line(self, text: str, *, timeout: float = READY_SECONDS) -> bool:
        """Wait until a line of the log contains `text`. False: it has ended without one, or the time is over."""
        return self._wait_for(lambda line: text in line, timeout) is not None

    def _wait_for(self, is_wanted: Callable[[str], bool], timeout: float) -> str | None:
        def found() -> str | None:
            return next((line for line in self._lines if is_wanted(line)), None)

        with self._news:
            self._news.wait_for(lambda: self._is_at_end or found(), timeout)
            return found()

    def _running(self) -> subprocess.Popen[str]:
        assert self._process is not None, "the gateway was not started"
        return self._process

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as output:
            for line in output:
                with self._news:
                    self._lines.append(line)
                    self._news.notify_all()
        with self._news:
            # Workers of a primary that was killed may write on while the next one already runs.
            self._is_at_end = self._is_at_end or process is self._process
            self._news.notify_all()


@asynccontextmanager
async def gateway(
    target: str, *options: str, workers: int = 2, environment: dict[str, str] | None = None
) -> AsyncIterator[Gateway]:
    """A `Gateway` that is ready, for coroutines: waiting for it holds up no event loop."""
    started = Gateway(target, *options, workers=workers, environment=environment)
    try:
        await asyncio.to_thread(started.start)
        yield started
    finally:
        await asyncio.to_thread(started.close)

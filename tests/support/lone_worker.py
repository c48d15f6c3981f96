"""A real worker process, whose primary is the test: it speaks the link by hand."""

from __future__ import annotations

import asyncio
import itertools
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from websockets.asyncio.client import ClientConnection, connect

from stickygw.config.settings import Settings
from stickygw.ipc.link import Link, link_pair
from stickygw.primary.worker_process import worker_command
from stickygw.types import GatewayId, HandOverId, Slot
from stickygw.wire.link import Configure, Heartbeat, Message, Offer, Ready
from support.waiting import wait_until

START_SECONDS = 30.0
END_SECONDS = 20.0
M = TypeVar("M", bound=Message)


class LoneWorker:
    """Slot 0 of a gateway of two. What the worker says on the link is kept in `said`, what it logs in a file."""

    def __init__(self, target: str, directory: Path, settings: Settings) -> None:
        self.said: list[Message] = []
        self.is_cut_off = False
        self._ids = itertools.count(1)
        self._log = directory / "log"
        ours, theirs = link_pair()
        with theirs, self._log.open("wb") as log:
            self._process = subprocess.Popen(
                worker_command(Slot(0), theirs.fileno()),
                pass_fds=(theirs.fileno(),),
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.link = Link(ours, on_message=lambda message, fd: self.said.append(message), on_closed=self._cut_off)
        self.send(Configure(Slot(0), 1, 2, GatewayId("0badcafe"), target, settings.to_wire()))

    def _cut_off(self) -> None:
        self.is_cut_off = True

    @property
    def pid(self) -> int:
        """Its process's number."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether its process is gone."""
        return self._process.poll() is not None

    @property
    def log(self) -> str:
        """What it has printed and logged so far."""
        return self._log.read_text()

    @property
    def beats(self) -> list[Heartbeat]:
        """Its heartbeats so far."""
        return self.all_said(Heartbeat)

    def all_said(self, kind: type[M]) -> list[M]:
        """Its messages of one kind so far."""
        return [message for message in self.said if isinstance(message, kind)]

    def send(self, message: Message) -> None:
        """Tell it something."""
        assert self.link.send(message)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    async def wait_ready(self) -> None:
        """Return when its application has started."""
        await wait_until(lambda: Ready() in self.said or self._process.poll() is not None, seconds=START_SECONDS)
        assert Ready() in self.said, self.log

    async def wait_log(self, text: str) -> None:
        """Return when `text` is in its log."""
        await wait_until(lambda: text in self.log)

    async def wait_end(self) -> int:
        """Its exit status, once it has ended and the link is read to its end."""
        await wait_until(lambda: self._process.poll() is not None, seconds=END_SECONDS)
        if not self.link.is_closed:
            await wait_until(lambda: self.is_cut_off)
        return self._process.wait()

    def offer(self, sock: socket.socket) -> HandOverId:
        """Hand over a connection whose head lies unread in `sock`, which is closed here."""
        id = HandOverId(next(self._ids))
        with sock:
            assert self.link.send(Offer(id, None, 0, None, "127.0.0.1", 4711, False, "test"), sock.fileno())
        return id

    async def arrival(self, head: bytes) -> socket.socket:
        """A client that has sent `head` and was handed over: its socket."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        await asyncio.get_running_loop().sock_sendall(ours, head)
        self.offer(theirs)
        return ours

    @asynccontextmanager
    async def client(self, path: str = "/") -> AsyncIterator[ClientConnection]:
        """A WebSocket that the worker serves."""
        ours, theirs = socket.socketpair()
        opening = asyncio.ensure_future(
            connect(f"ws://localhost{path}", sock=ours, compression=None, proxy=None, open_timeout=END_SECONDS)
        )
        await wait_until(lambda: _peeked(theirs).endswith(b"\r\n\r\n"))
        self.offer(theirs)
        connection = await opening
        try:
            yield connection
        finally:
            await connection.close()

    def close(self) -> None:
        """End it by force if it still runs. Idempotent."""
        self.link.close()
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def _peeked(sock: socket.socket) -> bytes:
    try:
        return sock.recv(65536, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return b""


@asynccontextmanager
async def lone_worker(
    target: str, directory: Path, *, redis: str, prefix: str, **settings: Any
) -> AsyncIterator[LoneWorker]:
    """One that was told what to run, ready or not."""
    whole = Settings(
        redis={"url": redis, "prefix": prefix},  # type: ignore[arg-type]
        secret=("not a secret but long enough to be one",),  # type: ignore[arg-type]
        log_level="debug",
        log_format="text",
        **settings,
    )
    worker = LoneWorker(target, directory, whole)
    try:
        yield worker
    finally:
        worker.close()

"""The door by which workers come in whose primary was killed: `AdoptionDoor`, and each of them, `FoundWorker`.

A worker says what it has, then who it is (`stickygw.worker.reunion`). What is done with it is not decided here.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections import deque
from collections.abc import Callable
from pathlib import Path

from stickygw.errors import RuntimeDirError
from stickygw.ipc.link import Link
from stickygw.ipc.peer import peer_of
from stickygw.types import MAX_SLOTS, HandOverId
from stickygw.wire.link import Hold, Holdings, Message, Orphan

log = logging.getLogger("stickygw.adoption")

MAX_LISTENERS = 64
"""Of one worker; it has one for each address of the setting `bind`."""

REST_SECONDS = 0.15
"""How long nobody is let in when there is no descriptor; the door would wake us without end meanwhile."""


class FoundWorker:
    """A worker without a primary, from its knock on.

    `on_known(self)` is called once it has said who it is, `on_lost(self)` if it is gone before that. What one says
    behind its name, and its end, wait for who takes it over (`listen`).
    """

    def __init__(
        self,
        sock: socket.socket,
        pid: int,
        *,
        on_known: Callable[[FoundWorker], None],
        on_lost: Callable[[FoundWorker], None],
    ) -> None:
        self.pid = pid
        self.orphan: Orphan | None = None
        """Who it is; None: it has not said it yet."""
        self.listeners: dict[int, socket.socket] = {}
        """Listening sockets, by their number in its setting `bind`."""
        self.connections: list[tuple[HandOverId, bytes | None]] = []
        self.learnt: list[bytes] = []
        self.is_lost = False
        """Whether it is gone again."""
        self._on_known = on_known
        self._on_lost = on_lost
        self._later: deque[tuple[Message, int]] = deque()
        """What it has said since: heartbeats and ends, for as long as nobody has taken it over."""
        self._on_message: Callable[[Message, int], None] | None = None
        self._on_closed: Callable[[], None] | None = None
        self.link = Link(sock, on_message=self._received, on_closed=self._closed)

    @property
    def known(self) -> Orphan:
        """Who it is, once it has said it."""
        assert self.orphan is not None
        return self.orphan

    def listen(self, on_message: Callable[[Message, int], None], on_closed: Callable[[], None]) -> Link:
        """Its link, with these callbacks (see `Link`) from the next turn of the loop on: for who takes it over."""
        asyncio.get_running_loop().call_soon(self._catch_up, on_message, on_closed)
        return self.link

    def close(self) -> None:
        """Let it go: it looks for another primary. Idempotent."""
        self.link.close()
        self.close_listeners()
        for _, fd in self._later:
            if fd >= 0:
                os.close(fd)
        self._later.clear()

    def close_listeners(self) -> None:
        """They are not needed: another worker had the same. Idempotent."""
        for listener in self.listeners.values():
            listener.close()
        self.listeners.clear()

    def _catch_up(self, on_message: Callable[[Message, int], None], on_closed: Callable[[], None]) -> None:
        while self._later:
            on_message(*self._later.popleft())
        self._on_message, self._on_closed = on_message, on_closed
        if self.is_lost:
            on_closed()

    def _received(self, message: Message, fd: int) -> None:
        if self._on_message is not None:
            self._on_message(message, fd)
        elif self.orphan is not None:
            self._later.append((message, fd))
        else:
            self._told(message, fd)

    def _told(self, message: Message, fd: int) -> None:
        match message:
            case Hold(number) if fd >= 0 and 0 <= number < MAX_LISTENERS and number not in self.listeners:
                self.listeners[number] = socket.socket(fileno=fd)
                return
            case Holdings(connections, learnt):
                self.connections += [(HandOverId(id), key) for id, key in connections]
                self.learnt += learnt
            case Orphan():
                self.orphan = message
                self._on_known(self)
            case _:
                log.error("a worker that is to be adopted does not begin with %s", type(message).__name__)
        if fd >= 0:
            os.close(fd)

    def _closed(self) -> None:
        self.is_lost = True
        if self._on_closed is not None:
            self._on_closed()
        elif self.orphan is None:
            self._on_lost(self)


class AdoptionDoor:
    """Listens at `path`, in a directory that is private to this user and locked by this process.

    `on_known(worker)` is called for each worker of this user that comes. Until `close` it is never too late for one: a
    worker may have stood still for long.
    """

    def __init__(self, path: Path, on_known: Callable[[FoundWorker], None]) -> None:
        self._path = path
        self.on_known = on_known
        self._loop = asyncio.get_running_loop()
        self._sock: socket.socket | None = None
        self._rest: asyncio.TimerHandle | None = None
        self._coming: set[FoundWorker] = set()

    def open(self) -> None:
        """Listen. A socket that a gateway has left behind is removed. Raises `RuntimeDirError`."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._path.unlink(missing_ok=True)
            sock.bind(os.fspath(self._path))
            self._path.chmod(0o600)
            sock.setblocking(False)
            sock.listen(MAX_SLOTS)
        except OSError as error:
            sock.close()
            raise RuntimeDirError(f"{self._path} cannot be made: {error.strerror or error}") from error
        self._sock = sock
        self._listen()

    def close(self) -> None:
        """Nobody comes in any more; who has not said who it is looks further. Idempotent."""
        if self._sock is None:
            return
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()
        self._sock = None
        for worker in self._coming:
            worker.close()
        self._coming.clear()
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s cannot be removed: %s", self._path, error.strerror)

    def _listen(self) -> None:
        assert self._sock is not None
        self._rest = None
        self._loop.add_reader(self._sock.fileno(), self._knocked)

    def _knocked(self) -> None:
        assert self._sock is not None
        try:
            sock, _ = self._sock.accept()
        except BlockingIOError:  # it has gone away
            return
        except OSError as error:  # no descriptor now: it waits
            log.warning("a worker cannot come in: %s", error)
            self._loop.remove_reader(self._sock.fileno())
            self._rest = self._loop.call_later(REST_SECONDS, self._listen)
            return
        peer = peer_of(sock)
        if peer.uid != os.geteuid():
            log.error("process %d of user %d is no worker of this gateway", peer.pid, peer.uid)
            sock.close()
            return
        self._coming.add(FoundWorker(sock, peer.pid, on_known=self._known, on_lost=self._lost))

    def _lost(self, worker: FoundWorker) -> None:
        self._coming.discard(worker)
        worker.close()

    def _known(self, worker: FoundWorker) -> None:
        self._coming.discard(worker)
        self.on_known(worker)

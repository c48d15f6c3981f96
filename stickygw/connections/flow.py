"""Bytes in and out of a bare non-blocking socket on the event loop: `Flow`, and the `Flusher` of all of them."""

from __future__ import annotations

import asyncio
import logging
import socket
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Protocol

log = logging.getLogger("stickygw.connections")

RECEIVE_BYTES = 64 * 1024
"""The most that one wake-up reads."""

HIGH_WATER_BYTES = 64 * 1024
"""With more than this in the outbox, `send` is worth awaiting."""

WRITE_BYTES = 256 * 1024
"""The most that is joined for one system call."""

WRITE_COST = 64
"""Bytes of memory that a write costs beside its data while it waits."""


class TransportOwner(Protocol):
    """Who a transport works for."""

    def data_received(self, data: bytes) -> None:
        """Some bytes came; never called while reading is paused."""

    def eof_received(self) -> None:
        """The client has sent its last byte. The owner closes in its own time."""

    def write_resumed(self) -> None:
        """The outbox is empty again after it was blocked. The owner may write, or close."""

    def transport_closed(self) -> None:
        """The socket is closed. Called exactly once, last."""


class Flusher:
    """Writes what one turn of the loop put into outboxes: one system call a connection and turn."""

    __slots__ = ("_call_soon", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._call_soon: Callable[..., object] = loop.call_soon
        self._waiting: list[Flow] = []

    def add(self, transport: Flow) -> None:
        """Write `transport`'s outbox at the end of this turn."""
        if not self._waiting:
            self._call_soon(self._flush)
        self._waiting.append(transport)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        for transport in waiting:
            try:
                transport.flush()
            except Exception:
                log.exception("a write failed; its connection ends")
                transport.abort()


class Flow(ABC):
    """Reads for its owner, and writes what the kernel takes; the rest is its outbox. How it ends is the derived class's
    business."""

    __slots__ = (
        "_flusher",
        "_is_closing",
        "_is_eof",
        "_is_reading",
        "_is_scheduled",
        "_loop",
        "_marked_bytes",
        "_outbox",
        "_sock",
        "_waiters",
        "blocked_since",
        "is_closed",
        "is_frozen",
        "is_paused",
        "outbox_bytes",
        "owner",
        "received_bytes",
        "sent_bytes",
    )

    def __init__(self, sock: socket.socket, loop: asyncio.AbstractEventLoop, flusher: Flusher) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._loop = loop
        self._flusher = flusher
        self._outbox: deque[bytes | memoryview] = deque()
        self._marked_bytes = 0  # how many of the outbox's bytes were there at `blocked_since`
        self._waiters: list[asyncio.Future[None]] = []
        self._is_reading = False
        self._is_scheduled = False
        self._is_closing = False
        self._is_eof = False
        self.owner: TransportOwner | None = None
        self.outbox_bytes = 0
        self.received_bytes = 0
        self.sent_bytes = 0
        self.blocked_since: float | None = None
        self.is_closed = False
        self.is_frozen = False
        self.is_paused = False

    @abstractmethod
    def abort(self) -> None:
        """Close at once, whatever is queued. Idempotent."""

    @abstractmethod
    def _half_close(self) -> None:
        """Say FIN: nothing more is written."""

    # Reading

    def receive_nowait(self, size: int = RECEIVE_BYTES) -> bytes | None:
        """Read what is there: bytes, b"" at the end of the stream or after an error, None when nothing is there."""
        try:
            data = self._sock.recv(size)
        except BlockingIOError:
            return None
        except OSError:
            return b""
        self.received_bytes += len(data)
        return data

    def start(self, owner: TransportOwner) -> None:
        """Begin to read for `owner`."""
        self.owner = owner
        if not self.is_closed and not self._is_reading and not self.is_frozen:
            self._is_reading = True
            self._loop.add_reader(self._sock.fileno(), self._readable)

    def detach(self) -> None:
        """Read for nobody until `start`: what comes waits in the kernel."""
        self._stop_reading()
        self.is_paused = False
        self.owner = None

    def pause_reading(self) -> None:
        """Read no more until `resume_reading`. The loop is told only if something comes, for most pauses are short."""
        self.is_paused = True

    def resume_reading(self) -> None:
        """Read again."""
        self.is_paused = False
        if not self._is_reading and not self.is_closed and self.owner is not None:
            self.start(self.owner)

    def _stop_reading(self) -> None:
        if self._is_reading:
            self._is_reading = False
            self._loop.remove_reader(self._sock.fileno())

    def _readable(self) -> None:
        assert self.owner is not None
        if self.is_paused:
            self._stop_reading()
            return
        # `receive_nowait`, without its call: this is done for each message
        try:
            data = self._sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.received_bytes += len(data)
        if not data:
            self._is_eof = True
            self._stop_reading()
            if not self._is_closing:
                self.owner.eof_received()
            elif not self._outbox:
                self.abort()
        elif not self._is_closing:
            self.owner.data_received(data)

    # Writing

    @property
    def outbox_writes(self) -> int:
        """How many writes wait, whole or in part."""
        return len(self._outbox)

    @property
    def outbox_cost(self) -> int:
        """What the outbox takes in memory, about: its bytes, and an object for each write that waits."""
        return self.outbox_bytes + WRITE_COST * len(self._outbox)

    def write(self, data: bytes) -> None:
        """Queue `data`; it goes out with everything else of this turn. Dropped once the transport is closing."""
        if self._is_closing or self.is_closed:
            return
        self._outbox.append(data)
        self.outbox_bytes += len(data)
        if not self._is_scheduled and self.blocked_since is None:
            self._is_scheduled = True
            self._flusher.add(self)

    def write_now(self, data: bytes) -> None:
        """`write`, and where nothing waits before it, at once: the loop need not turn once more for it."""
        if self.outbox_bytes or self._is_closing or self.is_closed or self.is_frozen:
            self.write(data)
            return
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:  # as in `flush`
            self.abort()
            return
        self.sent_bytes += sent
        if sent < len(data):
            self._outbox.append(memoryview(data)[sent:])
            self.outbox_bytes = len(data) - sent
            self._block()

    def flush(self) -> None:
        """Write as much of the outbox as the kernel takes."""
        self._is_scheduled = False
        if self.is_frozen:
            return
        outbox = self._outbox
        while outbox and not self.is_closed:
            chunk = outbox.popleft() if len(outbox) == 1 else self._gather()
            try:
                sent = self._sock.send(chunk)
            except BlockingIOError:
                sent = 0
            except OSError:  # the client is gone: whoever owns us is told, and nothing can be written any more
                self.abort()
                return
            self.sent_bytes += sent
            self.outbox_bytes -= sent
            self._marked_bytes -= sent
            if sent < len(chunk):
                outbox.appendleft(memoryview(chunk)[sent:])
                self._block()
                return
        if self.is_closed:
            return
        was_blocked = self.blocked_since is not None
        if was_blocked:
            self.blocked_since = None
            self._loop.remove_writer(self._sock.fileno())
        if self._is_closing:
            self._half_close()
        elif was_blocked and self.owner is not None:
            self.owner.write_resumed()
        if self._waiters and not outbox:  # the owner may have had more to write
            self._wake_waiters()

    def _gather(self) -> bytes | memoryview:
        """What waits, or the beginning of it, as one chunk."""
        outbox = self._outbox
        if self.outbox_bytes <= WRITE_BYTES:
            chunk = b"".join(outbox)
            outbox.clear()
            return chunk
        parts: list[bytes | memoryview] = []
        size = 0
        while outbox and size < WRITE_BYTES:
            part = outbox.popleft()
            parts.append(part)
            size += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _block(self) -> None:
        if self.blocked_since is None:
            self._loop.add_writer(self._sock.fileno(), self.flush)
        elif self._marked_bytes > 0:
            return
        self.blocked_since = monotonic()
        self._marked_bytes = self.outbox_bytes

    def drained(self) -> asyncio.Future[None]:
        """Done when the outbox is empty and not frozen, or the transport closed or let go."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        if (self._outbox or self.is_frozen) and not self.is_closed:
            self._waiters.append(waiter)
        else:
            waiter.set_result(None)
        return waiter

    def _wake_waiters(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

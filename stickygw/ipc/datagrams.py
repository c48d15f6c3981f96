"""Whole datagrams, and file descriptors beside them, over a SOCK_SEQPACKET Unix socket on the running loop.

What the bytes mean is `Link`'s and `MoveLink`'s business; what a full socket means, their callers'.
"""

from __future__ import annotations

import array
import asyncio
import errno
import logging
import os
import select
import socket
import threading
from collections.abc import Callable, Sequence

log = logging.getLogger("stickygw.link")

MAX_MESSAGES_PER_WAKE = 64
"""After so many the loop turns, so that a busy peer starves nobody."""

MAX_DESCRIPTORS = 2
"""Beside one datagram."""

AGAIN_SECONDS = 0.02
"""After so long it is tried again to send what the kernel refused though there is room. It does not tell when it would
take it, and says all the while that the socket is writable."""

_FD_BYTES = array.array("i").itemsize
_ANCILLARY_BYTES = socket.CMSG_SPACE(MAX_DESCRIPTORS * _FD_BYTES)
# Received descriptors must not leak into children (recvmsg hands them over inheritable).
_RECEIVE_FLAGS = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


def datagram_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets. Neither is inheritable yet."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class Datagrams:
    """One end.

    `on_datagram(data, fds)` is called for each in order; the callee owns `fds`. `on_closed()` is called once, after the
    last datagram, when the other end is gone, and never after `close()`. No datagram is longer than `max_bytes`.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        max_bytes: int,
        on_datagram: Callable[[bytes, list[int]], None],
        on_closed: Callable[[], None],
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._max_bytes = max_bytes
        self._on_datagram = on_datagram
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._on_writable: list[Callable[[], None]] = []
        self._is_refused = False  # the last datagram, and not for want of room
        self._again: asyncio.TimerHandle | None = None
        self._is_behind = False
        self._is_cut_off = False  # nothing can be sent any more; uvloop may have given up watching
        self._closing = threading.Lock()
        self.is_closed = False
        self._loop.add_reader(sock.fileno(), self._readable)

    def send(self, data: bytes, fds: Sequence[int] = ()) -> bool:
        """Send `data`, with copies of `fds` beside it. False: the socket is full or gone, nothing was sent."""
        if self.is_closed:
            return False
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            self._sock.sendmsg([data], ancillary)
        except BlockingIOError:
            self._is_refused = False
            return False
        except OSError as error:
            # ETOOMANYREFS: too many descriptors in flight for this user; it passes like a full link.
            # EPIPE, ECONNRESET: the reader will learn of it and call on_closed.
            self._is_cut_off = error.errno in (errno.EPIPE, errno.ECONNRESET)
            self._is_refused = True
            log.debug("link: send failed: %s", error)
            return False
        self._is_refused = False
        return True

    def send_from_thread(self, data: bytes) -> bool:
        """`send` for another thread than the loop's, which may stand still meanwhile.

        Safe beside everything that the loop does: a datagram goes out whole or not at all, and until it has gone
        `close` does not give the descriptor's number away to another socket. It never blocks.
        """
        with self._closing:
            return self.send(data)

    def is_peer_gone(self) -> bool:
        """Whether nobody is at the other end any more, or this one is closed. For any thread: a loop that stands still
        does not hear of it."""
        with self._closing:
            if self.is_closed:
                return True
            poll = select.poll()
            poll.register(self._sock.fileno(), 0)
            return any(event & select.POLLHUP for _, event in poll.poll(0))

    def wait_writable(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, when a datagram can be sent again; never after `close()`.

        Each call counts, and the callbacks come in no certain order: a caller has at most one waiting.
        """
        if self.is_closed or self._is_cut_off:
            return
        if not self._on_writable and self._is_refused:
            self._again = self._loop.call_later(AGAIN_SECONDS, self._writable)
        elif not self._on_writable:
            self._loop.add_writer(self._sock.fileno(), self._writable)
        self._on_writable.append(callback)

    def close(self) -> None:
        """Close this end. Idempotent; `on_closed` is not called."""
        if self.is_closed:
            return
        self.is_closed = True
        self._on_writable.clear()
        if self._again is not None:
            self._again.cancel()
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        with self._closing:
            self._sock.close()

    def _writable(self) -> None:
        self._loop.remove_writer(self._sock.fileno())
        # One that fills the link again waits anew, and so do those after it: each looks for itself. Who came first the
        # last time comes last now, or one that always has something to say would keep all others silent.
        waiting, self._on_writable = self._on_writable, []
        for callback in reversed(waiting):
            if not self.is_closed:
                callback()

    def _readable(self) -> None:
        if not self._is_behind:
            self._read()

    def _read_on(self) -> None:
        self._is_behind = False
        self._read()

    def _read(self) -> None:
        for _ in range(MAX_MESSAGES_PER_WAKE):
            if self.is_closed:
                return
            try:
                data, ancillary, _flags, _ = self._sock.recvmsg(self._max_bytes, _ANCILLARY_BYTES, _RECEIVE_FLAGS)
            except BlockingIOError:
                return
            except ConnectionResetError:
                # The peer died with our messages unread. Its own messages are still queued behind this error
                # (measured on Linux): read on until the empty one, so that every acknowledgement is counted.
                continue
            except OSError as error:
                log.error("link: receive failed: %s", error)
                data, ancillary = b"", []
            if not data:
                self.close()
                self._on_closed()
                return
            self._on_datagram(data, _descriptors(ancillary))
        # uvloop watches a socket no more whose peer has died with messages unread (its poll ends with POLLERR), and
        # would never call again for what is still queued.
        self._is_behind = True
        self._loop.call_soon(self._read_on)


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    """The descriptors beside a datagram; none were sent, or they were lost (MSG_CTRUNC): []."""
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % _FD_BYTES])
    if not _RECEIVE_FLAGS:
        for fd in fds:
            os.set_inheritable(fd, False)
    return list(fds)

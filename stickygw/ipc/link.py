"""One end of a link: whole messages, and file descriptors beside them, over a SOCK_SEQPACKET Unix socket.

The bytes are `stickygw.wire.link`'s. What a full link means is the caller's to decide: `send` only says so.
"""

from __future__ import annotations

import array
import asyncio
import logging
import os
import socket
import threading
from collections.abc import Callable

from stickygw.wire.link import MAX_MESSAGE_BYTES, LinkError, Message, decode, encode

log = logging.getLogger("stickygw.link")

MAX_MESSAGES_PER_WAKE = 64
"""After so many the loop turns, so that a busy link starves nobody."""

_FD_BYTES = array.array("i").itemsize
_ANCILLARY_BYTES = socket.CMSG_SPACE(_FD_BYTES)
# Received descriptors must not leak into children (recvmsg hands them over inheritable).
_RECEIVE_FLAGS = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


def link_pair() -> tuple[socket.socket, socket.socket]:
    """The two ends of a new link: the primary's and the worker's. Neither is inheritable yet."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class Link:
    """One end of a link, on the running loop.

    `on_message(message, fd)` is called for each message in order; the callee owns `fd` (-1 when there is none).
    `on_closed()` is called once, after the last message, when the other end is gone, and never after `close()`.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        on_message: Callable[[Message, int], None],
        on_closed: Callable[[], None],
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._on_message = on_message
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._on_writable: list[Callable[[], None]] = []
        self._closing = threading.Lock()
        self.is_closed = False
        self._loop.add_reader(sock.fileno(), self._readable)

    def send(self, message: Message, fd: int = -1) -> bool:
        """Send `message`, with a copy of `fd` beside it. False: the link is full or gone, nothing was sent."""
        if self.is_closed:
            return False
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))] if fd >= 0 else []
        try:
            self._sock.sendmsg([encode(message)], ancillary)
        except BlockingIOError:
            return False
        except OSError as error:
            # ETOOMANYREFS: too many descriptors in flight for this user; it passes like a full link.
            # EPIPE, ECONNRESET: the reader will learn of it and call on_closed.
            log.debug("link: send failed: %s", error)
            return False
        return True

    def send_from_thread(self, message: Message) -> bool:
        """`send` for another thread than the loop's, which may stand still meanwhile.

        Safe beside everything that the loop does: `encode` shares nothing, a datagram goes out whole or not at all, and
        until it has gone `close` does not give the descriptor's number away to another socket. It never blocks.
        """
        with self._closing:
            return self.send(message)

    def wait_writable(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, when a message can be sent again; never after `close()`.

        Each call counts, and the callbacks come in no certain order: a caller has at most one waiting.
        """
        if self.is_closed:
            return
        if not self._on_writable:
            self._loop.add_writer(self._sock.fileno(), self._writable)
        self._on_writable.append(callback)

    def close(self) -> None:
        """Close this end. Idempotent; `on_closed` is not called."""
        if self.is_closed:
            return
        self.is_closed = True
        self._on_writable.clear()
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
        for _ in range(MAX_MESSAGES_PER_WAKE):
            if self.is_closed:
                return
            try:
                data, ancillary, _flags, _ = self._sock.recvmsg(MAX_MESSAGE_BYTES, _ANCILLARY_BYTES, _RECEIVE_FLAGS)
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
            fd = _descriptor(ancillary)
            try:
                message = decode(data)
            except LinkError as error:
                log.error("link: %s", error)
                if fd >= 0:
                    os.close(fd)
                continue
            self._on_message(message, fd)


def _descriptor(ancillary: list[tuple[int, int, bytes]]) -> int:
    """The descriptor in a datagram's ancillary data, or -1: none was sent, or it was lost (MSG_CTRUNC)."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS and len(data) >= _FD_BYTES:
            fd = int(array.array("i", data[:_FD_BYTES])[0])
            if not _RECEIVE_FLAGS:
                os.set_inheritable(fd, False)
            return fd
    return -1

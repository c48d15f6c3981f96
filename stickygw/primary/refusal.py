"""Answers a connection that reaches no worker, and sees to it that the answer arrives.

A close over unread bytes sends an RST, which can destroy the answer on its way. So what has come is read, the answer
is sent and our side closed; then what still comes is read for a moment, until the client closes too.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterable
from enum import StrEnum

from stickygw.observability.access import is_access_logged, log_access
from stickygw.observability.counters import Counters
from stickygw.primary.deadlines import Deadlines
from stickygw.wire.http_answer import answer

log = logging.getLogger("stickygw.refusal")

LINGER_SECONDS = 1.0
LINGER_BYTES = 64 * 1024
"""So long and so many bytes a refused client is read on; then it is cut."""
MAX_LINGERING = 1024
"""So many are read on at once; further ones are closed as soon as they are answered."""
RETRY_AFTER_SECONDS = 2
MAX_LINES_PER_SECOND = 20
"""Of a flood of refusals no more are logged; all are counted."""

_READ_BYTES = 16 * 1024
_RETRY_LATER = (("Retry-After", str(RETRY_AFTER_SECONDS)),)


class TurnedAway(StrEnum):
    """Why the primary turned a connection away, besides what is wrong with its head; the label it is counted under."""

    HEADER_TIMEOUT = "header_timeout"
    HEAD_CUT = "head_cut"
    """The client closed before its head was complete."""
    TOO_MANY_PENDING = "too_many_pending"
    TOO_MANY_PENDING_OF_ADDRESS = "too_many_pending_of_address"
    NOT_WATCHED = "not_watched"
    """The kernel watches no more sockets for us (epoll's max_user_watches, or memory)."""
    SLOT_QUEUE_FULL = "slot_queue_full"
    NO_SLOT = "no_slot"
    """No slot that takes connections is left to try."""
    TOO_MANY_HOPS = "too_many_hops"
    STOPPING = "stopping"


class Refusals:
    """Answers and closes connections. It owns each from `refuse` on."""

    def __init__(self, *, counters: Counters) -> None:
        self._counters = counters
        self._loop = asyncio.get_running_loop()
        self._second = 0
        self._lines = 0
        """How many refusals were logged in this `_second` of the loop's clock."""
        self._left: dict[socket.socket, int] = {}
        """The lingering sockets, and how many bytes of each may still be read."""
        self._deadlines: Deadlines[socket.socket] = Deadlines(LINGER_SECONDS, on_expired=self._close)

    def __len__(self) -> int:
        """How many refused clients are still read."""
        return len(self._left)

    def refuse(
        self,
        sock: socket.socket,
        status: int,
        reason: StrEnum,
        message: str,
        fields: Iterable[tuple[str, str]] = (),
    ) -> None:
        """Answer with `status` and the sentence `message`, or with nothing if `status` is 0, and close.

        503 says when to come back (``Retry-After``).
        """
        self._counters.add("refusals", reason)
        self._log(sock, status, reason)
        left = _read_off(sock, LINGER_BYTES)
        try:
            if status:
                if status == 503:
                    fields = _RETRY_LATER
                # A fresh socket's buffer holds far more than an answer: it goes out whole or the client is gone.
                sock.send(answer(status, message.encode() + b"\n", fields=fields), socket.MSG_DONTWAIT)
            sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            log.debug("a refused client is gone: %s", error)
            sock.close()
            return
        if left <= 0 or len(self._left) >= MAX_LINGERING:
            sock.close()
            return
        try:
            self._loop.add_reader(sock.fileno(), self._read_on, sock)
        except OSError as error:  # the kernel watches no more sockets: it is answered, and that has to do
            log.debug("a refused client is not read on: %s", error)
            sock.close()
            return
        self._left[sock] = left
        self._deadlines.add(sock)

    def close(self) -> None:
        """Cut all who linger. Idempotent."""
        for sock in self._deadlines.clear():
            self._close(sock)

    def _log(self, sock: socket.socket, status: int, reason: StrEnum) -> None:
        if not is_access_logged():
            return
        second = int(self._loop.time())
        if second != self._second:
            self._second, self._lines = second, 0
        self._lines += 1
        if self._lines <= MAX_LINES_PER_SECOND:
            log_access(client=_peer(sock), reason=reason, status=status, kind="refused")
        elif self._lines == MAX_LINES_PER_SECOND + 1:
            log.info("more are refused in this second than are logged")

    def _read_on(self, sock: socket.socket) -> None:
        left = _read_off(sock, self._left[sock])
        if left > 0:
            self._left[sock] = left
        else:
            self._close(sock)

    def _close(self, sock: socket.socket) -> None:
        self._deadlines.remove(sock)
        del self._left[sock]
        self._loop.remove_reader(sock.fileno())
        sock.close()


def _peer(sock: socket.socket) -> str:
    """Who is connected to us: behind a proxy, the proxy; "" on a Unix socket."""
    try:
        peer = sock.getpeername()
    except OSError:
        return "gone"
    return str(peer[0]) if isinstance(peer, tuple) else ""


def _read_off(sock: socket.socket, limit: int) -> int:
    """Read and forget what has come, at most `limit` bytes; how many are left, -1 when the client has closed."""
    while limit > 0:
        try:
            read = len(sock.recv(min(limit, _READ_BYTES), socket.MSG_DONTWAIT))
        except BlockingIOError:
            return limit
        except OSError:  # reset
            return -1
        if read == 0:
            return -1
        limit -= read
    return 0

"""A connected socket with an outbox of its own: `SocketTransport`, which can be frozen, and closed in good order.

Nothing else holds bytes of the connection: what was received and not consumed, and what was accepted and not written,
are both here. What the bytes mean is the owner's business.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from functools import partial
from time import monotonic

from stickygw.connections.flow import Flow, Flusher
from stickygw.connections.frozen import FrozenTransport

UNSENT_BYTES = 128 * 1024
"""Bytes that the kernel takes of a TCP connection beyond what is on its way (``TCP_NOTSENT_LOWAT``).

Without it a client that never reads is given 4 MB first, with it a quarter of one: it is noticed earlier, and what it
reads at last is not that old. 100 Mbit/s take it in 10 ms, a busy turn of the loop: no wire is idle for want of us.
"""

LINGER_SECONDS = 2.0
"""How long a closed connection's last bytes may take to be read by the client before the socket goes."""


class SocketTransport(Flow):
    __slots__ = ("_at_thaw", "_linger")

    def __init__(self, sock: socket.socket, loop: asyncio.AbstractEventLoop, flusher: Flusher) -> None:
        super().__init__(sock, loop, flusher)
        self._linger: asyncio.TimerHandle | None = None
        self._at_thaw: Callable[[], None] | None = None  # the end that was asked for meanwhile

    @property
    def local_address(self) -> tuple[str, int] | str | None:
        """Our end: host and port, or the path of a Unix socket; None when the socket is gone."""
        try:
            name = self._sock.getsockname()
        except OSError:
            return None
        return (name[0], name[1]) if isinstance(name, tuple) else os.fsdecode(name)

    @property
    def peer_host(self) -> str:
        """The address at the other end, a proxy's perhaps; "" on a Unix socket, or when the socket is gone."""
        try:
            name = self._sock.getpeername()
        except OSError:
            return ""
        return str(name[0]) if isinstance(name, tuple) else ""

    def bound_unsent(self) -> None:
        """Let the kernel hold at most about `UNSENT_BYTES` that it has not sent; on a Unix socket nothing changes."""
        try:
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        except OSError:
            pass  # not TCP, or the client is gone

    # Frozen

    @property
    def is_stuck(self) -> bool:
        """Whether what is written now has to wait: for the client, or until it is thawed."""
        return self.blocked_since is not None or self.is_frozen

    @property
    def can_freeze(self) -> bool:
        """Whether `freeze` may be called: it is open, and not frozen."""
        return not (self._is_closing or self.is_closed or self.is_frozen)

    def fileno(self) -> int:
        """The socket's descriptor, to be passed on while it is frozen; -1 when it is closed."""
        return self._sock.fileno()

    def freeze(self) -> FrozenTransport:
        """Leave the socket alone until `thaw` or `let_go`, and say what another process needs to go on.

        Raises `RuntimeError` unless `can_freeze`.
        """
        if not self.can_freeze:
            raise RuntimeError("the transport is closing, closed or frozen")
        self.is_frozen = True
        self._stop_reading()
        blocked_seconds = None
        if self.blocked_since is not None:
            blocked_seconds = monotonic() - self.blocked_since
            self._loop.remove_writer(self._sock.fileno())
        return FrozenTransport(
            b"".join(self._outbox), max(0, self._marked_bytes), blocked_seconds, self.received_bytes, self.sent_bytes
        )

    def restore(self, frozen: FrozenTransport) -> None:
        """Become what `frozen` was, and as frozen: it goes on with `thaw`. For a transport that nobody has used."""
        self.is_frozen = True
        if frozen.outbox:
            self._outbox.append(frozen.outbox)
            self.outbox_bytes = len(frozen.outbox)
        if frozen.blocked_seconds is not None:
            self.blocked_since = monotonic() - frozen.blocked_seconds
            self._marked_bytes = frozen.marked_bytes
        self.received_bytes = frozen.received_bytes
        self.sent_bytes = frozen.sent_bytes

    def thaw(self) -> None:
        """Go on: write what waits, read again if it was reading, then end if that was asked for. Idempotent."""
        if not self.is_frozen or self.is_closed:
            return
        self.is_frozen = False
        if self.owner is not None and not self.is_paused and not self._is_eof:
            self.start(self.owner)
        if self.blocked_since is not None:
            self._loop.add_writer(self._sock.fileno(), self.flush)
        at_thaw, self._at_thaw = self._at_thaw, None
        self.flush()
        if at_thaw is not None:
            at_thaw()

    def let_go(self) -> None:
        """The socket is another process's: close our copy of it, which sends nothing, and forget what is queued.

        Who waits for `drained` is woken; the owner is told nothing. Idempotent. Raises `RuntimeError` unless frozen.
        """
        if not self.is_frozen:
            raise RuntimeError("only a frozen transport can be let go")
        if self.is_closed:
            return
        self.is_closed = True
        self.owner = self._at_thaw = self.blocked_since = None
        self._sock.close()  # without shutdown, which would end the connection for all who have it
        self._outbox.clear()
        self.outbox_bytes = 0
        self._wake_waiters()

    # Closing

    def close(self, linger_seconds: float = LINGER_SECONDS) -> None:
        """Write what is queued, say FIN, and close when the client does, or after `linger_seconds`.

        What the client still sends is read and dropped: closing a socket with unread bytes sends RST, which can destroy
        the last answer on its way (RFC 9112 §9.6).
        """
        if self._is_closing or self.is_closed:
            return
        if self.is_frozen:
            self._at_thaw = self._at_thaw or partial(self.close, linger_seconds)
            return
        self._is_closing = True
        self._linger = self._loop.call_later(linger_seconds, self.abort)
        if self.owner is None:
            self.abort()
            return
        if not self._is_eof:
            self.resume_reading()
        if not self._outbox:
            self._half_close()

    def _half_close(self) -> None:
        if self._is_eof:
            self.abort()
            return
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.abort()

    def abort(self) -> None:
        """Close at once, whatever is queued. Idempotent."""
        if self.is_closed:
            return
        if self.is_frozen:
            self._at_thaw = self.abort
            return
        self.is_closed = True
        fd = self._sock.fileno()
        self._stop_reading()
        if self.blocked_since is not None:
            self.blocked_since = None
            self._loop.remove_writer(fd)
        if self._linger is not None:
            self._linger.cancel()
        try:
            # Another process may hold a copy of this socket for a moment longer; only shutdown sends FIN for all.
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the client was quicker
        self._sock.close()
        self._outbox.clear()
        self.outbox_bytes = 0
        self._wake_waiters()
        owner, self.owner = self.owner, None
        if owner is not None:
            owner.transport_closed()

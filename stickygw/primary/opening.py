"""One accepted connection until its head is complete: looked at, never read, but for a trusted peer's PROXY header."""

from __future__ import annotations

import socket
from enum import Enum, auto
from typing import Final

from stickygw.routing.proxy_protocol import ProxyHeader, may_start_proxy_header, read_proxy_header
from stickygw.routing.request_head import MAX_HEAD_BYTES, NEED_MORE, Head, NeedMore, Refusal, examine

_PEEK = socket.MSG_PEEK | socket.MSG_DONTWAIT


class Gone(Enum):
    """The client closed without a byte, or reset the connection."""

    GONE = auto()


GONE: Final = Gone.GONE


class Opening:
    """An accepted socket and what is known of its client.

    `host` and `port` are the peer's, or those of a trusted peer's PROXY header; "" and 0 on a Unix socket.
    `data` is what the last look saw: the client's own bytes, all of them still unread.
    """

    __slots__ = ("_may_be_proxied", "counted_address", "data", "fd", "host", "port", "sock")

    def __init__(self, sock: socket.socket, *, host: str, port: int, is_trusted: bool) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.host = host
        self.port = port
        self.data = b""
        self.counted_address = None if is_trusted or not host else host
        """Whose share of half-open connections it takes; a trusted proxy's address stands for many clients."""
        self._may_be_proxied = is_trusted

    def look(self) -> Head | Refusal | NeedMore | Gone:
        """Say what has come so far."""
        try:
            self.data = data = self.sock.recv(MAX_HEAD_BYTES, _PEEK)
        except BlockingIOError:
            return NEED_MORE
        except OSError:  # reset, timed out: whatever it is, there is nobody to answer
            return GONE
        if not data:
            return GONE
        if self._may_be_proxied:
            return self._look_behind_proxy_header()
        return examine(data)

    def _look_behind_proxy_header(self) -> Head | Refusal | NeedMore | Gone:
        if not may_start_proxy_header(self.data):
            self._may_be_proxied = False
            return examine(self.data)
        header = read_proxy_header(self.data)
        if not isinstance(header, ProxyHeader):
            return header
        self._consume(header.size)
        self._may_be_proxied = False  # one header a connection
        if header.host is not None:
            self.host = header.host
            self.port = header.port
        self.data = b""
        return self.look()

    def _consume(self, size: int) -> None:
        """Read `size` bytes that were seen, and so are there: the only ones the primary ever takes."""
        while size > 0:
            size -= len(self.sock.recv(size, socket.MSG_DONTWAIT))

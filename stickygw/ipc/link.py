"""One end of a link: whole messages, and a file descriptor beside one.

The bytes are `stickygw.wire.link`'s. What a full link means is the caller's to decide: `send` only says so.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable

from stickygw.ipc.datagrams import Datagrams, datagram_pair
from stickygw.wire.link import Message
from stickygw.wire.link_codec import MAX_MESSAGE_BYTES, LinkError, decode, encode

log = logging.getLogger("stickygw.link")

link_pair = datagram_pair
"""The two ends of a new link: the primary's and the worker's. Neither is inheritable yet."""


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
        self._on_message = on_message
        self.is_queued_for = False
        """Whether messages wait for it elsewhere that no offer may overtake."""
        self._datagrams = Datagrams(sock, max_bytes=MAX_MESSAGE_BYTES, on_datagram=self._received, on_closed=on_closed)

    @property
    def is_closed(self) -> bool:
        """Whether this end is closed."""
        return self._datagrams.is_closed

    def send(self, message: Message, fd: int = -1) -> bool:
        """Send `message`, with a copy of `fd` beside it. False: the link is full or gone, nothing was sent."""
        return self._datagrams.send(encode(message), (fd,) if fd >= 0 else ())

    def send_from_thread(self, message: Message) -> bool:
        """`send` for another thread than the loop's; `encode` shares nothing. See `Datagrams.send_from_thread`."""
        return self._datagrams.send_from_thread(encode(message))

    def is_peer_gone(self) -> bool:
        """See `Datagrams.is_peer_gone`."""
        return self._datagrams.is_peer_gone()

    def wait_writable(self, callback: Callable[[], None]) -> None:
        """See `Datagrams.wait_writable`."""
        self._datagrams.wait_writable(callback)

    def close(self) -> None:
        """Close this end. Idempotent; `on_closed` is not called."""
        self._datagrams.close()

    def _received(self, data: bytes, fds: list[int]) -> None:
        try:
            message = decode(data)
        except LinkError as error:
            log.error("link: %s", error)
            for fd in fds:
                os.close(fd)
            return
        for fd in fds[1:]:  # no message has two
            os.close(fd)
        self._on_message(message, fds[0] if fds else -1)

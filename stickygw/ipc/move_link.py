"""One end of a move link: the messages of `stickygw.wire.move`, in order, with descriptors beside some."""

from __future__ import annotations

import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence

from stickygw.ipc.datagrams import Datagrams
from stickygw.wire.move import MAX_MESSAGE_BYTES, MoveError, MoveMessage, decode, encode

log = logging.getLogger("stickygw.move")

MAX_UNSENT_BYTES = 16 * 1024 * 1024
"""What may wait for a partner whose loop is busy, memory files included; who sends looks at `is_full` before."""


class MoveLink:
    """One end, on the running loop.

    `on_message(message, fds)` for each in order, with descriptors that are the callee's; `on_closed()` once, after the
    last message, when the other end is gone, and never after `close()`. What does not fit the socket waits here.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        on_message: Callable[[MoveMessage, list[int]], None],
        on_closed: Callable[[], None],
    ) -> None:
        self._on_message = on_message
        self._on_closed = on_closed
        self._unsent: deque[tuple[bytes, list[int], int]] = deque()  # with copies of the descriptors, and the size
        self._unsent_bytes = 0
        self._when_sent: dict[Callable[[], None], None] = {}
        self._datagrams = Datagrams(
            sock, max_bytes=MAX_MESSAGE_BYTES, on_datagram=self._received, on_closed=self._closed
        )

    @property
    def is_closed(self) -> bool:
        """Whether the link is over, for whatever reason."""
        return self._datagrams.is_closed

    @property
    def is_full(self) -> bool:
        """Whether more than `MAX_UNSENT_BYTES` wait."""
        return self._unsent_bytes > MAX_UNSENT_BYTES

    def send(self, message: MoveMessage, fds: Sequence[int] = (), *, file_bytes: int = 0) -> None:
        """Send it, now or behind what waits, with copies of `fds`, of which one is a file of `file_bytes`. On a link
        that is over nothing happens.

        Raises `MoveError` for what is too long, and OSError when no copy of a descriptor can be had.
        """
        data = encode(message)
        if self._datagrams.is_closed or (not self._unsent and self._datagrams.send(data, fds)):
            return
        copies: list[int] = []
        try:
            for fd in fds:
                copies.append(os.dup(fd))
        except OSError:
            _close(copies)
            raise
        if not self._unsent:
            self._datagrams.wait_writable(self._send_rest)
        self._unsent.append((data, copies, len(data) + file_bytes))
        self._unsent_bytes += len(data) + file_bytes

    def when_sent(self, call: Callable[[], None]) -> None:
        """Call `call` when nothing waits: perhaps at once; if the link is over before, never. Asked for again before
        that, it is called once."""
        if self._unsent:
            self._when_sent[call] = None
        elif not self.is_closed:
            call()

    def take_back(self) -> list[MoveMessage]:
        """Forget what waits, which the other end will not have; what it was."""
        waiting = [decode(data) for data, _, _ in self._unsent]
        self._drop()
        return waiting

    def close(self) -> None:
        """Close this end; what waits is not sent. Idempotent; `on_closed` is not called."""
        self._datagrams.close()
        self._drop()

    def _send_rest(self) -> None:
        while self._unsent:
            data, fds, size = self._unsent[0]
            if not self._datagrams.send(data, fds):
                self._datagrams.wait_writable(self._send_rest)
                return
            self._unsent.popleft()
            self._unsent_bytes -= size
            _close(fds)
        waiting, self._when_sent = self._when_sent, {}
        for call in waiting:
            call()

    def _received(self, data: bytes, fds: list[int]) -> None:
        try:
            message = decode(data)
        except MoveError as error:
            log.error("move: %s", error)
            _close(fds)
            return
        self._on_message(message, fds)

    def _closed(self) -> None:
        self._drop()
        self._on_closed()

    def _drop(self) -> None:
        for _, fds, _ in self._unsent:
            _close(fds)
        self._unsent.clear()
        self._unsent_bytes = 0
        self._when_sent.clear()


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)

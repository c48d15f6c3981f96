"""A worker's end of its link, which outlives the primary at the other end: `LastingLink`."""

from __future__ import annotations

import socket
from collections.abc import Callable

from stickygw.ipc.link import Link
from stickygw.wire.link import Message


class LastingLink:
    """The link to whichever primary lives. Callbacks as in `Link`; `on_closed()` whenever a primary is gone.

    Without one nothing can be sent, and who waits until something can, waits for the next.
    """

    def __init__(
        self, sock: socket.socket, *, on_message: Callable[[Message, int], None], on_closed: Callable[[], None]
    ) -> None:
        self._waiting: list[Callable[[], None]] = []
        self._link = Link(sock, on_message=on_message, on_closed=on_closed)

    @property
    def is_closed(self) -> bool:
        """Whether there is no primary."""
        return self._link.is_closed

    def attach(self, link: Link) -> None:
        """This one is to the next primary. What closes it, or comes on it, is told to the callbacks that it has."""
        self._link.close()
        self._link = link
        self._wait()

    def send(self, message: Message, fd: int = -1) -> bool:
        """See `Link.send`."""
        return self._link.send(message, fd)

    def send_from_thread(self, message: Message) -> bool:
        """See `Link.send_from_thread`."""
        return self._link.send_from_thread(message)

    def is_peer_gone(self) -> bool:
        """Whether there is no primary, for any thread; see `Datagrams.is_peer_gone`."""
        return self._link.is_peer_gone()

    def wait_writable(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, when a message can be sent, be it to the next primary."""
        self._waiting.append(callback)
        if len(self._waiting) == 1:
            self._wait()

    def _wait(self) -> None:
        if self._waiting:
            self._link.wait_writable(self._writable)

    def _writable(self) -> None:
        # Who came first the last time comes last now: see `Datagrams`.
        waiting, self._waiting = self._waiting, []
        for callback in reversed(waiting):
            callback()

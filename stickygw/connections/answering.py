"""One HTTP answer on a transport, and its end: nothing the client still sends is wanted, but all of the answer is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

from stickygw.connections.transport import SocketTransport
from stickygw.wire.http_answer import Fields, answer, answer_head

PLAIN_TEXT = "text/plain; charset=utf-8"

STALL_SECONDS = 30.0
"""A client that reads nothing of a write for so long, or twice that, is cut; so is one that got no answer by then."""


class Answering:
    """Writes one answer and closes. `on_ended` is called once, when the socket is closed, with the answer's status; 0:
    there was none."""

    __slots__ = ("_loop", "_on_ended", "_status", "_timer", "_transport")

    def __init__(
        self, transport: SocketTransport, loop: asyncio.AbstractEventLoop, on_ended: Callable[[int], None]
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._on_ended = on_ended
        self._status = 0
        self._timer = loop.call_later(STALL_SECONDS, self._look)
        transport.start(self)

    @property
    def is_over(self) -> bool:
        """Whether nothing can be written any more."""
        return self._transport.is_closed

    def answer(
        self,
        status: int,
        body: bytes,
        *,
        fields: Fields = (),
        content_type: str = PLAIN_TEXT,
        with_body: bool = True,
    ) -> None:
        """Write a whole answer, and close in such a way that the client gets all of it."""
        whole = answer(status, body, fields=fields, content_type=content_type, with_body=with_body)
        self._status = status
        self._transport.write(whole)
        self._transport.close()

    def begin(self, status: int, length: int, *, fields: Fields, content_type: str) -> asyncio.Future[None]:
        """Write the head of an answer with `length` bytes to come; done when it is written."""
        head = answer_head(status, length, fields=fields, content_type=content_type)
        self._status = status
        return self.write(head)

    def write(self, data: bytes) -> asyncio.Future[None]:
        """Write a part of what comes behind the head; done when it is written."""
        self._transport.write(data)
        return self._transport.drained()

    def finish(self) -> None:
        """Nothing more comes: close as `answer` does."""
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        """A body that nobody asked for, or a second request: the answer says ``Connection: close``."""

    def eof_received(self) -> None:
        """The client may have closed its side only: it still gets its answer."""

    def write_resumed(self) -> None:
        """`write` waits by itself."""

    def transport_closed(self) -> None:
        self._timer.cancel()
        self._on_ended(self._status)

    def _look(self) -> None:
        blocked_since = self._transport.blocked_since
        has_stalled = blocked_since is not None and monotonic() - blocked_since >= STALL_SECONDS
        if has_stalled or not self._status:
            self._transport.abort()
        else:
            self._timer = self._loop.call_later(STALL_SECONDS, self._look)

"""An HTTP connection of an ASGI application: one request at a time, however many come.

The next request is looked at when the answer before it is complete and has left. Until then nobody has seen it, so it
can still be given away.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from enum import Enum, auto
from typing import TYPE_CHECKING

from stickygw.apps.arrival import Arrival
from stickygw.apps.asgi.connection import AsgiConnection
from stickygw.apps.asgi.protocols import HttpProtocol
from stickygw.connections.answering import STALL_SECONDS
from stickygw.connections.transport import LINGER_SECONDS
from stickygw.routing.request_head import NEED_MORE, Head, Refusal, examine
from stickygw.types import ConnectionId
from stickygw.wire.http_body import MALFORMED, BodyFraming, framing_of
from stickygw.wire.link import Offer

if TYPE_CHECKING:
    from stickygw.apps.asgi.host import AsgiHost
    from stickygw.apps.native.traffic import Traffic

log = logging.getLogger("stickygw.app")

KEEP_ALIVE_SECONDS = 5.0
"""How long a connection may be quiet between two requests; uvicorn's default."""


class _Phase(Enum):
    """What the next byte belongs to."""

    HEAD = auto()
    """The head of a further request; the answer to the one before is complete."""
    BODY = auto()
    """The body of the request that is served."""
    BEYOND = auto()
    """What follows the request that is served: it has to wait."""


class HttpConnection(AsgiConnection):
    """Serves requests until one is not for this application, or either side has had enough.

    The application may take its time, and so may a client that sends its body: who is connected is bounded by
    ``max_connections``. A client that does not read is cut after `STALL_SECONDS`.
    """

    __slots__ = (
        "_framing",
        "_head_bytes",
        "_is_answered",
        "_is_head_begun",
        "_phase",
        "_protocol",
        "_requests",
        "_written",
    )

    linger_seconds = LINGER_SECONDS

    def __init__(
        self,
        host: AsgiHost,
        arrival: Arrival,
        id: ConnectionId,
        on_ended: Callable[..., None],
    ) -> None:
        super().__init__(host, arrival, id, on_ended)
        self._phase = _Phase.HEAD
        self._framing: BodyFraming | None = None
        self._is_answered = False
        self._is_head_begun = False
        self._requests = 0
        self._head_bytes = b""  # of the last request, as they came
        self._written = b""  # the same for httptools
        self._protocol: HttpProtocol | None = None

    def begin(self) -> None:
        self._protocol = self._host.new_http_protocol(self._answered)
        self._protocol.connection_made(self._transport)
        self._transport.set_protocol(self._protocol)
        self._socket.start(self)
        if not self._socket.is_closed:
            self._begin_request(self._head, self._arrival.rest)

    def _begin_request(self, head: Head, rest: bytes) -> None:
        protocol = self._protocol
        assert protocol is not None
        if head is not self._head or not self._requests:
            self._head = head
            self._written = _written(head)
        self._requests += 1
        self._framing = framing_of(head.fields)
        self._phase = _Phase.BEYOND if self._framing.is_complete else _Phase.BODY
        self._deadline = math.inf
        self._is_answered = self._is_head_begun = False
        self._transport.awaits_head = True
        self._run_clean(protocol.data_received, self._written)
        if self._transport.is_closing():
            return  # httptools refuses what the gate lets pass: a method that it does not know
        if self._host.is_ending or head.get(b"upgrade") is not None:
            # Behind an upgrade, even one that is ignored, httptools reads nothing more.
            protocol.cycle.keep_alive = False
        if rest:
            self.data_received(rest)

    # Receiving

    def data_received(self, data: bytes) -> None:
        if self._transport.is_closing():
            return  # nothing more is answered, and what was says so
        if self._phase is _Phase.BODY:
            data = self._feed_body(data)
        if data:
            self._pending += data
            self._look_at_pending()

    def _feed_body(self, data: bytes) -> bytes:
        """Feed what belongs to the body; what follows it."""
        assert self._framing is not None
        assert self._protocol is not None
        size = self._framing.feed(data)
        if size == MALFORMED:
            # Behind an answer that has begun, another would be garbage.
            self._refuse(400 if self._transport.awaits_head else 0, "The body is not chunked as RFC 9112, 7.1 has it.")
            return b""
        self._protocol.data_received(data if size == len(data) else data[:size])
        if self._framing.is_complete and not self._transport.is_closing():
            self._body_ended(self._protocol)
        return data[size:]

    def _body_ended(self, protocol: HttpProtocol) -> None:
        if protocol.cycle.more_body and not self._is_answered:
            # Two parsers that do not agree where a request ends are how requests are smuggled.
            log.error("httptools sees no end of a body that has ended: the connection is cut")
            self._transport.abort()
            return
        self._phase = _Phase.BEYOND
        if self._is_answered:
            self._await_next()

    def _answered(self) -> None:
        """The answer is complete, and the connection is to be kept."""
        self._is_answered = True
        if self._phase is _Phase.BEYOND:
            self._await_next()

    def _await_next(self) -> None:
        if self._host.is_ending:
            self._transport.close()
            return
        self._phase = _Phase.HEAD
        self._deadline_in(KEEP_ALIVE_SECONDS)
        if self._pending:
            self._schedule()

    def _look_at_pending(self) -> None:
        if self._phase is _Phase.HEAD:
            if self._socket.outbox_bytes:
                self._socket.flush()
            if not self._socket.outbox_bytes and not self._socket.is_closed:
                self._look_at_head()
        self.flow_changed()

    def _look_at_head(self) -> None:
        # Who polls sends the same request again and again, and the same bytes have the same verdict.
        verdict = self._head if self._pending == self._head_bytes else examine(self._pending)
        if verdict is NEED_MORE:
            if not self._is_head_begun:
                self._is_head_begun = True
                self._deadline_in(self._host.settings.header_timeout)
        elif isinstance(verdict, Refusal):
            self._refuse(verdict.status, verdict.message, verdict.fields)
        else:
            assert isinstance(verdict, Head)
            self._head_bytes, rest = self._pending[: verdict.size], self._pending[verdict.size :]
            self._pending = b""
            self._route_further(verdict, rest)

    def _route_further(self, head: Head, rest: bytes) -> None:
        """Decide who serves a further request on a connection that is kept alive."""
        offer = self._host.further.of(self._arrival.offer, head, self._socket)
        if not self._host.serves(head):
            self._give_away(offer, head, rest)
            return
        assert self._protocol is not None
        if offer is not self.offer:
            self.offer = offer
            self._protocol.client = self.client
            self._protocol.scheme = "https" if offer.is_secure else "http"
        self._begin_request(head, rest)

    def _give_away(self, offer: Offer, head: Head, rest: bytes) -> None:
        """Let another serve the connection from the request `head` on."""
        assert self._protocol is not None
        self._host.forget(self, self._protocol)
        self._protocol = None
        self._host.give(replace(self._arrival, offer=offer, head=head, rest=rest))

    # What the transport tells

    def flow_changed(self) -> None:
        # What is beyond a request waits in the kernel: one piece of it, at most, is here.
        if self._socket.owner is not self:
            return
        is_waiting = bool(self._pending) and (self._phase is not _Phase.HEAD or bool(self._socket.outbox_bytes))
        if self._transport.is_read_paused or is_waiting:
            self._socket.pause_reading()
        else:
            self._socket.resume_reading()

    def message_written(self, data: bytes) -> bool:
        return True  # pieces of a body: the application may have several

    def count_into(self, traffic: Traffic) -> None:
        """Requests are no messages."""

    def outbox_overflowed(self) -> None:
        """The application was told to wait; what it writes all the same is its own."""

    def write_resumed(self) -> None:
        super().write_resumed()
        if self._pending and not self._transport.is_closing():
            self._schedule()

    def _look_at_blocked(self, seconds: float) -> None:
        if seconds >= STALL_SECONDS:
            self._host.counters.add("connections_closed", "slow_consumer")
            self._transport.abort()

    def _overdue(self) -> None:
        if self._phase is _Phase.HEAD:
            message = "The request head was not complete in time."
            self._refuse(408 if self._is_head_begun else 0, message)

    # The end

    def send_away(self, code: int, reason: str, *, within: float) -> None:
        if self._phase is _Phase.HEAD:
            self._transport.close()
        elif self._protocol is not None and not self._transport.is_closing():
            self._protocol.cycle.keep_alive = False

    def transport_closed(self) -> None:
        protocol, self._protocol = self._protocol, None
        self._ended(protocol, requests=self._requests)


def _written(head: Head) -> bytes:
    """The head as a client that wastes no byte would have sent it; what the gate has read, and nothing else."""
    lines = b"".join([b"%b: %b\r\n" % field for field in head.fields])
    return b"%b %b HTTP/%b\r\n%b\r\n" % (head.method.encode(), head.target.encode(), head.version.encode(), lines)

"""An HTTP connection of an ASGI application: one request at a time, however many come.

The next request is looked at when the answer before it is complete and has left. Until then nobody has seen it, so it
can still be given away.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from enum import Enum, auto
from time import monotonic
from typing import TYPE_CHECKING

from stickygw.apps.arrival import Arrival
from stickygw.apps.asgi.connection import AsgiConnection
from stickygw.connections.answering import STALL_SECONDS
from stickygw.connections.transport import LINGER_SECONDS
from stickygw.routing.request_head import NEED_MORE, Head, Refusal, examine_further
from stickygw.routing.token import without_token
from stickygw.types import ConnectionId
from stickygw.wire.http_body import MALFORMED, BodyFraming, SizedBody, framing_of
from stickygw.wire.link import Offer

if TYPE_CHECKING:
    from stickygw.apps.asgi.host import AsgiHost
    from stickygw.apps.native.traffic import Traffic

KEEP_ALIVE_SECONDS = 5.0
"""How long a connection may be quiet between two requests; uvicorn's default."""

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


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

    The application may take its time, and so may a client that sends its body, until it is answered: then the rest has
    ``header_timeout`` seconds. Who is connected is bounded by ``max_connections``. A client that does not read is cut
    after `STALL_SECONDS`.
    """

    __slots__ = (
        "_block",
        "_framing",
        "_is_answered",
        "_is_head_begun",
        "_phase",
        "_protocol",
        "_requests",
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
        self._framing: BodyFraming = SizedBody(0)
        self._is_answered = False
        self._is_head_begun = False
        self._requests = 0
        self._block = b""  # the last head's field lines, as they came
        self._protocol = host.new_http_protocol(self._transport, self._answered)
        self._protocol.client, self._protocol.is_secure = self.client, self.offer.is_secure

    def begin(self) -> None:
        self._transport.set_protocol(self._protocol)
        if self._socket.is_closed:
            self.transport_closed()
            return
        self._socket.start(self)
        self._begin_request(self._head, self._arrival.rest)

    def _begin_request(self, head: Head, rest: bytes) -> None:
        self._head = head
        if self._requests:
            self._begin_visit()
        self._requests += 1
        self._deadline = math.inf
        self._is_answered = self._is_head_begun = False
        self._transport.awaits_head = True
        has_body = b"content-length" in head.first or b"transfer-encoding" in head.first
        if has_body:
            self._framing = framing_of(head.fields)
        self._phase = _Phase.BODY if has_body else _Phase.BEYOND
        keep_alive = head.is_kept_alive and not self._host.is_ending
        self._protocol.begin(head, self._context, has_body=has_body, keep_alive=keep_alive)
        if has_body and self._framing.is_complete:  # Content-Length: 0
            self._body_ended()
        if rest and not self._transport.is_closing():
            self.data_received(rest)

    # Receiving

    def data_received(self, data: bytes) -> None:
        if self._phase is _Phase.BODY:
            data = self._feed_body(data)
        if data:
            self._pending += data
            if self._phase is _Phase.HEAD:
                self._look_at_head()
            if self._pending:
                self.flow_changed()

    def _feed_body(self, data: bytes) -> bytes:
        """Feed what belongs to the body; what follows it."""
        content, size = self._framing.feed(data)
        if size == MALFORMED:
            # Behind an answer that has begun, another would be garbage.
            self._refuse(400 if self._transport.awaits_head else 0, "The body is not chunked as RFC 9112, 7.1 has it.")
            return b""
        if content:
            self._protocol.add_body(content)
        if self._framing.is_complete:
            self._body_ended()
        return data[size:]

    def _body_ended(self) -> None:
        self._protocol.end_body(self._framing.trailers)
        self._phase = _Phase.BEYOND
        if self._is_answered:
            self._await_next()

    def _answered(self) -> None:
        """The answer is complete; the connection is kept, unless it closes already."""
        if self._transport.held:
            self._transport.release()
        if self._transport.is_closing():
            return
        self._is_answered = True
        if self._phase is _Phase.BEYOND:
            self._await_next()
        elif self._host.is_ending:
            self._transport.close()
        else:
            self._deadline_in(self._host.settings.header_timeout)

    def _await_next(self) -> None:
        if self._host.is_ending:
            self._transport.close()
            return
        self._phase = _Phase.HEAD
        self._deadline = monotonic() + KEEP_ALIVE_SECONDS
        if self._pending:
            self._schedule()

    def _look_at_pending(self) -> None:
        if self._phase is _Phase.HEAD:
            self._look_at_head()
        self.flow_changed()

    def _look_at_head(self) -> None:
        """Go on with the next request, if its head is complete and the answer before it has left."""
        if self._socket.outbox_bytes:
            self._socket.flush()
            if self._socket.outbox_bytes or self._socket.is_closed:
                return
        verdict = examine_further(self._pending, self._head, self._block)
        if verdict is NEED_MORE:
            if not self._is_head_begun:
                self._is_head_begun = True
                self._deadline_in(self._host.settings.header_timeout)
        elif isinstance(verdict, Refusal):
            self._host.counters.add("requests_refused", verdict.reason)
            self._refuse(verdict.status, verdict.message, verdict.fields, is_answer=False)
        else:
            assert isinstance(verdict, Head)
            if verdict.fields is not self._head.fields:
                self._block = self._pending[self._pending.index(b"\r\n") + 2 : verdict.size]
            rest, self._pending = self._pending[verdict.size :], b""
            self._route_further(verdict, rest)

    def _route_further(self, head: Head, rest: bytes) -> None:
        """Decide who serves a further request on a connection that is kept alive."""
        offer = self._host.further.of(self._arrival.offer, head, self._socket)
        if self._host.settings.session.token:
            head = without_token(head)
        if not self._host.serves(head):
            self._give_away(offer, head, rest)
            return
        if offer is not self.offer:
            self.offer = offer
            self._protocol.client, self._protocol.is_secure = self.client, offer.is_secure
        self._begin_request(head, rest)

    def _give_away(self, offer: Offer, head: Head, rest: bytes) -> None:
        """Let another serve the connection from the request `head` on."""
        self._socket.detach()
        self._host.ended(self)
        self._on_ended(self._status, self._head, is_over=False, requests=self._requests)
        self._host.give(replace(self._arrival, offer=offer, head=head, rest=rest))

    # What the transport tells

    def flow_changed(self) -> None:
        # What is beyond a request waits in the kernel: one piece of it, at most, is here.
        if not self._is_ours:
            return
        is_waiting = bool(self._pending) and (self._phase is not _Phase.HEAD or bool(self._socket.outbox_bytes))
        if self._transport.is_read_paused or is_waiting:
            self._socket.pause_reading()
        else:
            self._socket.resume_reading()

    def answer_begins(self, data: bytes) -> None:
        if data == _CONTINUE:
            self._socket.write(data)  # the answer itself is still to come
        else:
            # "The protocol server must not start sending the response to the client until it has received at least one
            # Response Body event" (ASGI, HTTP spec 2.3). It also makes one write of most answers.
            self._transport.hold(self._begun(data))

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
        if self._phase is _Phase.HEAD and self._socket.outbox_bytes:
            self._deadline_in(KEEP_ALIVE_SECONDS)  # the answer is still being read: how long it may take is bounded
        elif self._is_head_begun:
            self._refuse(408, "The request head was not complete in time.", is_answer=False)
        else:
            self._transport.close()

    # The end

    def send_away(self, code: int, reason: str, *, within: float) -> None:
        if self._phase is _Phase.HEAD or self._is_answered:
            self._transport.close()
        else:
            self._protocol.end_with_answer()

    def transport_closed(self) -> None:
        self._ended(self._protocol, requests=self._requests)

"""A WebSocket of an ASGI application, from its opening request on."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from websockets.exceptions import InvalidState

from stickygw.apps.arrival import Arrival
from stickygw.apps.asgi.connection import AsgiConnection
from stickygw.apps.asgi.protocols import WebSocketProtocol
from stickygw.bridge.hub import Member
from stickygw.connections.sending import CLOSE_SECONDS, SLOW_CLOSE_SECONDS
from stickygw.connections.websocket import ABNORMAL_CLOSURE
from stickygw.routing.request_head import Head
from stickygw.sessions.holders import SESSION_ENDED, Holder
from stickygw.types import ConnectionId
from stickygw.wire.prepared import Batch

if TYPE_CHECKING:
    from stickygw.apps.asgi.host import AsgiHost
    from stickygw.apps.native.traffic import Traffic

PIECE_BYTES = 16 * 1024
"""So much of what a client has sent is read before other connections have their turn: of the smallest frames, 2,700."""

_CONTROL = 0x08
"""The bit that the opcodes of control frames have in common (RFC 6455, 5.2)."""


class WebSocketConnection(AsgiConnection):
    """Opens within ``header_timeout``, or is refused. What comes with the handshake waits until it is accepted.

    While the client does not read, it is not read: what it makes us write, pongs too, is bounded.
    """

    __slots__ = ("_holder", "_is_slow", "_protocol", "_sent", "_shut", "is_spared", "members")

    linger_seconds = CLOSE_SECONDS

    def __init__(
        self,
        host: AsgiHost,
        arrival: Arrival,
        id: ConnectionId,
        on_ended: Callable[..., None],
    ) -> None:
        super().__init__(host, arrival, id, on_ended)
        self._protocol: WebSocketProtocol = host.new_websocket_protocol()
        self._protocol.close_timeout = CLOSE_SECONDS
        self._holder: Holder | None = None
        self._sent = 0
        self.members: tuple[Member, ...] = ()
        """What sends to the application's WebSocket, one for each ``rooms`` block; the last one gets what is for it."""
        self.is_spared = False
        """Whether messages wait of rooms that drop them: then it is not closed for being slow as long as it reads."""
        self._is_slow = False
        self._shut: tuple[int, str, float] | None = None
        """How it is to be closed as soon as it has opened."""

    @property
    def is_websocket(self) -> bool:
        """It is."""
        return True

    def begin(self) -> None:
        protocol = self._protocol
        protocol.connection_made(self._transport)
        self._transport.set_protocol(protocol)
        self._transport.awaits_head = True
        self._pending = self._arrival.rest
        self._deadline_in(self._host.settings.header_timeout)
        if self._socket.is_closed:
            self.transport_closed()
            return
        self._socket.bound_unsent()
        self._socket.start(self)
        self._context.run(protocol.data_received, _written(self._head))
        if not protocol.handshake_initiated and not self._transport.is_closing():
            # The library's bound of a field line, 8 KiB, is lower than the gate's of a head; beyond, it says nothing.
            self._refuse(431, "A field of the handshake is too long.")
        self.flow_changed()

    # Receiving

    def data_received(self, data: bytes) -> None:
        if self._status == 101 and not self._pending and len(data) <= PIECE_BYTES:
            self._protocol.data_received(data)  # which is not paused, else the socket would be
        else:
            self._pending += data
            self._look_at_pending()

    def _look_at_pending(self) -> None:
        if self._pending and self._can_feed:
            piece, self._pending = self._pending[:PIECE_BYTES], self._pending[PIECE_BYTES:]
            self._protocol.data_received(piece)
        self.flow_changed()

    @property
    def _can_feed(self) -> bool:
        transport = self._transport
        return (
            self._protocol.handshake_complete
            and not transport.is_read_paused
            and not transport.is_write_paused
            and not transport.is_closing()
        )

    def flow_changed(self) -> None:
        transport = self._transport
        if self._pending:
            if self._can_feed:
                self._schedule()
            self._socket.pause_reading()
        elif transport.is_read_paused or transport.is_write_paused:
            self._socket.pause_reading()
        else:
            self._socket.resume_reading()

    # Writing

    def answer_begins(self, data: bytes) -> None:
        begun = self._begun(data)
        if self._status == 101:
            self._watch()
        self._socket.write(begun)
        self._deadline = math.inf
        if self._status == 101:
            self._schedule()
            if self._shut is not None:
                code, reason, within = self._shut
                self._host.loop.call_soon(lambda: self.close(code, reason, within=within), context=self._host.context)

    def message_written(self, data: bytes) -> bool:
        if not data[0] & _CONTROL:  # each write of the protocol is one frame
            self._sent += 1
        return self._protocol.read_paused or bool(self._pending)  # the application has more messages to take

    def outbox_overflowed(self) -> None:
        self.close_slow()

    def _look_at_blocked(self, seconds: float) -> None:
        settings = self._host.settings
        limit = settings.outbox_seconds
        if self.is_spared:
            limit = max(limit, settings.ping_interval + settings.ping_timeout)
        if seconds > limit:
            self.close_slow()

    def serves(self, scope: Any) -> bool:
        """Whether `scope` is the one of this WebSocket, or a copy of it that the application has made."""
        return scope.get("extensions") is self._protocol.scope["extensions"]

    def is_meant(self, to: str) -> bool:
        return self._status == 101 and to in (f"session:{self._visit.session_id}", f"connection:{self.id}")

    def deliver(self, batch: Batch) -> None:
        """Messages for it: the application's WebSocket gets them where it is in a ``rooms`` block, in their order."""
        if self.members:
            self._host.hub.give(self.members[-1], batch)

    def close_slow(self) -> None:
        """The client does not read what is sent to it: count that, and close with 1013. Idempotent."""
        if not self._is_slow:
            self._is_slow = True
            self._host.counters.add("connections_closed", "slow_consumer")
            self.close(1013, "slow consumer", within=SLOW_CLOSE_SECONDS)

    # The end

    def _watch(self) -> None:
        """Close when the client's session ends, which it is told of now if it had none, whether it is opened or not."""
        if self._socket.is_closed:
            return  # nobody would take the watch back
        id = self._visit.session_id
        issued = self.offer.issued if id == self.offer.session else 0
        self._holder = self._host.sessions.watch(id, self._session_ended, issued=issued)

    def _session_ended(self) -> None:
        code, reason = SESSION_ENDED
        self.send_away(code, reason, within=CLOSE_SECONDS)

    def send_away(self, code: int, reason: str, *, within: float) -> None:
        """`close`, behind what its rooms have for it, if that is sent in time."""
        if self.members:
            self.members[-1].send_away(code, reason, within=within)  # which closes it
        else:
            self.close(code, reason, within=within)

    def close(self, code: int, reason: str, *, within: float) -> None:
        """Begin the closing handshake, if it has not begun; TCP ends `within` seconds. The shortest time counts."""
        protocol, transport = self._protocol, self._transport
        if transport.is_closing() or self._socket.is_closed:
            self._end_within(within)
            return
        if not protocol.handshake_complete:
            self._shut = code, reason, within
            return
        if not protocol.close_sent:
            # As the protocol does it when the application closes; only the application is told, and may send no more.
            protocol.stop_keepalive()
            protocol.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
            try:
                protocol.conn.send_close(code, reason)
            except InvalidState:
                pass  # the client's close came in this very turn
            transport.write(b"".join(protocol.conn.data_to_send()))
            protocol.close_sent = protocol.disconnected = True
            protocol.close_timer = self._host.loop.call_later(within, transport.abort)
            protocol.read_paused = False
            transport.resume_reading()
        self._end_within(within)

    def _end_within(self, seconds: float) -> None:
        """Whoever is closing already has no more time than that."""
        deadline = self._deadline
        self._deadline_in(seconds)
        self._deadline = min(deadline, self._deadline)

    def _overdue(self) -> None:
        if self._status or self._transport.is_closing():
            self._transport.abort()
        else:
            self._host.counters.add("openings_failed")
            self._refuse(503, "The application did not answer the handshake in time.")

    def refuse_opening(self) -> None:
        """The worker stops: an opening that waits for the application is not waited for."""
        if not self._protocol.handshake_complete and not self._transport.is_closing():
            self._refuse(503, "The gateway stops.")

    def count_into(self, traffic: Traffic) -> None:
        traffic.received += self._protocol.received_messages
        traffic.sent += self._sent
        traffic.queued += self._protocol.queue.qsize() + self._socket.outbox_writes

    def transport_closed(self) -> None:
        protocol = self._protocol
        if self._holder is not None:
            self._host.sessions.unwatch(self._holder)
        if self._status == 101:
            close = protocol.conn.close_rcvd or protocol.conn.close_sent
            code = ABNORMAL_CLOSURE if close is None else int(close.code)
            self._ended(protocol, messages_in=protocol.received_messages, messages_out=self._sent, close_code=code)
        else:
            self._ended(protocol)


def _written(head: Head) -> bytes:
    """The opening request as uvicorn's HTTP class would write it for its WebSocket class."""
    lines = b"".join([b"%b: %b\r\n" % field for field in head.fields])
    return b"GET %b HTTP/1.1\r\n%b\r\n" % (head.target.encode(), lines)

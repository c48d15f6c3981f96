"""What the connections of an ASGI application have in common: a socket, a transport for uvicorn's protocol, an end."""

from __future__ import annotations

import asyncio
import contextvars
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar

from stickygw.apps.arrival import Arrival
from stickygw.apps.asgi.cookie_field import with_cookie
from stickygw.apps.asgi.transport import AsgiTransport
from stickygw.observability.context import connection_id
from stickygw.sessions.visit import Visit, visiting
from stickygw.types import ConnectionId
from stickygw.wire.http_answer import Fields, answer
from stickygw.wire.prepared import Batch

if TYPE_CHECKING:
    from stickygw.apps.asgi.host import AsgiHost
    from stickygw.apps.native.traffic import Traffic

serving: contextvars.ContextVar[AsgiConnection] = contextvars.ContextVar("serving")
"""The connection whose request this task serves."""


class AsgiConnection(ABC):
    """Owns a socket from its arrival on, and feeds a protocol of uvicorn's what is for it.

    The bytes beyond are kept here. `on_ended` is called once, when the socket is closed, with the last request's head
    and the status of its answer (0: there was none); unless the connection is given away before.
    """

    __slots__ = (
        "_arrival",
        "_context",
        "_deadline",
        "_head",
        "_host",
        "_is_scheduled",
        "_on_ended",
        "_pending",
        "_socket",
        "_status",
        "_transport",
        "_visit",
        "id",
        "offer",
    )

    linger_seconds: ClassVar[float]
    """How long after our last byte the client may take to close."""

    @property
    def is_websocket(self) -> bool:
        """Whether it is one, not a plain HTTP connection."""
        return False

    @property
    def is_open(self) -> bool:
        """Whether it has not ended: it is forgotten when it has."""
        return True

    def __init__(
        self,
        host: AsgiHost,
        arrival: Arrival,
        id: ConnectionId,
        on_ended: Callable[..., None],
    ) -> None:
        self.id = id
        self.offer = offer = arrival.offer
        """Of the last request."""
        self._host = host
        self._head = arrival.head
        self._arrival = arrival
        self._socket = socket = arrival.transport
        self._on_ended = on_ended
        self._transport = AsgiTransport(
            socket,
            self,
            peername=self.client,
            sockname=socket.local_address,
            is_secure=offer.is_secure,
            max_outbox=host.settings.outbox_bytes,
            linger_seconds=self.linger_seconds,
        )
        # A request's task starts with a copy of it: what an application sets there stays there.
        self._context = host.context.copy()
        self._context.run(connection_id.set, id)
        self._context.run(serving.set, self)
        self._pending = b""  # received, and not for the protocol yet
        self._deadline = math.inf  # when `_overdue` is called, in monotonic seconds
        self._is_scheduled = False
        self._status = 0
        self._begin_visit()

    @property
    def client(self) -> tuple[str, int] | None:
        """The address that the application sees."""
        return (self.offer.host, self.offer.port) if self.offer.host else None

    # What it is asked

    @abstractmethod
    def begin(self) -> None:
        """Serve what has arrived."""

    @abstractmethod
    def send_away(self, code: int, reason: str, *, within: float) -> None:
        """End soon: a WebSocket with `code`, and its TCP connection `within` seconds; a request when it is answered.

        Idempotent.
        """

    def is_meant(self, to: str) -> bool:
        """Whether `to` names this WebSocket, or its session."""
        return False

    def deliver(self, batch: Batch) -> None:
        """Messages for it."""
        raise AssertionError("nothing is meant for a connection that is no WebSocket")

    @abstractmethod
    def count_into(self, traffic: Traffic) -> None:
        """Add the messages so far, and those that wait."""

    def look(self, now: float) -> None:
        """End what takes too long; called about once a second."""
        blocked_since = self._socket.blocked_since
        if blocked_since is not None:
            self._look_at_blocked(now - blocked_since)
        if now >= self._deadline:
            self._deadline = math.inf
            self._overdue()

    @abstractmethod
    def _look_at_blocked(self, seconds: float) -> None:
        """The client has taken nothing for `seconds` of what is written."""

    @abstractmethod
    def _overdue(self) -> None:
        """The deadline has passed."""

    # A request

    def _begin_visit(self) -> None:
        """What a task starts with from now on is of a new request, that of `offer`."""
        self._visit = Visit(self.offer.session, self._host.sessions)
        self._context.run(visiting.set, self._visit)

    @property
    def _is_ours(self) -> bool:
        """Whether it was not given away."""
        owner: object = self._socket.owner
        return owner is self

    # Turns

    def _schedule(self) -> None:
        """Look at what is pending in a turn of its own: not within the application's call, nor in its context."""
        if not self._is_scheduled:
            self._is_scheduled = True
            self._host.loop.call_soon(self._take_turn, context=self._host.context)

    def _take_turn(self) -> None:
        self._is_scheduled = False
        if self._is_ours and not self._transport.is_closing():
            self._look_at_pending()

    @abstractmethod
    def _look_at_pending(self) -> None:
        """Go on with what is pending, if that can be."""

    # What the transport's protocol tells

    @abstractmethod
    def answer_begins(self, data: bytes) -> None: ...

    def _begun(self, data: bytes) -> bytes:
        """`data`, which begins with the head of the answer, as it is to be written."""
        self._transport.awaits_head = False
        self._status = int(data[9:12])  # behind "HTTP/1.1 "
        cookie = self._host.cookie_for(self.offer, self._visit, self._head, self._status)
        begun = data if cookie is None else with_cookie(data, cookie)
        self._visit.answered(with_cookie=begun is not data)
        return begun

    @abstractmethod
    def message_written(self, data: bytes) -> bool: ...

    @abstractmethod
    def flow_changed(self) -> None: ...

    @abstractmethod
    def outbox_overflowed(self) -> None: ...

    # The end

    def abort(self) -> None:
        """Close at once."""
        self._socket.abort()

    def _refuse(self, status: int, message: str, fields: Fields = (), *, is_answer: bool = True) -> None:
        """End the connection, with a word of ours. `status` 0: without one, what came is no HTTP.

        Not `is_answer`: it is about what came behind the last request.
        """
        if status:
            if is_answer:
                self._status = status
            self._socket.write(answer(status, f"{message}\n".encode(), fields=fields))
        self._transport.close()

    def write_resumed(self) -> None:
        self._transport.write_resumed()

    def eof_received(self) -> None:
        """As with asyncio's own transports, a client that sends nothing more gets what was written, and no more."""
        self._transport.close()

    def _ended(self, protocol: asyncio.Protocol, **more: Any) -> None:
        """The socket is closed."""
        protocol.connection_lost(None)
        self._pending = b""
        self._host.ended(self)
        self._on_ended(self._status, self._head, **more)

    def _deadline_in(self, seconds: float) -> None:
        self._deadline = monotonic() + seconds

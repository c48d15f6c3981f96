"""The end of one arrival: its access line, and word to whoever handed it over."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any, Literal

from stickygw.apps.native.connection import Connection
from stickygw.apps.native.runtime import Identity
from stickygw.connections.transport import SocketTransport
from stickygw.connections.websocket import ABNORMAL_CLOSURE, WebSocket
from stickygw.observability.access import is_access_logged, log_access
from stickygw.routing.request_head import Head
from stickygw.types import ConnectionId
from stickygw.wire.link import Offer


class Ending:
    """What has to be known at the end, and no more: it lives as long as the connection.

    One of `answered`, `served` and `closed` is called, once; `on_ended` is called behind the access line.
    """

    __slots__ = ("_began", "_identity", "_kind", "_method", "_on_ended", "_path", "_transport", "_websocket", "id",
                 "offer")  # fmt: skip

    def __init__(
        self,
        id: ConnectionId,
        offer: Offer,
        transport: SocketTransport,
        *,
        is_websocket: bool,
        method: str,
        path: str,
        identity: Identity,
        on_ended: Callable[[], None],
        open_seconds: float = 0.0,
    ) -> None:
        self.id = id
        self._began = monotonic() - open_seconds
        self.offer = offer
        self._kind: Literal["websocket", "http"] = "websocket" if is_websocket else "http"
        self._method = method
        self._path = path
        self._transport = transport
        self._identity = identity
        self._on_ended = on_ended
        self._websocket: tuple[Connection, WebSocket] | None = None

    @property
    def open_seconds(self) -> float:
        """How long ago it began."""
        return monotonic() - self._began

    def opened(self, connection: Connection, websocket: WebSocket) -> None:
        """It is a WebSocket now."""
        self._websocket = connection, websocket

    def answered(self, status: int) -> None:
        """Its HTTP answer is over; `status` is 0 if there was none."""
        self._tell(status)

    def served(self, status: int, head: Head, *, is_over: bool = True, **more: Any) -> None:
        """The ASGI application's connection is over; `head` is its last request's, `status` that one's answer.

        Not `is_over`: another serves it from here on, and will tell of its end.
        """
        self._method, self._path = head.method, head.path
        self._log(status, **more)
        if is_over:
            self._on_ended()

    def closed(self) -> None:
        """Its WebSocket is over, the last handler too."""
        assert self._websocket is not None
        connection, websocket = self._websocket
        closed = connection.receiver.closed
        self._tell(
            101,
            messages_in=websocket.received_messages,
            messages_out=websocket.sent_messages,
            close_code=ABNORMAL_CLOSURE if closed is None else closed.code,
        )

    def _tell(self, status: int, **more: Any) -> None:
        self._log(status, **more)
        self._on_ended()

    def _log(self, status: int, **more: Any) -> None:
        if is_access_logged():
            log_access(
                client=self.offer.host,
                port=self.offer.port,
                slot=self._identity.slot,
                reason=self.offer.reason,
                kind=self._kind,
                method=self._method,
                path=self._path,
                status=status,
                seconds=round(self.open_seconds, 3),
                bytes_in=self._transport.received_bytes,
                bytes_out=self._transport.sent_bytes,
                **more,
                connection=self.id,
                generation=self._identity.generation,
            )

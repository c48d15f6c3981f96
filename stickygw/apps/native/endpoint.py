"""Where a connection that the worker took meets the application: the WebSocket handshake, or a plain HTTP answer."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from stickygw.apps.native.connection import Connection
from stickygw.apps.native.cookies import CookieJar
from stickygw.apps.native.ending import Ending
from stickygw.apps.native.plain_http import PlainHttp
from stickygw.apps.native.request import Request
from stickygw.apps.native.runtime import Runtime, settled
from stickygw.connections.answering import Answering
from stickygw.connections.handshake import headers_of, negotiate
from stickygw.connections.transport import SocketTransport
from stickygw.connections.websocket import WebSocket
from stickygw.errors import Refuse, SessionUnavailable
from stickygw.observability.context import connection_id
from stickygw.routing.request_head import Head
from stickygw.sessions.session import Session
from stickygw.types import ConnectionId
from stickygw.wire.http_answer import Fields
from stickygw.wire.link import Offer
from stickygw.wire.origin import is_origin_allowed

log = logging.getLogger("stickygw.app")


@dataclass(frozen=True, slots=True)
class Arrival:
    """A connection whose head was read: `rest` are the bytes behind it. `on_ended` is called once, when it is over."""

    offer: Offer
    head: Head
    rest: bytes
    transport: SocketTransport
    on_ended: Callable[[], None]


class Refused(Exception):
    """This handshake is answered with an HTTP status."""

    def __init__(self, status: int, message: str, fields: Fields = ()) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.fields = fields


class Endpoint:
    """Serves arrivals with one application."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._cookies = CookieJar(runtime)
        self._plain_http = PlainHttp(runtime, self._cookies)

    async def serve(self, arrival: Arrival) -> None:
        """Answer plain HTTP, or open the WebSocket and serve its first burst, in a task of the connection's own.

        Nothing that a client sent or an application raised comes out of here, and no connection is left behind.
        """
        id = ConnectionId(secrets.token_hex(8))
        connection_id.set(id)
        ending = Ending(
            id,
            arrival.offer,
            arrival.head,
            arrival.transport,
            identity=self._runtime.identity,
            on_ended=arrival.on_ended,
        )
        try:
            if arrival.head.is_websocket:
                await self._open(arrival, ending)
            else:
                await self._plain_http.answer(arrival.offer, arrival.head, self._answering(arrival, ending))
        except Refused as refused:
            self._refuse(arrival, ending, refused)
        except SessionUnavailable as error:
            log.warning("a handshake is refused: %s", error)
            self._refuse(arrival, ending, Refused(503, "sessions are not available", [("Retry-After", "1")]))
        except (Exception, asyncio.CancelledError) as error:
            self._runtime.counters.add("openings_failed")
            log.error("an opening failed", exc_info=error)
            self._refuse(arrival, ending, Refused(500, "internal error"))
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise

    def _answering(self, arrival: Arrival, ending: Ending) -> Answering:
        return Answering(arrival.transport, self._runtime.loop, ending.answered)

    def _refuse(self, arrival: Arrival, ending: Ending, refused: Refused) -> None:
        if arrival.transport.owner is not None or arrival.transport.is_closed:
            arrival.transport.abort()  # the answer has begun: a second one would be garbage
            return
        self._runtime.counters.add("handshakes_refused", str(refused.status))
        body = f"{refused.message}\n".encode()
        self._answering(arrival, ending).answer(refused.status, body, fields=refused.fields)

    async def _open(self, arrival: Arrival, ending: Ending) -> None:
        """The opening handshake (RFC 6455 §4.2.2), then the connection's first burst."""
        runtime, head, offer = self._runtime, arrival.head, arrival.offer
        headers = headers_of(head)
        if not is_origin_allowed(headers.get("Origin"), headers["Host"], runtime.settings.origins):
            raise Refused(403, "pages of this origin may not connect")
        handlers = runtime.app.handlers.for_path(head.path)
        if handlers is None:
            raise Refused(404, "no such path")
        protocol, response = negotiate(
            head,
            headers,
            subprotocols=runtime.app.subprotocols,
            compression=runtime.settings.compression,
            max_message=runtime.settings.max_message,
        )
        if response.status_code != 101:
            raise Refused(response.status_code, "the handshake cannot be accepted")
        request = Request(
            head.path, head.query, headers, offer.host, offer.is_secure, handlers.parts, protocol.subprotocol
        )
        session = await runtime.sessions.open(offer.session)
        try:
            await self._admit(request, session, is_known=offer.session is not None)
            if runtime.is_stopping:
                raise Refused(503, "the gateway stops", [("Retry-After", "1")])
        except BaseException:
            runtime.sessions.release(session)
            raise
        cookie = self._cookies.due(offer, session.id)
        if cookie is not None:
            response.headers["Set-Cookie"] = cookie
        arrival.transport.write(response.serialize())
        connection = Connection(runtime, request, session, handlers, ending.closed, id=ending.id)
        websocket = WebSocket(
            arrival.transport,
            protocol,
            connection.receiver,
            loop=runtime.loop,
            max_message=runtime.settings.max_message,
            max_outbox=runtime.settings.outbox_bytes,
        )
        ending.opened(connection, websocket)
        await connection.run(websocket, arrival.rest)

    async def _admit(self, request: Request, session: Session, *, is_known: bool) -> None:
        """Ask ``on_handshake``, and store what it wrote."""
        try:
            for function in self._runtime.app.handlers.handshake:
                await settled(function(request, session))
        except Refuse as refusal:
            if not is_known:
                session.clear()  # the client is not told its id: nobody could ever come back to it
            raise Refused(refusal.status, refusal.message, refusal.headers.items()) from refusal
        finally:
            if session.is_dirty:
                await session.flush()

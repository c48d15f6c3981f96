"""Where a connection that the worker took meets the application: the WebSocket handshake, or a plain HTTP answer."""

from __future__ import annotations

import asyncio
import logging
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING

from stickygw.apps.arrival import Arrival
from stickygw.apps.native.connection import Connection
from stickygw.apps.native.cookies import CookieJar
from stickygw.apps.native.ending import Ending
from stickygw.apps.native.plain_http import PlainHttp
from stickygw.apps.native.request import Request
from stickygw.apps.native.runtime import Runtime, settled
from stickygw.connections.answering import Answering
from stickygw.connections.handshake import headers_of, negotiate
from stickygw.connections.websocket import WebSocket
from stickygw.errors import Refuse, SessionEnded, SessionUnavailable
from stickygw.observability.context import connection_id
from stickygw.routing.navigation import is_navigation
from stickygw.routing.request_head import Head
from stickygw.routing.token import without_token
from stickygw.sessions.request_session import RequestSession
from stickygw.sessions.visit import Visit
from stickygw.types import ConnectionId
from stickygw.wire.http_answer import Fields
from stickygw.wire.link import Offer
from stickygw.wire.origin import is_origin_allowed

if TYPE_CHECKING:
    from websockets.datastructures import Headers

    from stickygw.apps.asgi.host import AsgiHost

__all__ = ["Arrival", "Endpoint"]

log = logging.getLogger("stickygw.app")

STATE_MARGIN_SECONDS = 1.0
"""A handshake waits for its key's state for `move_grace`, which the old worker may wait for handlers, and so much
longer."""


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
        self._asgi = runtime.asgi
        if self._asgi is not None:
            self._asgi.connect_to(serves=self._is_for_asgi, give=self._take_back, cookie_for=self._cookie_for)

    async def serve(self, arrival: Arrival) -> None:
        """Answer plain HTTP, or open the WebSocket and serve its first burst, in a task of the connection's own.

        Nothing that a client sent or an application raised comes out of here, and no connection is left behind.
        """
        id = ConnectionId(secrets.token_hex(8))
        connection_id.set(id)
        if self._runtime.settings.session.token:
            arrival = replace(arrival, head=without_token(arrival.head))
        ending = Ending(
            id,
            arrival.offer,
            arrival.transport,
            is_websocket=arrival.head.is_websocket,
            method=arrival.head.method,
            path=arrival.head.path,
            identity=self._runtime.identity,
            on_ended=arrival.on_ended,
        )
        try:
            if self._asgi is not None and not self._is_native(arrival.head):
                self._serve_asgi(self._asgi, arrival, ending)
            elif arrival.head.is_websocket:
                await self._open(arrival, ending)
            else:
                await self._plain_http.answer(arrival.offer, arrival.head, self._answering(arrival, ending))
        except Refused as refused:
            self._refuse(arrival, ending, refused)
        except SessionEnded as error:  # while it was opened: who comes again has a new one
            log.warning("a handshake is refused: %s", error)
            self._refuse(arrival, ending, Refused(409, "the session has ended"))
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

    # For the ASGI application

    def _is_native(self, head: Head) -> bool:
        """Whether a request is answered here, and not by the ASGI application that has the rest."""
        if head.is_websocket:
            return self._runtime.app.handlers.for_path(head.path) is not None
        return self._plain_http.has(head)

    def _serve_asgi(self, asgi: AsgiHost, arrival: Arrival, ending: Ending) -> None:
        if arrival.head.is_websocket:
            self._check_origin(headers_of(arrival.head))
            if self._runtime.is_stopping:
                raise Refused(503, "the gateway stops", [("Retry-After", "1")])
        asgi.serve(arrival, ending.id, ending.served)

    def _is_for_asgi(self, further: Head) -> bool:
        """Whether a further request on a connection of the ASGI application's is its too. Handshakes are seen here."""
        return not further.is_websocket and not self._plain_http.has(further)

    def _take_back(self, arrival: Arrival) -> None:
        """Serve a connection of the ASGI application's from a request on that is not."""
        self._runtime.spawn(self.serve(arrival))

    def _cookie_for(self, offer: Offer, visit: Visit, head: Head, status: int) -> str | None:
        """The cookie that an answer of the ASGI application carries: a WebSocket's, a document's, a used session's."""
        if visit.has_ended:
            return None if offer.session is None else self._cookies.forgotten(offer)
        if visit.is_known and offer.cookie_slot is None:
            return None  # the client's own is right
        # One whose session has ended may be getting its new cookie just now, by a login's answer: a document must not
        # overtake that with another one.
        is_placed = is_navigation(head) and (visit.is_known or offer.session is None)
        if status == 101 or is_placed or visit.has_session:
            return self._cookies.due(offer, visit.session_id)
        return None

    def _check_origin(self, headers: Headers) -> None:
        if not is_origin_allowed(headers.get("Origin"), headers["Host"], self._runtime.settings.origins):
            raise Refused(403, "pages of this origin may not connect")

    async def _open(self, arrival: Arrival, ending: Ending) -> None:
        """The opening handshake, then the connection's first burst."""
        key = arrival.offer.key
        with self._runtime.keys.opening(key):
            await self._wait_for_state(key)
            connection, websocket, issued = await self._opened(arrival, ending)
        await connection.run(websocket, arrival.rest, issued=issued)

    async def _wait_for_state(self, key: bytes | None) -> None:
        """Wait, for a bounded time, for what another worker is about to give the application for `key`."""
        runtime = self._runtime
        if key is None or not runtime.app.handlers.key_in:
            return
        until = runtime.loop.time() + runtime.settings.move_grace + STATE_MARGIN_SECONDS
        for coming in tuple(runtime.coming_keys):
            await coming.wait(key, until)

    async def _opened(self, arrival: Arrival, ending: Ending) -> tuple[Connection, WebSocket, int]:
        """The opening handshake (RFC 6455 §4.2.2): a WebSocket that is to be run, and when its cookie was signed."""
        runtime, head, offer = self._runtime, arrival.head, arrival.offer
        headers = headers_of(head)
        self._check_origin(headers)
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
        visit = Visit(offer.session, runtime.sessions)
        opening = RequestSession(visit)
        await opening.load()
        try:
            await self._check_not_overtaking(offer, visit)
            await self._admit(request, opening)
            if runtime.is_stopping:
                raise Refused(503, "the gateway stops", [("Retry-After", "1")])
            if offer.key is not None and any(leaving.has_given(offer.key) for leaving in runtime.leaving_keys):
                raise Refused(503, "what it is about is another worker's by now", [("Retry-After", "1")])
        except BaseException as error:
            if isinstance(error, Refused):
                error.fields = [*error.fields, *self._told(offer, visit, head, error.status)]
            opening.release()
            raise
        session = opening.shared  # which is the connection's to release from here on
        cookie = self._cookie_for(offer, visit, head, 101)
        if cookie is not None:
            response.headers["Set-Cookie"] = cookie
        arrival.transport.write(response.serialize())
        connection = Connection(runtime, request, session, handlers, ending)
        websocket = WebSocket(
            arrival.transport,
            protocol,
            connection.receiver,
            loop=runtime.loop,
            max_message=runtime.settings.max_message,
            max_outbox=runtime.settings.outbox_bytes,
            counters=runtime.counters,
        )
        ending.opened(connection, websocket)
        return connection, websocket, offer.issued if session.id == offer.session else 0

    async def _check_not_overtaking(self, offer: Offer, visit: Visit) -> None:
        """A login closes its client's WebSockets before its own answer is there with the new cookie. A page that comes
        again at once would get another new session here, and its cookie could land behind the login's."""
        if offer.session is None or visit.is_known:
            return
        if await self._runtime.sessions.ended_lately(offer.session):
            raise Refused(409, "the session has just ended: come again with its new cookie")

    def _told(self, offer: Offer, visit: Visit, head: Head, status: int) -> Fields:
        """What a refusal says of the session: ``on_handshake`` may have stored it under a new id, or destroyed it."""
        if visit.is_known and not visit.has_ended:
            return ()
        cookie = self._cookie_for(offer, visit, head, status)
        return () if cookie is None else [("Set-Cookie", cookie)]

    async def _admit(self, request: Request, session: RequestSession) -> None:
        """Ask ``on_handshake``, and store what it wrote."""
        try:
            for function in self._runtime.app.handlers.handshake:
                await settled(function(request, session))
        except Refuse as refusal:
            if not session.is_known:
                session.give_up()  # the client is not told its id: nobody could ever come back to it
            raise Refused(refusal.status, refusal.message, refusal.headers.items()) from refusal
        finally:
            if session.is_dirty:
                await session.save()

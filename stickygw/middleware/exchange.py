"""One request and its answer, with the session between the application and the server: `Exchange`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from stickygw.errors import SessionEnded, SessionUnavailable
from stickygw.middleware.client import Client
from stickygw.middleware.cookies import cache_control, varying
from stickygw.routing.set_cookie import is_public
from stickygw.sessions.holders import SESSION_ENDED

log = logging.getLogger("stickygw.sessions")

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

RETRY_AFTER = b"1"
"""Seconds after which a client that was refused with 503 may come again."""

_HEADS = {"http.response.start", "websocket.accept", "websocket.http.response.start"}


class Exchange:
    """Has the `receive` and `send` that an application gets, in the place of the server's, for one request."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, client: Client) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._client = client
        self._session = client.session
        self._is_answered = False
        self._is_taken_back = False  # the answer, or the end, was ours: the application's goes nowhere
        self._is_refused = False  # nobody was told that anything is done
        self._is_open = False  # a WebSocket
        self._is_watched = False  # it is closed here when the session ends
        self._receiving: asyncio.Future[Message] | None = None  # the next message of an open WebSocket
        self._closing: asyncio.Task[None] | None = None

    async def receive(self) -> Message:
        """For the application. In a WebSocket, what was written to the session is saved before a wait, and what others
        wrote is there after it."""
        if not self._is_open:
            return await self._receive()
        await self._keep()
        message = await (self._received_unless_closed() if self._is_watched else self._receive())
        try:
            await self._session.freshen()
        except SessionEnded:
            self.close()
            return await self._ended()
        return message

    async def _received_unless_closed(self) -> Message:
        """The next message, or the end that `close` has made. Who gives up this wait gets the message at the next one.

        Granian (2.8) sends no close while it is asked for a message, until the client sends one: so `close` has to be
        able to take that back.
        """
        if self._closing is None:
            if self._receiving is None:
                self._receiving = asyncio.ensure_future(self._receive())
            if not self._receiving.done():
                await asyncio.wait({self._receiving})
        if self._closing is not None:
            return await self._ended()
        assert self._receiving is not None
        received, self._receiving = self._receiving, None
        return received.result()

    async def _ended(self) -> Message:
        """What the application hears of the session's end, behind our close, or before the gateway's."""
        if self._closing is not None:
            await asyncio.wait({self._closing})
        code, reason = SESSION_ENDED
        return {"type": "websocket.disconnect", "code": code, "reason": reason}

    async def send(self, message: Message) -> None:
        """For the application. What this request has written to the session is saved before the head of the answer
        leaves; where that cannot be, it is given up and the answer is `refuse`'s: the client must not take for done
        what is not, and what it was told to be not done must not be done later."""
        if self._is_taken_back:
            if self._scope["type"] == "websocket":
                raise ConnectionResetError("the WebSocket is closed: its session is over, or could not be saved")
            return
        if message["type"] not in _HEADS:
            await self._send(message)
            return
        is_opening = message["type"] == "websocket.accept"
        fields = list(message.get("headers", ()))
        if is_public(cache_control(fields)) and not self._session.is_known:
            self._give_up("marked public, and so without a cookie")
        try:
            # What other requests of the client wrote they save themselves, and are told if they can't.
            if self._session.is_dirty:
                await self._session.save()
        except (SessionUnavailable, SessionEnded) as error:
            log.warning("an answer is taken back, because its session was not saved: %s", error)
            await self.refuse(error)
            return
        self._is_answered = True
        if self._session.is_accessed and not is_opening:
            fields = varying(fields)
        await self._send({**message, "headers": self._client.told(fields, is_opening=is_opening)})
        if is_opening:
            self._is_open = True
            self._is_watched = self._client.watch(self.close)

    async def refuse(self, error: SessionUnavailable | SessionEnded) -> None:
        """Answer in the application's place: 503, or 409 to who comes with a session that has ended meanwhile.

        Without the extension for that, a WebSocket gets the server's 403.
        """
        self._is_taken_back = self._is_refused = True
        self._session.roll_back()
        kind = "http.response"
        if self._scope["type"] == "websocket":
            if "websocket.http.response" not in (self._scope.get("extensions") or {}):
                await self._send({"type": "websocket.close", "code": 1013, "reason": "sessions are not available"})
                return
            kind = "websocket.http.response"
        status, reason, fields = _refusal(error)
        await self._send({"type": f"{kind}.start", "status": status, "headers": fields})
        await self._send({"type": f"{kind}.body", "body": reason})

    def close(self) -> None:
        """Close the WebSocket, because its session has ended. Idempotent."""
        if self._is_watched and not self._is_taken_back:
            self._is_taken_back = True
            self._closing = asyncio.create_task(self._close(), name="session closer")

    async def finish(self) -> None:
        """The application is done: save what it has written since the answer began.

        Raises what is its own fault: `SessionValueError`, and `RuntimeError` where no answer told the client of its new
        session.
        """
        if self._is_refused:
            self._session.roll_back()  # what it has written behind the refusal
            return
        if not self._is_answered and not self._session.is_known:
            self._give_up("none")  # a server's 500, or 403, tells nobody of a session
            return
        await self._keep()

    async def finish_after_error(self) -> None:
        """`finish`, where the application has raised: that error goes on."""
        try:
            await self.finish()
        except Exception:
            log.exception("a session was not written, behind an error")

    async def end(self) -> None:
        """The application is done: nobody watches any more, and what `close` has begun is waited for."""
        self._client.leave()
        if self._closing is not None:
            await asyncio.wait({self._closing})
        await self._stop_receiving()

    async def _stop_receiving(self) -> None:
        """Ask the server for no message any more, and wait until it knows."""
        if self._receiving is not None:
            self._receiving.cancel()
            await asyncio.wait({self._receiving})  # not `gather`: what Granian gives is no whole future

    async def _keep(self) -> None:
        """Save the session where the answer has left: what fails is told to the log, and tried again next time."""
        try:
            await self._session.keep()
        except SessionUnavailable as error:
            log.error("a session was not written: %s", error)
        except SessionEnded as error:
            log.warning("a session was not written: %s", error)
            self.close()

    def _give_up(self, answer: str) -> None:
        """The client will not hear of its new session: nothing of it is stored. `answer`: what it gets."""
        if self._session.give_up():
            log.warning("a new session is lost for its client: its answer is %s", answer)

    async def _close(self) -> None:
        code, reason = SESSION_ENDED
        await self._stop_receiving()
        try:
            await self._send({"type": "websocket.close", "code": code, "reason": reason})
        except Exception as error:  # noqa: BLE001 - servers differ in what they raise for one that is closed already
            log.debug("a WebSocket whose session ended was not closed: %r", error)


def _refusal(error: SessionUnavailable | SessionEnded) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
    """Status, body and fields of the answer."""
    fields = [(b"content-type", b"text/plain; charset=utf-8")]
    if isinstance(error, SessionEnded):
        return 409, b"the session has ended\n", fields
    return 503, b"sessions are not available\n", [*fields, (b"retry-after", RETRY_AFTER)]

"""One request and its answer, with the session between the application and the server: `Exchange`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from stickygw.errors import SessionEnded, SessionUnavailable
from stickygw.middleware.client import Client
from stickygw.middleware.cookies import varying
from stickygw.sessions.holders import SESSION_ENDED

log = logging.getLogger("stickygw.sessions")

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

RETRY_AFTER = b"1"
"""Seconds after which a client that was refused may come again."""

_HEADS = {"http.response.start", "websocket.accept", "websocket.http.response.start"}


class Exchange:
    """Has the `receive` and `send` that an application gets, in the place of the server's, for one request."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, client: Client) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._client = client
        self._session = client.session
        self._is_open = False  # a WebSocket, accepted and not closed by us
        self._is_taken_back = False  # the answer was ours, and the application's goes nowhere
        self._closing: asyncio.Task[None] | None = None

    async def receive(self) -> Message:
        """For the application. In a WebSocket, what was written to the session is saved before a wait, and what others
        wrote is there after it."""
        if self._is_open:
            await self.keep()
        message = await self._receive()
        if self._is_open and message["type"] == "websocket.receive":
            await self._session.freshen()
        return message

    async def send(self, message: Message) -> None:
        """For the application. The session is saved before the head of the answer leaves; where that cannot be, the
        answer is 503: the client must not take for done what is not."""
        if self._is_taken_back:
            if self._scope["type"] == "websocket":
                raise ConnectionResetError("the WebSocket is closed: its session is over, or could not be saved")
            return
        if message["type"] not in _HEADS:
            await self._send(message)
            return
        try:
            if self._session.is_dirty:
                await self._session.save()
        except (SessionUnavailable, SessionEnded) as error:
            log.warning("an answer is taken back, because its session was not saved: %s", error)
            await self.refuse()
            return
        is_opening = message["type"] == "websocket.accept"
        fields = list(message.get("headers", ()))
        if self._session.is_accessed and not is_opening:
            fields = varying(fields)
        await self._send({**message, "headers": self._client.told(fields, is_opening=is_opening)})
        if is_opening:
            self._is_open = True
            self._client.watch(self.close)

    async def refuse(self) -> None:
        """Answer 503 in the application's place; without the extension for that, a WebSocket gets the server's 403."""
        self._is_taken_back = True
        kind = "http.response"
        if self._scope["type"] == "websocket":
            if "websocket.http.response" not in (self._scope.get("extensions") or {}):
                await self._send({"type": "websocket.close", "code": 1013, "reason": "sessions are not available"})
                return
            kind = "websocket.http.response"
        fields = [(b"content-type", b"text/plain; charset=utf-8"), (b"retry-after", RETRY_AFTER)]
        await self._send({"type": f"{kind}.start", "status": 503, "headers": fields})
        await self._send({"type": f"{kind}.body", "body": b"sessions are not available\n"})

    def close(self) -> None:
        """Close the WebSocket, because its session has ended. Idempotent."""
        if self._is_open and not self._is_taken_back:
            self._is_taken_back = True
            self._closing = asyncio.create_task(self._close(), name="session closer")

    async def keep(self) -> None:
        """Save the session where the answer has left already: what fails is told to the log, and tried again next time.

        Raises what is the application's own fault: `SessionValueError`, and `RuntimeError` where no answer told the
        client of its new session.
        """
        try:
            await self._session.keep()
        except SessionUnavailable as error:
            log.error("a session was not written: %s", error)
        except SessionEnded as error:
            log.warning("a session was not written: %s", error)
            self.close()

    async def keep_after_error(self) -> None:
        """`keep`, where the application has raised: that error goes on."""
        try:
            await self.keep()
        except Exception:
            log.exception("a session was not written, behind an error")

    async def end(self) -> None:
        """The application is done: nobody watches any more, and what `close` has begun is waited for."""
        self._client.leave()
        if self._closing is not None:
            await asyncio.wait({self._closing})

    async def _close(self) -> None:
        code, reason = SESSION_ENDED
        try:
            await self._send({"type": "websocket.close", "code": code, "reason": reason})
        except Exception as error:  # noqa: BLE001 - servers differ in what they raise for one that is closed already
            log.debug("a WebSocket whose session ended was not closed: %r", error)

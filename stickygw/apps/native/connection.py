"""`Connection`: one WebSocket as the application sees it, and the order in which its handlers run."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from stickygw.apps.native.awaitables import DONE
from stickygw.apps.native.codec import DecodeError
from stickygw.apps.native.handlers import BoundHandler, PathHandlers
from stickygw.apps.native.request import Request
from stickygw.apps.native.runtime import Runtime, settled
from stickygw.connections.transport import HIGH_WATER_BYTES
from stickygw.connections.websocket import CLOSE_SECONDS, WebSocket
from stickygw.errors import ConnectionClosed, SessionUnavailable, SessionValueError
from stickygw.sessions.session import Session
from stickygw.types import ConnectionId
from stickygw.wire.prepared import PreparedMessage

log = logging.getLogger("stickygw.app")

INBOX_MESSAGES = 16
"""Messages that may wait for a busy handler before the client is no longer read. Pings before them are answered."""

INBOX_BYTES = 64 * 1024
"""The same in bytes: no more than this and one message wait."""


class Connection:
    """One WebSocket. `id` is its own; `request` is what opened it; `session` is shared with the client's other tabs.

    Methods act when they are called. What `send`, `join` and `publish` return may be awaited: for back-pressure, and
    for `join` until the room is heard on all workers.
    """

    __slots__ = (
        "_closed",
        "_handlers",
        "_inbox",
        "_inbox_bytes",
        "_on_ended",
        "_rooms",
        "_runtime",
        "_state",
        "_task",
        "_waiter",
        "_websocket",
        "id",
        "request",
        "session",
    )

    def __init__(
        self,
        runtime: Runtime,
        request: Request,
        session: Session,
        handlers: PathHandlers,
        on_ended: Callable[[], None],
    ) -> None:
        self._runtime = runtime
        self._handlers = handlers
        self._on_ended = on_ended
        self._websocket: WebSocket | None = None
        self._inbox: deque[str | bytes] = deque()
        self._inbox_bytes = 0
        self._task: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._rooms: set[str] = set()
        self._state: dict[str, Any] | None = None
        self._closed: ConnectionClosed | None = None
        self.id = ConnectionId(secrets.token_hex(8))
        self.request = request
        self.session = session

    def __repr__(self) -> str:
        return f"<Connection {self.id} {'open' if self._closed is None else self._closed}>"

    # For the application

    @property
    def state(self) -> dict[str, Any]:
        """The application's own values about this connection."""
        if self._state is None:
            self._state = {}
        return self._state

    @property
    def rooms(self) -> frozenset[str]:
        """The rooms this connection has joined; after its end, those it was in."""
        return frozenset(self._rooms)

    @property
    def is_open(self) -> bool:
        """Whether a message can be sent."""
        return self._websocket is not None and self._websocket.is_open

    def send(self, message: Any) -> Awaitable[None]:
        """Send `message`. Raises `ConnectionClosed` when the connection has ended or is closing."""
        websocket = self._open_websocket()
        websocket.send(self._runtime.app.codec.encode(message))
        return DONE if websocket.unsent_bytes < HIGH_WATER_BYTES else websocket.drained()

    def join(self, room: str) -> Awaitable[None]:
        """Become a member of `room` now. Awaited, it is done when the bridge hears the room, or after a bounded wait.

        Raises `RoomNameError` for a name that no room can have.
        """
        self._open_websocket()
        is_first = self._runtime.hub.join(room, self)
        self._rooms.add(room)
        return self._runtime.bridge.subscribe(room) if is_first else DONE

    def leave(self, room: str) -> None:
        """Be a member of `room` no more."""
        self._rooms.discard(room)
        if self._runtime.hub.leave(room, self):
            self._runtime.bridge.unsubscribe(room)

    def publish(self, room: str, message: Any, *, exclude: Connection | None = None) -> Awaitable[None]:
        """`App.publish`. This connection gets the message too if it is a member, unless ``exclude=conn``."""
        return self._runtime.app.publish(room, message, exclude=exclude)

    def close(self, code: int = 1000, reason: str = "", *, within: float = CLOSE_SECONDS) -> None:
        """Begin the closing handshake; the TCP connection ends `within` seconds. Idempotent."""
        if self._websocket is not None:
            self._websocket.close(code, reason, within=within)

    async def receive(self) -> Any:
        """The next message, in an ``@app.handler`` coroutine. Raises `ConnectionClosed` at the end."""
        await self._flush_session()
        while True:
            if self._inbox:
                try:
                    return self._runtime.app.codec.decode(self._take())
                except DecodeError as error:
                    self._refuse_message(error)
            if self._closed is not None:
                raise self._closed
            self._waiter = self._runtime.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def __aiter__(self) -> Connection:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self.receive()
        except ConnectionClosed:
            raise StopAsyncIteration from None

    # For the hub

    def deliver(self, message: PreparedMessage) -> None:
        """A message to one of its rooms."""
        if self._websocket is not None:
            self._websocket.send(message)

    # For the endpoint that opened it

    async def run(self, websocket: WebSocket, data: bytes) -> None:
        """Serve the open WebSocket; `data` came behind its handshake. Returns when the first burst is handled."""
        self._websocket = websocket
        self._task = asyncio.current_task()
        self._runtime.opened(self)
        self._runtime.keep_alive.watch(websocket)
        websocket.start(data)
        is_entered = self._handlers.connect is None or await self._call(self._handlers.connect, self)
        if self._handlers.coroutine is not None and is_entered:
            await self._call(self._handlers.coroutine, self)
            self.close()
        await self._work()

    # What the WebSocket tells

    def message_received(self, message: str | bytes) -> None:
        self._inbox.append(message)
        self._inbox_bytes += len(message)
        if self._waiter is not None:
            if not self._waiter.done():
                self._waiter.set_result(None)
        elif self._task is None:
            handler = self._handlers.message
            if handler is not None and not handler.is_async and not self.session.is_dirty:
                self._call_now(handler)
            else:
                self._task = self._runtime.spawn(self._work())
        if (len(self._inbox) >= INBOX_MESSAGES or self._inbox_bytes >= INBOX_BYTES) and self._websocket is not None:
            self._websocket.pause()

    def connection_ended(self, code: int, reason: str) -> None:
        runtime = self._runtime
        self._closed = ConnectionClosed(code, reason)
        self._on_ended()
        if self._websocket is not None:
            runtime.keep_alive.forget(self._websocket)
        for room in runtime.hub.leave_all(self):
            runtime.bridge.unsubscribe(room)
        if self._waiter is not None:
            if not self._waiter.done():
                self._waiter.set_result(None)
        elif self._task is None:
            self._task = runtime.spawn(self._work())

    # The order of handlers

    async def _work(self) -> None:
        """Handle what is in the inbox, then, if the connection is over, its end. One task at a time does this."""
        handler = self._handlers.message
        while self._inbox:
            message = self._take()
            if handler is None or self._handlers.coroutine is not None:
                continue  # nobody wants it
            try:
                value = self._runtime.app.codec.decode(message)
            except DecodeError as error:
                self._refuse_message(error)
                break
            await self._call(handler, self, value)
        if self._closed is not None:
            await self._end(self._closed)
        self._task = None

    def _call_now(self, handler: BoundHandler) -> None:
        """A ``def`` handler, with nothing before it and nothing to write behind it, needs no task."""
        try:
            value = self._runtime.app.codec.decode(self._take())
        except DecodeError as error:
            self._refuse_message(error)
            return
        try:
            handler.function(self, value, **handler.arguments)
        except Exception as error:  # noqa: BLE001 - whatever the application raises ends its connection only
            self._task = self._runtime.spawn(self._fail(error))
            return
        if self.session.is_dirty:
            self._task = self._runtime.spawn(self._work_after_flush())

    async def _work_after_flush(self) -> None:
        await self._flush_session()
        await self._work()

    async def _fail(self, error: Exception) -> None:
        await self._failed(error)
        await self._flush_session()
        await self._work()

    async def _call(self, handler: BoundHandler, *arguments: Any) -> bool:
        """Run one handler, and say whether it came to its end; whatever it raises ends this connection only."""
        has_ended = True
        try:
            result = handler.function(*arguments, **handler.arguments)
            if handler.is_async:
                await result
        except Exception as error:  # noqa: BLE001 - see above
            has_ended = False
            await self._failed(error)
        if self.session.is_dirty:
            await self._flush_session()
        return has_ended

    async def _failed(self, error: Exception) -> None:
        if isinstance(error, ConnectionClosed) and not self.is_open:
            return  # the client left while the handler was at work
        self._runtime.counters.add("handler_errors", type(error).__name__)
        log.error("connection %s: a handler raised", self.id, exc_info=error)
        for function in self._runtime.app.handlers.error:
            try:
                await settled(function(self, error))
            except Exception:
                log.exception("connection %s: on_error raised", self.id)
        self._drop_inbox()
        self.close(1011, "internal error")

    def _refuse_message(self, error: DecodeError) -> None:
        self._runtime.counters.add("messages_refused", "codec")
        log.info("connection %s: %s", self.id, error)
        self._drop_inbox()
        self.close(1007, "the message cannot be decoded")

    async def _end(self, closed: ConnectionClosed) -> None:
        if self._handlers.disconnect is not None:
            await self._call(self._handlers.disconnect, self, closed.code, closed.reason)
        try:
            await self.session.touch()
        except SessionUnavailable as error:
            log.warning("connection %s: its session was not touched: %s", self.id, error)
        self._runtime.sessions.release(self.session)
        self._runtime.closed(self)

    async def _flush_session(self) -> None:
        """Write what the handler changed. What cannot be written stays dirty and is tried after the next handler."""
        if not self.session.is_dirty:
            return
        try:
            await self.session.flush()
        except SessionUnavailable as error:
            self._runtime.counters.add("session_writes_failed")
            log.error("connection %s: its session was not written: %s", self.id, error)
        except SessionValueError as error:  # a list or dict in it was changed to hold what it cannot keep
            await self._failed(error)

    # Small parts

    def _take(self) -> str | bytes:
        message = self._inbox.popleft()
        self._inbox_bytes -= len(message)
        if not self._inbox and self._websocket is not None and self._websocket.is_paused:
            self._websocket.resume()
        return message

    def _drop_inbox(self) -> None:
        self._inbox.clear()
        self._inbox_bytes = 0

    def _open_websocket(self) -> WebSocket:
        if self._closed is not None:
            raise self._closed
        if self._websocket is None or not self._websocket.is_open:
            raise ConnectionClosed(1006, "closing")
        return self._websocket

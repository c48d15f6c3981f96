"""The order in which one connection's handlers run: `Turns`.

One owner at a time runs handlers, be it a task or a ``def`` handler called straight from the socket. It begins with
``on_connect``, goes on with what is in the inbox, and ends, once the WebSocket is over, with ``on_disconnect``.
Whatever a handler raises ends this connection only; whatever else goes wrong leaves nothing of it behind.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextvars import Token
from functools import partial
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from stickygw.apps.native.awaitables import NEXT_TURN
from stickygw.apps.native.codec import DecodeError
from stickygw.apps.native.handlers import BoundHandler, PathHandlers
from stickygw.apps.native.runtime import Runtime, settled
from stickygw.apps.native.session_turns import end_with_session, freshen_session, has_work, keep_session
from stickygw.apps.native.traffic import Traffic
from stickygw.connections.websocket import WebSocket
from stickygw.errors import ConnectionClosed, ConnectionMoved, SessionEnded
from stickygw.observability.context import connection_id
from stickygw.observability.formats import fields
from stickygw.types import ConnectionId

if TYPE_CHECKING:
    from stickygw.apps.native.connection import Connection

log = logging.getLogger("stickygw.app")

INBOX_MESSAGES = 16
"""Messages that may wait for a busy handler before the client is no longer read. Pings before them are answered."""

INBOX_BYTES = 64 * 1024
"""The same in bytes: no more than this and one message wait."""

MESSAGES_PER_TURN = 64
"""Messages that one task handles before other connections have their turn."""


class Turns:
    """What runs for one connection, and what waits. `on_ended` is called once, when its last handler is done."""

    __slots__ = (
        "_connection",
        "_handlers",
        "_inbox",
        "_inbox_bytes",
        "_is_busy",
        "_is_held",
        "_is_over",
        "_is_receiving",
        "_on_ended",
        "_on_idle",
        "_on_rest",
        "_received",
        "_runtime",
        "_waiter",
        "_websocket",
        "closed",
    )

    def __init__(
        self, connection: Connection, runtime: Runtime, handlers: PathHandlers, on_ended: Callable[[], None]
    ) -> None:
        self._connection = connection
        self._runtime = runtime
        self._handlers = handlers
        self._on_ended = on_ended
        self._websocket: WebSocket | None = None
        self._inbox: deque[str | bytes] = deque()
        self._inbox_bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._received = 0
        self._is_receiving = False
        self._is_busy = False  # there is an owner
        self._is_over = False  # the last handler is done
        self._is_held = False  # no further handler begins
        self._on_idle: Callable[[], None] | None = None
        self._on_rest: Callable[[], None] | None = None
        self.closed: ConnectionClosed | None = None

    async def open(self, websocket: WebSocket, data: bytes) -> None:
        """Serve the open WebSocket from ``on_connect`` on; `data` came behind its handshake.

        Returns when nothing is left to do for now.
        """
        self._websocket = websocket
        self._is_busy = True
        websocket.start(data)
        await self._own(self._first_turns())

    async def receive(self) -> Any:
        """The next message for the application's own loop.

        Raises `ConnectionClosed`, and `RuntimeError` when another coroutine waits for it already.
        """
        if self._is_receiving:
            raise RuntimeError("this connection is being received from already; one coroutine at a time")
        self._is_receiving = True
        try:
            await keep_session(self._runtime, self._connection)
            self._received += 1
            if self._received % MESSAGES_PER_TURN == 0:
                await NEXT_TURN
            return await self._next()
        finally:
            self._is_receiving = False

    async def _next(self) -> Any:
        while True:
            if self._inbox:
                # Before a message is taken: if this is cancelled, none is lost.
                await freshen_session(self._runtime, self._connection)
            if self._inbox:
                try:
                    return self._runtime.app.codec.decode(self._take())
                except DecodeError as error:
                    self._refuse_message(error)
            if self._on_idle is not None:
                self._on_idle()
            if self.closed is not None:
                raise self.closed
            self._waiter = self._runtime.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def drop_inbox(self) -> None:
        """What was received and not handled yet is nobody's any more."""
        self._inbox.clear()
        self._inbox_bytes = 0

    def when_idle(self, call: Callable[[], None]) -> None:
        """Take no more messages; call `call` (idempotent) when those that are here are handled, the session written."""
        self._on_idle = call
        # A waiter that is done is about to take a message.
        if not self._is_busy or (self._waiter is not None and not self._waiter.done()):
            call()
        elif self._websocket is not None:
            self._websocket.pause()

    # A move to another worker

    @property
    def can_move(self) -> bool:
        """Whether it is all data between two handlers: not an ``@app.handler`` coroutine, nor what is ending."""
        return self._handlers.coroutine is None and self.closed is None and self._on_idle is None

    @property
    def is_coroutine(self) -> bool:
        """Whether one coroutine serves it all its life."""
        return self._handlers.coroutine is not None

    @property
    def is_at_rest(self) -> bool:
        """Whether no handler runs, and none begins."""
        return self._is_held and not self._is_busy

    def hold(self, on_rest: Callable[[], None]) -> None:
        """Begin no further handler until `go_on`; call `on_rest` when none runs: at once perhaps."""
        self._is_held, self._on_rest = True, on_rest
        if self._websocket is not None:
            self._websocket.pause()
        self._tell_if_at_rest()

    def go_on(self) -> None:
        """Handle messages again, first those that wait."""
        self._is_held, self._on_rest = False, None
        if not self._is_busy and (self._inbox or (self.closed is not None and not self._is_over)):
            self._become_task(None)
        self._read_if_there_is_room()

    def _read_if_there_is_room(self) -> None:
        if len(self._inbox) < INBOX_MESSAGES and self._inbox_bytes < INBOX_BYTES and self._websocket is not None:
            self._websocket.resume()

    @property
    def inbox(self) -> tuple[str | bytes, ...]:
        """The messages that wait for the handler."""
        return tuple(self._inbox)

    def go_on_with(self, websocket: WebSocket, inbox: Iterable[str | bytes], values: Sequence[Any]) -> None:
        """Serve a WebSocket that another worker has served: ``on_move_in`` with `values`, the messages of `inbox`, then
        what comes."""
        self._websocket = websocket
        for message in inbox:
            self._inbox.append(message)
            self._inbox_bytes += len(message)
        self._is_held = self._is_busy = True
        websocket.start(b"")
        self._is_held, self._is_busy = False, False
        self._become_task(self._moved_in(values) if self._runtime.app.handlers.move_in else None)
        self._read_if_there_is_room()

    async def _moved_in(self, values: Sequence[Any]) -> None:
        for function, value in zip_longest(self._runtime.app.handlers.move_in, values):
            if function is None:
                return  # the old code had more to say
            if not await self._settle(partial(function, self._connection, value)):
                return

    def let_go(self) -> None:
        """Another worker has it now: nothing runs here any more, ``on_disconnect`` neither, and nobody is told an
        end."""
        self.drop_inbox()
        self.closed = ConnectionMoved()
        self._is_over = True
        self._runtime.moved(self._connection)

    def _tell_if_at_rest(self) -> None:
        if self._on_rest is not None and not self._is_busy:
            on_rest, self._on_rest = self._on_rest, None
            on_rest()

    def count_into(self, traffic: Traffic) -> None:
        """Add its messages so far, and those that wait."""
        websocket = self._websocket
        if websocket is not None:
            traffic.received += websocket.received_messages
            traffic.sent += websocket.sent_messages
            traffic.queued += len(self._inbox) + websocket.unsent_writes

    # What the WebSocket tells

    def message_received(self, message: str | bytes) -> None:
        self._inbox.append(message)
        self._inbox_bytes += len(message)
        if self._waiter is not None:
            self._wake_waiter()
        elif not self._is_busy and not self._is_held:
            handler = self._handlers.message
            if handler is None or handler.is_async or self._connection.session.is_stale:
                self._become_task(None)
            else:
                self._call_now(handler)
        if (len(self._inbox) >= INBOX_MESSAGES or self._inbox_bytes >= INBOX_BYTES) and self._websocket is not None:
            self._websocket.pause()

    def connection_ended(self, code: int, reason: str) -> None:
        self.closed = ConnectionClosed(code, reason)
        self._connection.detach()
        if self._waiter is not None:
            self._wake_waiter()
        if not self._is_busy:
            self._become_task(None)

    # The owner

    def _become_task(self, first: Coroutine[Any, Any, None] | None) -> None:
        self._is_busy = True
        self._runtime.spawn(self._own(first))

    async def _own(self, first: Coroutine[Any, Any, None] | None) -> None:
        """Do `first`, then everything that waits. Only the owner calls handlers."""
        self._name_context()  # this task's own
        try:
            if first is not None:
                await first
            await self._work()
        except BaseException:  # this task was cancelled, or it is a defect of ours
            assert self._websocket is not None
            self._websocket.abort()
            self._let_go()
            raise
        finally:
            self._is_busy = False
            self._tell_if_at_rest()

    async def _first_turns(self) -> None:
        handlers, is_well = self._handlers, True
        if handlers.connect is not None:
            is_well = await self._call(handlers.connect)
        if handlers.coroutine is not None and is_well:
            await self._call(handlers.coroutine)
            self._connection.close()

    async def _work(self) -> None:
        """Handle what is in the inbox, then, if the connection is over, its end."""
        handler = self._handlers.message if self._handlers.coroutine is None else None
        handled = 0
        while self._inbox and not (self._is_held and self.closed is None):
            message = self._take()
            if handler is None:
                continue  # nobody wants it
            try:
                value = self._runtime.app.codec.decode(message)
            except DecodeError as error:
                self._refuse_message(error)
                break
            await self._call(handler, value)
            handled += 1
            if handled % MESSAGES_PER_TURN == 0:
                await NEXT_TURN
        if self._on_idle is not None:
            self._on_idle()
        if self.closed is not None and not self._is_over:
            await self._end(self.closed)

    async def _end(self, closed: ConnectionClosed) -> None:
        try:
            if self._handlers.disconnect is not None:
                await freshen_session(self._runtime, self._connection)
                # Also for a session that has ended: this runs exactly once.
                await self._run(self._handlers.disconnect, closed.code, closed.reason)
            await keep_session(self._runtime, self._connection)
        finally:
            self._let_go()

    def _let_go(self) -> None:
        """Whatever holds this connection forgets it. Idempotent."""
        if not self._is_over:
            self._is_over = True
            self._runtime.closed(self._connection)
            self._on_ended()

    # One handler

    def _call_now(self, handler: BoundHandler) -> None:
        """A ``def`` handler needs no task, unless something must be awaited behind it."""
        self._is_busy = True
        token = self._name_context()
        try:
            rest = self._called(handler)
        finally:
            if token is not None:
                connection_id.reset(token)
        if rest is None and self.closed is None and not self._inbox:
            self._is_busy = False
        else:
            self._become_task(rest)

    def _called(self, handler: BoundHandler) -> Coroutine[Any, Any, None] | None:
        """Handle the oldest message; what is left to be awaited."""
        try:
            value = self._runtime.app.codec.decode(self._take())
        except DecodeError as error:
            self._refuse_message(error)
            return None
        try:
            result = handler.function(self._connection, value, **handler.arguments)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - `_fail` logs it
            return self._fail(error)
        if inspect.isawaitable(result):  # a decorator hid that it is ``async def``
            return self._call_rest(result)
        return keep_session(self._runtime, self._connection) if has_work(self._connection.session) else None

    async def _call_rest(self, result: Any) -> None:
        await self._settle(lambda: result)

    async def _call(self, handler: BoundHandler, *arguments: Any) -> bool:
        """Run one handler, unless the session has ended; whether it ended well."""
        return await freshen_session(self._runtime, self._connection) and await self._run(handler, *arguments)

    async def _run(self, handler: BoundHandler, *arguments: Any) -> bool:
        return await self._settle(lambda: handler.function(self._connection, *arguments, **handler.arguments))

    async def _settle(self, call: Callable[[], Any]) -> bool:
        try:
            result = call()
            if inspect.isawaitable(result):
                await result
        except (Exception, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise  # it is meant for us
            await self._fail(error)
            return False
        if has_work(self._connection.session):
            await keep_session(self._runtime, self._connection)
        return True

    async def _fail(self, error: BaseException) -> None:
        """A handler raised `error`: tell, and close with 1011."""
        if isinstance(error, ConnectionClosed) and not self._connection.is_open:
            await keep_session(self._runtime, self._connection)
            return  # the client left while the handler was at work
        if isinstance(error, SessionEnded):
            end_with_session(self._connection, error)
            return
        self._runtime.counters.add("handler_errors", type(error).__name__)
        log.error("a handler raised", exc_info=error, extra=self._named)
        for function in self._runtime.app.handlers.error:
            try:
                await settled(function(self._connection, error))
            except Exception:
                log.exception("on_error raised", extra=self._named)
        self._connection.close(1011, "internal error")
        await keep_session(self._runtime, self._connection)

    def _refuse_message(self, error: DecodeError) -> None:
        self._runtime.counters.add("messages_refused", "codec")
        log.info("%s", error, extra=self._named)
        self._connection.close(1007, "the message cannot be decoded")

    # Small parts

    def _name_context(self) -> Token[ConnectionId | None] | None:
        """Let what handlers log carry the connection's id; what undoes it, if anything was done.

        Mostly nothing is: the socket's reader has the context of the task that opened the connection, and tasks inherit
        it. But a client that was slow is read again from the callback of whichever connection wrote to it.
        """
        id = self._connection.id
        return None if connection_id.get() is id else connection_id.set(id)

    @property
    def _named(self) -> dict[str, Any]:
        """Whose record it is: `receive` may run in a task of the application's, outside of the handlers."""
        return fields(connection=self._connection.id)

    def _take(self) -> str | bytes:
        message = self._inbox.popleft()
        self._inbox_bytes -= len(message)
        if (
            not self._inbox
            and self._on_idle is None
            and not self._is_held
            and self._websocket is not None
            and self._websocket.is_paused
        ):
            self._websocket.resume()
        return message

    def _wake_waiter(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

"""What waits to be sent to a WebSocket of an ASGI application: `Deliveries`."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from stickygw.apps.asgi.connection import serving
from stickygw.apps.asgi.outbox import Outbox, cost_of
from stickygw.apps.asgi.websocket_connection import WebSocketConnection
from stickygw.connections.sending import SLOW_CLOSE_SECONDS
from stickygw.types import SlowConsumer

if TYPE_CHECKING:
    from stickygw.apps.native.runtime import Runtime
    from stickygw.bridge.hub import Member

log = logging.getLogger("stickygw.app")


class AsgiWebSocket(Protocol):
    """Starlette's and FastAPI's `WebSocket`, or what does the same."""

    def send_text(self, data: str, /) -> Awaitable[None]: ...

    def send_bytes(self, data: bytes, /) -> Awaitable[None]: ...

    def close(self, code: int, reason: str, /) -> Awaitable[None]: ...


class Deliveries:
    """Sends to `websocket` what it is given, in order, in one task while there is some.

    A client is slow for which more than ``outbox_bytes`` wait, but for a single large message, or something waits for
    longer than ``outbox_seconds``. It is closed with 1013 and counted. What its room drops rather than close (the
    `SlowConsumer` of `add`) waits as long as it has to, and is dropped and counted where it is too much. Once the
    WebSocket is closed, by whomever, nothing is sent any more.

    It is closed beneath the application, where that can be: there a close does not wait behind what is not read, and
    a handler that sends at that moment is told of a client that has gone, not of a mistake of its own.
    """

    __slots__ = (
        "_connection",
        "_context",
        "_is_shut",
        "_outbox",
        "_runtime",
        "_sender",
        "_shut_when_sent",
        "_tasks",
        "_websocket",
        "is_over",
    )

    def __init__(self, websocket: AsgiWebSocket, runtime: Runtime) -> None:
        self._runtime = runtime
        self._websocket = websocket
        self._connection = _connection_of(websocket)
        # The handler's: nothing is sent in the context of whoever published it.
        self._context = contextvars.copy_context()
        self._outbox = Outbox()
        self._sender: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()  # the sender, and one that closes
        self._shut_when_sent: Callable[[], None] | None = None
        self._is_shut = False  # whether the application's WebSocket is not told to close any more
        self.is_over = False
        """Whether nothing is taken any more."""

    def serve(self, member: Member) -> None:
        """Let what is meant for the WebSocket, or its session, go to `member`, which this is of."""
        if self._connection is not None:
            self._connection.members += (member,)

    def serve_no_more(self, member: Member) -> None:
        """Let it go to whom it went before; `serve` may have been called for another one since."""
        if self._connection is not None:
            self._connection.members = tuple(one for one in self._connection.members if one is not member)

    def add(self, data: str | bytes, policy: SlowConsumer = "disconnect") -> None:
        """Send `data` soon, if `policy` does not drop it; never waits."""
        if self.is_over:
            return
        runtime, outbox = self._runtime, self._outbox
        excess = outbox.cost + cost_of(data) - runtime.settings.outbox_bytes if outbox else 0
        if excess > 0 and policy == "drop_newest":
            runtime.counters.add("messages_dropped", "newest")
            return
        is_kept = policy == "disconnect"
        outbox.add(data, runtime.loop.time() + runtime.settings.outbox_seconds if is_kept else None)
        if excess > 0:
            runtime.counters.add("messages_dropped", "oldest", outbox.drop_oldest(excess))
            if is_kept and outbox.cost > runtime.settings.outbox_bytes:
                self._give_up_slow()
                return
        if self._connection is not None and not is_kept:
            self._connection.is_spared = True
        if self._sender is None:
            self._sender = self._spawn(self._send_all())

    async def finish(self, *, within: float) -> None:
        """Let what waits be sent, if that can be done `within` so many seconds; then send no more. A close that is
        under way is waited for no longer, either."""
        try:
            async with asyncio.timeout(within):
                while self._tasks:
                    await asyncio.wait(self._tasks)
        except TimeoutError:
            log.debug("%d messages of its rooms were not sent when a WebSocket's handler ended", len(self._outbox))
        finally:
            self._stop()
            self._is_shut = True  # what would close it now is a task for which nobody waits
            await self._end_tasks(within)

    async def _end_tasks(self, within: float) -> None:
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=within)

    async def _send_all(self) -> None:
        websocket, outbox = self._websocket, self._outbox
        try:
            while (delivery := outbox.begin()) is not None:
                data = delivery.data
                # Without a time of its own it ends with the connection, whose server looks after clients that are gone.
                async with asyncio.timeout_at(delivery.overdue_at) as deadline:
                    await (websocket.send_text(data) if isinstance(data, str) else websocket.send_bytes(data))
                outbox.end()
        except Exception as error:
            if deadline.expired():
                self._give_up_slow()
            elif _is_of_closed(websocket, error):
                self._stop()
            else:
                self._runtime.counters.add("deliver_failed", type(error).__name__)
                log.exception("a WebSocket failed to send what was published in its rooms; it is closed")
                self._give_up(1011, "internal error")
        finally:
            self._sender = None
            if self._connection is not None:
                self._connection.is_spared = False
            if self._shut_when_sent is not None:
                self._shut_when_sent()

    # The end

    def close(self, code: int, reason: str, *, within: float) -> None:
        """Close the WebSocket behind what waits; TCP ends `within` seconds. Idempotent, but the shortest time counts.

        What is not sent in time to leave the client `SLOW_CLOSE_SECONDS`, or half of `within`, is not sent.
        """
        loop = self._runtime.loop
        shut = partial(self._shut, code, reason, loop.time() + within)
        is_sending = self._sender is not None and (not self.is_over or self._shut_when_sent is not None)
        self.is_over = True
        if is_sending:
            self._shut_when_sent = self._shut_when_sent or shut
            loop.call_later(within - min(SLOW_CLOSE_SECONDS, within / 2), shut, context=self._context)
        else:
            shut()

    def _stop(self) -> None:
        self.is_over = True
        self._outbox.clear()

    def _give_up_slow(self) -> None:
        if self.is_over:
            return
        if self._connection is not None:  # it counts; the application's own close would wait behind what is not read
            self._stop()
            self._connection.close_slow()
        else:
            self._runtime.counters.add("connections_closed", "slow_consumer")
            self._give_up(1013, "slow consumer")

    def _give_up(self, code: int, reason: str) -> None:
        self._shut(code, reason, self._runtime.loop.time() + SLOW_CLOSE_SECONDS)

    def _shut(self, code: int, reason: str, ends_at: float) -> None:
        """Close the WebSocket now; what waits is not sent. Idempotent."""
        self._stop()
        if self._connection is not None:
            self._connection.close(code, reason, within=max(0.0, ends_at - self._runtime.loop.time()))
        elif not self._is_shut:
            self._is_shut = True
            self._spawn(self._close(code, reason, ends_at))

    async def _close(self, code: int, reason: str, ends_at: float) -> None:
        if self._sender is not None:
            self._sender.cancel()
        try:
            async with asyncio.timeout_at(ends_at):
                await self._websocket.close(code, reason)
        except TimeoutError:  # an OSError, too
            log.warning("a WebSocket could not be closed with %d in time", code)
        except Exception as error:
            if not _is_of_closed(self._websocket, error):
                log.warning("a WebSocket could not be closed with %d", code, exc_info=error)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._runtime.loop.create_task(coroutine, context=self._context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _connection_of(websocket: AsgiWebSocket) -> WebSocketConnection | None:
    """The connection beneath `websocket`, if it is the one that this task serves; None, for one: in a test."""
    connection = serving.get(None)
    scope = getattr(websocket, "scope", None)
    if isinstance(connection, WebSocketConnection) and scope is not None and connection.serves(scope):
        return connection
    return None


def _is_of_closed(websocket: AsgiWebSocket, error: Exception) -> bool:
    """Whether `error` only says that `websocket` is closed.

    Servers say it with an `OSError` (ASGI, WebSocket spec 2.4), Starlette with its own exception, or, for what comes
    behind the close, with a `RuntimeError`.
    """
    if isinstance(error, RuntimeError):
        return "DISCONNECTED" in (state(websocket, "client_state"), state(websocket, "application_state"))
    return isinstance(error, OSError) or type(error).__name__ == "WebSocketDisconnect"


def state(websocket: AsgiWebSocket, side: str) -> str | None:
    """The name of the state that Starlette keeps of a `side`, "client_state" or "application_state"; None: of none."""
    return getattr(getattr(websocket, side, None), "name", None)

"""`Connection`: one WebSocket as the application sees it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from stickygw.apps.native.awaitables import DONE, Later
from stickygw.apps.native.handlers import PathHandlers
from stickygw.apps.native.request import Request
from stickygw.apps.native.runtime import Runtime
from stickygw.apps.native.traffic import Traffic
from stickygw.apps.native.turns import Turns
from stickygw.connections.transport import HIGH_WATER_BYTES
from stickygw.connections.websocket import CLOSE_SECONDS, WebSocket
from stickygw.errors import ConnectionClosed
from stickygw.sessions.holders import SESSION_ENDED, Holder
from stickygw.sessions.session import Session
from stickygw.types import ConnectionId
from stickygw.wire.prepared import PreparedMessage

BUSY_SECONDS = 1.0
"""One that is sent away is closed after so long, even if its handler is still at work."""

MAX_REASON_BYTES = 123
"""A close frame has 125 bytes, two of them the code (RFC 6455 §5.5)."""

_SENDABLE = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})


class Connection:
    """One WebSocket. `id` is its own; `request` is what opened it; `session` is shared with the client's other tabs.

    Methods act when they are called. What `send`, `join` and `publish` return may be awaited: for back-pressure, and
    for `join` until the room is heard on all workers.
    """

    __slots__ = ("_holder", "_left_rooms", "_runtime", "_state", "_turns", "_websocket", "id", "request", "session")

    def __init__(
        self,
        runtime: Runtime,
        request: Request,
        session: Session,
        handlers: PathHandlers,
        on_ended: Callable[[], None],
        *,
        id: ConnectionId,
    ) -> None:
        self._runtime = runtime
        self._turns = Turns(self, runtime, handlers, on_ended)
        self._websocket: WebSocket | None = None
        self._holder: Holder | None = None
        self._left_rooms: frozenset[str] | None = None
        self._state: dict[str, Any] | None = None
        self.id = id
        self.request = request
        self.session = session

    def __repr__(self) -> str:
        return f"<Connection {self.id} {'open' if self._turns.closed is None else self._turns.closed}>"

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
        return frozenset(self._runtime.hub.rooms_of(self)) if self._left_rooms is None else self._left_rooms

    @property
    def is_open(self) -> bool:
        """Whether a message can be sent."""
        return self._websocket is not None and self._websocket.is_open

    def send(self, message: Any) -> Awaitable[None]:
        """Send `message`. Raises `ConnectionClosed` when the connection has ended or is closing."""
        websocket = self._open_websocket()
        websocket.send(self._runtime.app.codec.encode(message))
        return DONE if websocket.unsent_bytes < HIGH_WATER_BYTES else Later(websocket.drained)

    def join(self, room: str) -> Awaitable[None]:
        """Become a member of `room` now. Awaited, it is done when the bridge hears the room, or after a bounded wait.

        Raises `RoomNameError` for a name that no room can have.
        """
        self._open_websocket()
        return self._runtime.join(room, self)

    def leave(self, room: str) -> None:
        """Be a member of `room` no more."""
        self._runtime.leave(room, self)

    def publish(self, room: str, message: Any, *, exclude: Connection | None = None) -> Awaitable[None]:
        """`App.publish`. This connection gets the message too if it is a member, unless ``exclude=conn``."""
        return self._runtime.app.publish(room, message, exclude=exclude)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Begin the closing handshake. Messages that wait for a handler are dropped. Idempotent.

        Raises `ValueError` for a code that no close frame may carry (RFC 6455 §7.4), or a reason of over 123 bytes.
        """
        if code not in _SENDABLE and not 3000 <= code <= 4999:
            raise ValueError(
                f"{code} is no close code that can be sent: 1000 to 1014 as RFC 6455 has them, 3000 to 4999"
            )
        if len(reason.encode()) > MAX_REASON_BYTES:
            raise ValueError(f"a close reason has at most {MAX_REASON_BYTES} bytes")
        self._turns.drop_inbox()
        self.shut(code, reason)

    async def receive(self) -> Any:
        """The next message, in an ``@app.handler`` coroutine. Raises `ConnectionClosed` at the end.

        One coroutine at a time may wait for it; a second one gets a `RuntimeError`.
        """
        return await self._turns.receive()

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

    # For the worker

    @property
    def receiver(self) -> Turns:
        """Who the WebSocket's messages are for."""
        return self._turns

    def count_into(self, traffic: Traffic) -> None:
        """Add its messages so far, and those that wait."""
        self._turns.count_into(traffic)

    async def run(self, websocket: WebSocket, data: bytes, *, issued: int) -> None:
        """Serve the open WebSocket; `data` came behind its handshake. Returns when the first burst is handled.

        It is closed when its session ends, whose cookie was signed at `issued` (Unix seconds; 0: now).
        """
        self._websocket = websocket
        self._holder = self._runtime.sessions.watch(self.session.id, self._session_ended, issued=issued)
        self._runtime.opened(self)
        self._runtime.keep_alive.watch(websocket)
        await self._turns.open(websocket, data)

    def shut(self, code: int, reason: str, *, within: float = CLOSE_SECONDS) -> None:
        """Begin the closing handshake; what was received is still handled. TCP ends `within` seconds. Idempotent."""
        if self._websocket is not None:
            self._websocket.close(code, reason, within=within)

    def send_away(self, code: int, reason: str, *, within: float) -> None:
        """`shut`, but handlers that are at work may end first, if they do in `BUSY_SECONDS`.

        So whoever comes back at once, to another worker, finds in the session what it has said here.
        """
        patience = min(BUSY_SECONDS, within / 2)
        shut = partial(self.shut, code, reason, within=within - patience)
        self._turns.when_idle(shut)
        self._runtime.loop.call_later(patience, shut)

    def detach(self) -> None:
        """Its WebSocket is over: nothing watches or feeds it any more; which rooms it was in is remembered."""
        if self._holder is not None:
            self._runtime.sessions.unwatch(self._holder)
        if self._websocket is not None:
            self._runtime.keep_alive.forget(self._websocket)
        self._left_rooms = self.rooms
        self._runtime.leave_all(self)

    def _session_ended(self) -> None:
        self.close(*SESSION_ENDED)

    def _open_websocket(self) -> WebSocket:
        if self._turns.closed is not None:
            raise self._turns.closed
        if self._websocket is None or not self._websocket.is_open:
            raise ConnectionClosed(1006, "closing")
        return self._websocket

"""`Connection`: one WebSocket as the application sees it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Any

from stickygw.apps.native.awaitables import DONE, Later
from stickygw.apps.native.handlers import PathHandlers
from stickygw.apps.native.request import Request
from stickygw.apps.native.runtime import Runtime
from stickygw.apps.native.traffic import Traffic
from stickygw.apps.native.turns import Turns
from stickygw.bridge.addresses import check_room, is_room, user_address
from stickygw.connections.transport import HIGH_WATER_BYTES
from stickygw.connections.websocket import CLOSE_SECONDS, WebSocket
from stickygw.errors import ConnectionClosed
from stickygw.sessions.holders import SESSION_ENDED, Holder
from stickygw.sessions.session import Session
from stickygw.types import ConnectionId
from stickygw.wire.closing import check_close
from stickygw.wire.prepared import Batch

BUSY_SECONDS = 1.0
"""One that is sent away is closed after so long, even if its handler is still at work."""


class Connection:
    """One WebSocket. `id` is its own; `request` is what opened it; `session` is shared with the client's other tabs.

    Methods act when they are called. What `send`, `join` and `publish` return may be awaited: for back-pressure, and
    for `join` until the room is heard on all workers.
    """

    __slots__ = (
        "_holder",
        "_left_rooms",
        "_runtime",
        "_state",
        "_turns",
        "_user",
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
        *,
        id: ConnectionId,
    ) -> None:
        self._runtime = runtime
        self._turns = Turns(self, runtime, handlers, on_ended)
        self._websocket: WebSocket | None = None
        self._holder: Holder | None = None
        self._left_rooms: frozenset[str] | None = None
        self._state: dict[str, Any] | None = None
        self._user: str | None = None
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
        if self._left_rooms is not None:
            return self._left_rooms
        return frozenset(filter(is_room, self._runtime.hub.rooms_of(self)))

    @property
    def is_open(self) -> bool:
        """Whether a message can be sent."""
        return self._websocket is not None and self._websocket.is_open

    def send(self, message: Any) -> Awaitable[None]:
        """Send `message`. Raises `ConnectionClosed` when the connection has ended or is closing."""
        websocket = self._open_websocket()
        self._runtime.hub.catch_up(self)
        websocket.send(self._runtime.app.codec.encode(message))
        return DONE if websocket.unsent_bytes < HIGH_WATER_BYTES else Later(websocket.drained)

    def join(self, room: str) -> Awaitable[None]:
        """Become a member of `room` now. Awaited, it is done when the bridge hears the room, or after a bounded wait.

        Raises `RoomNameError` for a name that no room can have.
        """
        self._open_websocket()
        return self._runtime.audience.join(check_room(room), self)

    def leave(self, room: str) -> None:
        """Be a member of `room` no more. Raises `RoomNameError` for a name that no room can have."""
        self._runtime.audience.leave(check_room(room), self)

    def publish(
        self, room: str | Collection[str], message: Any, *, exclude: Connection | None = None
    ) -> Awaitable[None]:
        """`App.publish`. This connection gets the message too if it is a member, unless ``exclude=conn``."""
        return self._runtime.app.publish(room, message, exclude=exclude)

    @property
    def user(self) -> str | None:
        """Who is at it, as `identify` has said."""
        return self._user

    def identify(self, user: str | None) -> Awaitable[None]:
        """Say who is at it, so that `App.send_to_user` reaches it; None: nobody. Awaited, as with `join`.

        Raises `RoomNameError` for a name over 200 bytes, or with control characters.
        """
        self._open_websocket()
        audience, before = self._runtime.audience, self._user
        # First: in either, what it is given may be what ends it, and then it must be nowhere.
        heard = DONE if user is None else audience.join(user_address(user), self)
        self._user = user
        if before is not None and before != user:
            audience.leave(user_address(before), self)
        return heard

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Begin the closing handshake. Messages that wait for a handler are dropped. Idempotent.

        Raises `ValueError` for a code that no close frame may carry (RFC 6455 §7.4), or a reason of over 123 bytes.
        """
        check_close(code, reason)
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

    # For the hub, and messages that name it

    def is_meant(self, to: str) -> bool:
        """Whether `to` names it, or its session."""
        return to in (f"session:{self.session.id}", f"connection:{self.id}")

    def deliver(self, batch: Batch) -> None:
        """Messages of its rooms."""
        if self._websocket is not None:
            self._websocket.deliver(batch)

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
            self._runtime.hub.catch_up(self)
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
        self._runtime.audience.leave_all(self)

    def _session_ended(self) -> None:
        self.close(*SESSION_ENDED)

    def _open_websocket(self) -> WebSocket:
        if self._turns.closed is not None:
            raise self._turns.closed
        if self._websocket is None or not self._websocket.is_open:
            raise ConnectionClosed(1006, "closing")
        return self._websocket

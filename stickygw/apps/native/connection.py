"""`Connection`: one WebSocket as the application sees it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from stickygw.apps.native.awaitables import DONE, Later
from stickygw.apps.native.carried import Carried, CarriedRequest, CarriedSession
from stickygw.apps.native.handlers import PathHandlers
from stickygw.apps.native.key_state import text_of
from stickygw.apps.native.request import Request
from stickygw.apps.native.runtime import Runtime
from stickygw.apps.native.state import State
from stickygw.apps.native.traffic import Traffic
from stickygw.apps.native.turns import Turns
from stickygw.bridge.addresses import check_room, is_room, user_address
from stickygw.connections.flow import HIGH_WATER_BYTES
from stickygw.connections.sending import CLOSE_SECONDS
from stickygw.connections.websocket import WebSocket
from stickygw.errors import ConnectionClosed, ConnectionMoved
from stickygw.sessions.holders import SESSION_ENDED, Holder
from stickygw.sessions.session import Session
from stickygw.wire.closing import check_close
from stickygw.wire.prepared import Batch

if TYPE_CHECKING:
    from stickygw.apps.native.ending import Ending
    from stickygw.wire.link import Offer

BUSY_SECONDS = 1.0
"""One that is sent away is closed after so long, even if its handler is still at work."""


class Connection:
    """One WebSocket. `id` is its own; `request` is what opened it; `session` is shared with the client's other tabs.

    Methods act when they are called; while it is on its way to another worker, and after that, they raise
    `ConnectionMoved`. What `send`, `join` and `publish` return may be awaited: for back-pressure, and
    for `join` until the room is heard on all workers.
    """

    __slots__ = (
        "_ending",
        "_holder",
        "_is_leaving",
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
        ending: Ending,
    ) -> None:
        self._runtime = runtime
        self._turns = Turns(self, runtime, handlers, ending.closed)
        self._ending = ending
        self._websocket: WebSocket | None = None
        self._holder: Holder | None = None
        self._is_leaving = False  # frozen: it is about to be another worker's
        self._left_rooms: frozenset[str] | None = None
        self._state: State | None = None
        self._user: str | None = None
        self.id = ending.id
        self.request = request
        self.session = session

    def __repr__(self) -> str:
        return f"<Connection {self.id} {'open' if self._turns.closed is None else self._turns.closed}>"

    # For the application

    @property
    def state(self) -> dict[str, Any]:
        """The application's own values about this connection, which move with it. See `State` for what they can be."""
        if self._state is None:
            self._state = State()
        return self._state

    @property
    def key(self) -> str | None:
        """The affinity key that it was routed by: the value that the client sent, one character for each byte
        (latin-1); with ``--key path:/match/{id}`` the id, in which only what no path can have raw is escaped. None: no
        key decided; then its cookie did, or nothing."""
        affinity = self._ending.offer.key
        return None if affinity is None else text_of(affinity)

    @property
    def rooms(self) -> frozenset[str]:
        """The rooms this connection has joined; after its end, those it was in."""
        if self._left_rooms is not None:
            return self._left_rooms
        return frozenset(filter(is_room, self._runtime.hub.rooms_of(self)))

    @property
    def offer(self) -> Offer:
        """How it was handed over, by the first worker that had it."""
        return self._ending.offer

    @property
    def is_websocket(self) -> bool:
        """It is: see `Served`."""
        return True

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
        self._check_not_leaving()
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
        self._check_not_leaving()
        self._end(code, reason)

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
        self._opened(websocket)
        await self._turns.open(websocket, data)

    # A move to another worker: docs/explanation/live-move.md

    @property
    def can_move(self) -> bool:
        """Whether it is open, and all data between two handlers."""
        return self._turns.can_move and self._websocket is not None and self._websocket.is_open

    @property
    def affinity_key(self) -> bytes | None:
        """`key` with its kind: see `stickygw.routing.keys`."""
        return self._ending.offer.key

    @property
    def is_at_rest(self) -> bool:
        """Whether it is held, and no handler runs."""
        return self._turns.is_at_rest

    def hold(self, on_rest: Callable[[], None]) -> None:
        """Begin no further handler until `go_on`; call `on_rest` when none runs: at once perhaps."""
        self._turns.hold(on_rest)

    def go_on(self) -> None:
        """Handle messages again: it does not move after all. Whoever froze its WebSocket thaws it first."""
        self._turns.go_on()

    def frozen(
        self, addresses: tuple[str, ...], groups: tuple[bytes, ...], values: tuple[Any, ...] = ()
    ) -> Carried | None:
        """Freeze it; what it is, `addresses` and `groups` being what its rooms say, `values` what ``on_move_out`` does.
        None: it can't now.

        Nothing is read or written from here on until `thaw`.
        """
        websocket = self._websocket
        if websocket is None or not self.can_move or not websocket.can_freeze:
            return None
        stored, unsaved = self.session.carried()
        request = self.request
        self._is_leaving = True
        return Carried(
            self.id,
            self._ending.offer,
            self._ending.open_seconds,
            CarriedRequest(request.path, request.query_string, list(request.headers.raw_items()), request.subprotocol),
            CarriedSession(
                self.session.id,
                None if self._holder is None else self._holder.ends_at,
                not self.session.is_new,
                stored,
                unsaved,
                self.session.touched_seconds,
                self.session.is_stale,
            ),
            self._user,
            self._state or {},
            values,
            addresses,
            groups,
            self._turns.inbox,
            websocket.freeze(),
        )

    def thaw(self, *, goes_on: bool = True) -> None:
        """It does not move after all: go on as if nothing had happened. Not `goes_on`: it is only to be closed."""
        self._is_leaving = False
        if self._websocket is not None:
            self._websocket.thaw()
        if goes_on:
            self._turns.go_on()

    def fileno(self) -> int:
        """The descriptor of its socket."""
        assert self._websocket is not None
        return self._websocket.fileno()

    def let_go(self) -> None:
        """Another worker has it: nothing of it is left here, and the client notices nothing."""
        assert self._websocket is not None
        self._websocket.let_go()
        self.detach()
        self._turns.let_go()

    def go_on_from(self, carried: Carried, websocket: WebSocket) -> None:
        """Be what another worker says that it was. `start` follows; until then nothing touches the socket."""
        self._user = carried.user
        self._state = State(carried.state) if carried.state else None
        self._websocket = websocket
        self._holder = self._runtime.sessions.watch(
            self.session.id, self._session_ended, ends_at=carried.session.ends_at
        )
        self._opened(websocket)

    def start(self, inbox: Sequence[str | bytes], values: Sequence[Any]) -> None:
        """Serve it: ``on_move_in`` with `values`, the messages of `inbox`, then what comes."""
        assert self._websocket is not None
        self._turns.go_on_with(self._websocket, inbox, values)

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

    def _opened(self, websocket: WebSocket) -> None:
        self._runtime.opened(self)
        self._runtime.keys.opened(self.affinity_key, self)
        self._runtime.keep_alive.watch(websocket)

    def _session_ended(self) -> None:
        self._end(*SESSION_ENDED)

    def _end(self, code: int, reason: str) -> None:
        self._turns.drop_inbox()
        self.shut(code, reason)

    def _open_websocket(self) -> WebSocket:
        if self._turns.closed is not None:
            raise self._turns.closed
        self._check_not_leaving()
        if self._websocket is None or not self._websocket.is_open:
            raise ConnectionClosed(1006, "closing")
        return self._websocket

    def _check_not_leaving(self) -> None:
        """What were done to it now, nobody would tell the other worker."""
        if self._is_leaving:
            raise ConnectionMoved

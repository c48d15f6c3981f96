"""`rooms`: a WebSocket of an ASGI application as a member of rooms."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Collection
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from stickygw.apps.asgi.deliveries import AsgiWebSocket, Deliveries, state
from stickygw.apps.current import current
from stickygw.bridge.addresses import check_room, is_room, user_address

if TYPE_CHECKING:
    from stickygw.apps.native.app import App
    from stickygw.bridge.hub import Member
    from stickygw.wire.prepared import Batch

EXIT_SECONDS = 1.0
"""What was delivered before a block's end may take so long to be sent."""


@asynccontextmanager
async def rooms(websocket: AsgiWebSocket) -> AsyncIterator[Rooms]:
    """Within the block the accepted `websocket` can be in rooms; what is published there is sent to it by itself.

    Its handler receives and sends as ever. At the end of the block it leaves all rooms; what was delivered before has
    `EXIT_SECONDS` to be sent. A client that is too slow for its rooms (``outbox_bytes``, ``outbox_seconds``) is closed
    with 1013, or misses messages, as ``slow_consumer`` says.

    Raises `OutsideGateway` where no gateway runs, `RuntimeError` if the WebSocket is not accepted.
    """
    app = current()
    if state(websocket, "application_state") == "CONNECTING":
        raise RuntimeError("a WebSocket joins rooms when it is accepted: first await websocket.accept()")
    member = Rooms(app, websocket)
    try:
        yield member
    finally:
        await member.end()


class Rooms:
    """The rooms of one WebSocket. The codec of the `App` makes messages of what is published, as text or as bytes.

    A WebSocket that is closed joins no room and gets nothing more; its handler hears of that where it receives.
    """

    __slots__ = ("_app", "_deliveries", "_has_ended", "_runtime", "_user")

    def __init__(self, app: App, websocket: AsgiWebSocket) -> None:
        self._app = app
        self._runtime = app.runtime
        self._deliveries = Deliveries(websocket, app.runtime)
        self._has_ended = False
        self._user: str | None = None  # their address
        self._deliveries.serve(self)

    @property
    def rooms(self) -> tuple[str, ...]:
        """Those it is in, in the order of joining."""
        return tuple(filter(is_room, self._runtime.hub.rooms_of(self)))

    async def join(self, room: str) -> None:
        """Become a member of `room`; returns when the bridge hears the room, or after a bounded wait.

        Raises `RoomNameError` for a name that no room can have, `RuntimeError` behind the block.
        """
        if self._has_ended:
            raise RuntimeError("rooms are joined within `async with rooms(websocket)`, and this block has ended")
        if not self._deliveries.is_over:
            await self._runtime.audience.join(check_room(room), self)

    async def leave(self, room: str) -> None:
        """Be a member of `room` no more. Raises `RoomNameError`, as `join` does."""
        self._runtime.audience.leave(check_room(room), self)

    async def identify(self, user: str | None) -> None:
        """Say who is at it, so that `App.send_to_user` reaches it; None: nobody. Returns as `join` does.

        Raises `RoomNameError` for a name over 200 bytes, or with control characters; `RuntimeError` behind the block.
        """
        address = None if user is None else user_address(user)
        if self._has_ended:
            raise RuntimeError("who is at a WebSocket is said within `async with rooms(websocket)`")
        if self._user is not None:
            self._runtime.audience.leave(self._user, self)
        self._user = address
        if address is not None and not self._deliveries.is_over:
            await self._runtime.audience.join(address, self)

    def publish(self, room: str | Collection[str], message: Any, *, exclude: Member | None = None) -> Awaitable[None]:
        """`App.publish`. This WebSocket gets the message too if it is a member, unless ``exclude=r``: this object."""
        return self._app.publish(room, message, exclude=exclude)

    def deliver(self, batch: Batch) -> None:
        """For the hub: messages of its rooms."""
        for message in batch.messages:
            self._deliveries.add(message.payload.decode() if message.is_text else message.payload, batch.policy)
        if self._deliveries.is_over:
            self._runtime.audience.leave_all(self)

    def send_away(self, code: int, reason: str, *, within: float) -> None:
        """For the hub: close the WebSocket, behind what was published before, if it is sent in time."""
        self._runtime.audience.leave_all(self)  # which gives it what it has not been given
        self._deliveries.close(code, reason, within=within)

    async def end(self) -> None:
        """The block ends: leave all rooms, and send what was delivered, within `EXIT_SECONDS`."""
        self._has_ended = True
        self._runtime.audience.leave_all(self)
        try:
            await self._deliveries.finish(within=EXIT_SECONDS)
        finally:
            self._deliveries.serve_no_more(self)

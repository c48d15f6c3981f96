"""`rooms`: a WebSocket of an ASGI application as a member of rooms."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from stickygw.apps.asgi.deliveries import AsgiWebSocket, Deliveries, state
from stickygw.apps.current import current

if TYPE_CHECKING:
    from stickygw.apps.native.app import App
    from stickygw.bridge.hub import Member
    from stickygw.wire.prepared import PreparedMessage

EXIT_SECONDS = 1.0
"""What was delivered before a block's end may take so long to be sent."""


@asynccontextmanager
async def rooms(websocket: AsgiWebSocket) -> AsyncIterator[Rooms]:
    """Within the block the accepted `websocket` can be in rooms; what is published there is sent to it by itself.

    Its handler receives and sends as ever. At the end of the block it leaves all rooms; what was delivered before has
    `EXIT_SECONDS` to be sent. A client that is too slow for its rooms (``outbox_bytes``, ``outbox_seconds``) is closed
    with 1013. Raises `OutsideGateway` where no gateway runs, `RuntimeError` if the WebSocket is not accepted.
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

    __slots__ = ("_app", "_deliveries", "_has_ended", "_runtime")

    def __init__(self, app: App, websocket: AsgiWebSocket) -> None:
        self._app = app
        self._runtime = app.runtime
        self._deliveries = Deliveries(websocket, app.runtime)
        self._has_ended = False

    @property
    def rooms(self) -> tuple[str, ...]:
        """Those it is in, in the order of joining."""
        return self._runtime.hub.rooms_of(self)

    async def join(self, room: str) -> None:
        """Become a member of `room`; returns when the bridge hears the room, or after a bounded wait.

        Raises `RoomNameError` for a name that no room can have, `RuntimeError` behind the block.
        """
        if self._has_ended:
            raise RuntimeError("rooms are joined within `async with rooms(websocket)`, and this block has ended")
        if not self._deliveries.is_over:
            await self._runtime.join(room, self)

    async def leave(self, room: str) -> None:
        """Be a member of `room` no more."""
        self._runtime.leave(room, self)

    def publish(self, room: str, message: Any, *, exclude: Member | None = None) -> Awaitable[None]:
        """`App.publish`. This WebSocket gets the message too if it is a member, unless ``exclude=r``: this object."""
        return self._app.publish(room, message, exclude=exclude)

    def deliver(self, message: PreparedMessage) -> None:
        """For the hub: a message to one of its rooms."""
        self._deliveries.add(message.payload.decode() if message.is_text else message.payload)
        if self._deliveries.is_over:
            self._runtime.leave_all(self)

    async def end(self) -> None:
        """The block ends: leave all rooms, and send what was delivered, within `EXIT_SECONDS`."""
        self._has_ended = True
        self._runtime.leave_all(self)
        await self._deliveries.finish(within=EXIT_SECONDS)

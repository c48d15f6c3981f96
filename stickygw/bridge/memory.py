"""A bridge inside one process: for one worker alone, and for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from stickygw.bridge.base import OnMessage
from stickygw.bridge.rooms import check_room
from stickygw.wire.prepared import PreparedMessage


class MemoryBus:
    """What the bridges of one process share, in the place of a store."""

    def __init__(self) -> None:
        self._receivers: dict[str, dict[MemoryBridge, None]] = {}

    def add(self, room: str, bridge: MemoryBridge) -> None:
        """`bridge` receives `room`."""
        self._receivers.setdefault(room, {})[bridge] = None

    def remove(self, room: str, bridge: MemoryBridge) -> None:
        """`bridge` receives `room` no more."""
        receivers = self._receivers.get(room, {})
        receivers.pop(bridge, None)
        if not receivers:
            self._receivers.pop(room, None)

    def receivers(self, room: str) -> tuple[MemoryBridge, ...]:
        """The bridges that receive `room`."""
        return tuple(self._receivers.get(room, ()))


class MemoryBridge:
    """A `Bridge` on a `MemoryBus`. Nothing is ever lost here, so it has no use for `OnGap`."""

    def __init__(self, bus: MemoryBus, *, on_message: OnMessage) -> None:
        self._bus = bus
        self._on_message = on_message
        self._rooms: set[str] = set()
        self._is_started = False

    @property
    def is_connected(self) -> bool:
        """Whether it was started and not stopped."""
        return self._is_started

    async def start(self) -> None:
        """Begin."""
        self._is_started = True

    async def stop(self) -> None:
        """End."""
        for room in self._rooms:
            self._bus.remove(room, self)
        self._rooms.clear()
        self._is_started = False

    def subscribe(self, room: str) -> Awaitable[None]:
        """See `Bridge.subscribe`; confirmed at once."""
        check_room(room)
        self._rooms.add(room)
        self._bus.add(room, self)
        confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        confirmed.set_result(None)
        return confirmed

    def unsubscribe(self, room: str) -> None:
        """See `Bridge.unsubscribe`."""
        self._rooms.discard(room)
        self._bus.remove(room, self)

    @property
    def backlog(self) -> int:
        """See `Bridge.backlog`: nothing ever waits here."""
        return 0

    async def wait_sent(self) -> None:
        """See `Bridge.wait_sent`."""

    def publish(self, room: str, message: PreparedMessage) -> None:
        """See `Bridge.publish`."""
        check_room(room)
        if not self._is_started:
            return
        loop = asyncio.get_running_loop()
        for bridge in self._bus.receivers(room):
            if bridge is not self:
                # Never within the publisher's own call: a real store does not call back either.
                loop.call_soon(bridge.receive, room, message)

    def receive(self, room: str, message: PreparedMessage) -> None:
        """Another bridge's message, unless the room was left meanwhile."""
        if room in self._rooms:
            self._on_message(room, message)

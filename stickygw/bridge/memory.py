"""A bridge inside one process: for one worker alone, and for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from stickygw.bridge.addresses import check_address
from stickygw.bridge.base import OnPublication, Publication


class MemoryBus:
    """What the bridges of one process share, in the place of a store."""

    def __init__(self) -> None:
        self._receivers: dict[str, dict[MemoryBridge, None]] = {}

    def add(self, address: str, bridge: MemoryBridge) -> None:
        """`bridge` receives `address`."""
        self._receivers.setdefault(address, {})[bridge] = None

    def remove(self, address: str, bridge: MemoryBridge) -> None:
        """`bridge` receives `address` no more."""
        receivers = self._receivers.get(address, {})
        receivers.pop(bridge, None)
        if not receivers:
            self._receivers.pop(address, None)

    def receivers(self, address: str) -> tuple[MemoryBridge, ...]:
        """The bridges that receive `address`."""
        return tuple(self._receivers.get(address, ()))


class MemoryBridge:
    """A `Bridge` on a `MemoryBus`. Nothing is ever lost here, so it has no use for `OnGap`."""

    def __init__(self, bus: MemoryBus, *, on_publication: OnPublication) -> None:
        self._bus = bus
        self._on_publication = on_publication
        self._addresses: set[str] = set()
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
        for address in self._addresses:
            self._bus.remove(address, self)
        self._addresses.clear()
        self._is_started = False

    def subscribe(self, address: str) -> Awaitable[None]:
        """See `Bridge.subscribe`; confirmed at once."""
        check_address(address)
        self._addresses.add(address)
        self._bus.add(address, self)
        confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        confirmed.set_result(None)
        return confirmed

    def unsubscribe(self, address: str) -> None:
        """See `Bridge.unsubscribe`."""
        self._addresses.discard(address)
        self._bus.remove(address, self)

    @property
    def backlog(self) -> int:
        """See `Bridge.backlog`: nothing ever waits here."""
        return 0

    async def wait_sent(self) -> None:
        """See `Bridge.wait_sent`."""

    def publish(self, address: str, publication: Publication) -> None:
        """See `Bridge.publish`."""
        check_address(address)
        if not self._is_started:
            return
        loop = asyncio.get_running_loop()
        for bridge in self._bus.receivers(address):
            if bridge is not self:
                # Never within the publisher's own call: a real store does not call back either.
                loop.call_soon(bridge.receive, address, publication)

    def receive(self, address: str, publication: Publication) -> None:
        """Another bridge's message, unless nobody listens there any more."""
        if address in self._addresses:
            self._on_publication(address, publication)

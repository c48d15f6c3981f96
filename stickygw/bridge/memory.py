"""A bridge inside one process: for one worker alone, and for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from secrets import token_bytes

from stickygw.bridge.addresses import channel_of, check_address, local_address, room_of
from stickygw.bridge.base import OnCopy, OnPublication, Publication
from stickygw.bridge.sequences import Numbering, Order, Verdict
from stickygw.wire.envelope import ORIGIN_BYTES, Envelope, EnvelopeKeys

_PREFIX = "memory"
_KEYS = EnvelopeKeys()


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
        self.origin = token_bytes(ORIGIN_BYTES)
        self._bus = bus
        self._numbering = Numbering()
        self._order = Order()
        self._tees: dict[OnCopy, bool] = {}  # whether for what is local too
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
        self._order.forget(address)
        self._order.forget(local_address(address))
        self._bus.remove(address, self)

    @property
    def backlog(self) -> int:
        """See `Bridge.backlog`: nothing ever waits here."""
        return 0

    async def wait_sent(self) -> None:
        """See `Bridge.wait_sent`."""

    def publish(self, address: str, publication: Publication) -> int:
        """See `Bridge.publish`."""
        check_address(address)
        published = self._numbered(address, publication)
        if self._is_started:
            loop = asyncio.get_running_loop()
            for bridge in self._bus.receivers(address):
                if bridge is not self:
                    # Never within the publisher's own call: a real store does not call back either.
                    loop.call_soon(bridge.receive, address, published)
        self._copy(address, published, tuple(self._tees))
        return published.number

    def receive(self, address: str, publication: Publication) -> None:
        """Another bridge's message, unless nobody listens there any more, or it has been here."""
        if (
            room_of(address) in self._addresses
            and self._order.judge(address, publication.origin, publication.number) is not Verdict.OLD
        ):
            self._on_publication(address, publication)

    # For connections that move

    def position_of(self, address: str) -> dict[bytes, int]:
        """See `Bridge.position_of`."""
        position = self._order.position(address)
        own = self._numbering.position(address.encode())
        if own:
            position[self.origin] = own
        return position

    def is_heard(self, address: str) -> bool:
        """See `Bridge.is_heard`."""
        return address in self._addresses

    def owed(self) -> Callable[[str], bool]:
        """See `Bridge.owed`: nothing is lost here."""
        return lambda _address: False

    def ping(self, callback: Callable[[bool], None]) -> None:
        """See `Bridge.ping`: behind what the loop brings already."""
        asyncio.get_running_loop().call_soon(callback, True)

    def copy_to(self, callback: OnCopy, *, with_local: bool) -> None:
        """See `Bridge.copy_to`."""
        self._tees[callback] = with_local

    def stop_copies(self, callback: OnCopy) -> None:
        """See `Bridge.stop_copies`."""
        self._tees.pop(callback, None)

    def publish_copy(self, address: str, publication: Publication) -> int:
        """See `Bridge.publish_copy`."""
        published = self._numbered(address, publication)
        self._copy(address, published, [tee for tee, with_local in self._tees.items() if with_local])
        return published.number

    def expect_copies(self, origin: bytes, *, ignores_store: bool) -> None:
        """See `Bridge.expect_copies`: nothing gets lost here, so whichever is first is as good."""

    @property
    def copied(self) -> Collection[bytes]:
        """See `Bridge.copied`: nothing is later at one than at another here."""
        return ()

    def expect_no_copies(self, origin: bytes) -> None:
        """See `Bridge.expect_no_copies`."""

    def watch_for(self, channel: bytes, data: bytes, callback: Callable[[bytes], None]) -> None:
        """See `Bridge.watch_for`: here nothing leaves a hole."""

    def stop_watching(self, callback: Callable[[bytes], None]) -> None:
        """See `Bridge.stop_watching`."""

    def take_copy(self, channel: bytes, data: bytes) -> None:
        """See `Bridge.take_copy`."""
        envelope = _KEYS.decode(channel, data)
        for room in tuple(self._addresses):
            for address in (room, local_address(room)):
                if channel_of(_PREFIX, address) == channel:
                    self.receive(
                        address,
                        Publication(
                            envelope.opcode,
                            envelope.payload,
                            envelope.to,
                            envelope.group,
                            envelope.origin,
                            envelope.sequence,
                        ),
                    )

    def _numbered(self, address: str, publication: Publication) -> Publication:
        return replace(publication, origin=self.origin, number=self._numbering.next(address.encode()))

    def _copy(self, address: str, published: Publication, tees: Collection[OnCopy]) -> None:
        if tees:
            channel = channel_of(_PREFIX, address)
            data = _KEYS.encode(
                channel,
                Envelope(
                    self.origin, published.number, published.opcode, published.payload, published.to, published.group
                ),
            )
            for tee in tees:
                tee(channel, data)

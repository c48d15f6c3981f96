"""The bridge over Redis or Valkey pub/sub: a channel ``<prefix>:room:<room>`` for each room with members
here.

Rooms, envelopes and their numbers are kept here; `subscriber` and `publisher` know channels and bytes only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from random import Random

from stickygw.bridge.base import OnGap, OnMessage
from stickygw.bridge.publisher import Publisher
from stickygw.bridge.rooms import check_room
from stickygw.bridge.sequences import Numbering, Order, Verdict
from stickygw.bridge.subscriber import Subscriber
from stickygw.observability.counters import Counters
from stickygw.reconnect import CONNECT_SECONDS, connections
from stickygw.wire.envelope import ORIGIN_BYTES, Envelope, EnvelopeError, decode, encode
from stickygw.wire.prepared import PreparedMessage

log = logging.getLogger("stickygw.bridge")


class RedisBridge:
    """A `Bridge` over a store at `url`; gateways that share it and `prefix` share rooms.

    `random` must not be seeded alike in two processes: it makes the origin that tells them apart. Counts
    ``bridge_lost`` (by `publisher.Loss`), ``bridge_gap`` (``reconnect`` or ``hole``, one for each room),
    ``bridge_old`` (messages dropped as seen before) and ``bridge_garbage`` (bytes that are no envelope).
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str,
        on_message: OnMessage,
        on_gap: OnGap,
        counters: Counters,
        random: Random,
    ) -> None:
        self.origin = random.randbytes(ORIGIN_BYTES)
        self._channel_prefix = f"{prefix}:room:".encode()
        self._on_message = on_message
        self._on_gap = on_gap
        self._counters = counters
        self._rooms: dict[bytes, str] = {}
        self._numbering = Numbering()
        self._order = Order()
        connect = connections(url)
        self._publisher = Publisher(connect, counters=counters, random=random)
        self._subscriber = Subscriber(connect, on_message=self._receive, on_gap=self._subscribed_again, random=random)

    @property
    def is_connected(self) -> bool:
        """Whether both halves have a working connection."""
        return self._subscriber.connected.is_set() and self._publisher.connected.is_set()

    async def start(self) -> None:
        """See `Bridge.start`."""
        self._subscriber.start()
        self._publisher.start()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._subscriber.connected.wait()
                await self._publisher.connected.wait()
        except TimeoutError:
            log.warning("bridge: the store is away; messages stay on this worker until it is back")

    async def stop(self) -> None:
        """See `Bridge.stop`."""
        await self._subscriber.stop()
        await self._publisher.stop()

    def subscribe(self, room: str) -> Awaitable[None]:
        """See `Bridge.subscribe`."""
        channel = self._channel_prefix + check_room(room)
        self._rooms[channel] = room
        return self._subscriber.subscribe(channel)

    def unsubscribe(self, room: str) -> None:
        """See `Bridge.unsubscribe`."""
        channel = self._channel_prefix + check_room(room)
        if self._rooms.pop(channel, None) is not None:
            self._order.forget(room)
            self._subscriber.unsubscribe(channel)

    def publish(self, room: str, message: PreparedMessage) -> None:
        """See `Bridge.publish`.

        A message that is dropped keeps its number, so that the receivers learn of the loss from the next one.
        """
        channel = self._channel_prefix + check_room(room)
        envelope = Envelope(self.origin, self._numbering.next(room), message.opcode, message.payload)
        self._publisher.publish(channel, encode(envelope))

    @property
    def backlog(self) -> int:
        """See `Bridge.backlog`."""
        return self._publisher.backlog

    async def wait_sent(self) -> None:
        """See `Bridge.wait_sent`."""
        await self._publisher.wait_sent()

    def _receive(self, channel: bytes, data: bytes) -> None:
        room = self._rooms.get(channel)
        if room is None:
            return  # it was left while the message was on its way
        try:
            envelope = decode(data)
        except EnvelopeError as error:
            self._counters.add("bridge_garbage")
            log.debug("bridge: dropped: %s", error)
            return
        if envelope.origin == self.origin:
            return  # our own echo: local members have it already
        match self._order.judge(room, envelope.origin, envelope.sequence):
            case Verdict.OLD:
                self._counters.add("bridge_old")
                return
            case Verdict.HOLE:
                self._tell_gap([room], "hole")
            case Verdict.NEXT:
                pass
        try:
            self._on_message(room, PreparedMessage(envelope.opcode, envelope.payload))
        except Exception:
            log.exception("bridge: on_message raised")

    def _subscribed_again(self, channels: list[bytes]) -> None:
        rooms = [self._rooms[channel] for channel in channels if channel in self._rooms]
        if rooms:
            self._tell_gap(rooms, "reconnect")

    def _tell_gap(self, rooms: list[str], why: str) -> None:
        self._counters.add("bridge_gap", why, len(rooms))
        try:
            self._on_gap(rooms)
        except Exception:
            log.exception("bridge: on_gap raised")

"""The bridge over Redis or Valkey pub/sub: a channel for each address that somebody here listens at.

Addresses, envelopes and their numbers are kept here; `subscriber` and `publisher` know channels and bytes only.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Collection
from itertools import islice
from random import Random
from time import monotonic

from stickygw.bridge.addresses import channel_of, local_address, room_of
from stickygw.bridge.base import OnCopy, OnGap, OnPublication, Publication
from stickygw.bridge.publisher import Loss, Publisher
from stickygw.bridge.sequences import MAX_NUMBERED_ROOMS, Numbering, Order, Verdict
from stickygw.bridge.subscriber import Subscriber
from stickygw.observability.counters import Counters
from stickygw.reconnect import CONNECT_SECONDS, connections
from stickygw.wire.envelope import HEAD, ORIGIN_BYTES, OVERTAKEN, Envelope, EnvelopeError, EnvelopeKeys, ForeignEnvelope

log = logging.getLogger("stickygw.bridge")

HEAD_SECONDS = 1.0
"""So long after a loss the last numbers of the channels that it was on are sent, so that who received nothing since
learns of it too."""

HEADS_PER_TURN = 500
"""So many of them are sent at once: some milliseconds of work."""

HEADS_PAUSE_SECONDS = 0.05
"""The next ones come so long after: a loss on tens of thousands of channels must not fill the queue."""

MAX_PARTNERS = 64
"""Workers that have sent copies, of which it is remembered that they did."""

FOREIGN_LOG_SECONDS = 60.0
"""How often another secret on our channels is worth a line."""


class RedisBridge:
    """A `Bridge` over a store at `url`; gateways that share it, `prefix` and a secret in `keys` share rooms.

    `random` must not be seeded alike in two processes: it makes the origin that tells them apart. Counts
    ``bridge_lost`` (by `publisher.Loss`), ``bridge_gap`` (``reconnect`` or ``hole``, one for each address),
    ``bridge_old`` (messages dropped as seen before), ``bridge_garbage`` (bytes that are no envelope) and
    ``bridge_foreign`` (envelopes that none of our secrets has signed).
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str,
        keys: EnvelopeKeys,
        on_publication: OnPublication,
        on_gap: OnGap,
        counters: Counters,
        random: Random,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.origin = random.randbytes(ORIGIN_BYTES)
        self._prefix = prefix
        self._keys = keys
        self._on_publication = on_publication
        self._on_gap = on_gap
        self._counters = counters
        self._clock = clock
        self._addresses: dict[bytes, str] = {}
        self._tees: dict[OnCopy, bool] = {}  # whether for what is local too
        self._copied: dict[bytes, bool] = {}  # origins whose copies come; whether what the store has is ignored
        self._watched: dict[tuple[bytes, bytes], tuple[int, Callable[[bytes], None]]] = {}  # by channel and origin
        self._partners: dict[bytes, None] = {}  # whose messages come twice
        self._numbering = Numbering()
        self._order = Order()
        # Channels whose last number is to be told, the latest loss last; whether later messages may overtake that.
        self._owed: dict[bytes, bool] = {}
        self._telling: asyncio.TimerHandle | None = None
        self._told_foreign_at = -math.inf
        connect = connections(url)
        self._publisher = Publisher(
            connect, on_lost=self._lost, on_connected=self._tell_heads, counters=counters, random=random
        )
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
        if self._telling is not None:
            self._telling.cancel()

    def subscribe(self, address: str) -> Awaitable[None]:
        """See `Bridge.subscribe`."""
        channel = channel_of(self._prefix, address)
        self._addresses[channel] = address
        return self._subscriber.subscribe(channel)

    def unsubscribe(self, address: str) -> None:
        """See `Bridge.unsubscribe`."""
        channel = channel_of(self._prefix, address)
        if self._addresses.pop(channel, None) is not None:
            self._order.forget(address)
            self._order.forget(local_address(address))
            self._subscriber.unsubscribe(channel)

    @property
    def backlog(self) -> int:
        """See `Bridge.backlog`."""
        return self._publisher.backlog

    async def wait_sent(self) -> None:
        """See `Bridge.wait_sent`."""
        await self._publisher.wait_sent()

    # Sending

    def publish(self, address: str, publication: Publication) -> int:
        """See `Bridge.publish`.

        A message that is dropped keeps its number, so that the receivers learn of the loss from the next one, or from
        the number alone, which is told soon.
        """
        channel = channel_of(self._prefix, address)
        number = self._numbering.next(channel)
        data = self._encode(channel, publication, number)
        self._publisher.publish(channel, data)
        for tee in tuple(self._tees):
            tee(channel, data)
        return number

    def publish_copy(self, address: str, publication: Publication) -> int:
        """See `Bridge.publish_copy`."""
        channel = channel_of(self._prefix, address)
        number = self._numbering.next(channel)
        data = self._encode(channel, publication, number)
        for tee, with_local in tuple(self._tees.items()):
            if with_local:
                tee(channel, data)
        return number

    def _encode(self, channel: bytes, publication: Publication, number: int) -> bytes:
        envelope = Envelope(
            self.origin, number, publication.opcode, publication.payload, publication.to, publication.group
        )
        return self._keys.encode(channel, envelope)

    def copy_to(self, callback: OnCopy, *, with_local: bool) -> None:
        """See `Bridge.copy_to`."""
        self._tees[callback] = with_local

    def stop_copies(self, callback: OnCopy) -> None:
        """See `Bridge.stop_copies`."""
        self._tees.pop(callback, None)

    def owed(self) -> Callable[[str], bool]:
        """See `Bridge.owed`."""
        owed = frozenset(self._owed)
        return lambda address: channel_of(self._prefix, address) in owed

    def _lost(self, channel: bytes, why: Loss) -> None:
        # What was lost with the connection, or without one, is told before anything else is sent on the next.
        self._owed[channel] = self._owed.pop(channel, False) or why in (Loss.QUEUE_FULL, Loss.REFUSED)
        if len(self._owed) > MAX_NUMBERED_ROOMS:
            del self._owed[next(iter(self._owed))]
        self._tell_heads_in(HEAD_SECONDS)

    def _tell_heads_in(self, seconds: float) -> None:
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(seconds, self._tell_heads)

    def _tell_heads(self) -> None:
        """Send the last numbers of channels on which something was lost. Away, that waits for the next connection."""
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        if not self._publisher.connected.is_set():
            return
        owed = dict(islice(self._owed.items(), HEADS_PER_TURN))
        for channel, is_overtaken in owed.items():
            del self._owed[channel]
            payload = OVERTAKEN if is_overtaken else b""
            head = Envelope(self.origin, self._numbering.last(channel), HEAD, payload)
            self._publisher.publish(channel, self._keys.encode(channel, head), is_message=False)
        if self._owed:
            self._owed = dict.fromkeys(self._owed, True)
            self._tell_heads_in(HEADS_PAUSE_SECONDS)

    # Receiving

    def position_of(self, address: str) -> dict[bytes, int]:
        """See `Bridge.position_of`."""
        position = self._order.position(address)
        own = self._numbering.position(channel_of(self._prefix, address))
        if own:
            position[self.origin] = own
        return position

    def is_heard(self, address: str) -> bool:
        """See `Bridge.is_heard`."""
        return self._subscriber.is_heard(channel_of(self._prefix, address))

    def ping(self, callback: Callable[[bool], None]) -> None:
        """See `Bridge.ping`."""
        self._subscriber.ping(callback)

    def expect_copies(self, origin: bytes, *, ignores_store: bool) -> None:
        """See `Bridge.expect_copies`."""
        self._copied[origin] = ignores_store

    @property
    def copied(self) -> Collection[bytes]:
        """See `Bridge.copied`."""
        return self._copied.keys()

    def expect_no_copies(self, origin: bytes) -> None:
        """See `Bridge.expect_no_copies`."""
        self._copied.pop(origin, None)

    def watch_for(self, channel: bytes, data: bytes, callback: Callable[[bytes], None]) -> None:
        """See `Bridge.watch_for`."""
        try:
            envelope = self._keys.decode(channel, data)
        except EnvelopeError:
            return  # it is counted when it is taken
        self._watched.setdefault((channel, envelope.origin), (envelope.sequence, callback))

    def stop_watching(self, callback: Callable[[bytes], None]) -> None:
        """See `Bridge.stop_watching`."""
        self._watched = {place: watch for place, watch in self._watched.items() if watch[1] != callback}

    def take_copy(self, channel: bytes, data: bytes) -> None:
        """See `Bridge.take_copy`."""
        address = self._addresses.get(channel)
        if address is None:
            local = self._prefix.encode() + b":local:"
            room = self._addresses.get(self._prefix.encode() + b":room:" + channel.removeprefix(local))
            if room is None or not channel.startswith(local):
                return  # nobody listens there
            address = local_address(room)
        self._take(address, channel, data, is_copy=True)

    def _receive(self, channel: bytes, data: bytes) -> None:
        address = self._addresses.get(channel)
        if address is not None:  # else it was left while the message was on its way
            self._take(address, channel, data, is_copy=False)

    def _take(self, address: str, channel: bytes, data: bytes, *, is_copy: bool) -> None:
        try:
            envelope = self._keys.decode(channel, data)
        except ForeignEnvelope:
            self._tell_foreign()
            return
        except EnvelopeError as error:
            self._counters.add("bridge_garbage")
            log.debug("bridge: dropped: %s", error)
            return
        if envelope.origin == self.origin:
            return  # our own echo: local members have it already
        if self._watched and not is_copy:
            first, callback = self._watched.get((channel, envelope.origin), (envelope.sequence + 1, None))
            if callback is not None and envelope.sequence >= first:
                callback(envelope.origin)
        if not is_copy and self._copied.get(envelope.origin) and envelope.opcode != HEAD:
            return
        if is_copy:
            self._partners.pop(envelope.origin, None)
            self._partners[envelope.origin] = None
            if len(self._partners) > MAX_PARTNERS:
                del self._partners[next(iter(self._partners))]
        if envelope.opcode == HEAD:
            self._take_head(address, envelope)
            return
        verdict = self._order.judge(address, envelope.origin, envelope.sequence)
        if verdict is Verdict.OLD:
            if envelope.origin not in self._partners:
                self._counters.add("bridge_old")
            return
        if verdict is Verdict.HOLE:
            self._tell_gap([room_of(address)], "hole")
        publication = Publication(
            envelope.opcode, envelope.payload, envelope.to, envelope.group, envelope.origin, envelope.sequence
        )
        try:
            self._on_publication(address, publication)
        except Exception:
            log.exception("bridge: on_publication raised")

    def _take_head(self, address: str, head: Envelope) -> None:
        # Copies overtake it, so they prove nothing of what was lost before the first of them; nor may it make those old
        # that are on their way.
        has_copies = head.origin in self._partners or head.origin in self._copied
        if has_copies or (
            self._order.judge(address, head.origin, head.sequence) is not Verdict.OLD or head.payload == OVERTAKEN
        ):
            self._tell_gap([address], "hole")

    def _tell_foreign(self) -> None:
        self._counters.add("bridge_foreign")
        now = self._clock()
        if now - self._told_foreign_at >= FOREIGN_LOG_SECONDS:
            self._told_foreign_at = now
            log.warning(
                "bridge: messages of a gateway, or program, with another secret are dropped: who shares a store and a "
                "prefix has to share a secret, or have a prefix of its own"
            )

    def _subscribed_again(self, channels: list[bytes]) -> None:
        addresses = [self._addresses[channel] for channel in channels if channel in self._addresses]
        if addresses:
            self._tell_gap(addresses, "reconnect")

    def _tell_gap(self, addresses: list[str], why: str) -> None:
        self._counters.add("bridge_gap", why, len(addresses))
        try:
            self._on_gap(addresses)
        except Exception:
            log.exception("bridge: on_gap raised")

"""A store whose every step is taken by hand, and `RedisBridge`s on it: `Bus`, `Line`."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Generator
from random import Random
from typing import Any

from stickygw.bridge.base import OnGap, OnPublication
from stickygw.bridge.publisher import Loss
from stickygw.bridge.redis import RedisBridge
from stickygw.bridge.subscriptions import Subscriptions
from stickygw.observability.counters import Counters
from stickygw.wire.envelope import EnvelopeKeys

PREFIX = "p"
KEYS = EnvelopeKeys([b"secret"])


class Confirmation:
    """What `subscribe` returns."""

    def __init__(self) -> None:
        self.is_done = False

    def __await__(self) -> Generator[Any, None, None]:
        raise AssertionError("nobody waits here")


class Line:
    """Both connections of one worker, in the places of `Publisher` and `Subscriber`.

    What is on its way up waits in `published` and `asked`, what is on its way down in `coming`.
    """

    def __init__(self, bus: Bus, bridge: RedisBridge) -> None:
        self._bus = bus
        self._bridge = bridge
        self._subscriptions = Subscriptions()
        self._confirmations: dict[bytes, list[Confirmation]] = {}
        self.connected = asyncio.Event()
        self.connected.set()
        self.published: deque[tuple[bytes, bytes]] = deque()
        self.asked: deque[tuple[bool, bytes]] = deque()  # whether to subscribe or not; no channel: a PING
        self.coming: deque[tuple[bytes, bytes | None]] = deque()  # None: an answer; no channel: a PONG
        self.pings: list[Callable[[bool], None]] = []  # not sent
        self.pinged: deque[list[Callable[[bool], None]]] = deque()
        self.heard: set[bytes] = set()  # at the store
        bus.lines.append(self)

    # For the bridge

    @property
    def backlog(self) -> int:
        return len(self.published)

    def publish(self, channel: bytes, data: bytes, *, is_message: bool = True) -> None:
        if self.connected.is_set():
            self.published.append((channel, data))
        else:
            self._lose(channel)

    def subscribe(self, channel: bytes) -> Confirmation:
        confirmation = Confirmation()
        self._subscriptions.want(channel)
        if not self.connected.is_set():
            self._subscriptions.owe(channel)
        elif self._subscriptions.is_confirmed(channel):
            confirmation.is_done = True
        else:
            self._confirmations.setdefault(channel, []).append(confirmation)
        return confirmation

    def unsubscribe(self, channel: bytes) -> None:
        self._subscriptions.drop(channel)
        self._confirmations.pop(channel, None)

    def is_heard(self, channel: bytes) -> bool:
        return self._subscriptions.is_settled(channel)

    def ping(self, callback: Callable[[bool], None]) -> None:
        if self.connected.is_set():
            self.pings.append(callback)
        else:
            callback(False)

    # By hand

    @property
    def wanted(self) -> set[bytes]:
        return set(self._subscriptions._wanted)

    @property
    def has_changes(self) -> bool:
        """Whether `ask` sends something, or the store has not read what it sent."""
        return bool(self._subscriptions._changed or self.asked or self.pings)

    def ask(self) -> None:
        """Send what has changed in the subscriptions."""
        if self.connected.is_set():
            subscribe, unsubscribe = self._subscriptions.take_changes()
            self.asked += [(False, channel) for channel in unsubscribe]
            self.asked += [(True, channel) for channel in subscribe]
            if self.pings:
                self.asked.append((True, b""))
                self.pinged.append(self.pings)
                self.pings = []

    def give_up_pings(self) -> None:
        """The store is too slow."""
        self._subscriptions.owe_unconfirmed()
        unanswered = [ping for pings in (*self.pinged, self.pings) for ping in pings]
        self.pings = []
        for pings in self.pinged:
            pings.clear()
        self._answer_pings(unanswered, False)

    def _answer_pings(self, pings: list[Callable[[bool], None]], is_answered: bool) -> None:
        for ping in pings:
            ping(is_answered)

    def receive(self) -> None:
        """Take the next thing that has come."""
        channel, data = self.coming.popleft()
        if data is not None:
            self._bridge._receive(channel, data)
        elif not channel:
            self._answer_pings(self.pinged.popleft(), True)
        elif self._subscriptions.answered(channel):
            for confirmation in self._confirmations.pop(channel, ()):
                confirmation.is_done = True
            if self._subscriptions.settle(channel):
                self._bridge._subscribed_again([channel])

    def cut(self) -> None:
        """Lose both connections, with all that is on its way."""
        self.connected.clear()
        self.heard.clear()
        self._subscriptions.lost()
        self._confirmations.clear()
        self.asked.clear()
        self.coming.clear()
        unanswered = [ping for pings in (*self.pinged, self.pings) for ping in pings]
        self.pings = []
        self.pinged.clear()
        self._answer_pings(unanswered, False)
        lost, self.published = self.published, deque()
        for channel, _ in lost:
            self._lose(channel)

    def mend(self) -> None:
        """Have connections again."""
        self.connected.set()
        self.tell_heads()

    def refuse(self) -> None:
        """The store takes nothing of what is on its way up."""
        refused, self.published = self.published, deque()
        for channel, _ in refused:
            self._lose(channel, Loss.REFUSED)

    @property
    def owes_heads(self) -> bool:
        """Whether `tell_heads` has something to tell, and can."""
        return bool(self._bridge._owed) and self.connected.is_set()

    def tell_heads(self) -> None:
        """The time has come to tell what was lost."""
        self._bridge._tell_heads()

    def _lose(self, channel: bytes, why: Loss = Loss.AWAY) -> None:
        self._bus.on_lost(self, channel)
        self._bridge._lost(channel, why)


class Bus:
    """The store: it reads the lines one command after the other, in any order of the lines.

    `on_lost` is called with the line and channel of each message that is never read.
    """

    def __init__(self, on_lost: Callable[[Line, bytes], None]) -> None:
        self.lines: list[Line] = []
        self.on_lost = on_lost

    def bridge(
        self, random: Random, counters: Counters, on_publication: OnPublication, on_gap: OnGap
    ) -> tuple[RedisBridge, Line]:
        """A bridge and its line."""
        bridge = RedisBridge(
            "redis://127.0.0.1:1",
            prefix=PREFIX,
            keys=KEYS,
            on_publication=on_publication,
            on_gap=on_gap,
            counters=counters,
            random=random,
        )
        line = Line(self, bridge)
        bridge._publisher = bridge._subscriber = line  # type: ignore[assignment]
        return bridge, line

    def read_subscription(self, line: Line) -> None:
        """Do the next (UN)SUBSCRIBE of `line`."""
        is_wanted, channel = line.asked.popleft()
        if not channel:
            line.coming.append((b"", None))
            return
        (line.heard.add if is_wanted else line.heard.discard)(channel)
        line.coming.append((channel, None))

    def read_publish(self, line: Line) -> None:
        """Do the next PUBLISH of `line`."""
        channel, data = line.published.popleft()
        for other in self.lines:
            if channel in other.heard:
                other.coming.append((channel, data))

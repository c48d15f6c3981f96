"""Workers on a `Bus`, with their members as a model has them: `Worker`, `Member`."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from stickygw.apps.native.audience import Audience
from stickygw.bridge.addresses import DIRECT
from stickygw.bridge.hub import Hub
from stickygw.observability.counters import Counters
from stickygw.wire.prepared import Batch
from support.bus_by_hand import Bus, Confirmation, Line
from support.hand_turned_loop import HandTurnedLoop

MEMBERS = 2
"""Of each worker."""


class Member:
    """A connection that keeps what it gets, beside what it should get."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rooms: dict[str, Confirmation] = {}
        self.got: list[int] = []
        self.expected: list[int] = []
        self.on_deliver: Callable[[], bool] = lambda: False  # whether it has done what it is to do once

    def is_meant(self, to: str) -> bool:
        return to == self.name

    def deliver(self, batch: Batch) -> None:
        assert batch.messages
        self.got.extend(int(message.payload) for message in batch.messages)
        react, self.on_deliver = self.on_deliver, lambda: False
        if not react():
            self.on_deliver = react

    def send_away(self, code: int, reason: str, *, within: float) -> None:
        """Nobody does, here."""


class Worker:
    """One process: what is real of it, and its members as the model has them."""

    def __init__(self, bus: Bus, seed: int) -> None:
        random = Random(seed)
        self.loop = HandTurnedLoop()
        self.counters = Counters()
        self.members = [Member(f"session:{seed}-{number}") for number in range(MEMBERS)]
        # Messages of rooms with different policies cannot share a delivery.
        self.hub = Hub(self.counters, lambda room: "drop_oldest" if room == "red" else "disconnect")
        self.bridge, self.line = bus.bridge(
            random, self.counters, lambda *publication: self.audience.received(*publication), self.gap
        )
        self.audience: Audience = Audience(
            self.hub, self.bridge, targets=lambda: self.members, random_bytes=random.randbytes
        )
        self.audience.start()
        self.missing: set[tuple[str, Line]] = set()  # where something was lost on whose line, and no gap was told
        self.told_in_vain: set[str] = set()

    @property
    def addresses(self) -> set[str]:
        return {DIRECT}.union(*(member.rooms for member in self.members))

    def members_of(self, address: str) -> list[Member]:
        return [member for member in self.members if address in member.rooms]

    def is_sure_of(self, address: str) -> bool:
        """Whether a member was promised that it misses nothing there, or is told."""
        return any(member.rooms[address].is_done for member in self.members_of(address))

    def gap(self, addresses: list[str]) -> None:
        self.told_in_vain |= set(addresses) - self.addresses
        self.missing = {(address, line) for address, line in self.missing if address not in addresses}
        for member in self.members:
            for address in member.rooms.keys() & set(addresses):
                member.rooms[address].is_done = True

    def miss(self, address: str, line: Line) -> None:
        if self.line is not line and self.is_sure_of(address):
            self.missing.add((address, line))

    def has_left(self) -> None:
        """Nobody misses anything where nobody is."""
        self.missing = {(address, line) for address, line in self.missing if self.members_of(address)}

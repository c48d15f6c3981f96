"""Workers on a `Bus` between which connections move: `Client`, `Connection`, `MovingWorker`, `MoveLink`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from stickygw.apps.native.audience import Audience
from stickygw.bridge.arrivals import Arrivals
from stickygw.bridge.departures import Departures
from stickygw.bridge.hub import Hub
from stickygw.bridge.record import MAX_RECORD_BYTES, Record
from stickygw.observability.counters import Counters
from stickygw.wire.prepared import Batch
from support.bus_by_hand import Bus, Confirmation
from support.hand_turned_loop import HandTurnedLoop


@dataclass(eq=False)
class Stay:
    """A client is in a room. `sure` says from when on it misses nothing, or is told; `end` is when it left."""

    address: str
    start: int
    confirmation: Confirmation | None = None
    sure: int | None = None
    end: int | None = None
    told: int = 0


class Client:
    """What is at the other end of a connection, whatever worker that is on."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.got: list[int] = []
        self.orders: list[int] = []
        """Orders to close it that were carried out. It stays all the same, so that a second one would be seen."""
        self.stays: list[Stay] = []
        self.is_lost = False  # with its worker
        self.refused_at: int | None = None

    def stay_in(self, address: str) -> Stay | None:
        """Its stay there that has not ended."""
        return next((stay for stay in self.stays if stay.address == address and stay.end is None), None)


class Connection:
    """What a worker has of a client. Frozen, what it is given and told waits."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.is_frozen = False
        self.waiting: list[int] = []
        self.waiting_orders: list[int] = []
        self.on_deliver: Callable[[], bool] | None = None  # whether it has done what it is to do once

    def is_meant(self, to: str) -> bool:
        return to == self.client.name

    def deliver(self, batch: Batch) -> None:
        assert batch.messages
        numbers = [int(message.payload) for message in batch.messages]
        if self.is_frozen:
            self.waiting += numbers
            return
        self.client.got += numbers
        react, self.on_deliver = self.on_deliver, None
        if react is not None and not react():
            self.on_deliver = react

    def thaw(self) -> None:
        """It has not gone."""
        self.is_frozen = False
        self.client.got += self.waiting
        self.client.orders += self.waiting_orders
        self.waiting, self.waiting_orders = [], []

    def send_away(self, code: int, reason: str, *, within: float) -> None:
        (self.waiting_orders if self.is_frozen else self.client.orders).append(int(reason))


class MovingWorker:
    """One process: what is real of it, and its connections."""

    def __init__(self, bus: Bus, seed: int, on_gap: Callable[[MovingWorker, list[str]], None]) -> None:
        random = Random(seed)
        self.name = f"worker {seed}"
        self.loop = HandTurnedLoop()
        self.counters = Counters()
        self.connections: list[Connection] = []
        self.is_dead = False
        self.hub = Hub(self.counters, lambda room: "drop_oldest" if room == "red" else "disconnect")

        def gap(addresses: list[str]) -> None:
            self.audience.gap(addresses)
            on_gap(self, addresses)

        self.bridge, self.line = bus.bridge(
            random, self.counters, lambda *publication: self.audience.received(*publication), gap
        )
        self.audience: Audience = Audience(
            self.hub, self.bridge, targets=lambda: tuple(self.connections), random_bytes=random.randbytes
        )
        self.audience.start()


class ToldRecord(Record):
    """Says whether it was ever full."""

    was_full = False

    def clear(self) -> set[str]:
        self.was_full = True
        return super().clear()


@dataclass(eq=False)
class MoveLink:
    """The socket pair between two workers, and what either has made of it. `max_record_bytes`: of the new one's."""

    old: MovingWorker
    new: MovingWorker
    is_same_slot: bool
    started: int
    max_record_bytes: int = MAX_RECORD_BYTES
    key: bytes | None = None
    """The affinity key of all who come."""
    to_new: deque[tuple[Any, ...]] = field(default_factory=deque)
    to_old: deque[tuple[Any, ...]] = field(default_factory=deque)
    departures: Departures = None  # type: ignore[assignment]
    arrivals: Arrivals = None  # type: ignore[assignment]
    record: ToldRecord = None  # type: ignore[assignment]
    has_settled: set[MovingWorker] = field(default_factory=set)
    sent: dict[Client, Connection] = field(default_factory=dict)  # frozen at the old one, and not adopted
    position: Any = None
    is_finished: bool = False
    ended: set[MovingWorker] = field(default_factory=set)

    def begin(self, on_gap: Callable[[MovingWorker, list[str]], None]) -> None:
        """Both have been given their ends."""
        self.departures = self.old.audience.departures(
            send_copy=lambda channel, data: self.to_new.append(("copy", channel, data)),
            on_ready=lambda: None,
            is_same_slot=self.is_same_slot,
        )
        self.arrivals = self.new.audience.arrivals(
            send_copy=lambda channel, data: self.to_old.append(("copy", channel, data)),
            send_listening=lambda number, addresses: self.to_old.append(("listening", number, addresses)),
            on_gap=lambda addresses: on_gap(self.new, addresses),
            is_same_slot=self.is_same_slot,
        )
        self.record = self.arrivals._record = ToldRecord(max_bytes=self.max_record_bytes)
        self.announce()

    def announce(self) -> None:
        """Tell the new one what addresses there are."""
        addresses = self.departures.take_new_addresses()
        if addresses:
            self.to_new.append(("rooms", addresses))

    def settle(self, worker: MovingWorker) -> None:
        """Its publishes are answered, or lost."""
        if worker in self.has_settled or worker.line.published:
            return
        self.has_settled.add(worker)
        if worker is self.old:
            self.to_new.append(("settled", worker.bridge.origin))
        else:
            self.arrivals.sent()
            self.to_old.append(("settled", worker.bridge.origin))

    def move(self, connections: list[Connection]) -> None:
        """Those of them that can go, in one batch."""
        self.announce()
        if self.old.line.published or self.is_finished:
            return
        departure = self.departures.depart(connection for connection in connections if not connection.is_frozen)
        if not departure.tickets:
            return
        self.to_new.append(("position", departure))
        for ticket in departure.tickets:
            connection = ticket.member
            assert isinstance(connection, Connection)
            connection.is_frozen = True
            self.sent[connection.client] = connection
            self.to_new.append(("carried", ticket))

    def finish(self) -> None:
        """No other one goes."""
        if not self.is_finished:
            self.is_finished = True
            self.to_new.append(("finished",))

    def read_new(self, arrived: Callable[[MovingWorker, Connection], None], *, refuses: bool = False) -> None:
        """The new worker reads the next thing; if that is a connection, it `refuses` it."""
        match self.to_new.popleft():
            case ("copy", channel, data):
                self.arrivals.copies.received(channel, data)
            case ("settled", origin):
                self.arrivals.copies.settled(origin)
            case ("rooms", addresses):
                self.arrivals.rooms(addresses)
            case ("position", departure):
                self.arrivals.arrived()
                self.position = departure
                self.arrivals.position(departure.pinged, departure.positions, departure.copied)
            case ("carried", ticket) if refuses:
                self.to_old.append(("refused", ticket.member.client))
            case ("carried", ticket):
                connection = Connection(ticket.member.client)
                self.new.connections.append(connection)
                self.to_old.append(("adopted", connection.client))
                self.arrivals.arrive(
                    connection,
                    ticket.addresses,
                    ticket.groups,
                    key=self.key,
                    pinged=self.position.pinged,
                    positions=self.position.positions,
                )
                arrived(self.new, connection)
            case ("finished",):
                self.arrivals.arrived()

    def read_old(self, refused: Callable[[Connection], None]) -> None:
        """The old worker reads the next thing. `refused` is called before what that one refuses has left its rooms."""
        match self.to_old.popleft():
            case ("copy", channel, data):
                self.departures.copies.received(channel, data)
            case ("settled", origin):
                self.departures.copies.settled(origin)
            case ("listening", number, addresses):
                self.departures.listening(number, addresses)
            case ("adopted", client):
                connection = self.sent.pop(client)
                self.old.connections.remove(connection)
                self.old.audience.leave_all(connection)
            case ("refused", client):
                connection = self.sent.pop(client)
                connection.thaw()
                self.old.hub.catch_up(connection)
                refused(connection)
                self.old.connections.remove(connection)
                self.old.audience.leave_all(connection)

    def end(self, worker: MovingWorker) -> None:
        """The link has ended for `worker`, which has read all that was in it."""
        if worker in self.ended:
            return
        self.ended.add(worker)
        worker.audience.end_move(self.arrivals if worker is self.new else self.departures)
        if worker is self.old:
            for connection in self.sent.values():
                connection.thaw()
            self.sent.clear()

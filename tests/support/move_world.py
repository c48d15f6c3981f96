"""An old worker, a new one, and another; clients on them, and a move to one or both, step by step: `MoveWorld`.

What has to be true of it is in `support.move_promises`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest

from stickygw.bridge import hub as hubs
from stickygw.bridge.addresses import DIRECT, user_address
from stickygw.bridge.record import MAX_RECORD_BYTES, OVERHEAD_BYTES
from stickygw.wire.prepared import PreparedMessage
from support.bus_by_hand import Bus
from support.moving_workers import Client, Connection, MoveLink, MovingWorker, Stay

ROOMS = ("red", "green")
ANN = user_address("ann")
CLIENTS = 7
OLD, NEW, OTHER = range(3)

ONE_MESSAGE_BYTES = OVERHEAD_BYTES + 20
"""Of a record that is full with one message."""


@dataclass(eq=False)
class Message:
    """What was published, and what the world was like then. `is_order`: to close whom it is for."""

    number: int
    sent_at: int
    sender: Client
    worker: MovingWorker
    addresses: tuple[str, ...]
    to: str
    excluded: Client | None
    is_local: bool
    is_order: bool
    near: dict[Client, str]  # who was "here", "linked", "soon linked", or "on its way" to another slot


class MoveWorld:
    """Bounds are so small that rounds overlap with all that is done. Whoever makes one calls ``bounds.undo()``."""

    def __init__(self) -> None:
        super().__init__()
        self.bounds = pytest.MonkeyPatch()
        for name, bound in (("MEMBERS_AT_A_TIME", 2), ("MEMBERS_PER_TURN", 3), ("MAX_UNDELIVERED", 4)):
            self.bounds.setattr(hubs, name, bound)
        self.now = 0
        self.bus = Bus(on_lost=lambda _line, _channel: None)
        self.started = 0
        self.messages: list[Message] = []
        self.published_before = 0  # what the old worker read last was read
        self.gaps = 0
        self.is_calm = True  # nothing was cut off, too slow, or has died
        self.has_died = False
        self.is_giving = False  # a message to a hub, now
        self.max_record_bytes = MAX_RECORD_BYTES
        self.workers = [self.new_worker() for _ in range(3)]
        self.open: list[MoveLink] = []  # of the move that is under way
        self.links: list[MoveLink] = []  # of all
        self.clients = [Client(f"session:{number}") for number in range(CLIENTS)]
        for number, client in enumerate(self.clients):  # four, one and two
            self.workers[(OLD, OLD, OLD, OLD, NEW, OTHER, OTHER)[number]].connections.append(Connection(client))

    def new_worker(self) -> MovingWorker:
        self.started += 1
        return MovingWorker(self.bus, self.started, self.told)

    def told(self, worker: MovingWorker, addresses: list[str]) -> None:
        self.gaps += 1
        for connection in worker.connections:
            for address in addresses:
                stay = connection.client.stay_in(address)
                if stay is not None and not (connection.is_frozen and connection.client in self.adopted()):
                    stay.told = self.tick()
                    stay.sure = stay.sure or stay.told

    @property
    def link(self) -> MoveLink | None:
        """The only one, or the first of two."""
        return self.open[0] if self.open else None

    def adopted(self) -> set[Client]:
        return {connection.client for link in self.open for connection in link.new.connections}

    def begin(self, rooms: list[set[str]], is_begun: bool, is_record_small: bool = False) -> None:
        """Clients are in `rooms`; a move has begun so far that they can go, if `is_begun`."""
        self.max_record_bytes = ONE_MESSAGE_BYTES if is_record_small else MAX_RECORD_BYTES
        for number, joined in enumerate(rooms):
            for address in sorted(joined):
                self.join(number, address)
        self.finish()
        if is_begun:
            self.begin_move(True, True)

    def tick(self) -> int:
        self.now += 1
        return self.now

    # What applications do

    def find(self, number: int) -> tuple[MovingWorker, Connection] | None:
        """Where a client is served now: nowhere, while it is between two workers."""
        for worker in self.workers:
            for connection in worker.connections:
                if connection.client is self.clients[number] and not connection.is_frozen:
                    return worker, connection
        return None

    def join(self, number: int, address: str) -> None:
        found = self.find(number)
        if found is None:
            return
        worker, connection = found
        stay = connection.client.stay_in(address)
        if stay is None:
            stay = Stay(address, self.tick())
            connection.client.stays.append(stay)
        with worker.loop.running():
            confirmation = worker.audience.join(address, connection)
        if stay.sure is None:
            stay.confirmation = confirmation  # type: ignore[assignment]
        self.look_at_confirmations()

    def leave(self, number: int, address: str) -> None:
        found = self.find(number)
        if found is None:
            return
        worker, connection = found
        stay = connection.client.stay_in(address)
        if stay is not None:
            stay.end = self.tick()
        with worker.loop.running():
            worker.audience.leave(address, connection)

    def publish(self, number: int, rooms: list[str], excluded: bool, times: int = 1) -> None:
        for _ in range(times):
            self.send(
                number,
                tuple(rooms),
                lambda worker, connection, message: worker.audience.publish(
                    rooms, message, connection if excluded else None
                ),
                is_excluded=excluded,
            )

    def publish_local(self, number: int, room: str) -> None:
        self.send(
            number,
            (room,),
            lambda worker, _, message: worker.audience.publish_local(room, message, None),
            is_local=True,
        )

    def send_to_user(self, number: int) -> None:
        self.send(number, (ANN,), lambda worker, _, message: worker.audience.send_to_user("ann", message))

    def send_to_session(self, number: int, other: int) -> None:
        to = self.clients[other].name
        self.send(number, (DIRECT,), lambda worker, _, message: worker.audience.send_to(to, message), to=to)

    def disconnect_user(self, number: int) -> None:
        self.send(
            number,
            (ANN,),
            lambda worker, _, order: worker.audience.disconnect("user:ann", 1008, order.payload.decode()),
            is_order=True,
        )

    def disconnect_session(self, number: int, other: int) -> None:
        to = self.clients[other].name
        self.send(
            number,
            (DIRECT,),
            lambda worker, _, order: worker.audience.disconnect(to, 1008, order.payload.decode()),
            to=to,
            is_order=True,
        )

    def send(
        self,
        number: int,
        addresses: tuple[str, ...],
        act: Callable[[MovingWorker, Connection, PreparedMessage], object],
        *,
        is_excluded: bool = False,
        is_local: bool = False,
        is_order: bool = False,
        to: str = "",
    ) -> None:
        found = self.find(number)
        if found is None:
            return
        worker, connection = found
        message = Message(
            len(self.messages) + 1,
            self.tick(),
            connection.client,
            worker,
            addresses,
            to,
            connection.client if is_excluded else None,
            is_local,
            is_order,
            self.near(worker, is_local=is_local),
        )
        self.messages.append(message)
        with worker.loop.running():
            self.is_giving = True
            act(worker, connection, PreparedMessage.of(str(message.number)))
            self.is_giving = False

    def near(self, worker: MovingWorker, *, is_local: bool) -> dict[Client, str]:
        """Who gets what `worker` publishes without the store. A client between two workers is near whichever of them
        has it at last."""
        near: dict[Client, str] = {}
        for other in self.workers:
            for each in other.connections:
                way = next((link for link in self.open if each.client in link.sent), None) if each.is_frozen else None
                if is_local and way is not None and not way.is_same_slot:
                    near[each.client] = "on its way"  # to where it is not meant
                elif other is worker:
                    near[each.client] = "here"
                elif way is None or worker is way.new:
                    for link in self.open:
                        if {worker, other} == {link.old, link.new} and self.carries(link, worker, is_local=is_local):
                            # Else the store may bring what is newer before the copy is read, and a gap is told; or
                            # who is to get it may have gone to the third, which has no link to this worker.
                            is_open = link.departures.copies.is_open and link.arrivals.copies.is_open
                            is_open = is_open and (worker is link.old or len(self.open) == 1)
                            near.setdefault(each.client, "linked" if is_open else "soon linked")
        return near

    def carries(self, link: MoveLink, worker: MovingWorker, *, is_local: bool) -> bool:
        """Whether the other one gets a copy over it."""
        is_carried = (link.departures if worker is link.old else link.arrivals).carries_local
        is_carried = is_carried or (worker is link.new and link.key is not None)
        return not link.ended and (not is_local or is_carried)

    def publish_when_given_something(self, number: int, rooms: list[str]) -> None:
        self.when_given_something(number, partial(self.publish, number, rooms, False))

    def change_when_given_something(self, number: int, address: str, is_joined: bool) -> None:
        self.when_given_something(number, partial(self.join if is_joined else self.leave, number, address))

    def when_given_something(self, number: int, act: Callable[[], None]) -> None:
        found = self.find(number)
        if found is not None:

            def react() -> bool:
                if self.is_giving:
                    return False
                act()
                return True

            found[1].on_deliver = react

    def look_at_confirmations(self) -> None:
        for client in self.clients:
            for stay in client.stays:
                if stay.sure is None and stay.confirmation is not None and stay.confirmation.is_done:
                    stay.sure = self.tick()

    # What workers and the bus do

    def turn(self, number: int) -> None:
        with self.workers[number].loop.running():
            self.workers[number].loop.turn()

    def ask(self, number: int) -> None:
        self.workers[number].line.ask()

    def read_subscriptions(self, number: int, count: int) -> None:
        line = self.workers[number].line
        for _ in range(min(count, len(line.asked))):
            self.bus.read_subscription(line)

    def read_publishes(self, number: int, count: int) -> None:
        line = self.workers[number].line
        for _ in range(min(count, len(line.published))):
            self.bus.read_publish(line)

    def receive(self, number: int, count: int) -> None:
        worker = self.workers[number]
        with worker.loop.running():
            for _ in range(min(count, len(worker.line.coming))):
                worker.line.receive()
        self.look_at_confirmations()

    def answer_ping(self, number: int) -> None:
        self.ask(number)
        self.read_subscriptions(number, 9)
        self.receive(number, 9)

    def cut(self, number: int) -> None:
        self.is_calm = False
        with self.workers[number].loop.running():
            self.workers[number].line.cut()
        for connection in self.workers[number].connections:
            for stay in connection.client.stays:
                stay.confirmation = None

    def mend(self, number: int) -> None:
        if not self.workers[number].line.connected.is_set():
            self.workers[number].line.mend()

    def refuse(self, number: int) -> None:
        """The store takes nothing of what the worker has sent, but goes on to tell it what others send."""
        self.is_calm = False
        with self.workers[number].loop.running():
            self.workers[number].line.refuse()

    def tell_heads(self, number: int) -> None:
        with self.workers[number].loop.running():
            self.workers[number].line.tell_heads()

    def be_slow(self, number: int) -> None:
        """The store has not answered within a second."""
        self.is_calm = False
        with self.workers[number].loop.running():
            self.workers[number].line.give_up_pings()

    # What the move does

    def begin_move(self, is_same_slot: bool, is_ready: bool, is_wide: bool = False) -> None:
        """`is_wide`: to both others, of whom neither has the old one's slot."""
        if not self.open:
            old, *others = self.workers
            for new in others if is_wide else others[:1]:
                link = MoveLink(old, new, is_same_slot and not is_wide, self.tick(), self.max_record_bytes)
                self.open.append(link)
                self.links.append(link)
                link.begin(self.told)
        if is_ready and all(worker.line.connected.is_set() for worker in self.workers):
            # To go at once: few examples would come so far by themselves.
            self.finish()
            for number in (OLD, NEW, OTHER):
                self.settle(number)
            self.finish()

    def settle(self, number: int) -> None:
        worker = self.workers[number]
        for link in self.open:
            if not link.ended and worker in (link.old, link.new):
                link.settle(worker)

    def key_comes(self) -> None:
        """What an application keeps for its key is in the new worker now. (Of another slot, what is published there for
        that one alone may come behind what is for all: that is for stories.)"""
        for link in self.open:
            if link.is_same_slot and not link.ended:
                link.arrivals.key_comes(b"a match")

    def move(self, numbers: set[int]) -> None:
        """Of two workers, each client belongs to one."""
        for place, link in enumerate(self.open):
            if not link.ended:
                found = [self.find(number) for number in sorted(numbers) if number % len(self.open) == place]
                with link.old.loop.running():
                    link.move([each[1] for each in found if each is not None and each[0] is link.old])

    def move_and_adopt(self, numbers: set[int], count: int) -> None:
        self.read_publishes(OLD, 99)
        self.move(numbers)
        self.read_new(count)
        self.read_new(count, number=OTHER)

    def publish_to_the_store(self, number: int, rooms: list[str]) -> None:
        """And those who hear it have not received it."""
        self.publish(number, rooms, False)
        for each in (OLD, NEW, OTHER):
            self.read_publishes(each, 99)

    def read_new(self, count: int, refuses: bool = False, number: int = NEW) -> None:
        for link in self.open:
            if link.new is self.workers[number]:
                with link.new.loop.running():
                    for _ in range(min(count, len(link.to_new))):
                        link.read_new(self.arrived, refuses=refuses)

    def arrived(self, worker: MovingWorker, connection: Connection) -> None:
        for stay in connection.client.stays:
            if stay.end is None and stay.sure is None and worker.bridge.is_heard(stay.address):
                stay.sure = self.tick()

    def read_old(self, count: int, number: int = NEW) -> None:
        for link in self.open:
            if link.new is self.workers[number]:
                with link.old.loop.running():
                    for _ in range(min(count, len(link.to_old))):
                        self.published_before = len(self.messages)
                        link.read_old(self.refused)

    def refused(self, connection: Connection) -> None:
        """The new worker does not take it, and the old one closes it."""
        client = connection.client
        client.refused_at = self.tick()
        for stay in client.stays:
            stay.end = stay.end or client.refused_at

    def finish_move(self) -> None:
        """All have gone that can; those that are left stay, and the new worker is the next old one."""
        links = self.open
        if not links or any(link.sent or link.ended for link in links):
            return
        if not all(link.departures.copies.is_open and link.arrivals.copies.is_open for link in links):
            return
        for link in links:
            link.finish()
        for number in (NEW, OTHER):
            self.read_new(999, number=number)
        for link in links:
            self.read_publishes(self.workers.index(link.new), 999)  # it answers when the store has answered it
        while any(link.to_new or link.to_old for link in links):
            for number in (NEW, OTHER):
                self.read_old(999, number)
                self.read_new(999, number=number)
        for link in links:
            for worker in (link.new, link.old):
                with worker.loop.running():
                    link.end(worker)
        self.open = []
        self.workers[OLD], self.workers[NEW] = self.workers[NEW], self.workers[OLD]

    def die(self, number: int) -> None:
        """The process ends; its partners read what it had sent; it has a successor."""
        worker = self.workers[number]
        self.is_calm, self.has_died = False, True
        worker.is_dead = True
        self.bus.lines.remove(worker.line)
        for link in [link for link in self.open if worker in (link.old, link.new)]:
            partner = self.workers.index(link.new)
            if worker is link.old:
                self.read_new(999, number=partner)
            else:
                self.read_old(999, partner)
            survivor = link.new if worker is link.old else link.old
            with survivor.loop.running():
                link.end(survivor)
            self.open.remove(link)
        alive = {connection.client for each in self.workers if each is not worker for connection in each.connections}
        for client in self.clients:
            client.is_lost = client.is_lost or client not in alive
        self.workers[number] = self.new_worker()

    def finish(self) -> None:
        """Let all happen that is under way."""
        while any(
            worker.loop.ready
            or worker.line.published
            or worker.line.coming
            or worker.line.has_changes
            or worker.line.owes_heads
            for worker in self.workers
        ) or any(link.to_new or link.to_old for link in self.open):
            for number in (OLD, NEW, OTHER):
                self.ask(number)
                self.tell_heads(number)
                self.read_subscriptions(number, 99)
                self.read_publishes(number, 99)
                self.receive(number, 99)
                self.turn(number)
            for number in (NEW, OTHER):
                self.read_new(99, number=number)
                self.read_old(99, number)

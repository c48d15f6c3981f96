"""Several workers on one bus against a model: each member gets exactly the messages of its rooms.

Whatever is joined, left and published, whichever workers die, in whatever order things happen.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from support.bus_by_hand import KEYS, PREFIX, Bus, Confirmation, Line
from support.modelled_workers import MEMBERS, Member, Worker

from stickygw.bridge import hub as hubs
from stickygw.bridge.addresses import DIRECT, channel_of, user_address
from stickygw.wire.envelope import HEAD
from stickygw.wire.prepared import PreparedMessage

ROOMS = ("red", "green", "blue")
ANN = user_address("ann")
ADDRESS_OF = {channel_of(PREFIX, address): address for address in (*ROOMS, ANN, DIRECT)}
WORKERS = 3

a_room = st.sampled_from(ROOMS)
an_address = st.sampled_from((*ROOMS, ANN))
some_rooms = st.lists(a_room, min_size=1, max_size=3, unique=True)
some = st.integers(1, 4)
a_worker = st.integers(0, WORKERS - 1)
a_place = st.tuples(a_worker, st.integers(0, MEMBERS - 1))


class AudienceModel(RuleBasedStateMachine):
    """Workers whose bounds are so small that rounds overlap with all that is done.

    A message is its number, rising with each publish.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bounds = pytest.MonkeyPatch()
        for name, bound in (("MEMBERS_AT_A_TIME", 2), ("MEMBERS_PER_TURN", 3), ("MAX_UNDELIVERED", 4)):
            self.bounds.setattr(hubs, name, bound)
        self.bus = Bus(on_lost=self.lost)
        self.started = 0
        self.workers = [self.new_worker() for _ in range(WORKERS)]
        self.past: list[Member] = []  # whose connections have ended
        self.sender_of: dict[int, Line] = {}
        self.is_giving = False  # a message to a hub, now

    def new_worker(self) -> Worker:
        self.started += 1
        return Worker(self.bus, self.started)

    def lost(self, line: Line, channel: bytes) -> None:
        for worker in self.workers:
            worker.miss(ADDRESS_OF[channel], line)

    @initialize(rooms=st.lists(st.sets(an_address), min_size=WORKERS * MEMBERS, max_size=WORKERS * MEMBERS))
    def begin(self, rooms: list[set[str]]) -> None:
        """Some are somewhere already, and heard."""
        for place, joined in zip(product(range(WORKERS), range(MEMBERS)), rooms, strict=True):
            for address in sorted(joined):
                self.join(place, address)
        self.finish()

    # What applications do

    @rule(place=a_place, address=an_address)
    def join(self, place: tuple[int, int], address: str) -> None:
        worker, member = self.at(place)
        member.rooms.setdefault(address, Confirmation())
        with worker.loop.running():
            confirmation = worker.audience.join(address, member)
        assert isinstance(confirmation, Confirmation)
        if address in member.rooms and not member.rooms[address].is_done:
            member.rooms[address] = confirmation

    @rule(place=a_place, address=an_address)
    def leave(self, place: tuple[int, int], address: str) -> None:
        worker, member = self.at(place)
        member.rooms.pop(address, None)
        worker.has_left()
        with worker.loop.running():
            worker.audience.leave(address, member)

    @rule(place=a_place)
    def end(self, place: tuple[int, int]) -> None:
        """The connection ends, and there is another one."""
        worker, member = self.at(place)
        worker.members[place[1]] = Member(f"{member.name}'")
        self.past.append(member)
        member.rooms = {}
        worker.has_left()
        with worker.loop.running():
            worker.audience.leave_all(member)

    @rule(number=a_worker, rooms=some_rooms, excluded=st.none() | a_place, times=st.integers(1, 3))
    def publish(self, number: int, rooms: list[str], excluded: tuple[int, int] | None, times: int = 1) -> None:
        worker = self.workers[number]
        exclude = None if excluded is None else self.at((number, excluded[1]))[1]
        for _ in range(times):
            reached = [member for member in worker.members if member is not exclude and set(rooms) & set(member.rooms)]
            self.send(worker, reached, lambda message: worker.audience.publish(rooms, message, exclude))

    @rule(number=a_worker, room=a_room)
    def publish_local(self, number: int, room: str) -> None:
        worker = self.workers[number]
        self.send(worker, worker.members_of(room), lambda message: worker.audience.publish_local(room, message, None))

    @rule(number=a_worker)
    def send_to_user(self, number: int) -> None:
        worker = self.workers[number]
        self.send(worker, worker.members_of(ANN), lambda message: worker.audience.send_to_user("ann", message))

    @rule(number=a_worker, place=a_place)
    def send_to_session(self, number: int, place: tuple[int, int]) -> None:
        worker, meant = self.workers[number], self.at(place)[1]
        reached = [meant] if meant in worker.members else []
        self.send(worker, reached, lambda message: worker.audience.send_to(meant.name, message))

    def at(self, place: tuple[int, int]) -> tuple[Worker, Member]:
        worker = self.workers[place[0]]
        return worker, worker.members[place[1]]

    def send(self, worker: Worker, reached: list[Member], send: Callable[[PreparedMessage], object]) -> None:
        number = len(self.sender_of) + 1
        self.sender_of[number] = worker.line
        self.give(worker, number, reached, lambda: send(PreparedMessage.of(str(number))))

    def give(self, worker: Worker, number: int, reached: list[Member], act: Callable[[], object]) -> None:
        """`act` gives the message to the hub of `worker`, from where `reached` get it."""
        for member in reached:  # before the call: the hub is free to deliver within it
            member.expected.append(number)
        self.is_giving = True
        with worker.loop.running():
            act()
        self.is_giving = False

    # What happens within a delivery: a connection is found ended; a client that was slow is read again

    @rule(place=a_place, other=st.integers(0, MEMBERS - 1))
    def end_when_given_something(self, place: tuple[int, int], other: int) -> None:
        self.when_given_something(place, partial(self.end, (place[0], other)))

    @rule(place=a_place, other=st.integers(0, MEMBERS - 1), address=an_address, is_joined=st.booleans())
    def move_when_given_something(self, place: tuple[int, int], other: int, address: str, is_joined: bool) -> None:
        move = self.join if is_joined else self.leave
        self.when_given_something(place, partial(move, (place[0], other), address))

    @rule(place=a_place, rooms=some_rooms)
    def publish_when_given_something(self, place: tuple[int, int], rooms: list[str]) -> None:
        self.when_given_something(place, partial(self.publish, place[0], rooms, None))

    def when_given_something(self, place: tuple[int, int], act: Callable[[], None]) -> None:
        worker, member = self.at(place)

        def react() -> bool:
            if self.is_giving or worker not in self.workers:
                return False
            act()
            return True

        member.on_deliver = react

    # What workers and the bus do

    @rule(number=a_worker)
    def turn(self, number: int) -> None:
        with self.workers[number].loop.running():
            self.workers[number].loop.turn()

    @rule(number=a_worker)
    def ask(self, number: int) -> None:
        self.workers[number].line.ask()

    @rule(number=a_worker, count=some)
    def read_subscriptions(self, number: int, count: int) -> None:
        line = self.workers[number].line
        for _ in range(min(count, len(line.asked))):
            self.bus.read_subscription(line)

    @rule(number=a_worker, count=some)
    def read_publishes(self, number: int, count: int) -> None:
        line = self.workers[number].line
        for _ in range(min(count, len(line.published))):
            self.bus.read_publish(line)

    @rule(number=a_worker, count=some)
    def receive(self, number: int, count: int) -> None:
        worker = self.workers[number]
        for _ in range(min(count, len(worker.line.coming))):
            channel, data = worker.line.coming[0]
            if data is None:
                worker.line.receive()
                continue
            envelope = KEYS.decode(channel, data)
            reached: list[Member] = []
            message = 0
            if envelope.origin != worker.bridge.origin and envelope.opcode != HEAD:
                message, address = int(envelope.payload), ADDRESS_OF[channel]
                meant = worker.members_of(address)
                if address == DIRECT:
                    meant = [member for member in worker.members if member.is_meant(envelope.to)]
                reached = [member for member in meant if message not in member.expected]
            self.give(worker, message, reached, worker.line.receive)

    @rule(number=a_worker)
    def cut(self, number: int) -> None:
        worker = self.workers[number]
        for address in worker.addresses - {DIRECT}:
            worker.missing.add((address, worker.line))
        for member in worker.members:
            member.rooms = {address: Confirmation() for address in member.rooms}
        with worker.loop.running():
            worker.line.cut()

    @rule(number=a_worker)
    def mend(self, number: int) -> None:
        self.workers[number].line.mend()

    @rule(number=a_worker)
    def die(self, number: int) -> None:
        """The process ends, with its members and what it has not sent, and has a successor."""
        worker = self.workers[number]
        self.bus.lines.remove(worker.line)
        self.workers[number] = self.new_worker()
        for other in self.workers:
            other.missing = {(address, line) for address, line in other.missing if line is not worker.line}

    # What is promised

    @invariant()
    def nobody_got_anything_else(self) -> None:
        for member in self.past + [member for worker in self.workers for member in worker.members]:
            assert member.got == member.expected[: len(member.got)]

    @invariant()
    def each_senders_messages_come_once_in_order(self) -> None:
        for worker in self.workers:
            for member in worker.members:
                last: dict[Line, int] = {}
                for number in member.got:
                    sender = self.sender_of[number]
                    assert last.get(sender, 0) < number
                    last[sender] = number

    @invariant()
    def what_has_members_is_heard(self) -> None:
        for worker in self.workers:
            assert {ADDRESS_OF[channel] for channel in worker.line.wanted} == worker.addresses
            for address in worker.addresses - {DIRECT}:
                if worker.is_sure_of(address) and worker.line.connected.is_set():
                    assert channel_of(PREFIX, address) in worker.line.heard

    @invariant()
    def nothing_fails(self) -> None:
        for worker in self.workers:
            assert worker.counters.total("bridge_old") == worker.counters.total("deliver_failed") == 0
            assert worker.told_in_vain == set()

    def finish(self) -> None:
        """Let all happen that is under way."""
        while any(
            worker.loop.ready or worker.line.published or worker.line.coming or worker.line.has_changes
            for worker in self.workers
        ):
            for number in range(WORKERS):
                self.ask(number)
                self.read_subscriptions(number, 99)
                self.read_publishes(number, 99)
                self.receive(number, 99)
                self.turn(number)

    def teardown(self) -> None:
        """In the end everybody has got everything."""
        try:
            for number in range(WORKERS):
                self.mend(number)
            self.finish()
            for worker in self.workers:
                for member in worker.members:
                    assert member.got == member.expected
                    assert all(confirmation.is_done for confirmation in member.rooms.values())
                assert worker.missing == set()
                assert {ADDRESS_OF[channel] for channel in worker.line.heard} == worker.addresses
        finally:
            self.bounds.undo()


TestAudienceModel = AudienceModel.TestCase
TestAudienceModel.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)

"""`Hub` against a model: each member gets the messages of its rooms once, in the order of publishing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.hand_turned_loop import HandTurnedLoop

from stickygw.bridge import hub as hubs
from stickygw.bridge.hub import Hub
from stickygw.observability.counters import Counters
from stickygw.wire.prepared import Batch, PreparedMessage

NAMES = ("red", "green", "blue")
MEMBERS = 7

ROOMS = st.sampled_from(NAMES)
NUMBERS = st.integers(0, MEMBERS - 1)


class Member:
    """A member that keeps what it gets, beside what it should get."""

    def __init__(self) -> None:
        self.got: list[int] = []
        self.expected: list[int] = []
        self.on_deliver: Callable[[], None] | None = None

    def deliver(self, batch: Batch) -> None:
        assert batch.messages
        self.got.extend(int(message.payload) for message in batch.messages)
        react, self.on_deliver = self.on_deliver, None
        if react is not None:
            react()

    def send_away(self, code: int, reason: str, *, within: float) -> None:
        """Nobody does, here."""


class HubModel(RuleBasedStateMachine):
    """Rounds are so small here that they overlap with all that is done, in one turn of the loop or several."""

    def __init__(self) -> None:
        super().__init__()
        self.bounds = pytest.MonkeyPatch()
        for name, bound in (("MEMBERS_AT_A_TIME", 2), ("MEMBERS_PER_TURN", 3), ("MAX_UNDELIVERED", 4)):
            self.bounds.setattr(hubs, name, bound)
        self.loop = HandTurnedLoop()
        # Messages of rooms with different policies cannot share a delivery.
        self.hub = Hub(Counters(), lambda room: "drop_oldest" if room == "red" else "disconnect")
        self.members = [Member() for _ in range(MEMBERS)]
        self.pairs: dict[tuple[str, Member], None] = {}
        self.heard: set[str] = set()  # what the bridge would be subscribed to
        self.published = 0
        self.under_way: int | None = None  # the message that is being published now

    def teardown(self) -> None:
        with self.loop.running():
            while self.loop.ready:
                self.loop.turn()
        self.bounds.undo()
        for member in self.members:
            assert member.got == member.expected

    @rule(room=ROOMS, number=NUMBERS)
    def join(self, room: str, number: int) -> None:
        # Before the call: what the member is given in joining may make somebody leave.
        self.pairs[room, self.members[number]] = None
        self.heard.add(room)
        with self.loop.running():
            self.hub.join(room, self.members[number])

    @rule(room=ROOMS, number=NUMBERS)
    def leave(self, room: str, number: int) -> None:
        with self.loop.running():
            if self.hub.leave(room, self.members[number]):
                self.heard.discard(room)
        self.pairs.pop((room, self.members[number]), None)

    @rule(number=NUMBERS)
    def leave_all(self, number: int) -> None:
        with self.loop.running():
            self.throw_out(self.members[number])

    def throw_out(self, member: Member) -> None:
        self.heard.difference_update(self.hub.leave_all(member))
        if self.under_way is not None and member.expected[-1:] == [self.under_way] != member.got[-1:]:
            member.expected.pop()  # the room made place for it: it was not published yet
        for room in NAMES:
            self.pairs.pop((room, member), None)

    @rule(number=NUMBERS, leaver=NUMBERS)
    def throw_out_when_given_something(self, number: int, leaver: int) -> None:
        self.members[number].on_deliver = lambda: self.throw_out(self.members[leaver])

    @rule(
        rooms=st.lists(ROOMS, min_size=1, max_size=3, unique=True),
        excluded=st.none() | NUMBERS,
        times=st.integers(1, 3),
    )
    def publish(self, rooms: list[str], excluded: int | None, times: int) -> None:
        exclude = None if excluded is None else self.members[excluded]
        with self.loop.running():
            for _ in range(times):
                self.publish_one(rooms, exclude)

    def publish_one(self, rooms: list[str], exclude: Member | None) -> None:
        self.published += 1
        self.under_way = self.published
        message = PreparedMessage.of(str(self.published))
        for place, room in enumerate(rooms):
            reached = [
                member
                for name, member in self.pairs
                if name == room and member is not exclude and not any((r, member) in self.pairs for r in rooms[:place])
            ]
            # Before the call: the hub is free to deliver within it.
            for member in reached:
                member.expected.append(self.published)
            self.hub.publish(room, message, exclude=exclude, unless=rooms[:place])
        self.under_way = None

    @rule(number=NUMBERS)
    def catch_up(self, number: int) -> None:
        member = self.members[number]
        with self.loop.running():
            self.hub.catch_up(member)
        assert member.got == member.expected

    @precondition(lambda self: self.loop.ready)
    @rule()
    def turn(self) -> None:
        with self.loop.running():
            self.loop.turn()

    @invariant()
    def nobody_got_anything_else(self) -> None:
        for member in self.members:
            assert member.got == member.expected[: len(member.got)]

    @invariant()
    def what_waits_will_be_delivered(self) -> None:
        assert len(self.loop.ready) <= 1
        if not self.loop.ready:
            assert all(member.got == member.expected for member in self.members)

    @invariant()
    def both_directions_agree(self) -> None:
        for room in NAMES:
            assert self.hub.members_of(room) == tuple(member for name, member in self.pairs if name == room)
        for member in self.members:
            assert self.hub.rooms_of(member) == tuple(room for room, other in self.pairs if other is member)
        assert self.heard == {room for room, _ in self.pairs}


TestHubModel = HubModel.TestCase
TestHubModel.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)

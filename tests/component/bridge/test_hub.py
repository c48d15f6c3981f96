"""`Hub`: who is in which room, and delivery that nothing a member does can disturb."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from stickygw.bridge.hub import Hub
from stickygw.errors import RoomNameError
from stickygw.observability.counters import Counters
from stickygw.wire.prepared import PreparedMessage

HELLO = PreparedMessage.of("hello")


class Member:
    """A member that keeps what it gets, and does something when it gets it."""

    def __init__(self, on_deliver: Callable[[], object] = lambda: None) -> None:
        self.got: list[PreparedMessage] = []
        self.on_deliver = on_deliver

    def deliver(self, message: PreparedMessage) -> None:
        self.got.append(message)
        self.on_deliver()


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
def hub(counters: Counters) -> Hub:
    return Hub(counters)


def test_the_first_to_join_and_the_last_to_leave_are_told(hub: Hub) -> None:
    a, b = Member(), Member()
    assert [hub.join("room", a), hub.join("room", b), hub.join("room", a)] == [True, False, False]
    assert [hub.leave("room", a), hub.leave("room", a), hub.leave("room", b)] == [False, False, True]
    assert hub.leave("room", b) is False
    assert hub.join("room", a) is True


def test_a_member_that_goes_empties_the_rooms_it_was_alone_in(hub: Hub) -> None:
    a, b = Member(), Member()
    for room in ("both", "alone", "alone too"):
        hub.join(room, a)
    hub.join("both", b)
    assert hub.leave_all(a) == ["alone", "alone too"]
    assert hub.leave_all(a) == []
    assert hub.rooms_of(a) == ()
    assert hub.deliver("both", HELLO) == len(b.got) == 1
    assert a.got == []


def test_a_bad_room_name_is_refused(hub: Hub) -> None:
    member = Member()
    with pytest.raises(RoomNameError):
        hub.join("a\nb", member)
    assert hub.rooms_of(member) == ()


def test_each_member_but_the_excluded_gets_the_same_message(hub: Hub) -> None:
    members = [Member() for _ in range(3)]
    for member in members:
        hub.join("room", member)
    assert hub.deliver("room", HELLO, exclude=members[1]) == 2
    assert [len(member.got) for member in members] == [1, 0, 1]
    assert members[0].got[0] is HELLO
    assert hub.deliver("nobody here", HELLO) == 0


def test_who_is_made_to_leave_during_a_delivery_gets_nothing_more(hub: Hub) -> None:
    second = Member()
    first = Member(lambda: (hub.leave_all(first), hub.leave_all(second)))
    third = Member()
    for member in (first, second, third):
        hub.join("room", member)
    assert hub.deliver("room", HELLO) == 2
    assert [len(member.got) for member in (first, second, third)] == [1, 0, 1]


def test_who_joins_during_a_delivery_gets_the_next_message(hub: Hub) -> None:
    late = Member()
    first = Member(lambda: hub.join("room", late))
    hub.join("room", first)
    assert hub.deliver("room", HELLO) == 1
    assert hub.deliver("room", HELLO) == 2
    assert len(late.got) == 1


def test_a_member_that_fails_stops_no_other(hub: Hub, counters: Counters, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise RuntimeError("defect")

    members = [Member(), Member(fail), Member()]
    for member in members:
        hub.join("room", member)
    assert hub.deliver("room", HELLO) == 2
    assert [len(member.got) for member in members] == [1, 1, 1]
    assert counters.value("deliver_failed", "RuntimeError") == 1
    assert "defect" in caplog.text


ROOMS = st.sampled_from(["red", "green", "blue"])
NUMBERS = st.integers(0, 4)


class HubModel(RuleBasedStateMachine):
    """The hub agrees with a plain set of pairs, whatever is done in whatever order."""

    def __init__(self) -> None:
        super().__init__()
        self.hub = Hub(Counters())
        self.members = [Member() for _ in range(5)]
        self.pairs: set[tuple[str, int]] = set()

    def _in(self, room: str) -> set[int]:
        return {number for name, number in self.pairs if name == room}

    @rule(room=ROOMS, number=NUMBERS)
    def join(self, room: str, number: int) -> None:
        assert self.hub.join(room, self.members[number]) is (not self._in(room))
        self.pairs.add((room, number))

    @rule(room=ROOMS, number=NUMBERS)
    def leave(self, room: str, number: int) -> None:
        assert self.hub.leave(room, self.members[number]) is (self._in(room) == {number})
        self.pairs.discard((room, number))

    @rule(number=NUMBERS)
    def leave_all(self, number: int) -> None:
        emptied = {room for room, _ in self.pairs if self._in(room) == {number}}
        assert set(self.hub.leave_all(self.members[number])) == emptied
        self.pairs = {pair for pair in self.pairs if pair[1] != number}

    @rule(room=ROOMS, excluded=st.none() | NUMBERS, leaver=st.none() | NUMBERS)
    def deliver(self, room: str, excluded: int | None, leaver: int | None) -> None:
        """The first receiver may throw another member out of everything."""
        before = self._in(room)
        for member in self.members:
            member.got.clear()
            member.on_deliver = lambda: self.hub.leave_all(self.members[leaver]) if leaver is not None else None
        exclude = None if excluded is None else self.members[excluded]
        taken = self.hub.deliver(room, HELLO, exclude=exclude)
        got = {number for number, member in enumerate(self.members) if member.got}
        assert taken == sum(len(member.got) for member in self.members) == len(got)
        assert got <= before - {excluded}
        assert before - {excluded, leaver} <= got
        if got and leaver is not None:
            self.pairs = {pair for pair in self.pairs if pair[1] != leaver}

    @invariant()
    def both_directions_agree(self) -> None:
        for room in ("red", "green", "blue"):
            for member in self.members:
                member.got.clear()
                member.on_deliver = lambda: None
            assert self.hub.deliver(room, HELLO) == len(self._in(room))
            assert {number for number, member in enumerate(self.members) if member.got} == self._in(room)
        for number, member in enumerate(self.members):
            assert {(room, number) for room in self.hub.rooms_of(member)} == {
                pair for pair in self.pairs if pair[1] == number
            }


TestHubModel = HubModel.TestCase
TestHubModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)

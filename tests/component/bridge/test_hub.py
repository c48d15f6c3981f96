"""`Hub`: who is in which room, and what is delivered to them when."""

from __future__ import annotations

import pytest
from support.hub_members import Member, delivered, joined, next_turn, publish

from stickygw.bridge.hub import Hub
from stickygw.errors import RoomNameError
from stickygw.observability.counters import Counters
from stickygw.wire.prepared import Batch


@pytest.fixture
def hub() -> Hub:
    return Hub(Counters())


# Membership


def test_the_first_to_join_and_the_last_to_leave_are_told(hub: Hub) -> None:
    a, b = Member(), Member()
    assert [hub.join("room", a), hub.join("room", b), hub.join("room", a)] == [True, False, False]
    assert [hub.leave("room", a), hub.leave("room", a), hub.leave("room", b)] == [False, False, True]
    assert hub.leave("room", b) is False
    assert hub.join("room", a) is True


async def test_a_member_that_goes_empties_the_rooms_it_was_alone_in(hub: Hub) -> None:
    a, b = joined(hub, "both", "alone", "alone too"), joined(hub, "both")
    assert hub.leave_all(a) == ["alone", "alone too"]
    assert hub.leave_all(a) == []
    assert hub.rooms_of(a) == ()
    assert hub.members_of("both") == (b,)
    assert hub.members_of("alone") == ()
    publish(hub, "both", "1")
    await delivered(hub)
    assert (a.got, b.got) == ([], ["1"])


def test_a_bad_room_name_is_refused(hub: Hub) -> None:
    member = Member()
    with pytest.raises(RoomNameError):
        hub.join("a\nb", member)
    assert hub.rooms_of(member) == ()


# What is delivered, and when


async def test_nothing_is_delivered_within_the_publishers_call(hub: Hub) -> None:
    member = joined(hub, "room")
    publish(hub, "room", "1")
    assert member.got == []
    await next_turn()
    assert member.got == ["1"]


async def test_what_is_published_in_one_turn_is_one_delivery(hub: Hub) -> None:
    member = joined(hub, "room")
    publish(hub, "room", "1", "2", "3")
    await next_turn()
    publish(hub, "room", "4")
    await next_turn()
    assert member.deliveries == [["1", "2", "3"], ["4"]]


async def test_members_with_the_same_share_get_the_same_batch(hub: Hub) -> None:
    batches: list[Batch] = []

    class Keeper(Member):
        def deliver(self, batch: Batch) -> None:
            batches.append(batch)

    for _ in range(3):
        hub.join("room", Keeper())
    publish(hub, "room", "1", "2")
    await next_turn()
    assert len(batches) == 3
    assert batches[0] is batches[1] is batches[2]


async def test_several_rooms_are_one_delivery_in_the_order_of_publishing(hub: Hub) -> None:
    both, red, blue = joined(hub, "red", "blue"), joined(hub, "red"), joined(hub, "blue")
    publish(hub, "blue", "1")
    publish(hub, "red", "2")
    publish(hub, "blue", "3")
    publish(hub, "red", "4")
    await next_turn()
    assert both.deliveries == [["1", "2", "3", "4"]]
    assert red.deliveries == [["2", "4"]]
    assert blue.deliveries == [["1", "3"]]


async def test_the_excluded_member_gets_only_the_others_messages(hub: Hub) -> None:
    a, b = joined(hub, "room"), joined(hub, "room")
    publish(hub, "room", "from a", exclude=a)
    publish(hub, "room", "from b", exclude=b)
    publish(hub, "room", "from nobody")
    await next_turn()
    assert a.deliveries == [["from b", "from nobody"]]
    assert b.deliveries == [["from a", "from nobody"]]


async def test_who_is_excluded_from_all_is_not_called(hub: Hub) -> None:
    member = joined(hub, "room")
    publish(hub, "room", "1", exclude=member)
    await delivered(hub)
    assert member.deliveries == []


async def test_members_of_a_room_in_unless_get_it_there(hub: Hub) -> None:
    both, blue = joined(hub, "red", "blue"), joined(hub, "blue")
    publish(hub, "red", "1")
    publish(hub, "blue", "1", unless=("red", "nobody here"))
    await next_turn()
    assert both.deliveries == blue.deliveries == [["1"]]


async def test_a_message_in_two_rooms_comes_once_to_who_leaves_one_at_once(hub: Hub) -> None:
    member = joined(hub, "red", "blue")
    publish(hub, "red", "1")
    publish(hub, "blue", "1", unless=("red",))
    hub.leave("red", member)
    await delivered(hub)
    assert member.got == ["1"]


async def test_a_message_in_two_rooms_comes_once_to_who_joins_the_other_at_once(hub: Hub) -> None:
    member = joined(hub, "blue")
    joined(hub, "red")
    publish(hub, "red", "1")
    publish(hub, "blue", "1", unless=("red",))
    hub.join("red", member)
    await delivered(hub)
    assert member.got == ["1"]


async def test_a_room_without_members_keeps_nothing(hub: Hub) -> None:
    publish(hub, "room", "1")
    member = joined(hub, "room")
    await delivered(hub)
    assert member.got == []


# Catching up


async def test_who_catches_up_has_all_that_was_published_and_gets_it_once(hub: Hub) -> None:
    member, other = joined(hub, "red", "blue"), joined(hub, "red")
    publish(hub, "red", "1")
    publish(hub, "blue", "2")
    publish(hub, "red", "3")
    hub.catch_up(member)
    assert member.deliveries == [["1", "2", "3"]]
    assert other.got == []
    publish(hub, "red", "4")
    await delivered(hub)
    assert member.deliveries == [["1", "2", "3"], ["4"]]
    assert other.deliveries == [["1", "3", "4"]]


async def test_who_joins_gets_the_next_message(hub: Hub) -> None:
    joined(hub, "room")
    publish(hub, "room", "1")
    late = joined(hub, "room")
    publish(hub, "room", "2")
    await delivered(hub)
    assert late.got == ["2"]


async def test_who_joins_another_room_has_what_was_published_before(hub: Hub) -> None:
    member = joined(hub, "red")
    publish(hub, "red", "1")
    hub.join("blue", member)
    assert member.got == ["1"]


async def test_who_leaves_has_what_was_published_before_and_nothing_after(hub: Hub) -> None:
    member, other = joined(hub, "room"), joined(hub, "room")
    publish(hub, "room", "1")
    hub.leave("room", member)
    assert member.got == ["1"]
    publish(hub, "room", "2")
    await delivered(hub)
    assert member.got == ["1"]
    assert other.got == ["1", "2"]


async def test_who_leaves_and_comes_back_misses_what_was_between(hub: Hub) -> None:
    member = joined(hub, "room")
    joined(hub, "room")
    publish(hub, "room", "1")
    hub.leave("room", member)
    publish(hub, "room", "2")
    hub.join("room", member)
    publish(hub, "room", "3")
    await delivered(hub)
    assert member.got == ["1", "3"]

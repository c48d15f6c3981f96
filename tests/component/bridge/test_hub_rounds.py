"""`Hub` in rounds: members that do things while they are given something, and many of them."""

from __future__ import annotations

import pytest
from support.hub_members import Member, delivered, joined, next_turn, publish

from stickygw.bridge import hub as hubs
from stickygw.bridge.hub import Hub
from stickygw.observability.counters import Counters


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
def hub(counters: Counters) -> Hub:
    return Hub(counters)


# What members do while they are given something


async def test_who_is_made_to_leave_during_a_delivery_has_what_was_published_before(hub: Hub) -> None:
    first, second, third = (joined(hub, "room") for _ in range(3))
    first.on_deliver = lambda: (hub.leave_all(first), hub.leave_all(second))
    publish(hub, "room", "1")
    await next_turn()
    publish(hub, "room", "2")
    await next_turn()
    assert (first.got, second.got, third.got) == (["1"], ["1"], ["1", "2"])


async def test_the_last_to_leave_does_so_during_a_delivery(hub: Hub) -> None:
    member = joined(hub, "room")
    emptied: list[str] = []
    member.on_deliver = lambda: emptied.extend(hub.leave_all(member))
    publish(hub, "room", "1")
    await delivered(hub)
    assert emptied == ["room"]
    assert hub.join("room", member)
    publish(hub, "room", "2")
    await delivered(hub)
    assert member.got == ["1", "2"]


async def test_who_joins_during_a_delivery_gets_the_next_message(hub: Hub) -> None:
    late = Member()
    first = joined(hub, "room")
    first.on_deliver = lambda: hub.join("room", late)
    publish(hub, "room", "1")
    await next_turn()
    publish(hub, "room", "2")
    await next_turn()
    assert late.got == ["2"]


async def test_a_room_that_is_emptied_while_somebody_joins_it_is_joined(hub: Hub) -> None:
    passer_by = Member()
    member = joined(hub, "red")
    member.on_deliver = lambda: (hub.join("blue", passer_by), hub.leave("blue", passer_by))
    publish(hub, "red", "1")
    assert hub.join("blue", member)
    assert hub.members_of("blue") == (member,)
    publish(hub, "blue", "2")
    await delivered(hub)
    assert member.got == ["1", "2"]


async def test_what_is_published_during_a_delivery_comes_to_all_in_the_same_order(hub: Hub) -> None:
    members = [joined(hub, "room") for _ in range(3)]

    def answer() -> None:
        if len(members[1].got) == 1:
            publish(hub, "room", "2")

    members[1].on_deliver = answer
    publish(hub, "room", "1")
    await delivered(hub)
    assert [member.got for member in members] == [["1", "2"]] * 3


async def test_a_member_that_fails_stops_no_other(
    hub: Hub, counters: Counters, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("defect")

    members = [joined(hub, "room") for _ in range(3)]
    members[1].on_deliver = fail
    publish(hub, "room", "1")
    await delivered(hub)
    assert [member.got for member in members] == [["1"]] * 3
    assert counters.value("deliver_failed", "RuntimeError") == 1
    assert "defect" in caplog.text


# Bounds and turns


async def test_a_turn_gives_things_to_a_bounded_number_of_members(hub: Hub) -> None:
    members = [joined(hub, "room") for _ in range(3 * hubs.MEMBERS_PER_TURN)]
    publish(hub, "room", "1")
    for turn in (1, 2, 3):
        await next_turn()
        assert sum(len(member.got) for member in members) == turn * hubs.MEMBERS_PER_TURN


async def test_a_small_room_does_not_wait_for_a_large_one(hub: Hub) -> None:
    large = [joined(hub, "large") for _ in range(10 * hubs.MEMBERS_PER_TURN)]
    small = joined(hub, "small")
    publish(hub, "large", "1")
    publish(hub, "small", "2")
    await next_turn()
    assert small.got == ["2"]
    assert large[-1].got == []
    await delivered(hub)
    assert large[-1].got == ["1"]


async def test_who_publishes_on_and_on_in_a_large_room_starves_nobody_in_it(hub: Hub) -> None:
    members = [joined(hub, "room") for _ in range(4 * hubs.MEMBERS_PER_TURN)]
    for number in range(6):
        publish(hub, "room", str(number))
        await next_turn()
    assert all(member.got for member in members)
    await delivered(hub)
    assert all(member.got == [str(number) for number in range(6)] for member in members)


async def test_a_room_keeps_a_bounded_number_of_messages(hub: Hub) -> None:
    members = [joined(hub, "room") for _ in range(hubs.MEMBERS_AT_A_TIME + 1)]
    kept = [str(number) for number in range(hubs.MAX_UNDELIVERED)]
    publish(hub, "room", *kept)
    assert all(member.got == [] for member in members)
    publish(hub, "room", "one more")
    assert all(member.deliveries == [kept] for member in members)
    await delivered(hub)
    assert all(member.deliveries == [kept, ["one more"]] for member in members)


async def test_a_member_may_publish_more_than_a_room_keeps_while_it_is_given_something(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hubs, "MAX_UNDELIVERED", 4)
    members = [joined(hub, "room") for _ in range(3)]
    flood = [str(number) for number in range(20)]

    def pour() -> None:
        members[1].on_deliver = lambda: None
        publish(hub, "room", *flood)

    members[1].on_deliver = pour
    publish(hub, "room", "first")
    await delivered(hub)
    assert [member.got for member in members] == [["first", *flood]] * 3


async def test_what_is_published_while_a_room_makes_place_is_in_the_same_order_for_all(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hubs, "MAX_UNDELIVERED", 2)
    first, in_red, in_both = joined(hub, "red"), joined(hub, "red"), joined(hub, "red", "blue")

    def answer() -> None:
        first.on_deliver = lambda: None
        publish(hub, "red", "answer")

    first.on_deliver = answer
    publish(hub, "red", "1", "2", "3")
    publish(hub, "blue", "4")
    await delivered(hub)
    assert in_red.got == first.got == ["1", "2", "answer", "3"]
    assert in_both.got == [*in_red.got, "4"]


async def test_who_comes_back_while_a_room_makes_place_gets_the_message_it_was_made_for(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hubs, "MAX_UNDELIVERED", 1)
    member = joined(hub, "room")
    member.on_deliver = lambda: (hub.leave("room", member), hub.join("room", member))
    publish(hub, "room", "1", "2")
    await delivered(hub)
    assert member.got == ["1", "2"]


async def test_a_room_keeps_a_bounded_number_of_bytes(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubs, "MAX_UNDELIVERED_BYTES", 100)
    member = joined(hub, "room")
    for _ in range(3):
        publish(hub, "room", "x" * 60)
    assert len(member.got) == 2  # when the third came
    await delivered(hub)
    assert len(member.got) == 3
    publish(hub, "room", "x" * 60)
    publish(hub, "room", "x" * 60)
    assert len(member.got) == 3  # what has been given does not count any more

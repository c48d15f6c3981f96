"""`Room`: positions in what was published, and rounds over the members."""

from __future__ import annotations

from stickygw.bridge.room import Entry, Room
from stickygw.wire.prepared import Batch, PreparedMessage


class Member:
    """Somebody; the test gives it things."""

    def deliver(self, batch: Batch) -> None:
        raise AssertionError("a room delivers nothing")

    def send_away(self, code: int, reason: str, *, within: float) -> None:
        raise AssertionError("nor does it close")


def entry(number: int, *, exclude: Member | None = None, unless: tuple[Room, ...] = ()) -> Entry:
    return Entry(number, PreparedMessage.of(str(number)), exclude, unless)


def room_of(*members: Member) -> Room:
    room = Room("room")
    for member in members:
        room.join(member)
    return room


def numbers(batch: Batch | None) -> list[int] | None:
    return None if batch is None else [int(message.payload) for message in batch.messages]


def test_a_member_is_given_each_message_once() -> None:
    member = Member()
    room = room_of(member)
    room.add(entry(1))
    room.add(entry(2))
    assert numbers(room.take(member)) == [1, 2]
    assert room.take(member) is None
    room.add(entry(3))
    assert numbers(room.take(member)) == [3]


def test_members_at_the_same_position_share_a_batch() -> None:
    a, b = Member(), Member()
    room = room_of(a, b)
    room.add(entry(1))
    assert room.take(a) is room.take(b) is not None


def test_members_at_different_positions_get_their_own_share() -> None:
    a, b = Member(), Member()
    room = room_of(a)
    room.add(entry(1))
    room.join(b)
    room.add(entry(2))
    assert numbers(room.take(b)) == [2]
    assert numbers(room.take(a)) == [1, 2]


def test_an_entry_is_not_for_the_excluded_nor_for_members_of_its_other_rooms() -> None:
    a, b, c = Member(), Member(), Member()
    room = room_of(a, b, c)
    room.add(entry(1, exclude=a))
    room.add(entry(2, unless=(room_of(b),)))
    assert numbers(room.take(a)) == [2]
    assert numbers(room.take(b)) == [1]
    assert numbers(room.take(c)) == [1, 2]


def test_nothing_for_somebody_is_no_batch() -> None:
    member = Member()
    room = room_of(member)
    room.add(entry(1, exclude=member))
    assert room.take(member) is None


def test_who_has_left_is_given_nothing() -> None:
    member = Member()
    room = room_of(member)
    room.add(entry(1))
    del room.members[member]
    assert room.take(member) is None


def test_entries_are_taken_with_their_numbers() -> None:
    member = Member()
    room = room_of(member)
    room.add(entry(3))
    room.add(entry(7, exclude=member))
    room.add(entry(9))
    assert [taken.number for taken in room.take_entries(member)] == [3, 9]
    assert room.take_entries(member) == []
    assert room.take(member) is None


def test_a_round_is_over_all_who_were_there_when_it_began_and_ends_what_was_there() -> None:
    a, b = Member(), Member()
    room = room_of(a)
    room.add(entry(1))
    assert list(room.begin_round()) == [a]
    room.take(a)
    room.join(b)
    room.add(entry(2))
    room.end_round()
    assert (room.undelivered, room.is_settled) == (1, False)
    assert list(room.begin_round()) == [a, b]
    assert numbers(room.take(a)) == numbers(room.take(b)) == [2]
    room.end_round()
    assert (room.undelivered, room.is_settled) == (0, True)


def test_a_round_that_has_begun_goes_on_where_it_was() -> None:
    a, b = Member(), Member()
    room = room_of(a, b)
    room.add(entry(1))
    assert next(room.begin_round()) is a
    room.add(entry(2))
    assert list(room.begin_round()) == [b]


def test_who_is_behind_a_round_gets_what_was_published_meanwhile_in_it() -> None:
    a, b = Member(), Member()
    room = room_of(a, b)
    room.add(entry(1))
    room.begin_round()
    assert numbers(room.take(a)) == [1]
    room.add(entry(2))
    assert numbers(room.take(b)) == [1, 2]
    room.end_round()
    room.begin_round()
    assert numbers(room.take(a)) == [2]
    assert room.take(b) is None


def test_a_round_that_has_ended_ends_once() -> None:
    member = Member()
    room = room_of(member)
    room.add(entry(1))
    room.begin_round()
    room.take(member)
    room.end_round()
    room.add(entry(2))
    room.end_round()
    assert numbers(room.take(member)) == [2]

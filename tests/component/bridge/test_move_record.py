"""What a worker remembers while connections come: the record, and what is withheld from whom."""

from __future__ import annotations

from support.hub_members import Member as HubMember

from stickygw.bridge.base import Publication
from stickygw.bridge.record import OVERHEAD_BYTES, Record
from stickygw.bridge.withheld import Withheld
from stickygw.wire.prepared import TEXT

X, Y = b"X" * 8, b"Y" * 8


def publication(origin: bytes, number: int) -> Publication:
    return Publication(TEXT, b"%d" % number, origin=origin, number=number)


def beyond(record: Record, **positions: dict[bytes, int]) -> list[tuple[str, bytes, int]]:
    return [
        (found.address, found.publication.origin[:1], found.publication.number) for found in record.beyond(positions)
    ]


def test_what_is_beyond_a_position_comes_in_the_order_of_arrival() -> None:
    record = Record()
    record.begin(["red", "blue"])
    for address, origin, number in (("red", X, 4), ("blue", X, 1), ("red", Y, 9), ("red", X, 5)):
        assert record.add(address, publication(origin, number))
    assert beyond(record, red={X: 4}, blue={}) == [("blue", b"X", 1), ("red", b"Y", 9), ("red", b"X", 5)]
    assert beyond(record, red={X: 5, Y: 9}) == []


def test_only_what_comes_after_the_beginning_is_kept() -> None:
    record = Record()
    assert record.add("red", publication(X, 1))
    record.begin(["red"])
    record.add("red", publication(X, 2))
    record.begin(["red"])
    assert beyond(record, red={}) == [("red", b"X", 2)]


def test_what_nobody_needs_any_more_is_dropped_and_makes_room() -> None:
    record = Record(max_bytes=2 * OVERHEAD_BYTES + 2)
    record.begin(["red"])
    assert record.add("red", publication(X, 1))
    assert record.add("red", publication(X, 2))
    assert not record.add("red", publication(X, 3))
    record.drop_until({"red": {X: 1}})
    assert record.add("red", publication(X, 3))
    assert not record.add("red", publication(X, 4))
    assert beyond(record, red={}) == [("red", b"X", 2), ("red", b"X", 3)]


def test_a_record_that_was_cleared_goes_on() -> None:
    record = Record(max_bytes=OVERHEAD_BYTES + 1)
    record.begin(["red"])
    record.begin(["blue"])
    record.add("red", publication(X, 1))
    assert record.clear() == {"red"}
    assert record.add("red", publication(X, 2))
    assert not record.add("red", publication(X, 3))
    assert beyond(record, red={}) == [("red", b"X", 2)]


def test_a_member_is_not_given_what_it_had_and_everybody_else_is() -> None:
    withheld, a, b = Withheld(), HubMember(), HubMember()
    withheld.add(a, "red", {X: 5}, {X: 3}, owner=None)
    withheld.add(b, "red", {X: 4}, {X: 3}, owner=None)
    assert withheld.given("red", X, 4) == {a, b}
    assert withheld.given("red", X, 5) == {a}
    assert withheld.given("red", X, 6) == frozenset()
    assert not withheld


def test_what_has_come_already_is_not_waited_for() -> None:
    withheld, a = Withheld(), HubMember()
    withheld.add(a, "red", {X: 5, Y: 2}, {X: 5, Y: 7}, owner=None)
    assert not withheld
    assert not withheld.has(a)


def test_a_member_that_ends_is_forgotten() -> None:
    withheld, a = Withheld(max_members=1), HubMember()
    withheld.add(a, "red", {X: 5}, {}, owner=None)
    assert withheld.is_full
    assert withheld.has(a)
    withheld.forget(a)
    withheld.forget(a)
    assert not withheld.is_full
    assert not withheld


def test_only_what_was_added_before_a_ping_ends_with_its_answer() -> None:
    withheld, a, b = Withheld(), HubMember(), HubMember()
    withheld.add(a, "red", {X: 5}, {}, owner=None)
    added = withheld.added
    withheld.add(b, "red", {X: 5}, {}, owner=None)
    withheld.forget_until(added, owner=None)
    assert withheld.given("red", X, 5) == {b}


def test_one_move_forgets_nothing_of_another_s() -> None:
    withheld, a, b, one, other = Withheld(), HubMember(), HubMember(), object(), object()
    withheld.add(a, "red", {X: 5}, {}, owner=one)
    withheld.add(b, "red", {X: 5}, {}, owner=other)
    withheld.forget_until(withheld.added, owner=one)
    assert withheld.given("red", X, 5) == {b}

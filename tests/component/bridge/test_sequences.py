"""Numbers of bridged messages: what is a hole, what is old, and what stays bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stickygw.bridge.sequences import Numbering, Order, Verdict

A, B = b"A" * 8, b"B" * 8


def test_numbers_rise_by_one_in_each_room() -> None:
    numbering = Numbering()
    assert [numbering.next(room) for room in ("red", "red", "blue", "red")] == [1, 2, 1, 3]


def test_a_forgotten_room_never_goes_back() -> None:
    numbering = Numbering(max_rooms=2)
    assert [numbering.next("a") for _ in range(5)][-1] == 5
    numbering.next("b")
    numbering.next("c")  # forgets a
    assert numbering.next("a") > 5


@given(st.lists(st.sampled_from("abcdef"), max_size=200))
def test_numbers_rise_however_few_rooms_are_remembered(rooms: list[str]) -> None:
    numbering = Numbering(max_rooms=2)
    last: dict[str, int] = {}
    for room in rooms:
        number = numbering.next(room)
        assert number > last.get(room, 0)
        last[room] = number


def test_the_first_message_of_a_sender_is_taken_as_it_comes() -> None:
    order = Order()
    assert order.judge("room", A, 17) is Verdict.NEXT
    assert order.judge("room", A, 18) is Verdict.NEXT
    assert order.judge("room", B, 3) is Verdict.NEXT
    assert order.judge("other", A, 1) is Verdict.NEXT


def test_a_missing_number_is_a_hole_once() -> None:
    order = Order()
    verdicts = [order.judge("room", A, number) for number in (1, 2, 5, 6)]
    assert verdicts == [Verdict.NEXT, Verdict.NEXT, Verdict.HOLE, Verdict.NEXT]


def test_what_was_seen_or_overtaken_is_old() -> None:
    order = Order()
    verdicts = [order.judge("room", A, number) for number in (2, 2, 1, 4, 3, 5)]
    assert verdicts == [Verdict.NEXT, Verdict.OLD, Verdict.OLD, Verdict.HOLE, Verdict.OLD, Verdict.NEXT]


def test_a_forgotten_room_starts_afresh() -> None:
    order = Order()
    order.judge("room", A, 5)
    order.forget("room")
    order.forget("room")
    assert order.judge("room", A, 1) is Verdict.NEXT


def test_the_sender_longest_silent_is_forgotten_first() -> None:
    order = Order(max_origins=2)
    order.judge("room", A, 5)
    order.judge("room", B, 5)
    order.judge("room", A, 6)
    order.judge("room", b"C" * 8, 1)  # forgets B
    assert order.judge("room", A, 6) is Verdict.OLD
    assert order.judge("room", B, 5) is Verdict.NEXT


@given(st.lists(st.integers(1, 30), max_size=60))
def test_what_passes_rises_strictly(numbers: list[int]) -> None:
    order = Order()
    passed = [number for number in numbers if order.judge("room", A, number) is not Verdict.OLD]
    assert passed == sorted(set(passed))

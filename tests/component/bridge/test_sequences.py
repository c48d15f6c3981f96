"""Numbers of bridged messages: what is a hole, what is old, and what stays bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stickygw.bridge.sequences import FEW_ORIGINS, Numbering, Order, Verdict

A, B = b"A" * 8, b"B" * 8


def test_numbers_rise_by_one_in_each_room() -> None:
    numbering = Numbering()
    assert [numbering.next(channel) for channel in (b"red", b"red", b"blue", b"red")] == [1, 2, 1, 3]


def test_a_forgotten_room_never_goes_back() -> None:
    numbering = Numbering(max_rooms=2)
    assert [numbering.next(b"a") for _ in range(5)][-1] == 5
    numbering.next(b"b")
    numbering.next(b"c")  # forgets a
    assert numbering.next(b"a") > 5


CHANNELS = st.lists(st.sampled_from([b"a", b"b", b"c", b"d", b"e"]), max_size=200)


@given(CHANNELS)
def test_numbers_rise_however_few_rooms_are_remembered(channels: list[bytes]) -> None:
    numbering = Numbering(max_rooms=2)
    last: dict[bytes, int] = {}
    for channel in channels:
        number = numbering.next(channel)
        assert number > last.get(channel, 0)
        last[channel] = number


def test_the_last_number_is_that_of_the_last_message() -> None:
    numbering = Numbering()
    for _ in range(3):
        numbering.next(b"red")
    numbering.next(b"blue")
    assert (numbering.last(b"red"), numbering.last(b"blue")) == (3, 1)
    assert numbering.next(b"red") == 4  # asking for it changes nothing


@given(CHANNELS)
def test_the_last_number_of_a_forgotten_room_is_none_that_would_be_missed(channels: list[bytes]) -> None:
    numbering = Numbering(max_rooms=2)
    last: dict[bytes, int] = {}
    for channel in channels:
        last[channel] = numbering.next(channel)
        for known, number in last.items():
            assert numbering.last(known) >= number
        assert numbering.last(channel) == last[channel]


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


def test_when_there_are_too_many_senders_in_all_rooms_each_keeps_a_few() -> None:
    order = Order(max_in_all=40)
    origins = [b"%08d" % number for number in range(30)]
    for room in ("a", "b", "c"):
        for origin in origins:
            order.judge(room, origin, 1)
    assert order.judge("a", origins[0], 1) is Verdict.OLD  # there was room for all of them then
    assert order.judge("c", origins[-FEW_ORIGINS], 1) is Verdict.OLD
    assert order.judge("c", origins[-FEW_ORIGINS - 1], 1) is Verdict.NEXT
    for room in ("a", "b", "c"):
        order.forget(room)
    for origin in origins:
        order.judge("d", origin, 1)
    assert order.judge("d", origins[0], 1) is Verdict.OLD

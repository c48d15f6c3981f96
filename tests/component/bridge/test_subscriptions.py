"""`Subscriptions`: what is asked for and what holds, though answers lag behind requests."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from stickygw.bridge.subscriptions import Subscriptions

A, B = b"a", b"b"


def test_what_is_undone_before_it_was_asked_is_not_asked() -> None:
    subscriptions = Subscriptions()
    subscriptions.want(A)
    subscriptions.drop(A)
    assert subscriptions.take_changes() == ([], [])
    subscriptions.want(B)
    assert subscriptions.take_changes() == ([B], [])
    subscriptions.drop(B)
    subscriptions.want(B)
    assert subscriptions.take_changes() == ([], [])


def test_only_the_answer_to_the_last_command_confirms() -> None:
    subscriptions = Subscriptions()
    subscriptions.want(A)
    subscriptions.take_changes()
    subscriptions.drop(A)
    subscriptions.take_changes()
    subscriptions.want(A)
    subscriptions.take_changes()
    assert [subscriptions.answered(A) for _ in range(3)] == [False, False, True]
    assert subscriptions.is_confirmed(A)


def test_a_lost_connection_owes_all_and_asks_for_all_again() -> None:
    subscriptions = Subscriptions()
    for channel in (A, B):
        subscriptions.want(channel)
    subscriptions.take_changes()
    subscriptions.answered(A)
    subscriptions.lost()
    assert not subscriptions.is_confirmed(A)
    subscribe, unsubscribe = subscriptions.take_changes()
    assert (sorted(subscribe), unsubscribe) == ([A, B], [])
    assert subscriptions.settle_all() == []
    assert subscriptions.answered(A)
    assert subscriptions.settle_all() == [A]
    assert subscriptions.settle_all() == []


def test_a_dropped_channel_is_owed_nothing() -> None:
    subscriptions = Subscriptions()
    subscriptions.want(A)
    subscriptions.lost()
    subscriptions.drop(A)
    subscriptions.owe(A)
    subscriptions.want(A)
    subscriptions.take_changes()
    subscriptions.answered(A)
    assert not subscriptions.settle(A)


STEPS = st.lists(st.sampled_from(["want", "drop", "take", "answer", "lost"]), max_size=60)


@given(STEPS)
def test_in_the_end_the_server_has_what_is_wanted(steps: list[str]) -> None:
    subscriptions = Subscriptions()
    on_the_way: deque[bool] = deque()
    is_wanted = is_subscribed = False

    def take() -> None:
        subscribe, unsubscribe = subscriptions.take_changes()
        on_the_way.extend([True] * len(subscribe) + [False] * len(unsubscribe))

    def answer() -> None:
        nonlocal is_subscribed
        if on_the_way:
            is_subscribed = on_the_way.popleft()
            if subscriptions.answered(A):
                assert is_subscribed
                assert not on_the_way

    for step in steps:
        match step:
            case "want":
                is_wanted = True
                subscriptions.want(A)
            case "drop":
                is_wanted = False
                subscriptions.drop(A)
            case "take":
                take()
            case "answer":
                answer()
            case "lost":
                on_the_way.clear()
                is_subscribed = False
                subscriptions.lost()
        assert not subscriptions.is_confirmed(A) or (is_subscribed and is_wanted)
    take()
    while on_the_way:
        answer()
    assert is_subscribed == is_wanted == subscriptions.is_confirmed(A)


def test_what_is_wanted_and_dropped_while_the_store_is_away_leaves_nothing() -> None:
    subscriptions = Subscriptions()
    subscriptions.lost()
    for number in range(10):
        subscriptions.want(b"%d" % number)
        subscriptions.drop(b"%d" % number)
    assert not subscriptions._changed

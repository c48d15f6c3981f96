"""The hash: balanced, the same everywhere, and what comes or goes moves no more than its own."""

from __future__ import annotations

from collections import Counter
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stickygw.routing.rendezvous import LOAD_FACTOR, owner, pick_bounded, ranked
from stickygw.types import Slot

slot_sets = st.sets(st.integers(0, 1023).map(Slot), min_size=1, max_size=20)


def slots(count: int) -> list[Slot]:
    return [Slot(number) for number in range(count)]


def keys(count: int) -> list[bytes]:
    return [b"key %d" % number for number in range(count)]


@given(st.binary(max_size=40), slot_sets)
def test_order_does_not_depend_on_how_slots_are_listed(key: bytes, some: set[Slot]) -> None:
    order = ranked(key, some)

    assert set(order) == some
    assert len(order) == len(some)
    assert ranked(key, sorted(some, reverse=True)) == order
    assert owner(key, sorted(some)) == order[0]


@given(st.binary(max_size=40), slot_sets, st.data())
def test_slot_that_goes_changes_nothing_among_the_others(key: bytes, some: set[Slot], data: st.DataObject) -> None:
    gone = data.draw(st.sampled_from(sorted(some)))

    assert ranked(key, some - {gone}) == [slot for slot in ranked(key, some) if slot != gone]


@pytest.mark.parametrize("count", [1, 2, 4, 9])
def test_scaling_up_by_one_moves_only_the_new_slots_share(count: int) -> None:
    before = {key: owner(key, slots(count)) for key in keys(5000)}
    after = {key: owner(key, slots(count + 1)) for key in before}
    moved = [key for key in before if before[key] != after[key]]

    assert all(after[key] == count for key in moved)
    assert 0.8 < len(moved) / (5000 / (count + 1)) < 1.2


@pytest.mark.parametrize("count", [2, 4, 16])
def test_keys_are_spread_evenly(count: int) -> None:
    counts = Counter(owner(key, slots(count)) for key in keys(1000 * count))

    assert len(counts) == count
    assert min(counts.values()) / max(counts.values()) > 0.8


def test_runner_up_is_spread_over_all_others() -> None:
    counts = Counter(ranked(key, slots(5))[1] for key in keys(8000) if owner(key, slots(5)) == 0)

    assert set(counts) == {1, 2, 3, 4}
    assert min(counts.values()) / max(counts.values()) > 0.7


def test_hash_is_the_same_in_every_version() -> None:
    # If this fails, an upgrade moves every key of every user.
    assert ranked(b"match-7", slots(8)) == [7, 4, 5, 3, 6, 2, 0, 1]


@settings(deadline=None)
@given(st.binary(max_size=20), st.dictionaries(st.integers(0, 9).map(Slot), st.integers(0, 6), min_size=1))
def test_bounded_pick_stays_within_the_bound_and_passes_over_only_full_slots(
    key: bytes, loads: dict[Slot, int]
) -> None:
    slot, is_second_choice = pick_bounded(key, loads)
    bound = ceil(LOAD_FACTOR * (sum(loads.values()) + 1) / len(loads))
    order = ranked(key, loads)

    assert loads[slot] + 1 <= bound
    assert all(loads[better] >= bound for better in order[: order.index(slot)])
    assert is_second_choice == (slot != order[0])


def test_bounded_picks_fill_all_slots_within_the_factor() -> None:
    loads = dict.fromkeys(slots(8), 0)
    for key in keys(2000):
        slot, _ = pick_bounded(key, loads)
        loads[slot] += 1

    assert max(loads.values()) <= LOAD_FACTOR * 2000 / 8 + 1


def test_slot_that_is_far_above_the_mean_is_passed_over() -> None:
    first, second = ranked(b"k", slots(2))

    assert pick_bounded(b"k", {first: 0, second: 0}) == (first, False)
    assert pick_bounded(b"k", {first: 100, second: 0}) == (second, True)

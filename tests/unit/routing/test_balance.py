"""Which of several slots has least to do, without a scale for what is compared."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from routing_visitors import loads, slot_states

from stickygw.config.settings import Settings
from stickygw.routing.load import DEFAULT_BALANCE, Balance, Load, SlotView, parse_balance
from stickygw.types import Slot

EVERYTHING = ("connections", "lag", "queue", "cpu", "rss")
balances = st.dictionaries(st.sampled_from(EVERYTHING), st.sampled_from([0.25, 1.0, 3.0]), min_size=1).map(Balance)


def view(connections: int = 0, **load: float) -> SlotView:
    return SlotView(Slot(0), True, False, connections, load=Load(**load))  # type: ignore[arg-type]


# --- the setting ------------------------------------------------------------------------------------


def test_each_quantity_weighs_one_or_what_is_given() -> None:
    assert str(parse_balance(["rss", "lag:2", "cpu:0.5"])) == "rss, lag:2, cpu:0.5"
    assert parse_balance(["lag:2", "connections"]).scores([view(1, lag=0.99)]) == [3]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "load",
        "Lag",
        "lag:",
        "lag:0",
        "lag:0.0",
        "lag:-1",
        "lag:1e3",
        "lag:nan",
        "lag:inf",
        "lag: 1",
        "lag:1:2",
        "lag:1.2.3",
        "lag:٣",
    ],
)
def test_what_is_no_quantity_with_a_positive_weight_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="give connections, lag, queue, cpu, rss, each with a positive weight"):
        parse_balance(["connections", text])


def test_a_quantity_that_is_given_twice_or_none_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="lag is given twice"):
        parse_balance(["lag", "connections", "lag:2"])
    with pytest.raises(ValueError, match="at least one of connections, lag"):
        parse_balance([])


def test_the_default_is_the_settings() -> None:
    assert str(parse_balance(Settings().balance_by)) == str(DEFAULT_BALANCE)


# --- the comparison ---------------------------------------------------------------------------------


def test_of_two_each_has_its_part_of_the_sum_above_the_noise() -> None:
    assert parse_balance(["connections"]).scores([view(1), view(3)]) == [0.25, 0.75]
    assert parse_balance(["connections:4"]).scores([view(1), view(3)]) == [1, 3]
    assert parse_balance(["lag"]).scores([view(lag=0.02), view(lag=0.08)]) == pytest.approx([0.25, 0.75])
    assert parse_balance(["queue"]).scores([view(queue=0), view(queue=32)]) == [0.25, 0.75]
    assert parse_balance(["cpu"]).scores([view(cpu=0.1), view(cpu=0.4)]) == pytest.approx([0.25, 0.75])
    assert parse_balance(["rss"]).scores([view(rss=16 << 20), view(rss=80 << 20)]) == [0.25, 0.75]


def test_nothing_beside_nothing_is_a_half() -> None:
    assert parse_balance(EVERYTHING).scores([view(), view()]) == [2.5, 2.5]


@pytest.mark.parametrize("noise", [{"lag": 0.001}, {"queue": 1}, {"cpu": 0.005}, {"rss": 1 << 20}])
def test_noise_does_not_outweigh_connections(noise: dict[str, float]) -> None:
    balance = parse_balance(["connections", *noise])

    assert balance.least([view(10, **noise), view(12)]).connections == 10


@pytest.mark.parametrize("much", [{"lag": 0.2}, {"queue": 500}, {"cpu": 0.9}, {"rss": 1 << 30}])
def test_much_to_do_outweighs_a_few_connections(much: dict[str, float]) -> None:
    balance = parse_balance(["connections", *much])

    assert balance.least([view(10, **much), view(12)]).connections == 12
    assert parse_balance(["connections"]).least([view(10, **much), view(12)]).connections == 10


def test_of_equals_the_first_is_taken() -> None:
    both = [view(7, lag=0.3), view(7, lag=0.3)]

    assert DEFAULT_BALANCE.least(both) is both[0]
    assert DEFAULT_BALANCE.least([view(8, lag=0.3), *both]) is both[0]


@given(balances, slot_states)
def test_all_scores_together_are_the_weights(balance: Balance, slots: list[SlotView]) -> None:
    assert sum(balance.scores(slots)) == pytest.approx(balance.scores(slots[:1])[0])


@given(st.dictionaries(st.sampled_from(EVERYTHING), st.integers(1, 9), min_size=1), st.integers(-4, 4), slot_states)
def test_only_the_ratio_of_the_weights_counts(weights: dict[str, int], power: int, slots: list[SlotView]) -> None:
    scaled = Balance({name: weight * 2.0**power for name, weight in weights.items()})

    assert scaled.least(slots) is Balance(weights).least(slots)


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=5), st.integers(1, 1000))
def test_what_is_counted_needs_no_scale(counts: list[int], factor: int) -> None:
    few = DEFAULT_BALANCE.scores([view(count) for count in counts])

    assert DEFAULT_BALANCE.scores([view(count * factor) for count in counts]) == pytest.approx(few)


@given(balances, loads, loads, st.integers(0, 100), st.integers(0, 100))
def test_who_has_no_more_of_anything_does_not_score_higher(
    balance: Balance, one: Load, other: Load, few: int, more: int
) -> None:
    least = Load(min(one.lag, other.lag), min(one.queue, other.queue), min(one.cpu, other.cpu), min(one.rss, other.rss))
    both = [SlotView(Slot(0), True, False, few + more, load=one), SlotView(Slot(1), True, False, few, load=least)]

    scores = balance.scores(both)
    assert scores[1] <= scores[0] + 1e-9

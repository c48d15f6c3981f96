"""How fast clients are sent away: all of a worker's, or those that could not move."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stickygw.supervision.spread import CLIENTS_PER_SECOND, spread_for, spread_for_rest


@pytest.mark.parametrize(
    ("connections", "drain_spread", "seconds"),
    [(1_000, None, 2.0), (1_000_000, None, 30.0), (1_000, 7.0, 7.0), (1_000, 70.0, 30.0), (0, None, 0.0)],
    ids=["500 a second", "at most drain_timeout", "as set", "as set, at most drain_timeout", "nobody"],
)
def test_a_spread_is_what_is_set_or_its_clients_at_their_pace(
    connections: int, drain_spread: float | None, seconds: float
) -> None:
    assert spread_for(connections, drain_spread=drain_spread, drain_timeout=30.0) == seconds


@given(total=st.integers(1, 15_000), share=st.floats(0, 1), drain_spread=st.none() | st.floats(0, 60))
def test_those_that_are_left_go_at_the_pace_of_all(total: int, share: float, drain_spread: float | None) -> None:
    left = int(total * share)
    spread = spread_for(total, drain_spread=drain_spread, drain_timeout=30.0)
    rest = spread_for_rest(spread, left=left, total=total)
    assert rest == pytest.approx(spread * left / total)
    if drain_spread is None:
        assert rest == pytest.approx(left / CLIENTS_PER_SECOND)


def test_nobody_is_left_of_nobody() -> None:
    assert spread_for_rest(7.0, left=0, total=0) == 0.0

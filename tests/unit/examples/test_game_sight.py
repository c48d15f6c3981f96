"""What a bot of examples/game finds wrong: else its silence would say nothing."""

from __future__ import annotations

import pytest
import support.game_example  # noqa: F401  (from here on its modules can be imported)
from ship import MAX_MOVE
from sight import RESUMED_TICKS, Sight


def snapshot(tick: int, *ships: list) -> dict:
    return {"tick": tick, "ships": list(ships)}


def ship(id: int = 1, x: float = 100.0, *, health: int = 100, score: int = 0, sequence: int = 0) -> list:
    return [id, x, 100.0, 0.0, 0.0, 0.0, health, score, sequence]


def test_a_bot_finds_nothing_wrong_with_what_can_be():
    sight = Sight()
    moves = [ship(), ship(x=100 + MAX_MOVE), ship(x=100 + MAX_MOVE, health=0), ship(x=800, score=1, sequence=4)]
    assert [sight.check(snapshot(tick, row)) for tick, row in enumerate(moves, 1)] == [[]] * 4


@pytest.mark.parametrize(
    ("after", "wrong"),
    [
        (ship(x=101 + MAX_MOVE, score=2, sequence=2), "moved"),
        (ship(x=3, score=2, sequence=2), "outside"),
        (ship(health=120, score=2, sequence=2), "health"),
        (ship(score=1, sequence=2), "score 2 fell"),
        (ship(score=2, sequence=1), "input 2 to 1"),
    ],
)
def test_a_bot_finds_what_cannot_be(after, wrong):
    sight = Sight()
    assert sight.check(snapshot(1, ship(score=2, sequence=2))) == []
    assert wrong in "\n".join(sight.check(snapshot(2, after)))


@pytest.mark.parametrize(("tick", "wrong"), [(5, "came after"), (4, "came after"), (7, "right after")])
def test_a_bot_finds_snapshots_that_are_out_of_order_or_missing(tick, wrong):
    sight = Sight()
    sight.check(snapshot(5, ship()))
    [found] = sight.check(snapshot(tick, ship()))
    assert wrong in found


@pytest.mark.parametrize(
    ("tick", "is_fine"), [(2000, True), (1001, True), (1001 - RESUMED_TICKS, True), (1000 - RESUMED_TICKS, False)]
)
def test_after_a_lost_connection_a_match_may_be_a_checkpoint_older_and_no_more(tick, is_fine):
    sight = Sight()
    sight.check(snapshot(1000, ship(score=5)))
    sight.comes_back()
    assert (sight.check(snapshot(tick, ship(x=700))) == []) is is_fine


def test_a_bot_finds_that_its_own_ship_is_gone():
    sight = Sight()
    sight.own = 1
    assert sight.check(snapshot(1, ship(1), ship(2, x=700))) == []
    assert sight.check(snapshot(2, ship(1))) == [], "another player has left"
    [found] = sight.check(snapshot(3, ship(2, x=700)))
    assert "ship 1, its own, is not there" in found


def test_a_ship_that_a_bot_has_not_seen_since_it_came_back_is_no_loss():
    sight = Sight()
    sight.own = 1
    sight.check(snapshot(1, ship(1)))
    sight.comes_back()
    assert sight.check(snapshot(2, ship(2, x=700))) == []

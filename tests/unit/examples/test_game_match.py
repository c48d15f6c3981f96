"""Players of examples/game: inputs, absence, coming back, checkpoints."""

from __future__ import annotations

import msgpack
import pytest
import support.game_example  # noqa: F401  (from here on its modules can be imported)
from hypothesis import given
from hypothesis import strategies as st
from match import AWAY_SECONDS, HELD_TICKS, IDLE_SECONDS, MAX_PLAYERS, MAX_SEQUENCE, MAX_WAITING, Match, MatchFull
from ship import DRIFTING, Controls

LEFT, RIGHT, AHEAD = Controls(turn=-1), Controls(turn=1), Controls(thrust=True)


def test_who_comes_back_has_the_same_ship_and_score():
    match = Match()
    ship = match.join("session a", "Ada").ship
    match.join("session b", "Bob")
    match.arena.ships[ship].score = 3
    match.noted({"session b"}, seconds=AWAY_SECONDS - 1)
    assert match.join("session a", "Ada L.").ship == ship
    assert match.scores() == {"session a": ("Ada L.", 3), "session b": ("Bob", 0)}


def test_a_ship_without_its_player_drifts_for_a_while_and_is_gone():
    match = Match()
    ship = match.join("a", "Ada").ship
    match.join("b", "Bob")
    seconds = 0
    while not (gone := match.noted({"b"}, seconds=1.0)):
        seconds += 1
        assert ship in match.arena.ships
    assert gone == ["Ada"]
    assert seconds + 1 == AWAY_SECONDS
    assert ship not in match.arena.ships
    assert list(match.players) == ["b"]


def test_being_there_for_a_moment_is_enough_to_keep_a_ship():
    match = Match()
    match.join("a", "Ada")
    for present in [set(), {"a"}] * 3:
        assert match.noted(present, seconds=AWAY_SECONDS - 1) == []


def test_a_ship_whose_player_is_there_and_does_nothing_is_gone_at_last():
    match = Match()
    ada, bob = match.join("a", "Ada"), match.join("b", "Bob")
    for second in range(1, int(IDLE_SECONDS)):
        assert match.noted({"a", "b"}, seconds=1.0) == []
        ada.heard += 20
        ada.steer(second, DRIFTING)  # as a page does without a key down
        bob.steer(second, DRIFTING if second % 60 else LEFT)
    assert match.noted({"a", "b"}, seconds=1.0) == ["Ada"]


def test_who_comes_back_after_a_long_time_has_time_to_do_something():
    match = Match()
    match.join("a", "Ada")
    assert match.noted({"a"}, seconds=IDLE_SECONDS - 1) == []
    match.join("a", "Ada")
    assert match.noted({"a"}, seconds=IDLE_SECONDS - 1) == []


def test_a_full_match_takes_those_who_come_back_and_no_others():
    match = Match()
    for number in range(MAX_PLAYERS):
        match.join(f"session {number}", "x")
    with pytest.raises(MatchFull):
        match.join("one more", "x")
    assert match.join("session 0", "x").ship == 1


def test_one_input_counts_in_each_tick_in_order():
    match = Match()
    player = match.join("a", "Ada")
    player.steer(1, LEFT)
    player.steer(2, RIGHT)
    used = []
    for _ in range(3):
        match.step()
        used.append((player.last_sequence, player.controls))
    assert used == [(1, LEFT), (2, RIGHT), (2, RIGHT)]


def test_of_more_inputs_than_may_wait_the_oldest_are_dropped():
    match = Match()
    player = match.join("a", "Ada")
    for sequence in range(1, 11):
        player.steer(sequence, AHEAD)
    match.step()
    assert player.last_sequence == 10 - MAX_WAITING + 1


def test_a_lost_players_ship_stops_its_engine():
    match = Match()
    player = match.join("a", "Ada")
    player.steer(1, AHEAD)
    for _ in range(1 + HELD_TICKS):
        match.step()
        assert player.controls == AHEAD
    match.step()
    assert player.controls == DRIFTING


@given(st.lists(st.one_of(st.none(), st.integers(-5, 40), st.integers()), max_size=60))
def test_the_last_input_never_falls_whatever_is_sent(sequences):
    """None stands for a tick."""
    match = Match()
    player = match.join("a", "Ada")
    seen = [0]
    for sequence in sequences:
        if sequence is None:
            match.step()
            seen.append(match.snapshot()["ships"][0][-1])
        else:
            player.steer(sequence, AHEAD)
            assert len(player.waiting) <= MAX_WAITING
    assert seen == sorted(seen)
    assert seen[-1] <= MAX_SEQUENCE


def test_a_snapshot_says_what_the_page_reads():
    match = Match()
    player = match.join("a", "Ada")
    player.steer(7, Controls(fire=True))
    match.step()
    snapshot = msgpack.unpackb(msgpack.packb(match.snapshot()))
    [[id, x, y, vx, vy, angle, health, score, sequence]] = snapshot["ships"]
    ship = match.arena.ships[player.ship]
    assert (id, x, y, vx, vy, angle) == (ship.id, ship.x, ship.y, ship.vx, ship.vy, ship.angle)
    assert (health, score, sequence, snapshot["tick"], len(snapshot["shots"])) == (100, 0, 7, 1, 1)
    assert match.roster() == {"type": "roster", "names": [[1, "Ada"]]}


def test_a_packed_match_is_the_same_match():
    match = Match()
    for name in ("Ada", "Bob"):
        match.join(f"session of {name}", name).steer(5, Controls(True, 1, True))
    for _ in range(20):
        match.step()
    match.noted({"session of Bob"}, seconds=10.0)
    restored = Match.unpacked(match.packed())
    assert restored.packed() == match.packed()
    assert restored.snapshot() == match.snapshot()
    assert restored.noted({"session of Bob"}, seconds=AWAY_SECONDS - 10.0) == ["Ada"]


NO_MATCHES = [b"", b"\xc1", b"\x01", b"\x90", *map(msgpack.packb, ([0, [], []], [1, 5, []], [1]))]


@pytest.mark.parametrize("data", NO_MATCHES)
def test_anything_else_is_no_match(data):
    with pytest.raises(ValueError, match="match"):
        Match.unpacked(data)

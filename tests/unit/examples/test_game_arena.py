"""The physics of examples/game: its laws, for any controls."""

from __future__ import annotations

from itertools import pairwise
from math import hypot, pi

import msgpack
import support.game_example  # noqa: F401  (from here on its modules can be imported)
from arena import DAMAGE, RELOAD_TICKS, SHOT_TICKS, WRECK_TICKS, Arena, Shot
from hypothesis import given, settings
from hypothesis import strategies as st
from ship import FULL_HEALTH, MAX_MOVE, MAX_SPEED, RADIUS, Controls, Ship
from space import HEIGHT, ROCKS, SPAWNS, WIDTH, bounced, entry

controls = st.builds(Controls, st.booleans(), st.sampled_from((-1, 0, 1)), st.booleans())
flights = st.lists(st.tuples(st.integers(1, 12), st.lists(controls, min_size=5, max_size=5)), max_size=12)
"""For so many ticks, what each of five ships does."""


def played(flight: list[tuple[int, list[Controls]]], *, on: Arena | None = None) -> list[Arena]:
    """The arena after each tick, the beginning first: five ships that are close enough to hit each other."""
    arena = on or five_ships()
    seen = [copied(arena)]
    for ticks, given_controls in flight:
        for _ in range(ticks):
            arena.step(dict(zip(arena.ships, given_controls, strict=True)))
            seen.append(copied(arena))
    return seen


def copied(arena: Arena) -> Arena:
    return Arena.unpacked(arena.packed())


def five_ships() -> Arena:
    arena = Arena()
    for number in range(5):
        ship = arena.add_ship()
        ship.x, ship.y, ship.angle = 560.0 + 60 * number, 300.0 + 30 * number, number * pi / 3
    return arena


def duel(distance: float) -> tuple[Arena, Ship, Ship]:
    """Two ships of which the first aims at the second, `distance` away, with no rock between."""
    arena = Arena()
    shooter, target = arena.add_ship(), arena.add_ship()
    shooter.x, shooter.y, shooter.angle = 600.0, 120.0, 0.0
    target.x, target.y = 600.0 + distance, 120.0
    return arena, shooter, target


@settings(deadline=None)
@given(flights)
def test_no_ship_leaves_the_walls_or_enters_a_rock_or_is_too_fast(flight):
    for arena in played(flight):
        for ship in arena.ships.values():
            assert RADIUS <= ship.x <= WIDTH - RADIUS
            assert RADIUS <= ship.y <= HEIGHT - RADIUS
            assert all(hypot(ship.x - x, ship.y - y) >= RADIUS + radius - 1e-9 for x, y, radius in ROCKS)
            assert hypot(ship.vx, ship.vy) <= MAX_SPEED + 1e-9


@settings(deadline=None)
@given(flights)
def test_no_ship_moves_further_than_a_move_unless_it_was_a_wreck(flight):
    seen = played(flight)
    for before, after in pairwise(seen):
        for id, ship in after.ships.items():
            if not before.ships[id].is_wreck:
                assert hypot(ship.x - before.ships[id].x, ship.y - before.ships[id].y) <= MAX_MOVE


@settings(deadline=None)
@given(flights)
def test_health_is_0_to_100_and_each_kill_is_one_point(flight):
    seen = played(flight)
    for before, after in pairwise(seen):
        assert all(0 <= ship.health <= FULL_HEALTH for ship in after.ships.values())
        assert all(ship.is_wreck == (ship.wreck_ticks > 0) for ship in after.ships.values())
        assert all(ship.score >= before.ships[id].score for id, ship in after.ships.items())
        wrecked = sum(ship.is_wreck and not before.ships[id].is_wreck for id, ship in after.ships.items())
        assert after.kills == before.kills + wrecked
        assert sum(ship.score for ship in after.ships.values()) == after.kills


@settings(deadline=None)
@given(flights)
def test_shots_end_and_are_few(flight):
    most = 5 * (SHOT_TICKS // RELOAD_TICKS)
    seen = played(flight)
    assert all(len(arena.shots) <= most for arena in seen)
    arena = seen[-1]
    for _ in range(SHOT_TICKS):
        arena.step({})
    assert arena.shots == []


@settings(deadline=None)
@given(flights)
def test_the_same_controls_give_the_same_arena(flight):
    assert played(flight)[-1].packed() == played(flight)[-1].packed()


@settings(deadline=None)
@given(flights, flights)
def test_an_arena_that_was_packed_goes_on_as_if_it_had_not_been(flight, further):
    arena = played(flight)[-1]
    restored = Arena.unpacked(msgpack.unpackb(msgpack.packb(arena.packed())))
    assert restored.packed() == arena.packed()
    assert played(further, on=restored)[-1].packed() == played(further, on=arena)[-1].packed()
    assert restored.add_ship().id == arena.add_ship().id


def test_five_hits_make_a_wreck_which_is_replaced_at_a_spawn_far_away():
    arena, shooter, target = duel(200.0)
    healths = {target.health}
    while not target.is_wreck:
        arena.step({shooter.id: Controls(fire=True)})
        healths.add(target.health)
    assert healths == {FULL_HEALTH - hits * DAMAGE for hits in range(6)}
    assert (shooter.score, target.score, arena.kills) == (1, 0, 1)
    for _ in range(WRECK_TICKS):
        assert target.is_wreck
        arena.step({target.id: Controls(True, 1, True)})
    assert (target.health, target.vx, target.vy) == (FULL_HEALTH, 0, 0)
    assert (target.x, target.y) in SPAWNS
    assert hypot(target.x - shooter.x, target.y - shooter.y) > 500


def test_a_shot_never_flies_through_a_ship_however_far_it_moves_in_a_tick():
    for offset in range(64):
        arena, shooter, target = duel(100.0 + offset)
        arena.shots = [Shot(shooter.id, 600.0, 120.0, 640.0, 0.0)]
        for _ in range(SHOT_TICKS):
            arena.step({})
        assert target.health == FULL_HEALTH - DAMAGE


def test_a_rock_stops_a_shot_and_what_is_behind_it_is_safe():
    arena = Arena()
    shooter, target = arena.add_ship(), arena.add_ship()
    rock_x, rock_y, radius = ROCKS[0]
    shooter.x, shooter.y, shooter.angle = rock_x - radius - 40, rock_y, 0.0
    target.x, target.y = rock_x + radius + 40, rock_y
    for _ in range(60):
        arena.step({shooter.id: Controls(fire=True)})
    assert target.health == FULL_HEALTH


def test_nobody_is_hit_by_a_shot_of_their_own():
    arena, shooter, _ = duel(900.0)
    arena.shots = [Shot(shooter.id, shooter.x, shooter.y, 0.0, 0.0)]
    arena.step({})
    assert shooter.health == FULL_HEALTH
    assert len(arena.shots) == 1


def test_a_kill_by_one_who_has_left_is_nobodys_point():
    arena, shooter, target = duel(100.0)
    target.health = DAMAGE
    arena.step({shooter.id: Controls(fire=True)})
    arena.remove_ship(shooter.id)
    while arena.shots:
        arena.step({})
    assert target.is_wreck
    assert arena.kills == 1
    assert target.score == 0


def test_ships_appear_at_different_places():
    arena = Arena()
    places = {(ship.x, ship.y) for ship in (arena.add_ship() for _ in SPAWNS)}
    assert places == set(SPAWNS)


@given(st.floats(-50, WIDTH + 50), st.floats(-50, HEIGHT + 50), st.floats(-400, 400), st.floats(-400, 400))
def test_a_bounce_is_never_faster(x, y, vx, vy):
    _, _, new_vx, new_vy = bounced(x, y, vx, vy, RADIUS)
    assert hypot(new_vx, new_vy) <= hypot(vx, vy) + 1e-9


def test_a_way_enters_a_disc_where_it_meets_its_edge():
    assert entry(0, 0, 10, 0, (8, 0, 3)) == 0.5
    assert entry(0, 0, 10, 0, (8, 3, 3)) == 0.8  # it only touches
    assert entry(7, 0, 10, 0, (8, 0, 3)) == 0.0  # it is in it
    assert entry(0, 0, 4, 0, (8, 0, 3)) is None  # too short
    assert entry(0, 0, -10, 0, (8, 0, 3)) is None
    assert entry(0, 0, 0, 0, (8, 0, 3)) is None

"""The physics of one match: ships, shots and hits, in fixed steps.

No clock, no I/O, no randomness: the same controls give the same arena, so a test can say what happens, and a checkpoint
is all there is to know.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from math import atan2, cos, sin
from operator import attrgetter
from typing import Any

from ship import DRIFTING, FULL_HEALTH, RADIUS, STEP_SECONDS, Controls, Ship
from space import HEIGHT, ROCKS, SPAWNS, WIDTH, entry, is_inside

SHOT_SPEED = 640.0  # units a second
SHOT_TICKS = 24
"""How long a shot flies that hits nothing."""

RELOAD_TICKS = 6
DAMAGE = 20
WRECK_TICKS = 40


@dataclass(slots=True)
class Shot:
    """`owner` is the id of the ship that has fired it, which may have left."""

    owner: int
    x: float
    y: float
    vx: float
    vy: float
    ticks_left: int = SHOT_TICKS


_ship_row = attrgetter(*(field.name for field in fields(Ship)))  # `astuple` would copy every value, and takes ten times
_shot_row = attrgetter(*(field.name for field in fields(Shot)))


class Arena:
    """Ships by id, and the shots in flight. `tick` counts the steps, `kills` the ships that were shot.

    Laws: no ship leaves the walls; none is faster than `MAX_SPEED`, none moves further in a step than `MAX_MOVE` unless
    it was a wreck; health is 0 to 100; a kill is one point for one ship, or nobody's if its pilot has left.
    """

    def __init__(self) -> None:
        self.tick = 0
        self.kills = 0
        self.ships: dict[int, Ship] = {}
        self.shots: list[Shot] = []
        self._last_id = 0

    def add_ship(self) -> Ship:
        """A new ship, where the others are far, its bow towards the middle."""
        self._last_id += 1
        ship = Ship(self._last_id, 0.0, 0.0)
        self._place(ship)
        self.ships[ship.id] = ship
        return ship

    def remove_ship(self, id: int) -> None:
        """It is gone with its score; its shots fly on."""
        del self.ships[id]

    def step(self, controls: Mapping[int, Controls]) -> None:
        """One step of `STEP_SECONDS`. A ship that is not in `controls` drifts."""
        self.tick += 1
        for ship in self.ships.values():
            if ship.is_wreck:
                self._wait(ship)
            else:
                self._fly(ship, controls.get(ship.id, DRIFTING))
        self.shots = [shot for shot in self.shots if self._flies_on(shot)]

    def _wait(self, ship: Ship) -> None:
        ship.wreck_ticks -= 1
        if ship.wreck_ticks == 0:
            self._place(ship)
            ship.health = FULL_HEALTH

    def _fly(self, ship: Ship, controls: Controls) -> None:
        ship.fly(controls)
        ship.reload_ticks = max(0, ship.reload_ticks - 1)
        if controls.fire and ship.reload_ticks == 0:
            ship.reload_ticks = RELOAD_TICKS
            dx, dy = cos(ship.angle), sin(ship.angle)
            bow_x, bow_y = ship.x + dx * RADIUS, ship.y + dy * RADIUS
            self.shots.append(Shot(ship.id, bow_x, bow_y, ship.vx + dx * SHOT_SPEED, ship.vy + dy * SHOT_SPEED))

    def _flies_on(self, shot: Shot) -> bool:
        """Move a shot for one step. False: it has hit something, or is spent."""
        dx, dy = shot.vx * STEP_SECONDS, shot.vy * STEP_SECONDS
        hit = self._first_hit(shot, dx, dy)
        if isinstance(hit, Ship):
            self._damage(hit, shot.owner)
        shot.x, shot.y, shot.ticks_left = shot.x + dx, shot.y + dy, shot.ticks_left - 1
        return hit is None and shot.ticks_left > 0 and is_inside(shot.x, shot.y)

    def _first_hit(self, shot: Shot, dx: float, dy: float) -> Ship | str | None:
        """What the shot meets first on its way: another one's ship, a "rock", or None."""
        targets: list[tuple[Ship | str, tuple[float, float, float]]] = [("rock", rock) for rock in ROCKS]
        targets += [
            (ship, (ship.x, ship.y, RADIUS))
            for ship in self.ships.values()
            if not ship.is_wreck and ship.id != shot.owner
        ]
        met = [(part, target) for target, disc in targets if (part := entry(shot.x, shot.y, dx, dy, disc)) is not None]
        return min(met, key=lambda hit: hit[0])[1] if met else None

    def _damage(self, ship: Ship, owner: int) -> None:
        ship.health = max(0, ship.health - DAMAGE)
        if ship.is_wreck:
            ship.wreck_ticks = WRECK_TICKS
            self.kills += 1
            if owner in self.ships:
                self.ships[owner].score += 1

    def _place(self, ship: Ship) -> None:
        others = [other for other in self.ships.values() if other.id != ship.id and not other.is_wreck]
        ship.x, ship.y = max(SPAWNS, key=lambda spawn: _nearest(spawn, others))
        ship.vx = ship.vy = 0.0
        ship.angle = atan2(HEIGHT / 2 - ship.y, WIDTH / 2 - ship.x)
        ship.reload_ticks = 0

    def packed(self) -> list[Any]:
        """All of it, as plain values."""
        ships = [_ship_row(ship) for ship in self.ships.values()]
        return [self.tick, self.kills, self._last_id, ships, [_shot_row(shot) for shot in self.shots]]

    @classmethod
    def unpacked(cls, values: list[Any]) -> Arena:
        """The arena that `packed` gave `values` of."""
        arena = cls()
        arena.tick, arena.kills, arena._last_id, ships, shots = values
        arena.ships = {ship.id: ship for ship in (Ship(*fields) for fields in ships)}
        arena.shots = [Shot(*fields) for fields in shots]
        return arena


def _nearest(spawn: tuple[float, float], ships: Iterable[Ship]) -> float:
    """The square of the distance of the nearest ship; without any, all places are as good."""
    return min(((ship.x - spawn[0]) ** 2 + (ship.y - spawn[1]) ** 2 for ship in ships), default=0.0)

"""One ship, and how it flies for one step under its pilot's controls. page/ship.js is the same in JavaScript."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi, sin, sqrt
from typing import NamedTuple

from space import bounced

STEP_SECONDS = 1 / 20
"""Time goes on in steps of this length, never in others: the same controls give the same flight everywhere."""

RADIUS = 16.0
MAX_SPEED = 320.0  # units a second
THRUST = 620.0  # units a second, each second
TURN = 3.8  # radians a second
DRAG = 0.985  # of its speed, what a ship keeps from one step to the next

MAX_MOVE = 1.1 * MAX_SPEED * STEP_SECONDS
"""No ship moves further in a step; the tenth is for a rock that pushes it aside."""

FULL_HEALTH = 100


class Controls(NamedTuple):
    """What a pilot does during one step. `turn`: -1 left, 1 right, as seen on the screen."""

    thrust: bool = False
    turn: int = 0
    fire: bool = False


DRIFTING = Controls()


@dataclass(slots=True)
class Ship:
    """`health` is 0 while it is a wreck, which is replaced after `wreck_ticks`. It fires again after `reload_ticks`."""

    id: int
    x: float
    y: float
    vx: float = 0.0
    vy: float = 0.0
    angle: float = 0.0
    health: int = FULL_HEALTH
    score: int = 0
    reload_ticks: int = 0
    wreck_ticks: int = 0

    @property
    def is_wreck(self) -> bool:
        """Whether it waits to be replaced."""
        return self.health == 0

    def fly(self, controls: Controls) -> None:
        """One step: turn, thrust, drag, move, bounce."""
        self.angle = (self.angle + controls.turn * TURN * STEP_SECONDS) % (2 * pi)
        vx, vy = self.vx, self.vy
        if controls.thrust:
            vx += cos(self.angle) * THRUST * STEP_SECONDS
            vy += sin(self.angle) * THRUST * STEP_SECONDS
        speed = sqrt(vx * vx + vy * vy) * DRAG
        slower = DRAG * MAX_SPEED / speed if speed > MAX_SPEED else DRAG
        vx, vy = vx * slower, vy * slower
        x, y = self.x + vx * STEP_SECONDS, self.y + vy * STEP_SECONDS
        self.x, self.y, self.vx, self.vy = bounced(x, y, vx, vy, RADIUS)

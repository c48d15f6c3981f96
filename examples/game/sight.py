"""What one bot sees of its match, and whether that can be: the laws of the arena, from outside. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from math import hypot
from typing import Any

from ship import FULL_HEALTH, MAX_MOVE, RADIUS
from space import HEIGHT, WIDTH

RESUMED_TICKS = 100
"""A match that was resumed from a checkpoint may be so many ticks behind: a checkpoint is a second old, or some more if
Redis was away. What a bot has seen before is forgotten then."""


class Sight:
    """Compares each snapshot with the one before. `own` is the bot's ship; `tick`, its `score` and all
    `ships` (rows of the snapshot by id) are the last seen."""

    def __init__(self) -> None:
        self.own: int | None = None
        self.tick = 0
        self.score = 0
        self.ships: dict[int, list[Any]] = {}
        self._seen_at: float | None = None
        self._is_back = False

    def comes_back(self) -> None:
        """The connection was lost: the next snapshot may be an older one, of a match that was resumed."""
        self._is_back = True
        self.ships = {}
        self._seen_at = None

    def gap(self, now: float) -> float | None:
        """Seconds since the snapshot before, on the same connection."""
        before, self._seen_at = self._seen_at, now
        return None if before is None else now - before

    def check(self, snapshot: Mapping[str, Any]) -> list[str]:
        """What is wrong with it."""
        tick, ships = snapshot["tick"], {row[0]: row for row in snapshot["ships"]}
        wrong = []
        if tick <= self.tick - (RESUMED_TICKS if self._is_back else 0):
            wrong.append(f"tick {tick} came after {self.tick}")
        elif tick > self.tick + 1 and self.ships:
            wrong.append(f"tick {tick} came right after {self.tick}")
        steps = max(1, tick - self.tick)
        for id, row in ships.items():
            wrong += [f"tick {tick}, ship {id}: {what}" for what in _impossible(row, self.ships.get(id), steps)]
        if self.own in ships:
            self.score = ships[self.own][7]
        elif self.own in self.ships:
            wrong.append(f"tick {tick}: ship {self.own}, its own, is not there any more")
        self.tick, self.ships, self._is_back = tick, ships, False
        return wrong


def _impossible(row: list[Any], before: list[Any] | None, steps: int) -> list[str]:
    _, x, y, _, _, _, health, score, sequence = row
    wrong = []
    if not (RADIUS <= x <= WIDTH - RADIUS and RADIUS <= y <= HEIGHT - RADIUS):
        wrong.append(f"outside, at {x}, {y}")
    if not 0 <= health <= FULL_HEALTH:
        wrong.append(f"health {health}")
    if before is None:
        return wrong
    _, old_x, old_y, _, _, _, old_health, old_score, old_sequence = before
    distance = hypot(x - old_x, y - old_y)
    if old_health > 0 and distance > MAX_MOVE * steps:  # a wreck is replaced elsewhere
        wrong.append(f"moved {distance:.1f} in {steps} ticks")
    if score < old_score or sequence < old_sequence:
        wrong.append(f"score {old_score} fell to {score}, or input {old_sequence} to {sequence}")
    return wrong

"""How a bot flies: after the nearest ship, with its gun ready. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from math import atan2, hypot, pi
from typing import Any

AIMED = 0.12
"""Radians off which a shot is worth it."""

CLOSE = 260.0
"""Units at which it need not come nearer."""


def hunt(own: int, ships: Mapping[int, list[Any]]) -> tuple[bool, int, bool]:
    """Thrust, turn and fire for the ship `own`, as the rows of a snapshot show it among the others."""
    if own not in ships:
        return False, 0, False
    _, x, y, _, _, angle, *_ = ships[own]
    others = [(hypot(row[1] - x, row[2] - y), row) for id, row in ships.items() if id != own and row[6] > 0]
    if not others:
        return True, 1, False  # nobody there: a round of joy
    distance, (_, target_x, target_y, *_) = min(others)
    off = (atan2(target_y - y, target_x - x) - angle + pi) % (2 * pi) - pi
    is_aimed = abs(off) < AIMED
    return distance > CLOSE and abs(off) < pi / 3, 0 if is_aimed else 1 if off > 0 else -1, is_aimed

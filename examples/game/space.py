"""The arena's walls and rocks, and what meets them: plain geometry. Lengths in units, the y axis points down.

page/space.js says the same in JavaScript: the page predicts its own ship with it.
"""

from __future__ import annotations

from math import sqrt

WIDTH, HEIGHT = 1600.0, 900.0

ROCKS = ((420.0, 300.0, 75.0), (800.0, 590.0, 95.0), (1200.0, 280.0, 60.0))
"""(x, y, radius) of each. All are further from the walls, and from each other, than a ship is wide."""

SPAWNS = (
    (120.0, 120.0),
    (1480.0, 780.0),
    (1480.0, 120.0),
    (120.0, 780.0),
    (800.0, 120.0),
    (800.0, 780.0),
    (120.0, 450.0),
    (1480.0, 450.0),
)
"""Where ships appear."""

BOUNCE = 0.5
"""Of its speed towards a wall or a rock, so much has a ship afterwards away from it."""


def bounced(x: float, y: float, vx: float, vy: float, radius: float) -> tuple[float, float, float, float]:
    """Position and velocity of a disc, outside of all rocks and inside the walls. It never gets faster."""
    for rock_x, rock_y, rock_radius in ROCKS:
        dx, dy = x - rock_x, y - rock_y
        distance, reach = sqrt(dx * dx + dy * dy), rock_radius + radius
        if distance < reach:
            nx, ny = (dx / distance, dy / distance) if distance else (1.0, 0.0)
            x, y = rock_x + nx * reach, rock_y + ny * reach
            outwards = vx * nx + vy * ny
            if outwards < 0:
                vx, vy = vx - (1 + BOUNCE) * outwards * nx, vy - (1 + BOUNCE) * outwards * ny
    if not radius <= x <= WIDTH - radius:
        x, vx = min(max(x, radius), WIDTH - radius), -BOUNCE * vx
    if not radius <= y <= HEIGHT - radius:
        y, vy = min(max(y, radius), HEIGHT - radius), -BOUNCE * vy
    return x, y, vx, vy


def is_inside(x: float, y: float) -> bool:
    """Whether a point is between the walls."""
    return 0 <= x <= WIDTH and 0 <= y <= HEIGHT


def entry(x: float, y: float, dx: float, dy: float, disc: tuple[float, float, float]) -> float | None:
    """Which part (0 to 1) of its way (dx, dy) a point at (x, y) goes before it is in `disc` (x, y, radius), or None."""
    fx, fy = x - disc[0], y - disc[1]
    beyond = fx * fx + fy * fy - disc[2] * disc[2]
    if beyond <= 0:
        return 0.0
    towards = -(fx * dx + fy * dy)
    length = dx * dx + dy * dy
    under_root = towards * towards - length * beyond
    if towards <= 0 or under_root < 0:
        return None
    part = (towards - sqrt(under_root)) / length
    return part if part <= 1 else None

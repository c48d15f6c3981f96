// The arena's walls and rocks: space.py in JavaScript. A test runs both and compares.

export const WIDTH = 1600;
export const HEIGHT = 900;
export const ROCKS = [
  [420, 300, 75],
  [800, 590, 95],
  [1200, 280, 60],
];
const BOUNCE = 0.5;

// Moves a disc {x, y, vx, vy} out of all rocks and inside the walls.
export function bounce(disc, radius) {
  for (const [rockX, rockY, rockRadius] of ROCKS) {
    const dx = disc.x - rockX;
    const dy = disc.y - rockY;
    const distance = Math.sqrt(dx * dx + dy * dy);
    const reach = rockRadius + radius;
    if (distance >= reach) continue;
    const [nx, ny] = distance ? [dx / distance, dy / distance] : [1, 0];
    disc.x = rockX + nx * reach;
    disc.y = rockY + ny * reach;
    const outwards = disc.vx * nx + disc.vy * ny;
    if (outwards < 0) {
      disc.vx -= (1 + BOUNCE) * outwards * nx;
      disc.vy -= (1 + BOUNCE) * outwards * ny;
    }
  }
  if (disc.x < radius || disc.x > WIDTH - radius) {
    disc.x = Math.min(Math.max(disc.x, radius), WIDTH - radius);
    disc.vx *= -BOUNCE;
  }
  if (disc.y < radius || disc.y > HEIGHT - radius) {
    disc.y = Math.min(Math.max(disc.y, radius), HEIGHT - radius);
    disc.vy *= -BOUNCE;
  }
}

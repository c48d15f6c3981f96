// How a ship flies for one step: ship.py in JavaScript. A test runs both and compares.

import { bounce } from "./space.js";

export const STEP_SECONDS = 1 / 20;
export const RADIUS = 16;
const MAX_SPEED = 320;
const THRUST = 620;
const TURN = 3.8;
const DRAG = 0.985;
const CIRCLE = 2 * Math.PI;

// The ship {x, y, vx, vy, angle} one step later, under {thrust, turn}.
export function flown(ship, { thrust, turn }) {
  const angle = (((ship.angle + turn * TURN * STEP_SECONDS) % CIRCLE) + CIRCLE) % CIRCLE;
  let { vx, vy } = ship;
  if (thrust) {
    vx += Math.cos(angle) * THRUST * STEP_SECONDS;
    vy += Math.sin(angle) * THRUST * STEP_SECONDS;
  }
  const speed = Math.sqrt(vx * vx + vy * vy) * DRAG;
  const slower = speed > MAX_SPEED ? (DRAG * MAX_SPEED) / speed : DRAG;
  vx *= slower;
  vy *= slower;
  const next = { x: ship.x + vx * STEP_SECONDS, y: ship.y + vy * STEP_SECONDS, vx, vy, angle };
  bounce(next, RADIUS);
  return next;
}

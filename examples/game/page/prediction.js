// One's own ship, where it will be when the server has had the inputs that are still on their way.
//
// Each input moves it at once. When a snapshot says which input the server has used last, the later ones are applied to
// what the server says. What was wrong is not jumped over, but fades within some frames.

import { flown, STEP_SECONDS } from "./ship.js";

const MAX_PENDING = 40; // two seconds: who is further behind sees what the server says
const JUMP = 120; // units: a new ship after a wreck; nothing to fade
const FADE = 0.8; // of an error, what is left a step later

export function prediction() {
  let pending = []; // [{sequence, controls}] that the server has not used yet
  let before = null; // the ship one step ago
  let now = null;
  let steppedAt = 0;
  let error = { x: 0, y: 0 };

  return {
    get pending() {
      return pending.length;
    },

    // The server's ship {x, y, vx, vy, angle, health, sequence}.
    confirmed(ship) {
      pending = pending.filter(({ sequence }) => sequence > ship.sequence);
      let next = ship;
      if (ship.health > 0) for (const { controls } of pending) next = flown(next, controls);
      if (now) {
        const dx = now.x - next.x;
        const dy = now.y - next.y;
        if (Math.hypot(dx, dy) < JUMP) {
          error = { x: error.x + dx, y: error.y + dy };
          before = { ...before, x: before.x - dx, y: before.y - dy };
        } else {
          error = { x: 0, y: 0 };
          before = null;
        }
      }
      now = next;
      before ??= next;
    },

    // An input that goes to the server now.
    steered(sequence, controls, at) {
      pending.push({ sequence, controls });
      if (pending.length > MAX_PENDING) pending.shift();
      if (!now) return;
      before = now;
      now = flown(now, controls);
      error = { x: error.x * FADE, y: error.y * FADE };
      steppedAt = at;
    },

    // Where to draw it at `at` (milliseconds): between its last two steps.
    at(at) {
      if (!now) return null;
      const part = Math.min(1, Math.max(0, (at - steppedAt) / (1000 * STEP_SECONDS)));
      const turn = Math.atan2(Math.sin(now.angle - before.angle), Math.cos(now.angle - before.angle));
      return {
        x: before.x + (now.x - before.x) * part + error.x,
        y: before.y + (now.y - before.y) * part + error.y,
        angle: before.angle + turn * part,
      };
    },
  };
}

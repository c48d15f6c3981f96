// The others' ships and all shots, as they were 100 ms before the newest snapshot: between two that are there already.

import { STEP_SECONDS } from "./ship.js";

const STEP = 1000 * STEP_SECONDS; // milliseconds
const DELAY = 100;
const KEPT = 30; // snapshots
const LOST = 250; // milliseconds: the server stood still, or another one goes on; its clock is looked at afresh
const JUMP = 120; // units between two snapshots: a new ship

export function interpolation() {
  let snapshots = [];
  let offset = null; // milliseconds between the server's clock, which counts ticks, and ours

  // The last snapshot at or before that time, and the one after it if it is there.
  function around(time) {
    let index = snapshots.length - 1;
    while (index > 0 && snapshots[index].tick * STEP > time) index -= 1;
    return [snapshots[index], snapshots[index + 1] ?? null];
  }

  return {
    add(snapshot, at) {
      const newest = snapshots.at(-1);
      if (newest && snapshot.tick <= newest.tick) snapshots = []; // resumed from a checkpoint
      snapshots.push(snapshot);
      if (snapshots.length > KEPT) snapshots.shift();
      const seen = at - snapshot.tick * STEP;
      offset = offset === null || Math.abs(seen - offset) > LOST ? seen : offset + 0.1 * (seen - offset);
    },

    // {ships, shots} to draw at `at` (milliseconds), or null before the first snapshot.
    at(at) {
      if (snapshots.length === 0) return null;
      const time = at - offset - DELAY;
      const [before, after] = around(time);
      if (!after) return before;
      const part = Math.min(1, Math.max(0, (time / STEP - before.tick) / (after.tick - before.tick)));
      const ships = after.ships.map((ship) => between(before.ships.find(({ id }) => id === ship.id), ship, part));
      const seconds = part * STEP_SECONDS;
      const shots = before.shots.map((shot) => ({ ...shot, x: shot.x + shot.vx * seconds, y: shot.y + shot.vy * seconds }));
      return { ...after, ships, shots };
    },
  };
}

function between(before, after, part) {
  if (!before || Math.hypot(after.x - before.x, after.y - before.y) > JUMP) return after;
  const turn = Math.atan2(Math.sin(after.angle - before.angle), Math.cos(after.angle - before.angle));
  return {
    ...after,
    x: before.x + (after.x - before.x) * part,
    y: before.y + (after.y - before.y) * part,
    angle: before.angle + turn * part,
  };
}

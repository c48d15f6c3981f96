// One match: inputs go out twenty times a second, snapshots come in, and every frame is drawn from both.

import { colour, painter } from "./drawing.js";
import { interpolation } from "./interpolation.js";
import { keyboard } from "./keyboard.js";
import { link } from "./link.js";
import { prediction } from "./prediction.js";
import { STEP_SECONDS } from "./ship.js";
import { address, ask } from "./where.js";

const SILENT_SECONDS = 5; // a hundred snapshots

// Plays the match of that id in `element` (the page's elements by id) until close().
export function play(id, element) {
  const { draw } = painter(element.canvas);
  const keys = keyboard();
  let others = interpolation();
  let own = prediction();
  let me = null; // my ship's id
  let sequence = 0;
  let controls = { thrust: false, turn: 0, fire: false };
  let names = new Map();
  let newest = null;
  let ping = null;
  let served = "";
  let frame = null;
  let trouble = "connection lost";
  let question = null; // where this match is, as long as it was never seen

  const handlers = {
    welcome({ you, sequence: last, slot, workers, pid }) {
      me = you;
      trouble = "connection lost";
      sequence = Math.max(sequence, last);
      own = prediction();
      others = interpolation();
      served = `worker ${slot + 1} of ${workers} · process ${pid}`;
    },
    roster(message) {
      names = new Map(message.names);
    },
    snapshot(message) {
      newest = { ...message, ships: message.ships.map(ship), shots: message.shots.map(shot) };
      const mine = newest.ships.find(({ id }) => id === me);
      if (mine) own.confirmed(mine);
      others.add(newest, performance.now());
    },
    pong({ at }) {
      ping = performance.now() - at;
    },
  };

  const connection = link(`/match/${encodeURIComponent(id)}`, {
    onMessage: (message) => handlers[message.type]?.(message),
    silentSeconds: SILENT_SECONDS,
    onState({ name, seconds, reason }) {
      if (name === "waiting" && me === null) question ??= ask(id, follow);
      element.state.dataset.state = name;
      element.state.textContent = {
        connecting: () => "connecting …",
        open: () => "",
        waiting: () => `${reason || trouble}, again in ${seconds.toFixed(1)} s`,
        ended: () => `over: ${reason}`,
      }[name]();
    },
  });

  function follow({ here, url }) {
    question = null;
    if (here || me !== null) return; // it will be reached
    if (url !== null) location.replace(address(url, id)); // else one could not go back
    else trouble = "nobody knows this match";
  }

  function step() {
    if (me === null) return;
    controls = keys.controls();
    sequence += 1;
    if (connection.send({ type: "input", seq: sequence, do: [controls.thrust, controls.turn, controls.fire] })) {
      own.steered(sequence, controls, performance.now());
    }
  }

  function paint() {
    frame = requestAnimationFrame(paint);
    const now = performance.now();
    const seen = others.at(now);
    if (!seen) return;
    const ships = seen.ships.map((ship) => ({ ...ship, name: names.get(ship.id) ?? "" }));
    const mine = ships.find(({ id }) => id === me);
    if (mine) Object.assign(mine, own.at(now), { isOwn: true, isThrusting: controls.thrust });
    draw({ ships, shots: seen.shots }, now);
  }

  function report() {
    connection.send({ type: "ping", at: performance.now() });
    const facts = [served, ping === null ? "" : `ping ${ping.toFixed(0)} ms`];
    if (newest) facts.push(`tick ${newest.tick}, ${newest.late.toFixed(1)} ms late`);
    element.facts.textContent = facts.filter(Boolean).join(" · ");
    const table = [...(newest?.ships ?? [])].sort((one, other) => other.score - one.score);
    element.table.replaceChildren(...table.map(row));
  }

  function row({ id, score }) {
    const entry = document.createElement("li");
    entry.style.setProperty("--ship", colour(id));
    if (id === me) entry.className = "own";
    entry.append(names.get(id) ?? "", " ", Object.assign(document.createElement("b"), { textContent: score }));
    return entry;
  }

  const timers = [setInterval(step, 1000 * STEP_SECONDS), setInterval(report, 1000)];
  paint();
  return {
    // For the console, and the tests: what was heard last, and where one's own ship is drawn.
    get seen() {
      return { me, newest, pending: own.pending, drawn: own.at(performance.now()), names: Object.fromEntries(names) };
    },
    close() {
      timers.forEach(clearInterval);
      cancelAnimationFrame(frame);
      connection.close();
      question?.close();
      keys.close();
      element.facts.textContent = "";
    },
  };
}

function ship([id, x, y, vx, vy, angle, health, score, sequence]) {
  return { id, x, y, vx, vy, angle, health, score, sequence };
}

function shot([x, y, vx, vy]) {
  return { x, y, vx, vy };
}

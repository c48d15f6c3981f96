// The arena on a canvas. Knows nothing of servers: it is given a scene and draws it.

import { RADIUS } from "./ship.js";
import { HEIGHT, ROCKS, WIDTH } from "./space.js";

const STARS = Array.from({ length: 160 }, (_, i) => [(i * 733) % WIDTH, (i * 467) % HEIGHT, 0.4 + ((i * 7) % 10) / 9]);
const BLAST_MS = 700;

// Neighbours on the list are far apart on the colour circle: the golden angle.
export function colour(id) {
  return `hsl(${(20 + id * 137.5) % 360} 85% 64%)`;
}

export function painter(canvas) {
  const context = canvas.getContext("2d");
  const alive = new Map(); // ship's id -> whether it was no wreck in the last frame
  let blasts = []; // {x, y, id, at}

  function fit() {
    const scale = canvas.clientWidth / WIDTH;
    const pixels = Math.round(canvas.clientWidth * devicePixelRatio);
    if (canvas.width !== pixels) {
      canvas.width = pixels;
      canvas.height = Math.round((pixels * HEIGHT) / WIDTH);
    }
    context.setTransform(scale * devicePixelRatio, 0, 0, scale * devicePixelRatio, 0, 0);
  }

  function drawSpace() {
    context.fillStyle = "#0b0d1a";
    context.fillRect(0, 0, WIDTH, HEIGHT);
    context.fillStyle = "#aab4e8";
    for (const [x, y, size] of STARS) {
      context.globalAlpha = 0.25 + size * 0.35;
      context.fillRect(x, y, size * 1.6, size * 1.6);
    }
    context.globalAlpha = 1;
    for (const [x, y, radius] of ROCKS) {
      const light = context.createRadialGradient(x - radius / 3, y - radius / 3, radius / 8, x, y, radius);
      light.addColorStop(0, "#6b7196");
      light.addColorStop(1, "#2a2e4a");
      disc(x, y, radius, light);
    }
    context.strokeStyle = "#4a5180";
    context.lineWidth = 4;
    context.strokeRect(2, 2, WIDTH - 4, HEIGHT - 4);
  }

  function disc(x, y, radius, fill) {
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.fillStyle = fill;
    context.fill();
  }

  function drawShot({ x, y, vx, vy }) {
    const length = 14 / Math.hypot(vx, vy);
    context.beginPath();
    context.moveTo(x, y);
    context.lineTo(x - vx * length, y - vy * length);
    context.lineWidth = 3.5;
    context.lineCap = "round";
    context.strokeStyle = "#ffe08a";
    context.stroke();
  }

  function drawShip({ id, x, y, angle, health, name, isOwn, isThrusting }) {
    const paint = colour(id);
    context.save();
    context.translate(x, y);
    context.rotate(angle);
    if (isThrusting) {
      context.beginPath();
      context.moveTo(-RADIUS * 0.6, -5);
      context.lineTo(-RADIUS * (1.3 + Math.random() * 0.7), 0);
      context.lineTo(-RADIUS * 0.6, 5);
      context.fillStyle = "#ff9d4d";
      context.fill();
    }
    context.beginPath();
    context.moveTo(RADIUS * 1.15, 0);
    context.lineTo(-RADIUS * 0.85, -RADIUS * 0.8);
    context.lineTo(-RADIUS * 0.45, 0);
    context.lineTo(-RADIUS * 0.85, RADIUS * 0.8);
    context.closePath();
    context.fillStyle = paint;
    context.fill();
    if (isOwn) {
      context.lineWidth = 2;
      context.strokeStyle = "#fff";
      context.stroke();
    }
    context.restore();
    context.fillStyle = "#ffffff30";
    context.fillRect(x - 20, y - 31, 40, 4);
    context.fillStyle = health > 40 ? "#57d68d" : "#ff6b6b";
    context.fillRect(x - 20, y - 31, 0.4 * health, 4);
    context.fillStyle = "#d7dcf5";
    context.font = "15px system-ui, sans-serif";
    context.textAlign = "center";
    context.fillText(name, x, y + 38);
  }

  function drawBlast({ x, y, id, at }, now) {
    const part = (now - at) / BLAST_MS;
    context.globalAlpha = 1 - part;
    context.beginPath();
    context.arc(x, y, RADIUS * (0.5 + 3 * part), 0, 2 * Math.PI);
    context.lineWidth = 6 * (1 - part);
    context.strokeStyle = colour(id);
    context.stroke();
    context.globalAlpha = 1;
  }

  return {
    // `ships`: [{id, x, y, angle, health, name, isOwn, isThrusting}], `shots`: [{x, y, vx, vy}]; `now` in milliseconds.
    draw({ ships, shots }, now) {
      for (const { id, x, y, health } of ships) {
        if (health === 0 && alive.get(id)) blasts.push({ x, y, id, at: now });
        alive.set(id, health > 0);
      }
      blasts = blasts.filter(({ at }) => now - at < BLAST_MS);
      fit();
      drawSpace();
      shots.forEach(drawShot);
      for (const ship of ships) if (ship.health > 0) drawShip(ship);
      for (const blast of blasts) drawBlast(blast, now);
    },
  };
}

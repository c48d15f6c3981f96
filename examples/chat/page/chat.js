// The chat page: what the server says goes into the log, what the visitor types goes to the server.

import { reconnecting } from "./reconnecting.js";

const ROOMS = ["lobby", "garden", "library"];
const MAX_ENTRIES = 500; // the log forgets older ones

const element = Object.fromEntries([...document.querySelectorAll("[id]")].map((found) => [found.id, found]));
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });

let connection = null;
let me = null; // {tag, name, worker} since the last welcome
let unconfirmed = null; // {id, text}: sent, but not yet back from the server
let lostAt = null; // when the connection went, while it is gone

// ---------------------------------------------------------------- the room

function currentRoom() {
  let room = "";
  try {
    room = decodeURIComponent(location.hash.slice(1));
  } catch {
    // not percent-encoded text: as good as none
  }
  // No control characters, which a room may not have, and no leading dots, which a URL's path would swallow.
  room = room.replace(/\p{Cc}|^[\s.]+/gu, "").trim();
  return [...room].slice(0, 30).join("") || ROOMS[0];
}

function enterRoom() {
  connection?.close();
  me = lostAt = null;
  settle("");
  element.log.replaceChildren();
  const room = currentRoom();
  element.room.textContent = room;
  document.title = `${room} · stickygw chat`;
  element.text.placeholder = `Message ${room}`;
  showRooms(room);
  showOtherVisitor();
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  const url = `${scheme}//${location.host}/ws/${encodeURIComponent(room)}`;
  connection = reconnecting(url, { onMessage, onState });
}

function showRooms(room) {
  const rooms = ROOMS.includes(room) ? ROOMS : [...ROOMS, room];
  element.rooms.replaceChildren(
    ...rooms.map((name) => {
      const link = create("a", "", name);
      link.href = `#${encodeURIComponent(name)}`;
      if (name === room) link.setAttribute("aria-current", "page");
      const item = create("li");
      item.append(link);
      return item;
    }),
  );
}

// The demo's two addresses are two hosts to the browser, so two cookie jars, so two visitors.
function showOtherVisitor() {
  const other = { "127.0.0.1": "localhost", localhost: "127.0.0.1" }[location.hostname];
  element.other.closest("p").hidden = other === undefined;
  if (other) element.other.href = `${location.protocol}//${other}:${location.port}/${location.hash}`;
}

// ---------------------------------------------------------------- what the server says

const handlers = {
  welcome({ you, visits, workers }) {
    me = you;
    showName(you.name);
    element.served.textContent = `worker ${you.worker} of ${workers} · session ${you.tag} · visit ${visits}`;
    element.slots.replaceChildren(...Array.from({ length: workers }, (_, slot) => workerBadge(slot + 1, you.worker)));
    if (lostAt === null) return;
    const seconds = Math.max(1, Math.round((Date.now() - lostAt) / 1000));
    lostAt = null;
    note(`Back after ${seconds} s, on worker ${you.worker}. What was said meanwhile is not shown.`);
  },
  said({ who, text, id, at }) {
    const isMine = who.tag === me?.tag;
    append(message(who, text, new Date(at * 1000), isMine), isMine);
    if (id === unconfirmed?.id) {
      // What was typed since then stays.
      const typed = element.text.value;
      if (typed.startsWith(unconfirmed.text)) element.text.value = typed.slice(unconfirmed.text.length);
      settle("");
    }
  },
  renamed({ who, before }) {
    if (who.tag === me?.tag) showName(who.name);
    note(`${before} is now ${who.name}`);
  },
  entered({ who }) {
    note(`${who.name} came in, on worker ${who.worker}`);
  },
  left({ who }) {
    note(`${who.name} left`);
  },
};

function onMessage(news) {
  handlers[news.type]?.(news);
}

function onState(state) {
  const text = {
    connecting: () => "connecting …",
    open: () => "connected",
    waiting: () => `reconnecting in ${state.seconds.toFixed(1)} s`,
    ended: () => `closed by the server: ${state.reason || state.code}`,
  }[state.name]();
  element.state.dataset.state = state.name;
  element.state.textContent = text;
  if (state.name === "ended") element.state.append(" ", retryButton());
  if (state.name === "waiting" || state.name === "ended") onLost();
}

function onLost() {
  if (me !== null && lostAt === null) {
    lostAt = Date.now();
    note("The connection is lost.");
  }
  if (unconfirmed) settle("Nobody knows whether this arrived: send it again once connected.");
}

function retryButton() {
  const button = create("button", "", "Try again");
  button.type = "button";
  button.onclick = () => connection.retry();
  return button;
}

// ---------------------------------------------------------------- what the visitor does

// Text leaves the box only when the server has said it to the room: what was not sent stays where it was typed.
function say(event) {
  event.preventDefault();
  const text = element.text.value;
  if (!text.trim() || unconfirmed) return;
  const id = crypto.getRandomValues(new Uint32Array(2)).join("-");
  if (!connection.send({ type: "say", id, text })) {
    settle("Not connected: your text stays here, send it again in a moment.");
    return;
  }
  unconfirmed = { id, text };
  element.say.ariaBusy = "true";
  element.hint.textContent = "";
}

function settle(hint) {
  unconfirmed = null;
  element.say.ariaBusy = "false";
  element.hint.textContent = hint;
}

function rename(event) {
  event.preventDefault();
  const name = element.name.value.trim();
  if (!name || name === me?.name) return;
  if (!connection.send({ type: "rename", name })) settle("Not connected: your name is not saved yet.");
}

function showName(name) {
  me.name = name;
  element.name.value = name;
}

element.say.addEventListener("submit", say);
element.rename.addEventListener("submit", rename);
element.enter.addEventListener("submit", (event) => {
  event.preventDefault();
  const room = element["other-room"].value.trim();
  if (room) location.hash = encodeURIComponent(room);
  element.enter.reset();
});
element.text.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    element.say.requestSubmit();
  }
});
addEventListener("hashchange", enterRoom);
addEventListener("online", () => connection.retry());

// ---------------------------------------------------------------- the log

// Everything that others wrote enters the page as text, never as markup.
function create(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

function workerBadge(worker, own) {
  const badge = create("li", worker === own ? "own" : "", `worker ${worker}`);
  badge.style.setProperty("--hue", workerHue(worker));
  return badge;
}

// Neighbours on the list are far apart on the colour circle: the golden angle.
function workerHue(worker) {
  return (150 + worker * 137.5) % 360;
}

function message(who, text, at, isMine) {
  const entry = create("li", isMine ? "message mine" : "message");
  entry.dataset.by = `${who.tag} ${who.name} ${who.worker}`;
  const avatar = create("span", "avatar", [...who.name][0].toUpperCase());
  avatar.ariaHidden = "true";
  avatar.style.setProperty("--hue", (parseInt(who.tag, 16) * 360) / 65536);
  const worker = create("span", "worker", `worker ${who.worker}`);
  worker.style.setProperty("--hue", workerHue(who.worker));
  const time = create("time", "", clock.format(at));
  time.dateTime = at.toISOString();
  const byline = create("p", "byline");
  byline.append(create("b", "", who.name), " ", worker, " ", time);
  entry.append(avatar, byline, create("p", "text", text));
  return entry;
}

function note(text) {
  append(create("li", "note", text), false);
}

function append(entry, isMine) {
  const log = element.log;
  const wasAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  if (entry.dataset.by && entry.dataset.by === log.lastElementChild?.dataset.by) entry.classList.add("again");
  log.append(entry);
  while (log.childElementCount > MAX_ENTRIES) log.firstElementChild.remove();
  if (wasAtEnd || isMine) log.scrollTop = log.scrollHeight;
}

enterRoom();

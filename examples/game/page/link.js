// A WebSocket that comes back by itself, for msgpack messages.
//
// Every wait is random between 0 and a bound that doubles from 0.2 s to 10 s ("full jitter"): players that lost the
// server together do not come back together. The bound starts afresh at the server's first message; a server that
// stops may ask for a longer one.
//
// A network that is gone closes nothing, and for minutes a browser tries in vain to open a connection in it. So the
// server has to say something soon; where messages come all the time, their absence is a loss later on too.

import { decode, encode } from "./msgpack.js";

const FIRST_BOUND_SECONDS = 0.2;
const LAST_BOUND_SECONDS = 10;
const FIRST_MESSAGE_SECONDS = 10; // a handshake waits for a match that moves: move_grace, 5 s, and a second

// After these coming back would end the same way: policy, the match is full, another window plays, nobody plays in this
// one, session ended.
const FINAL_CODES = new Set([1008, 4001, 4002, 4003, 4401]);

// "gateway stopping; come back within 4.0 s": over how long the server wants its clients to return.
function spreadSeconds(reason) {
  const found = /within (\d+(?:\.\d+)?) s/.exec(reason);
  return found ? Number(found[1]) : 0;
}

// Opens `path` of this host and keeps it open until close(). It is opened anew if no first message has come within
// FIRST_MESSAGE_SECONDS, and when it has been silent for `silentSeconds` after that.
// Calls onMessage(value) for each message, and onState(state) with {name: "connecting"}, {name: "open"},
// {name: "waiting", seconds, reason} or {name: "ended", reason}. Of a connection that was lost, or refused before it was
// open, the reason is "".
export function link(path, { onMessage, onState, silentSeconds = Infinity }) {
  const url = `${location.protocol === "https:" ? "wss:" : "ws:"}//${location.host}${path}`;
  let socket = null;
  let timer = null;
  let silence = null;
  let failures = 0;
  let isOpen = false;

  function open() {
    clearTimeout(timer);
    onState({ name: "connecting" });
    socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }) => {
      if (!isOpen) {
        isOpen = true;
        failures = 0;
        onState({ name: "open" });
      }
      listen(silentSeconds);
      onMessage(decode(data));
    };
    socket.onclose = ended;
    listen(FIRST_MESSAGE_SECONDS);
  }

  function ended({ code, reason }) {
    drop();
    if (FINAL_CODES.has(code)) {
      onState({ name: "ended", reason: reason || String(code) });
      return;
    }
    const bound = Math.min(LAST_BOUND_SECONDS, FIRST_BOUND_SECONDS * 2 ** failures);
    failures += 1;
    const seconds = Math.random() * Math.max(bound, spreadSeconds(reason));
    timer = setTimeout(open, seconds * 1000);
    onState({ name: "waiting", seconds, reason });
  }

  function listen(seconds) {
    clearTimeout(silence);
    if (seconds < Infinity) silence = setTimeout(() => ended({ code: 1006, reason: "" }), 1000 * seconds);
  }

  // Whatever the socket has yet to say, it is none of ours.
  function drop() {
    clearTimeout(silence);
    isOpen = false;
    socket.onclose = socket.onmessage = null;
    socket.close();
    socket = null;
  }

  open();
  return {
    // Whether the message was given to an open connection. Nothing is queued for later.
    send(value) {
      if (!isOpen || socket.readyState !== WebSocket.OPEN) return false;
      socket.send(encode(value));
      return true;
    },
    close() {
      clearTimeout(timer);
      if (socket !== null) drop();
    },
  };
}

// A WebSocket that comes back by itself, for JSON messages.
//
// Every wait is random between 0 and a bound that doubles from 0.2 s to 10 s ("full jitter"): clients that lost
// the server together do not come back together. The bound starts afresh at the server's first message; a server
// that stops may ask for a longer one.

const FIRST_BOUND_SECONDS = 0.2;
const LAST_BOUND_SECONDS = 10;

// The close codes after which coming back would end the same way: policy (1008), session ended (4401).
const FINAL_CODES = new Set([1008, 4401]);

// "gateway stopping; come back within 4.0 s": over how long the server wants its clients to return.
function spreadSeconds(reason) {
  const found = /within (\d+(?:\.\d+)?) s/.exec(reason);
  return found ? Number(found[1]) : 0;
}

// Opens `url` and keeps it open until close(). Calls onMessage(value) for each message, and onState(state) with
// {name: "connecting"}, {name: "open"}, {name: "waiting", seconds} or {name: "ended", code, reason}.
export function reconnecting(url, { onMessage, onState }) {
  let socket = null;
  let timer = null;
  let failures = 0;
  let isOpen = false;

  function open() {
    clearTimeout(timer);
    onState({ name: "connecting" });
    socket = new WebSocket(url);
    socket.onmessage = (event) => {
      if (!isOpen) {
        isOpen = true;
        failures = 0;
        onState({ name: "open" });
      }
      onMessage(JSON.parse(event.data));
    };
    socket.onclose = ({ code, reason }) => {
      isOpen = false;
      socket = null;
      if (FINAL_CODES.has(code)) {
        onState({ name: "ended", code, reason });
        return;
      }
      const bound = Math.min(LAST_BOUND_SECONDS, FIRST_BOUND_SECONDS * 2 ** failures);
      failures += 1;
      const seconds = Math.random() * Math.max(bound, spreadSeconds(reason));
      timer = setTimeout(open, seconds * 1000);
      onState({ name: "waiting", seconds });
    };
  }

  open();
  return {
    // Whether the message was given to an open connection. Nothing is queued for later.
    send(value) {
      if (!isOpen || socket.readyState !== WebSocket.OPEN) return false;
      socket.send(JSON.stringify(value));
      return true;
    },
    // Tries at once, where it would wait or has ended.
    retry() {
      if (socket === null) open();
    },
    close() {
      clearTimeout(timer);
      if (socket === null) return;
      socket.onclose = socket.onmessage = null;
      socket.close(1000);
      socket = null;
    },
  };
}

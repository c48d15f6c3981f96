// Which gateway has a match. A browser shows no page why a WebSocket was refused, so the lobby is asked.

import { link } from "./link.js";

// The page that plays the match of that id at the gateway with that public URL.
export function address(url, id) {
  return `${url.replace(/^ws/, "http")}/#${id}`;
}

// Asks once, unless close() comes before. Calls onAnswer({here, url}): whether this gateway has minted the id; the
// public URL of the one that has, or null if nobody knows.
export function ask(id, onAnswer) {
  const lobby = link("/lobby", {
    onState() {},
    onMessage(message) {
      if (message.type === "you") lobby.send({ type: "where", id });
      if (message.type !== "there") return;
      lobby.close();
      onAnswer(message);
    },
  });
  return lobby;
}

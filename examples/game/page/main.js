// The lobby, or the match that the address names: /#MATCH.

import { lobby } from "./lobby.js";
import { play } from "./play.js";

const element = Object.fromEntries([...document.querySelectorAll("[id]")].map((found) => [found.id, found]));
let shown = null;

function show() {
  shown?.close();
  const id = location.hash.slice(1);
  element.lobby.hidden = id !== "";
  element.match.hidden = id === "";
  shown = id ? play(id, element) : lobby(element, { onEnter: (minted) => (location.hash = minted) });
  globalThis.game = shown;
}

addEventListener("hashchange", show);
show();

// The list of matches on all workers and gateways, the best pilots, and one's own name.

import { link } from "./link.js";
import { address } from "./where.js";

// Shows itself in `element` (the page's elements by id) until close(). Calls onEnter(id) for a match of this gateway.
export function lobby(element, { onEnter }) {
  let gateway = null;

  const connection = link("/lobby", {
    onState({ name, reason }) {
      element["lobby-state"].textContent = { connecting: "connecting …", open: "", waiting: "reconnecting …", ended: reason }[name];
    },
    onMessage(message) {
      if (message.type === "you") {
        gateway = message.gateway;
        if (document.activeElement !== element.name) element.name.value = message.name;
      } else if (message.type === "minted") onEnter(message.id);
      else if (message.type === "lobby") show(message);
    },
  });

  function show({ matches, scores }) {
    element.matches.replaceChildren(...matches.map(row));
    element["no-matches"].hidden = matches.length > 0;
    element.scores.replaceChildren(...scores.map(([who, score]) => item("li", item("b", score), " ", who)));
  }

  function row([id, players, url, slot]) {
    const isHere = id.startsWith(`${gateway}.`);
    const where = isHere ? `worker ${slot + 1}` : `worker ${slot + 1} at ${url ?? "a gateway without public_url"}`;
    const entry = item("li", item("b", id.slice(-6)), item("span", `${players} flying`), item("small", where));
    entry.dataset.id = id;
    if (isHere || url) {
      const enter = item("a", "Join");
      enter.href = isHere ? `#${id}` : address(url, id);
      entry.append(enter);
    }
    return entry;
  }

  element["new"].onclick = () => connection.send({ type: "new" });
  element.rename.onsubmit = (event) => {
    event.preventDefault();
    connection.send({ type: "name", name: element.name.value });
    element.name.blur();
  };
  return connection;
}

// What others wrote enters the page as text, never as markup.
function item(tag, ...content) {
  const made = document.createElement(tag);
  made.append(...content);
  return made;
}

// Which controls are held down: arrows or WASD, and space. Listens until close().

const KEYS = {
  ArrowUp: "thrust",
  KeyW: "thrust",
  ArrowLeft: "left",
  KeyA: "left",
  ArrowRight: "right",
  KeyD: "right",
  Space: "fire",
};

export function keyboard() {
  const down = new Set();
  const tapped = new Set(); // pressed since it was asked last, if only for a moment

  function onKey(event) {
    if (event.type === "keyup") down.delete(event.code);
    const isTyping = event.target instanceof HTMLInputElement || event.target instanceof HTMLButtonElement;
    if (!(event.code in KEYS) || isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    if (event.type === "keydown") {
      down.add(event.code);
      tapped.add(event.code);
    }
  }

  const listening = new AbortController();
  const options = { signal: listening.signal };
  addEventListener("keydown", onKey, options);
  addEventListener("keyup", onKey, options);
  addEventListener("blur", () => down.clear(), options);

  return {
    close() {
      listening.abort();
    },

    // {thrust, turn, fire} for the step that begins now.
    controls() {
      const held = new Set([...down, ...tapped].map((code) => KEYS[code]));
      tapped.clear();
      return { thrust: held.has("thrust"), turn: Number(held.has("right")) - Number(held.has("left")), fire: held.has("fire") };
    },
  };
}

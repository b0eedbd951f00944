// Conversations, kept in this browser and the same in all of its tabs.
//
// A turn is { role: "user", text } or { role: "assistant", once, model, stream, text, final }.
// `once` names the question, so that it is never asked twice; `stream` is the answer's log. While
// `final` is missing the answer is under way, and whoever opens the page follows it from its log.

const STORE = "unbroken.conversations";
const LAST = "unbroken.last";

/** A name that nobody else has; `crypto.randomUUID` is missing where a page comes over plain http. */
export const unique = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

const read = () => JSON.parse(localStorage.getItem(STORE) || "{}");

/** All of them, the youngest first. */
export const all = () => Object.values(read()).sort((a, b) => b.changed - a.changed);

export const get = (id) => read()[id];

export function fresh() {
  return { id: unique(), title: "", model: "", system: "", turns: [], changed: Date.now() };
}

/** Where the browser gives no more room the oldest conversations go, but never the one at hand. */
function write(kept, id) {
  const others = Object.values(kept).filter((one) => one.id !== id).sort((a, b) => b.changed - a.changed);
  for (;;) {
    try {
      return localStorage.setItem(STORE, JSON.stringify(kept));
    } catch (error) {
      if (!others.length) throw error;
      for (const oldest of others.splice(-Math.ceil(others.length / 10))) delete kept[oldest.id];
    }
  }
}

export function save(conversation) {
  conversation.changed = Date.now();
  write({ ...read(), [conversation.id]: conversation }, conversation.id);
}

/** Change one answer where it is kept: another tab may have changed what stands around it. */
export function settle(id, once, change) {
  const kept = read();
  const turn = kept[id]?.turns.find((turn) => turn.once === once);
  if (!turn) return;
  Object.assign(turn, change);
  write(kept, id);
}

export function remove(id) {
  const kept = read();
  delete kept[id];
  write(kept, id);
}

export const last = {
  get: () => localStorage.getItem(LAST),
  set: (id) => localStorage.setItem(LAST, id),
};

/** `changed()` is called when another tab has written. */
export function watch(changed) {
  addEventListener("storage", (event) => event.key === STORE && changed());
}

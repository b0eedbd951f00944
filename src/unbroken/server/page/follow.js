// Following an answer to its end, whatever happens to the network or to the server.

import { Refused, request, stream } from "./api.js";

const SILENCE = 40_000; // milliseconds; the gateway says something every 15 seconds
const LONGEST = 5_000; // between two tries

/**
 * Call `told(events)` for everything after offset 0 and return how the answer ended. No event is
 * passed twice: after a break the rest is requested by the last offset that was read.
 * `lost(seconds)` is called while the connection is gone, with null when it is back.
 * With a `token` the user's own key is not sent.
 */
export async function follow(id, { token = "", signal, told, lost }) {
  const place = stream(id);
  let after = 0;
  let pause = 250;
  for (;;) {
    try {
      const query = `after=${after}${token && `&token=${encodeURIComponent(token)}`}`;
      for await (const frame of frames(`${place}?${query}`, { signal, secret: !token })) {
        lost(null);
        pause = 250;
        if (frame.event === "end") return JSON.parse(frame.data);
        told(JSON.parse(frame.data));
        after = Number(frame.id);
      }
    } catch (error) {
      if (signal.aborted || (error instanceof Refused && error.status < 500)) throw error;
    }
    lost(pause / 1000);
    await rest(pause, signal);
    pause = Math.min(pause * 2, LONGEST);
  }
}

/** Some time, or until the browser says that it is online again. */
export function rest(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const over = () => {
      clearTimeout(timer);
      removeEventListener("online", over);
      signal.removeEventListener("abort", over);
      signal.aborted ? reject(signal.reason) : resolve();
    };
    const timer = setTimeout(over, milliseconds);
    addEventListener("online", over);
    signal.addEventListener("abort", over);
  });
}

/** The frames of an event stream (WHATWG HTML 9.2), until it ends or falls silent. */
async function* frames(path, { signal, secret }) {
  const gone = new AbortController();
  const leave = () => gone.abort();
  let alarm = setTimeout(leave, SILENCE);
  signal.addEventListener("abort", leave);
  addEventListener("offline", leave);
  try {
    const response = await request(path, { headers: { accept: "text/event-stream" }, signal: gone.signal, secret });
    if (response.status === 204) throw new Refused(410, "this answer has nothing more to say");
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let held = ""; ; ) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(alarm);
      alarm = setTimeout(leave, SILENCE);
      const blocks = (held + value).split("\n\n");
      held = blocks.pop();
      for (const block of blocks) {
        const frame = parsed(block);
        if (frame) yield frame;
      }
    }
  } finally {
    clearTimeout(alarm);
    signal.removeEventListener("abort", leave);
    removeEventListener("offline", leave);
    gone.abort(); // a reader that stops closes the connection
  }
}

function parsed(block) {
  const frame = Object.assign(Object.create(null), { event: "", id: "", data: null });
  for (const line of block.split("\n")) {
    const at = line.indexOf(":");
    const name = line.slice(0, at);
    if (at > 0 && name in frame) frame[name] = line.slice(at + 1).replace(/^ /, "");
  }
  return frame.data === null ? null : frame;
}

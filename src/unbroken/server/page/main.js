// The chat page: one conversation is open, its last answer may be under way.

import { Answer } from "./answer.js";
import * as api from "./api.js";
import { follow, rest } from "./follow.js";
import * as history from "./history.js";
import * as view from "./view.js";

const { $ } = view;
let models = [];
let talk = null; // the open conversation
let views = new Map(); // of its answers, by `once`
let leaving = new AbortController(); // aborted when another conversation is opened

// Conversations

function open(id) {
  leaving.abort();
  leaving = new AbortController();
  talk = history.get(id) || history.fresh();
  history.last.set(talk.id);
  views = new Map();
  $("turns").replaceChildren();
  view.options(models, talk.model || models[0]);
  $("system").value = talk.system;
  document.body.classList.remove("menu");
  view.busy(false);
  show();
  view.toEnd();
}

/** Bring the page up to what is kept: also when another tab has written. */
function show() {
  view.list(history.all(), talk.id, open);
  $("empty").hidden = talk.turns.length > 0;
  const items = talk.turns.map((turn, at) => {
    if (turn.role === "user") return $("turns").children[at] || view.question(turn.text);
    return (views.get(turn.once) || begin(turn)).item;
  });
  const same = items.length === $("turns").children.length && items.every((item, at) => item === $("turns").children[at]);
  if (!same) $("turns").replaceChildren(...items);
}

function begin(turn) {
  const shown = new view.AnswerView(turn.model);
  views.set(turn.once, shown);
  if (turn.final) shown.finish(kept(turn), turn.final, acts(turn));
  else run(turn, shown, leaving.signal);
  return shown;
}

function kept(turn) {
  const answer = new Answer();
  Object.assign(answer, { text: turn.text, reasoning: turn.reasoning || "" });
  return answer;
}

const acts = (turn) => ({
  Retry: () => retry(turn),
  Copy: () => copy(turn.text, "The answer is copied."),
  ...(turn.stream && { Share: () => share(turn) }),
});

// Asking

/** The question in the box. Without a model it stays there, and why was said. */
async function send() {
  if (!$("model").value) await load();
  const text = $("prompt").value.trim();
  if (!text || !$("model").value || $("send").hidden) return;
  $("prompt").value = "";
  view.grow();
  if (!talk.title) talk.title = text.slice(0, 60);
  talk.model = $("model").value;
  talk.turns.push({ role: "user", text });
  ask();
}

function ask() {
  const model = $("model").value || talk.model;
  talk.turns.push({ role: "assistant", once: history.unique(), model, text: "", at: Date.now() });
  keep(() => history.save(talk));
  show();
  view.toEnd();
}

function retry(turn) {
  talk = history.get(talk.id);
  const at = talk.turns.findIndex((one) => one.once === turn.once);
  talk.turns.length = at;
  ask();
}

/** A conversation that is larger than all the room in this browser goes on, but a reload loses it. */
function keep(write) {
  try {
    write();
  } catch (error) {
    view.say(`This browser has no room to keep the conversation: ${error.message}`);
  }
}

/** What is asked: everything before the turn. An answer that failed says nothing. */
function asked(turn) {
  const before = talk.turns.slice(0, talk.turns.findIndex((one) => one.once === turn.once));
  const said = before.filter((one) => one.text).map(({ role, text }) => ({ role, content: text }));
  const system = talk.system ? [{ role: "system", content: talk.system }] : [];
  return { model: turn.model, messages: [...system, ...said], on_disconnect: "keep" };
}

/** From the question to the end of its answer, over any number of breaks. */
async function run(turn, shown, signal) {
  const id = talk.id;
  const recent = turn.at && Date.now() - turn.at < 1000;
  const answer = new Answer(recent ? performance.now() : null);
  const waiting = setInterval(() => shown.draw(answer), 250);
  view.busy(true);
  view.say("Asking.");
  let final;
  try {
    const stream = turn.stream || (await started(turn, signal));
    keep(() => history.settle(id, turn.once, { stream }));
    turn.stream = stream;
    const told = (events) => {
      answer.add(events);
      shown.draw(answer);
    };
    final = await follow(stream, { signal, told, lost });
  } catch (error) {
    if (signal.aborted) return clearInterval(waiting);
    final = { state: "failed", error: { message: error.message } };
    if (error.status === 401) settings(error.message);
  }
  clearInterval(waiting);
  Object.assign(turn, { text: answer.text, reasoning: answer.reasoning, final });
  keep(() => history.settle(id, turn.once, { text: turn.text, reasoning: turn.reasoning, final }));
  shown.finish(answer, final, acts(turn));
  view.busy(false);
  view.say(final.state === "complete" ? "The answer is complete." : "");
}

/** The id of the answer. Asked again and again without fear: `once` makes it the same answer. */
async function started(turn, signal) {
  for (let pause = 250; ; pause = Math.min(pause * 2, 5000)) {
    try {
      return (await api.start(asked(turn), turn.once, signal)).id;
    } catch (error) {
      if (signal.aborted || error instanceof api.Refused) throw error;
    }
    lost(pause / 1000);
    await rest(pause, signal);
    lost(null);
  }
}

function lost(seconds) {
  if (seconds === null) {
    if (document.body.classList.contains("lost")) view.say("Connected again.");
  } else view.say(navigator.onLine ? "The connection is gone. Reconnecting…" : "Offline. The answer goes on as soon as the network is back.");
  document.body.classList.toggle("lost", seconds !== null);
}

async function stop() {
  const turn = talk.turns.at(-1);
  if (!turn?.stream) return;
  await api.stop(turn.stream).catch((error) => view.say(`It could not be stopped: ${error.message}`));
}

// Sharing

async function copy(text, said) {
  await navigator.clipboard.writeText(text).then(() => view.say(said), () => prompt("Copy this:", text));
}

async function share(turn) {
  const token = await api.share(turn.stream).catch((error) => view.say(error.message));
  if (token) await copy(`${location.href.split("#")[0]}#shared=${turn.stream}.${token}`, "A link to this answer is copied: whoever has it may read it.");
}

/** An answer that another user shared, read-only, live if it is still growing. */
async function shared(stream, token, ...more) {
  document.body.classList.add("shared");
  if (more.length || !api.isId(stream) || !api.isId(token)) return view.say("This link is not complete, or was changed.");
  const shown = new view.AnswerView("");
  const answer = new Answer();
  try {
    const found = await api.look(stream, token);
    shown.model = found.model;
    const said = found.request.messages.filter((message) => message.role === "user").at(-1);
    $("empty").hidden = true;
    $("turns").replaceChildren(view.question(typeof said?.content === "string" ? said.content : found.question), shown.item);
    const told = (events) => {
      answer.add(events);
      shown.draw(answer);
    };
    const final = await follow(stream, { token, signal: leaving.signal, told, lost });
    shown.finish(answer, final, {});
    view.say("A shared answer, read-only.");
  } catch (error) {
    view.say(`This link opens nothing: ${error.message}`);
  }
}

// The page

function settings(why = "Needed only where the gateway asks for one. Kept in this browser.") {
  $("key-why").textContent = why;
  if ($("settings").open) return; // what is being typed stays
  $("key").value = api.key.get();
  $("settings").showModal();
}

function listen() {
  $("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  $("prompt").addEventListener("input", view.grow);
  $("prompt").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    $("ask").requestSubmit();
  });
  addEventListener("keydown", (event) => event.key === "Escape" && document.body.classList.remove("menu"));
  $("stop").addEventListener("click", stop);
  $("new").addEventListener("click", () => {
    open("");
    $("prompt").focus();
  });
  $("menu").addEventListener("click", () => {
    $("menu").setAttribute("aria-expanded", document.body.classList.toggle("menu"));
  });
  $("settings-open").addEventListener("click", () => settings());
  $("settings").addEventListener("close", async () => {
    api.key.set($("key").value.trim());
    talk.system = $("system").value.trim();
    if (talk.turns.length) keep(() => history.save(talk));
    await load();
  });
  $("forget").addEventListener("click", () => {
    history.remove(talk.id);
    $("settings").close();
    open("");
  });
  $("turns").addEventListener("click", (event) => {
    const code = event.target.closest(".copy")?.parentElement.querySelector("code");
    if (code) copy(code.textContent, "The code is copied.");
  });
  history.watch(() => {
    const now = history.get(talk.id);
    if (now) Object.assign(talk, now);
    show();
  });
}

async function load() {
  try {
    models = await api.models();
    view.options(models, $("model").value || talk.model || models[0]);
  } catch (error) {
    if (error.status === 401) settings(error.message);
    else view.say(`The gateway can't be reached: ${error.message}`);
  }
}

addEventListener("hashchange", () => location.reload());
const link = location.hash.match(/^#shared=(.*)$/s);
if (link) shared(...link[1].split("."));
else {
  open(history.last.get());
  listen();
  $("prompt").focus();
  await load();
}

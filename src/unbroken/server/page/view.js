// Everything that is shown. Nothing here asks the gateway or keeps anything.

import { ending, facts } from "./answer.js";
import { html } from "./markdown.js";

export const $ = (id) => document.getElementById(id);

export function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

function button(text, act) {
  const made = element("button", "plain", text);
  made.type = "button";
  made.addEventListener("click", act);
  return made;
}

export function question(text) {
  const item = element("li", "question");
  item.append(element("h3", "hidden", "You"), element("div", "body", text));
  return item;
}

/** One answer on the page. It is drawn at most once a frame, however fast events come. */
export class AnswerView {
  constructor(model) {
    this.model = model;
    this.item = element("li", "answer");
    this.thought = element("details", "thought");
    this.thoughts = element("div", "body");
    this.thought.append(element("summary", "", "Reasoning"), this.thoughts);
    this.body = element("div", "body");
    this.calls = element("div", "calls");
    this.note = element("p", "note");
    this.end = element("p", "end");
    this.facts = element("p", "facts");
    this.acts = element("div", "acts");
    const foot = element("div", "foot");
    foot.append(this.facts, this.acts);
    this.item.append(element("h3", "hidden", "Answer"), this.thought, this.body, this.calls, this.note, this.end, foot);
    this.item.setAttribute("aria-busy", "true");
  }

  draw(answer) {
    this.answer = answer;
    this.frame ||= requestAnimationFrame(() => this.now());
  }

  now() {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    const { answer } = this;
    if (!answer) return;
    const near = atEnd();
    this.body.replaceChildren(html(answer.text));
    this.thought.hidden = !answer.reasoning;
    this.thoughts.textContent = answer.reasoning;
    this.calls.replaceChildren(...[...answer.calls.values()].map((call) => element("pre", "", `${call.name}(${call.arguments})`)));
    this.note.textContent = answer.note;
    this.facts.textContent = [this.model.startsWith("sim/") && "simulated", ...answer.live()].filter(Boolean).join(" · ");
    if (near) toEnd();
  }

  /** It is over; `acts` are what can be done with it, by name. */
  finish(answer, final, acts) {
    this.answer = answer;
    const near = atEnd();
    this.now();
    this.item.setAttribute("aria-busy", "false");
    this.item.classList.toggle("broken", final.state !== "complete");
    this.end.textContent = ending(final);
    this.facts.textContent = facts(final, this.model).join(" · ");
    this.acts.replaceChildren(...Object.entries(acts).map(([name, act]) => button(name, act)));
    if (near) toEnd();
  }
}

export const atEnd = () => {
  const { scrollTop, scrollHeight, clientHeight } = $("talk");
  return scrollHeight - scrollTop - clientHeight < 80;
};

export const toEnd = () => ($("talk").scrollTop = $("talk").scrollHeight);

export const say = (text) => ($("status").textContent = text);

export function list(conversations, current, open) {
  const items = conversations.map((conversation) => {
    const item = element("li");
    const link = button(conversation.title || "New conversation", () => open(conversation.id));
    if (conversation.id === current) link.setAttribute("aria-current", "page");
    item.append(link);
    return item;
  });
  $("list").replaceChildren(...items);
}

export function options(models, chosen) {
  const names = chosen && !models.includes(chosen) ? [chosen, ...models] : models;
  const made = names.map((name) => {
    const simulated = name.startsWith("sim/") ? " (simulated)" : "";
    return new Option(name + simulated, name, false, name === chosen);
  });
  $("model").replaceChildren(...made);
}

/** Whether an answer is under way: the question has one button, to send or to stop. */
export function busy(yes) {
  $("send").hidden = yes;
  $("stop").hidden = !yes;
}

export function grow() {
  const prompt = $("prompt");
  prompt.style.height = "auto";
  prompt.style.height = `${Math.min(prompt.scrollHeight, 240)}px`;
}

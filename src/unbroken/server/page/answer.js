// An answer as far as it has come: events in, what is to be shown out.

export class Answer {
  constructor(asked = null) {
    this.asked = asked; // when this tab asked, in milliseconds; null if another one did
    this.first = null;
    this.forget();
  }

  forget() {
    this.text = this.reasoning = this.model = this.note = "";
    this.calls = new Map(); // by index, which a provider chooses
    this.usage = null;
  }

  add(events) {
    for (const event of events) WORDS.get(event.type)?.(this, event);
    if (this.first === null && (this.text || this.reasoning)) this.first = performance.now();
  }

  /** Tokens so far, guessed from the letters; the gateway tells the true number at the end. */
  get tokens() {
    return this.usage?.output_tokens || Math.ceil((this.text.length + this.reasoning.length) / 4);
  }

  /** What is known while it is under way. */
  live() {
    const facts = [];
    if (this.first === null) return this.asked ? [`waiting ${seconds((performance.now() - this.asked) / 1000)}`] : [];
    if (this.asked) facts.push(`first token ${seconds((this.first - this.asked) / 1000)}`);
    const time = (performance.now() - this.first) / 1000;
    if (time > 0.5) facts.push(`~${Math.round(this.tokens / time)} tokens/s`);
    return [...facts, `~${this.tokens} tokens`];
  }
}

const shown = (event) => (event.choice || 0) === 0;

const WORDS = new Map(Object.entries({
  message_start: (answer, event) => (answer.model = event.model || answer.model),
  text_delta: (answer, event) => shown(event) && (answer.text += event.text),
  refusal_delta: (answer, event) => shown(event) && (answer.text += event.text),
  reasoning_delta: (answer, event) => shown(event) && (answer.reasoning += event.text),
  tool_call_start: (answer, event) => answer.calls.set(event.index, { name: event.name, arguments: "" }),
  tool_call_delta: (answer, event) => {
    const call = answer.calls.get(event.index);
    if (call) call.arguments += event.arguments;
  },
  usage: (answer, event) => (answer.usage = event.usage),
  message_end: (answer, event) => (answer.usage = event.usage || answer.usage),
  restarted: (answer) => answer.forget(),
  retrying: (answer, event) => (answer.note = `asking again: ${event.reason}`),
  resumed: (answer) => (answer.note = "the connection to the model broke; the answer went on"),
  fell_back: (answer, event) => (answer.note = `${event.model} answers instead`),
}));

const seconds = (value) => `${value.toFixed(2)} s`;

/** What is known at the end, from the gateway. */
export function facts(final, model) {
  const { metrics = {}, usage, cost } = final;
  const simulated = final.provider === "sim" || (!final.provider && model.startsWith("sim/"));
  return [
    simulated && "simulated",
    final.model || model,
    metrics.time_to_first_token != null && `first token ${seconds(metrics.time_to_first_token)}`,
    metrics.tokens_per_second != null && `${Math.round(metrics.tokens_per_second)} tokens/s`,
    usage && `${usage.input_tokens} in, ${usage.output_tokens} out`,
    cost != null && `$${cost.toFixed(6)}`,
    final.attempts > 1 && `${final.attempts} attempts`,
  ].filter(Boolean);
}

/** How it ended, in words; nothing if it is whole. */
export function ending(final) {
  if (final.state === "complete") return "";
  if (final.state === "cancelled") return final.reason === "left" ? "Stopped, since nobody was reading." : "Stopped.";
  return final.error?.message || "The answer failed.";
}

// Other people's JavaScript clients against a gateway: what each of them made of the same answers.
// node peers.mjs URL MODEL DOWN_MODEL      prints one JSON object

import Anthropic from "@anthropic-ai/sdk";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, jsonSchema, streamText, tool } from "ai";
import OpenAI from "openai";

const [url, model, downModel] = process.argv.slice(2);
const messages = [{ role: "user", content: "Tell me about cats." }];
const city = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const openai = new OpenAI({ apiKey: "k", baseURL: `${url}/v1`, maxRetries: 0 });
const anthropic = new Anthropic({ apiKey: "k", baseURL: url, maxRetries: 0 });
const described = [{ type: "function", function: { name: "cats", parameters: city } }];

async function openaiStream() {
  let text = "", usage = null, finish = null;
  const stream_options = { include_usage: true };
  for await (const chunk of await openai.chat.completions.create({ model, messages, stream: true, stream_options })) {
    text += chunk.choices[0]?.delta.content ?? "";
    finish = chunk.choices[0]?.finish_reason ?? finish;
    usage = chunk.usage ?? usage;
  }
  return { text, finish, output: usage.completion_tokens };
}

async function openaiWhole() {
  const n = model.startsWith("openai/") ? 2 : 1; // others have no such parameter
  const answer = await openai.chat.completions.create({ model, messages, n });
  return { texts: answer.choices.map((choice) => choice.message.content), output: answer.usage.completion_tokens };
}

async function openaiTools() {
  const runner = openai.chat.completions.stream({ model: model, messages, tools: described });
  const call = (await runner.finalChatCompletion()).choices[0].message.tool_calls[0];
  return { name: call.function.name, arguments: JSON.parse(call.function.arguments) };
}

async function openaiResponses() {
  let text = "", id = "", seen = -1;
  const stream = await openai.responses.create({ model, input: "Tell me about cats.", stream: true, background: true });
  for await (const event of stream) {
    if (event.type === "response.created") id = event.response.id;
    if (event.type === "response.output_text.delta") text += event.delta;
    seen = event.sequence_number;
    if (text.length > 20) break; // the reader is cut off
  }
  for await (const event of await openai.responses.retrieve(id, { stream: true, starting_after: seen }))
    if (event.type === "response.output_text.delta") text += event.delta;
  return { text };
}

async function openaiRefused() {
  try {
    await openai.chat.completions.create({ model: downModel, messages, stream: true });
  } catch (error) {
    return { kind: error.constructor.name, status: error.status, wait: error.headers.get("retry-after") };
  }
}

async function anthropicStream() {
  const stream = anthropic.messages.stream({ model, messages, max_tokens: 900 });
  let text = "";
  stream.on("text", (piece) => (text += piece));
  const final = await stream.finalMessage();
  return { text, final: final.content[0].text, finish: final.stop_reason, output: final.usage.output_tokens };
}

async function anthropicTools() {
  const tools = [{ name: "cats", input_schema: city }];
  const final = await anthropic.messages.stream({ model: model, messages, tools, max_tokens: 900 }).finalMessage();
  const call = final.content.find((block) => block.type === "tool_use");
  return { name: call.name, arguments: call.input, finish: final.stop_reason };
}

async function vercel(provided) {
  const streamed = streamText({ model: provided(model), messages, maxRetries: 0 });
  let text = "";
  for await (const piece of streamed.textStream) text += piece;
  const whole = await generateText({ model: provided(model), messages, maxRetries: 0 });
  const tools = { cats: tool({ inputSchema: jsonSchema(city) }) };
  const called = await generateText({ model: provided(model), messages, tools, maxRetries: 0 });
  return {
    text,
    whole: whole.text,
    finish: await streamed.finishReason,
    output: (await streamed.usage).outputTokens,
    call: { name: called.toolCalls[0].toolName, arguments: called.toolCalls[0].input },
  };
}

const ai = { baseURL: `${url}/v1`, apiKey: "k" };
const trials = {
  openaiStream, openaiWhole, openaiTools, openaiResponses, openaiRefused, anthropicStream, anthropicTools,
  vercelChat: () => vercel(createOpenAI(ai).chat),
  vercelResponses: () => vercel(createOpenAI(ai).responses),
  vercelAnthropic: () => vercel(createAnthropic(ai)),
  vercelCompatible: () => vercel(createOpenAICompatible({ name: "unbroken", includeUsage: true, ...ai })),
};
const made = {};
for (const [name, trial] of Object.entries(trials)) made[name] = await trial().catch((error) => ({ error: String(error.stack ?? error) }));
console.log(JSON.stringify(made));

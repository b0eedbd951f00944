// The gateway's requests. Addresses are relative, so that the page works under any prefix.

const KEY = "unbroken.key";

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export const key = {
  get: () => localStorage.getItem(KEY) || "",
  set: (value) => (value ? localStorage.setItem(KEY, value) : localStorage.removeItem(KEY)),
};

const ID = /^[A-Za-z0-9_-]{1,128}$/;

/** Whether a text can be the id of an answer, or the token of a link: neither has other characters. */
export const isId = (text) => typeof text === "string" && ID.test(text);

/** The address of an answer. An id can come from a link that a stranger made: it names no other place. */
export function stream(id) {
  if (!isId(id)) throw new Refused(400, "this is not the id of an answer");
  return `v1/streams/${encodeURIComponent(id)}`;
}

/** The response; Refused with the gateway's message if its status is an error. Without `secret` no key is sent. */
export async function request(path, { method = "GET", body, headers = {}, signal, secret = true } = {}) {
  if (secret && key.get()) headers = { ...headers, authorization: `Bearer ${key.get()}` };
  if (body) headers = { ...headers, "content-type": "application/json" };
  const response = await fetch(path, { method, headers, signal, body: body && JSON.stringify(body) });
  if (response.ok) return response;
  const said = await response.json().catch(() => ({}));
  throw new Refused(response.status, said.error?.message || `the gateway says ${response.status}`);
}

export const json = async (path, options) => (await request(path, options)).json();

export const models = async () => (await json("v1/models")).data.map((model) => model.id);

/** Start an answer. The same `once` gives the same answer, however often it is asked for. */
export const start = (question, once, signal) =>
  json("v1/streams", { method: "POST", body: question, headers: { "idempotency-key": once }, signal });

export const stop = (id) => request(stream(id), { method: "DELETE" });

export const share = async (id) => (await json(`${stream(id)}/share`, { method: "POST" })).token;

export const look = (id, token) => json(`${stream(id)}?token=${encodeURIComponent(token)}`, { secret: false });

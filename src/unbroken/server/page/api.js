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

/** A response that is one; Refused with the gateway's own words for any other. */
export async function request(path, { method = "GET", body, headers = {}, signal } = {}) {
  if (key.get()) headers = { ...headers, authorization: `Bearer ${key.get()}` };
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

export const stop = (id) => request(`v1/streams/${id}`, { method: "DELETE" });

export const share = async (id) => (await json(`v1/streams/${id}/share`, { method: "POST" })).token;

export const look = (id, token) => json(`v1/streams/${id}?token=${encodeURIComponent(token)}`);

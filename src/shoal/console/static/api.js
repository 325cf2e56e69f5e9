// What the page asks the router. The key or token is in this object alone: no cookie, no storage.

/** Whether it is an issuer's token: a JWT begins with an object in Base64. */
const TOKEN = /^eyJ[\w-]*\.[\w-]+\.[\w-]*$/;

/** An answer that is a refusal. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The router can't be reached. */
export class Away extends Error {}

export class Api {
  #key;

  constructor(key) {
    this.#key = key;
    this.byToken = TOKEN.test(key);
  }

  status(signal) {
    return this.#json("/v1/status", { signal });
  }

  explanation(uuid, signal) {
    return this.#json(`/v1/requests/${encodeURIComponent(uuid)}`, { signal });
  }

  /** Where a picture may go: {image_uuid, put_url}, and the bytes that it may have. */
  async place(signal) {
    const { uploads: [upload], max_bytes } = await this.#json("/v1/uploads", { ...post({}), signal });
    return { ...upload, maxBytes: Number(max_bytes) };
  }

  /** Puts a picture at a presigned URL: through the router where the store is its own, else at the store itself. */
  async put(url, picture, throughRouter, signal) {
    const { pathname, search } = new URL(url);
    const [where, headers] = throughRouter ? [pathname + search, this.#headers()] : [url, {}];
    const answer = await reach(where, { method: "PUT", body: picture, headers, signal }, throughRouter
      ? "the upload was cut off"
      : `the object store at ${new URL(url).origin} can't be reached, or its CORS rules don't allow ${location.origin}`);
    if (!answer.ok) throw await refusal(answer);
  }

  /** @param verb classify, detect or segment */
  ask(model, verb, body, signal) {
    return this.#json(`/v1/models/${encodeURIComponent(model)}:${verb}`, { ...post(body), signal });
  }

  #headers() {
    return this.byToken ? { authorization: `Bearer ${this.#key}` } : { "x-api-key": this.#key };
  }

  async #json(path, options) {
    const headers = { ...options.headers, ...this.#headers() };
    const answer = await reach(path, { ...options, headers }, "the router doesn't answer");
    if (!answer.ok) throw await refusal(answer);
    return answer.json();
  }
}

const post = (body) => ({ method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" } });

async function reach(where, options, trouble) {
  try {
    return await fetch(where, { cache: "no-store", credentials: "omit", referrerPolicy: "no-referrer", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Away(trouble);
  }
}

async function refusal(answer) {
  const text = await answer.text();
  return new Refused(answer.status, message(text) || `HTTP status ${answer.status}`);
}

/** Refusals are JSON with a message, or a line of text; a store's are XML. */
function message(text) {
  try {
    return String(JSON.parse(text).message);
  } catch {
    return (/<Message>([^<]*)/.exec(text)?.[1] ?? text).trim().slice(0, 300);
  }
}

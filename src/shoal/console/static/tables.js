// What runs, in tables: models, parts, requests, refusals, and the model store.

import { byId, element, fill, say, show } from "./dom.js";
import { ago, count, milliseconds, rate } from "./format.js";
import { History, quantile } from "./rates.js";

const SHOWN_REQUESTS = 10;
const RATE_SECONDS = 10;
const QUANTILE_SECONDS = 60;
const SVG = "http://www.w3.org/2000/svg";
const GOOD = { ready: "good", served: "good", waiting: "warn", "not ready": "warn" };

export class Tables {
  #histories = new Map();
  #trends = new Map();

  /** @param status of /v1/status @param at seconds of this page's clock */
  update(status, at) {
    this.#models(status.models, at);
    parts(status.parts);
    requests(status.requests);
    refusals(status);
    store(status.models);
    health(status);
  }

  forget() {
    this.#histories.clear();
    this.#trends.clear();
  }

  #models(models, at) {
    for (const { name, batchers } of models) {
      if (!this.#histories.has(name)) this.#histories.set(name, new History());
      this.#histories.get(name).add(at, batchers);
    }
    fill(byId("model-rows"), models, ({ name }) => name, (model) => this.#modelCells(model));
    show(byId("no-models"), models.length === 0);
  }

  #modelCells({ name, pool, versions, replicas, replicas_ready, batchers }) {
    const history = this.#histories.get(name);
    const lately = history.over(RATE_SECONDS);
    const { latency } = history.over(QUANTILE_SECONDS) ?? { latency: [] };
    const queued = Object.values(batchers).reduce((sum, { waiting }) => sum + waiting, 0);
    const numbers = [
      versions.join(", ") || "–",
      `${count(replicas_ready)} of ${count(replicas)}`,
      count(queued),
      rate(lately && lately.answered / lately.seconds),
      milliseconds(quantile(latency, 0.5)),
      milliseconds(quantile(latency, 0.99)),
      rate(lately?.batches ? lately.batched / lately.batches : null),
    ];
    return [name, pool || "–", ...numbers.map((text) => ({ text, className: "number" })), { node: this.#trend(name, history) }];
  }

  #trend(name, history) {
    if (!this.#trends.has(name)) this.#trends.set(name, trendNode());
    const node = this.#trends.get(name);
    const values = history.trend();
    const most = Math.max(1, ...values);
    const points = values.map((value, place) => `${100 - values.length + place + 1},${(19 - (18 * value) / most).toFixed(1)}`);
    node.firstChild.setAttribute("points", points.join(" "));
    return node;
  }
}

function trendNode() {
  const node = document.createElementNS(SVG, "svg");
  for (const [key, value] of Object.entries({ class: "trend", viewBox: "30 0 70 20", preserveAspectRatio: "none", "aria-hidden": "true" })) {
    node.setAttribute(key, value);
  }
  node.append(document.createElementNS(SVG, "polyline"));
  return node;
}

const state = (word) => `state state-${GOOD[word] ?? "bad"}`;

function parts(all) {
  fill(byId("part-rows"), all, ({ name }) => name, ({ name, role, group, state: word, reason }) => [
    name,
    { text: group || "–", className: "short", title: { worker: "its pool", triton: "its pool", batcher: "its group" }[role] ?? "" },
    { text: reason ? `${word}: ${reason}` : word, className: state(word) },
  ]);
}

function requests({ failed, slow }) {
  const keyOf = ({ image_uuid, model, code, total_seconds }) => `${image_uuid} ${model} ${code} ${total_seconds}`;
  fill(byId("failed-rows"), failed.slice(0, SHOWN_REQUESTS), keyOf, (each) => [
    { text: ago(each.seconds_ago), className: "short" },
    each.model,
    `${each.code}${each.message ? `: ${each.message}` : ""}`,
    pictureCell(each),
  ]);
  fill(byId("slow-rows"), slow.slice(0, SHOWN_REQUESTS), keyOf, (each) => [
    { text: `${milliseconds(each.total_seconds)}${each.code ? "" : ", no answer yet"}`, className: "short" },
    { text: ago(each.seconds_ago), className: "short" },
    each.model,
    pictureCell(each),
  ]);
  show(byId("none-failed"), failed.length === 0);
  show(byId("none-slow"), slow.length === 0);
}

function pictureCell({ image_uuid }) {
  if (!image_uuid) return "–";
  return { text: image_uuid.slice(0, 8), title: image_uuid, href: `#request=${image_uuid}`, className: "uuid" };
}

/** The router's own; what no worker has vouched for; and what else was answered otherwise than OK, by model. */
function refusals({ refused, unknown, models }) {
  const byRouter = Object.entries(refused).map(([why, calls]) => ({ by: "router", why, calls }));
  const byBatcher = Object.entries(unknown).map(([why, calls]) => ({ by: "batcher, for no model of a worker", why, calls }));
  const answered = models.flatMap(({ name, batchers }) => Object.entries(codes(batchers)).map(([why, calls]) => ({ by: name, why, calls })));
  const rows = [...byRouter, ...byBatcher, ...answered].filter(({ calls }) => calls > 0);
  fill(byId("refusal-rows"), rows, ({ by, why }) => `${by}\n${why}`, ({ by, why, calls }) => [
    by,
    why,
    { text: count(calls), className: "number" },
  ]);
  show(byId("none-refused"), rows.length === 0);
}

function codes(batchers) {
  const sums = {};
  for (const { answered } of Object.values(batchers)) {
    for (const [code, calls] of Object.entries(answered)) if (code !== "OK") sums[code] = (sums[code] ?? 0) + calls;
  }
  return sums;
}

function store(models) {
  fill(byId("store-rows"), models, ({ name }) => name, ({ name, state: word, replicas_ready, reasons }) => [
    name,
    { text: { served: "here", waiting: "published, not here yet", refused: "refused" }[word] ?? word, className: state(word) },
    reasons.join("; ") || (word === "served" ? `on ${count(replicas_ready)} ${replicas_ready === 1 ? "replica" : "replicas"}` : "–"),
  ]);
  show(byId("empty-store"), models.length === 0);
}

function health({ parts: all, models }) {
  const bad = all.filter(({ state: word }) => word !== "ready");
  const served = models.filter(({ state: word }) => word === "served").length;
  const ready = bad.length ? `${bad.map(({ name, state: word }) => `${name} is ${word}`).join(", ")}` : `all ${all.length} parts are ready`;
  say(byId("health"), `${ready}; ${served} of ${models.length} ${models.length === 1 ? "model" : "models"} served`);
}

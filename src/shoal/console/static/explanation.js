// What became of one request: the page's fragment names it, so a link leads there.

import { byId, element, say, show } from "./dom.js";
import { ago, milliseconds } from "./format.js";
import { stageBar } from "./stages.js";

const FRAGMENT = /^#request=([0-9a-fA-F-]{36})$/;

export class Explanation {
  #api = null;
  #running = new AbortController();

  constructor() {
    addEventListener("hashchange", () => this.#open());
  }

  use(api) {
    this.#api = api;
    this.#open();
  }

  async #open() {
    this.#running.abort();
    this.#running = new AbortController();
    const { signal } = this.#running;
    const uuid = FRAGMENT.exec(location.hash)?.[1];
    show(byId("explanation"), Boolean(uuid && this.#api));
    if (!uuid || !this.#api) return;
    say(byId("explanation-title"), `Request ${uuid}`);
    byId("explanation-title").focus();
    byId("explanation-body").replaceChildren("Asking batchers and workers …");
    try {
      const told = await this.#api.explanation(uuid, signal);
      if (!signal.aborted) byId("explanation-body").replaceChildren(...nodes(told));
    } catch (error) {
      if (error.name !== "AbortError") byId("explanation-body").replaceChildren(element("p", "trouble", [error.message]));
    }
  }
}

function nodes({ requests, silent }) {
  const missing = Object.entries(silent).map(([part, why]) => element("p", "trouble", [`${part} was not heard: ${why}`]));
  if (requests.length) return [...missing, ...requests.map(pass)];
  const why = "No part remembers such a request of yours. What the router refuses comes to none of them, and a part that was restarted has forgotten.";
  return [...missing, element("p", "empty", [why])];
}

function pass({ model, code, message, seconds_ago, total_seconds, sentences, stages }) {
  const ended = code ? `answered ${code} after ${milliseconds(total_seconds)}` : `no answer after ${milliseconds(total_seconds)}`;
  const title = element("p", "", [element("strong", "", [model]), ` · ${ended} · ${ago(seconds_ago)}`]);
  const told = sentences.some((sentence) => sentence.includes(message)) ? sentences : [...sentences, message];
  return element("div", "pass", [title, ...told.map((sentence) => element("p", "", [sentence])), ...stageBar(stages)]);
}

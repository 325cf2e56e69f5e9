// Ask about a picture: pick, drop or paste one; it is uploaded, and the chosen model's answer is drawn on it.

import { foundNodes, taskOf } from "./answers.js";
import { commands } from "./commands.js";
import { byId, element, say, show } from "./dom.js";
import { count, milliseconds, percent } from "./format.js";
import { drawPicture } from "./overlay.js";
import { stageBar, timingStages } from "./stages.js";

export class Trial {
  #api = null;
  #models = [];
  #uploadsHere = false;
  #picture = null; // {file, bitmap, uuid}
  #running = new AbortController();

  constructor() {
    byId("file").addEventListener("change", ({ target }) => this.#take(target.files[0]));
    byId("model").addEventListener("change", () => this.#picture && this.#ask());
    this.#listenToDrops(byId("drop"));
    document.addEventListener("paste", ({ clipboardData }) => this.#take(clipboardData.files[0]));
  }

  /** From now on it asks with this key; null: it forgets the picture, too. */
  use(api) {
    this.#api = api;
    if (api) return;
    this.#running.abort();
    this.#picture = null;
    byId("file").value = "";
    this.#clear();
    this.#progress("");
  }

  /** What may be asked now. */
  update({ models, uploads_here }) {
    this.#uploadsHere = uploads_here;
    this.#models = models.filter(({ state }) => state === "served");
    const names = this.#models.map(({ name }) => name);
    const select = byId("model");
    if (names.join("\n") !== [...select.options].map(({ value }) => value).join("\n")) {
      const chosen = select.value;
      select.replaceChildren(...names.map((name) => new Option(name, name, false, name === chosen)));
    }
    select.disabled = byId("file").disabled = names.length === 0;
  }

  #listenToDrops(zone) {
    const over = (on) => (event) => {
      event.preventDefault();
      zone.classList.toggle("over", on);
    };
    zone.addEventListener("dragover", over(true));
    zone.addEventListener("dragleave", over(false));
    zone.addEventListener("drop", (event) => {
      over(false)(event);
      this.#take(event.dataTransfer.files[0]);
    });
  }

  async #take(file) {
    if (!file || !this.#api) return;
    this.#picture = { file, bitmap: null, uuid: null };
    await this.#ask();
  }

  /** Uploads the picture unless that was done, and asks; whatever was asked before is given up. */
  async #ask() {
    this.#running.abort();
    this.#running = new AbortController();
    const { signal } = this.#running;
    const picture = this.#picture;
    const model = this.#models.find(({ name }) => name === byId("model").value);
    if (!model) return;
    this.#clear();
    try {
      picture.bitmap ??= await createImageBitmap(picture.file, { imageOrientation: "from-image" }).catch(() => null);
      picture.uuid ??= await this.#upload(picture.file, signal);
      this.#progress(`Asking ${model.name} …`);
      const task = taskOf(model);
      const reply = await this.#api.ask(model.name, task.verb, { image_uuid: picture.uuid, ...task.fields }, signal);
      if (!signal.aborted) this.#tell(picture, model, task, reply);
    } catch (error) {
      if (error.name === "AbortError" || signal.aborted) return;
      this.#progress("");
      say(byId("trial-trouble"), error.message);
    }
  }

  async #upload(file, signal) {
    this.#progress(`Uploading ${file.name} …`);
    const { image_uuid, put_url, maxBytes } = await this.#api.place(signal);
    if (file.size > maxBytes) {
      throw new Error(`${file.name} has ${count(file.size)} bytes, and a picture may have ${count(maxBytes)}`);
    }
    await this.#api.put(put_url, file, this.#uploadsHere, signal);
    return image_uuid;
  }

  #progress(text, unseen = false) {
    byId("progress").classList.toggle("unseen", unseen);
    say(byId("progress"), text);
  }

  #clear() {
    show(byId("answer"), false);
    say(byId("trial-trouble"), "");
  }

  #tell(picture, model, task, reply) {
    const told = task.tell(reply);
    const summary = told.share === undefined ? told.headline : `${told.headline}, ${percent(told.share)}`;
    const canvas = byId("shown");
    show(canvas, picture.bitmap !== null);
    if (picture.bitmap) {
      drawPicture(canvas, picture.bitmap);
      told.draw(canvas);
    }
    canvas.setAttribute("aria-label", `${picture.file.name}: ${summary}`);
    byId("found").replaceChildren(...foundNodes(told));
    byId("timing").replaceChildren(...timingNodes(reply));
    const call = { origin: location.origin, model: model.name, verb: task.verb, uuid: reply.image_uuid, byToken: this.#api.byToken };
    byId("commands").replaceChildren(...commands(call).flatMap(commandNodes));
    this.#progress(`${model.name}: ${summary}`, picture.bitmap !== null); // who sees the answer needs no line of it
    if (!picture.bitmap) byId("found").prepend(element("p", "quiet", ["This browser can't show such a picture."]));
    show(byId("answer"), true);
  }
}

function timingNodes({ timing, image_uuid }) {
  const stages = timingStages(timing);
  const whole = stages.reduce((sum, { seconds }) => sum + seconds, 0);
  const mates = timing.cached ? "answered from the result cache" : timing.batch_size === 1 ? "alone in its batch" : `in a batch of ${timing.batch_size}`;
  const link = element("a", "", ["Explain it"], { href: `#request=${image_uuid}` });
  return [...stageBar(stages), element("p", "quiet", [`${milliseconds(whole)} in the service, ${mates}. `, link])];
}

function commandNodes([what, line]) {
  const code = element("pre", "", [element("code", "", [line])]);
  if (navigator.clipboard) {
    const copy = element("button", "", ["Copy"], { type: "button", "aria-label": `Copy the line for ${what}` });
    copy.addEventListener("click", async () => {
      await navigator.clipboard.writeText(line);
      say(copy, "Copied");
    });
    code.append(copy);
  }
  return [element("h3", "", [what]), code];
}

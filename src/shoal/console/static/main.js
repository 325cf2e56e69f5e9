// The page as a whole: the key, and asking every second what runs while somebody looks.

import { Api, Refused } from "./api.js";
import { byId, say, show } from "./dom.js";
import { Explanation } from "./explanation.js";
import { Tables } from "./tables.js";
import { Trial } from "./trial.js";

const POLL_MS = 1_000;
const LONGEST_PAUSE_MS = 8_000;

const trial = new Trial();
const tables = new Tables();
const explanation = new Explanation();
let session = null; // {api, pause, timer, stop: AbortController}

byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const key = byId("key").value.trim();
  if (key) connect(new Api(key));
});
byId("leave").addEventListener("click", () => leave(""));
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && session) poll(session);
});

/** The key is tried by the first question, so a wrong one shows nothing. */
async function connect(api) {
  const tried = { api, pause: POLL_MS, timer: 0, stop: new AbortController() };
  say(byId("key-trouble"), "");
  byId("connect").disabled = true;
  try {
    const status = await api.status(tried.stop.signal);
    session = tried;
    byId("key").value = "";
    enter(status);
    again(tried);
  } catch (error) {
    say(byId("key-trouble"), refusedKey(error) && !api.byToken ? "This key is unknown or was revoked." : sentence(error));
  } finally {
    byId("connect").disabled = false;
  }
}

function enter(status) {
  show(byId("welcome"), false);
  show(byId("console"), true);
  show(byId("session"), true);
  trial.use(session.api);
  update(status);
  byId("file").focus();
  explanation.use(session.api);
}

function leave(why) {
  session.stop.abort();
  clearTimeout(session.timer);
  session = null;
  tables.forget();
  trial.use(null);
  explanation.use(null);
  show(byId("console"), false);
  show(byId("session"), false);
  show(byId("trouble"), false);
  show(byId("welcome"), true);
  say(byId("health"), "");
  say(byId("key-trouble"), why);
  byId("key").focus();
}

function update(status) {
  say(byId("owner"), `as ${status.owner}`);
  trial.update(status);
  tables.update(status, performance.now() / 1000);
}

function again(asked) {
  clearTimeout(asked.timer);
  asked.timer = setTimeout(poll, asked.pause, asked);
}

async function poll(asked) {
  clearTimeout(asked.timer);
  if (document.hidden) return; // whoever looks again asks again
  try {
    const status = await asked.api.status(asked.stop.signal);
    if (session !== asked) return;
    asked.pause = POLL_MS;
    show(byId("trouble"), false);
    update(status);
  } catch (error) {
    if (session !== asked) return;
    if (refusedKey(error)) return leave(asked.api.byToken ? sentence(error) : "The key was revoked.");
    asked.pause = Math.min(2 * asked.pause, LONGEST_PAUSE_MS);
    say(byId("trouble"), `${sentence(error)} What is shown is old; trying again.`);
    show(byId("trouble"), true);
  }
  again(asked);
}

const refusedKey = (error) => error instanceof Refused && error.status === 401;

const sentence = ({ message }) => `${message.charAt(0).toUpperCase()}${message.slice(1).replace(/\.$/, "")}.`;

// Where a request's time went: a bar, and what its parts are.

import { element } from "./dom.js";
import { milliseconds } from "./format.js";

const COLOURS = 6;
const SHOWN_SECONDS = 0.00005;

/** @param stages {label, seconds} each, in their order @returns nodes */
export function stageBar(stages) {
  const shown = stages.filter(({ seconds }) => seconds >= SHOWN_SECONDS);
  const whole = shown.reduce((sum, { seconds }) => sum + seconds, 0);
  const bar = element("div", "stages", shown.map(({ seconds }, place) => {
    const span = element("span", `stage-${place % COLOURS}`);
    span.style.flexGrow = (100 * seconds) / whole; // a sum below 1 would leave room
    return span;
  }), { "aria-hidden": "true" });
  const legend = element("ol", "legend", shown.map(({ label, seconds }, place) =>
    element("li", "", [element("span", `swatch stage-${place % COLOURS}`), `${label} ${milliseconds(seconds)}`])));
  return [bar, legend];
}

/** The stages of an answer's own timing. */
export function timingStages({ queue_us, fetch_us, decode_us, compute_us }) {
  const parts = [["queue", queue_us], ["fetch", fetch_us], ["decode", decode_us], ["compute", compute_us]];
  return parts.map(([label, microseconds]) => ({ label, seconds: Number(microseconds) / 1e6 }));
}

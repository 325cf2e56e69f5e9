// What each task's answer looks like: a headline, a list, and what is drawn on the picture.

import { element } from "./dom.js";
import { count, percent } from "./format.js";
import { css, drawBoxes, drawMask } from "./overlay.js";

const LISTED = 12;

/** By task: the path's verb, the fields to send, and how an answer is told. */
export const TASKS = {
  classification: { verb: "classify", fields: {}, tell: tellClasses },
  detection: { verb: "detect", fields: {}, tell: tellBoxes },
  segmentation: { verb: "segment", fields: { mask_form: "MASK_FORM_CLASS_MAP" }, tell: tellMask },
};

/** A worker that doesn't say its models' task is an older one; most models classify. */
export const taskOf = (model) => TASKS[model.task] ?? TASKS.classification;

/** @returns {headline, share, items: [{index, label, share}], draw(canvas)} */
function tellClasses({ classes }) {
  const items = classes.map(({ index, label, probability }) => ({ index, label: named(label, index), share: probability }));
  return { headline: items[0]?.label ?? "no class", share: items[0]?.share, items, draw: () => {} };
}

function tellBoxes({ boxes }) {
  const items = boxes.map(({ index, label, score }) => ({ index, label: named(label, index), share: score, coloured: true }));
  const what = boxes.length === 1 ? "1 object" : `${count(boxes.length)} objects`;
  return { headline: boxes.length ? what : "nothing found", items, draw: (canvas) => drawBoxes(canvas, boxes) };
}

function tellMask(reply) {
  const pixels = reply.width * reply.height;
  const items = reply.regions.map(({ index, label, pixels: own }) =>
    ({ index, label: named(label, index), share: Number(own) / pixels, coloured: true }));
  const headline = items.length ? `mostly ${items[0].label}` : "no region";
  return { headline, share: items[0]?.share, items, draw: (canvas) => drawMask(canvas, reply) };
}

const named = (label, index) => label || `class ${index}`;

/** The nodes of what was found. */
export function foundNodes({ headline, share, items }) {
  const title = element("p", "headline", [element("strong", "", [headline])]);
  if (share !== undefined) title.append(" ", element("small", "", [percent(share)]));
  const rest = items.length - LISTED;
  const plain = items.some(({ coloured }) => coloured) ? "" : " plain";
  const list = element("ol", `found${plain}`, items.slice(0, LISTED).map(row));
  return [title, list, ...(rest > 0 ? [element("p", "quiet", [`and ${count(rest)} more`])] : [])];
}

function row({ index, label, share, coloured }) {
  const swatch = coloured ? [element("span", "swatch")] : [];
  for (const node of swatch) node.style.background = css(index);
  const level = element("span");
  level.style.width = `${100 * Math.max(0, Math.min(1, share))}%`;
  return element("li", "", [
    ...swatch,
    element("span", "name", [label]),
    element("span", "level", [level], { "aria-hidden": "true" }),
    element("span", "share", [percent(share)]),
  ]);
}

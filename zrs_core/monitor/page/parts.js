// Small things that several sections show.

import { element } from "./elements.js";
import { KINDS, NOT_KNOWN, time } from "./words.js";

export const SILENT = ["bad", "no answer"];

// A state, [kind, word], in words and in colour.
export function badge([kind, word]) {
  const symbol = element("span", { "aria-hidden": "true" }, KINDS[kind][0]);
  return element("span", { class: `badge ${kind}` }, symbol, ` ${word}`);
}

// A place in a history: its time, and its tid.
export function position(known, now) {
  return known
    ? [time(known.time, now), element("span", { class: "tid" }, known.tid)]
    : [NOT_KNOWN];
}

// Asks the node how it is, again and again, and shows what it says.

import { render, renderLag, renderLegend } from "./sections.js";
import { lagOf } from "./words.js";

// Milliseconds between an answer and the next question: about the node itself, and about those whom
// it asks in its turn. For so long an answer is waited for.
const PAUSE = 500;
const PAUSE_OF_OTHERS = 1000;
const PATIENCE = 3000;

// Samples that are further apart than so many intervals are not joined: there are some missing.
const MISSED = 5;

const HOUR = 3600;

// What the node has said last, and when that came by the clock here; before that, since when it is
// asked.
const view = {
  status: null,
  answered: Date.now() / 1000,
  silent: false,
  nodes: null,
  nodesSilent: false,
  samples: [],
  // Seconds between samples that are not joined.
  gap: 0,
};

async function ask(path) {
  const options = { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) };
  const response = await fetch(path, options);
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response.json();
}

async function askStatus() {
  try {
    const status = await ask("status");
    if (!(status.now - view.status?.now <= view.gap)) await askHistory();
    addSample(status);
    const said = { status, answered: Date.now() / 1000, silent: false };
    render({ ...view, ...said });
    Object.assign(view, said);
  } catch {
    // No answer, or one that cannot be shown.
    view.silent = true;
    render(view);
  }
}

// What nobody has seen here: that before the first look, and while this page or the node slept.
async function askHistory() {
  const { interval, samples } = await ask("history");
  Object.assign(view, { samples, gap: MISSED * interval });
}

// Those whom the node asks in turn may take their time, and nothing else is to wait for them.
async function askNodes() {
  try {
    view.nodes = (await ask("nodes")).nodes;
    view.nodesSilent = false;
  } catch {
    view.nodesSilent = true;
  }
}

function addSample(status) {
  view.samples.push([status.now, lagOf(status)]);
  view.samples = view.samples.filter(([time]) => time > status.now - HOUR);
}

async function forever(work, pause) {
  for (;;) {
    await work();
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

renderLegend();
new ResizeObserver(() => view.status && renderLag(view)).observe(document.getElementById("chart"));
forever(askStatus, PAUSE);
forever(askNodes, PAUSE_OF_OTHERS);

// Asks the node how it is, again and again, and shows what it says.

import { chart, most } from "./chart.js";
import { element, show } from "./elements.js";
import { Topology } from "./topology.js";
import * as words from "./words.js";

// Milliseconds between an answer and the next question: about the node itself, and about those whom
// it asks in its turn. For so long an answer is waited for.
const PAUSE = 500;
const PAUSE_OF_OTHERS = 1000;
const PATIENCE = 3000;

// Samples that are further apart than so many intervals are not joined.
const MISSED = 5;

const HOUR = 3600;

const topology = new Topology();

// What the node has said last, and when that came by the clock here; before that, since when it is
// asked.
const view = {
  status: null,
  answered: Date.now() / 1000,
  silent: false,
  nodes: null,
  nodesSilent: false,
  interval: 1,
  samples: [],
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
    if (!(status.now - view.status?.now <= MISSED * view.interval)) await askHistory();
    addSample(status);
    Object.assign(view, { status, answered: Date.now() / 1000, silent: false });
  } catch {
    view.silent = true;
  }
  render();
}

// What nobody has seen here: that before the first look, and while this page or the node slept.
async function askHistory() {
  ({ interval: view.interval, samples: view.samples } = await ask("history"));
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

// That of a primary is the largest among its secondaries, as far as it knows them.
function lagOf(status) {
  if (status.secondary) return status.secondary.lag_seconds;
  const lags = status.primary.peers.map((peer) => peer.lag_seconds);
  return lags.reduce((most, lag) => (lag !== null && !(most > lag) ? lag : most), null);
}

async function forever(work, pause) {
  for (;;) {
    await work();
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

function render() {
  renderSilence();
  if (!view.status) return;
  renderHead(view.status);
  show(byId("figures"), ...figures(view.status));
  renderTopology(view.status);
  renderLag(view.status);
  show(byId("rates"), ...rates(view.status));
  renderPeers(view.status);
  renderErrors(view.status);
}

const byId = (id) => document.getElementById(id);

function badge([kind, word]) {
  const symbol = element("span", { "aria-hidden": "true" }, words.KINDS[kind][0]);
  return element("span", { class: `badge ${kind}` }, symbol, ` ${word}`);
}

const SILENT = ["bad", "no answer"];

function renderSilence() {
  const since = words.time(view.answered, Date.now() / 1000);
  const asOf = view.status ? " What is shown is as it was then." : "";
  const text = `This node has not answered since ${since}.${asOf}`;
  show(byId("silent"), view.silent ? text : "");
  show(byId("updated"), `Last answer at ${since}. Times are those of your time zone.`);
  if (view.silent) {
    show(byId("state"), badge(SILENT));
    show(byId("reason"), "");
    document.title = `${words.KINDS.bad[0]} no answer`;
  }
}

function renderHead(status) {
  show(byId("name"), status.name);
  show(byId("what"), `${status.role}, zrs_core ${status.version}, started ${at(status.started)}`);
  if (view.silent) return;
  const state = words.stateOf(status);
  show(byId("state"), badge(state));
  show(byId("reason"), status.ready ? "" : `Not ready: ${status.ready_reason}`);
  const base = status.name.split("/").pop();
  document.title = `${words.KINDS[state[0]][0]} ${state[1]} – ${base}`;
}

function at(time) {
  return words.time(time, view.status.now);
}

function position(known) {
  return known ? [at(known.time), element("span", { class: "tid" }, known.tid)] : [words.NOT_KNOWN];
}

function figures(status) {
  const found = [];
  const add = (name, ...values) => {
    const [value, ...more] = values.filter((each) => each !== null && each !== "");
    found.push(
      element(
        "div",
        {},
        element("dt", {}, name),
        element("dd", {}, value),
        more.map((each) => element("dd", { class: "more" }, each)),
      ),
    );
  };
  const { primary, secondary } = status;
  if (secondary) {
    const { lag_seconds: lag, lag_transactions: waiting } = secondary;
    const more = waiting === null ? null : `${words.count(waiting, "transaction")} on the way`;
    add("Lag", words.duration(lag), more);
    add("News of the primary", secondary.news, heard(secondary));
    add("Last transaction here", ...position(secondary.position));
    const theirs = secondary.primary_position;
    add("Last known of the primary", ...position(theirs), theirs && `as of ${at(theirs.as_of)}`);
    add(
      secondary.connected ? "Connected to" : "To be connected to",
      secondary.primary_address,
      link(secondary),
      secondary.connected ? `since ${at(secondary.connected_since)}` : null,
      `${words.count(secondary.connections, "connection")} so far`,
      secondary.failures ? `${words.count(secondary.failures, "failure")} in a row` : null,
    );
    add(
      "Received",
      words.count(secondary.transactions, "transaction"),
      words.size(secondary.bytes),
      words.count(secondary.blobs_written, "blob"),
      missing(secondary),
    );
  }
  if (primary) {
    if (!secondary) add("Last transaction here", ...position(primary.position), missing(primary));
    add("Serves at", primary.address, link(primary));
    add(
      "Secondaries",
      words.digits(primary.peers.length),
      `${words.count(primary.refused, "connection")} refused`,
    );
  }
  return found;
}

function heard(secondary) {
  return secondary.last_heard === null
    ? "nothing heard yet"
    : `last heard ${words.duration(secondary.silence_seconds)} ago`;
}

function link({ transport, tls, protocol }) {
  return [transport, tls ? "TLS" : "no TLS", protocol].filter(Boolean).join(", ");
}

function missing({ missing_blobs: blobs }) {
  return blobs ? badge(["careful", `${words.count(blobs, "blob")} missing`]) : null;
}

function renderTopology(status) {
  const [, ...others] = view.nodes ?? [];
  const own = view.silent
    ? { url: "", status: null, error: "no answer" }
    : { url: "", status, error: null };
  const trees = topology.trees([own, ...others], status.now);
  show(byId("topology"), ...trees.map((node) => tree(node)));
  const silent = view.nodesSilent && !view.silent;
  show(byId("nodes-silent"), silent ? "What the other nodes say could not be asked for." : "");
}

function tree(node) {
  const [kind, word] = nodeState(node);
  const followers = node.followers.map((each) => tree(each));
  return element(
    "li",
    { class: kind },
    element("div", { class: "node" }, badge([kind, word]), nodeLines(node)),
    followers.length ? element("ul", { "aria-label": "followed by" }, followers) : null,
  );
}

function nodeState(node) {
  if (node.status) return words.stateOf(node.status);
  if (node.gone) return ["bad", "connection lost"];
  if (node.peer) return words.peerState(node.peer);
  return node.error ? SILENT : ["unknown", "not asked"];
}

function nodeLines({ address, status, error, peer, gone, here }) {
  const role = status?.role ?? (peer ? "secondary" : null);
  const lines = [
    element("span", {}, element("strong", {}, role ?? address), here ? " (this node)" : ""),
    role && address ? address : null,
    status?.name ?? peer?.certificate ?? null,
    error,
    gone ? `since ${at(gone)}` : null,
  ];
  const rates = (status?.secondary ?? status?.primary)?.rates;
  if (peer && !gone) lines.push(`lag ${words.duration(peer.lag_seconds)}`);
  if (status?.secondary) lines.push(`lag ${words.duration(status.secondary.lag_seconds)}`);
  if (rates) lines.push(`${words.digits(rates["10s"].transactions)} transactions/s`);
  return lines.filter((each) => each !== null).map((each) => element("p", {}, each));
}

function renderLag(status) {
  const peak = most(view.samples);
  const whose = status.secondary ? "" : ", of the secondary that is furthest behind";
  const summary =
    `Now ${words.duration(lagOf(status))}${whose}; ` +
    (peak ? `most ${words.duration(peak[1])}, at ${at(peak[0])}.` : "not known in the last hour.") +
    " Where there is no line, it was not known.";
  show(byId("lag-summary"), summary);
  const width = Math.max(byId("chart").clientWidth, 240);
  show(
    byId("chart"),
    chart(view.samples, status.now, MISSED * view.interval, width, summary),
  );
}

const cell = (label, ...children) => element("td", { role: "cell", "data-label": label }, children);

const row = (...cells) => element("tr", { role: "row" }, cells);

function headings(...names) {
  const heading = (name) => element("th", { role: "columnheader", scope: "col" }, name);
  return element("thead", { role: "rowgroup" }, row(names.map(heading)));
}

function rowHeading(...children) {
  return element("th", { role: "rowheader", scope: "row" }, children);
}

function body(rows) {
  return element("tbody", { role: "rowgroup" }, rows);
}

function rates(status) {
  const names = ["What", "Over", "Transactions/s", "Bytes/s"];
  const rows = (what, of) =>
    Object.entries({ "10 s": of["10s"], "5 min": of["5min"] }).map(([over, rate]) =>
      row(
        rowHeading(what),
        cell(names[1], over),
        cell(names[2], words.digits(rate.transactions)),
        cell(names[3], `${words.size(rate.bytes)}/s`),
      ),
    );
  const { primary, secondary } = status;
  return [
    headings(...names),
    body([
      secondary ? rows("received", secondary.rates) : [],
      primary ? rows("sent", primary.rates) : [],
    ].flat()),
  ];
}

function renderPeers(status) {
  const peers = status.primary?.peers ?? [];
  byId("peers-section").hidden = !status.primary;
  show(byId("no-peers"), peers.length ? "" : "None.");
  byId("peers").hidden = !peers.length;
  const names = ["Address", "State", "Sent up to", "Lag", "Sent", "Did not read for", "Connected"];
  const rows = peers.map((peer) =>
    row(
      rowHeading(peer.address, peer.certificate ? element("small", {}, peer.certificate) : null),
      cell(names[1], badge(words.peerState(peer))),
      cell(names[2], position(peer.position)),
      cell(names[3], behind(peer)),
      cell(names[4], `${words.count(peer.transactions, "transaction")}, ${words.size(peer.bytes)}`),
      cell(names[5], words.duration(peer.back_pressure_seconds)),
      cell(names[6], `since ${at(peer.connected_since)}`, peer.protocol ? `, ${peer.protocol}` : null),
    ),
  );
  show(byId("peers"), headings(...names), body(rows));
}

function behind({ lag_seconds: seconds, lag_transactions: transactions }) {
  const more = transactions === null ? "" : `, ${words.count(transactions, "transaction")}`;
  return words.duration(seconds) + more;
}

function renderErrors(status) {
  const found = (view.nodes ?? []).flatMap((node, index) =>
    index && !node.status ? [[node.url, { message: node.error, time: null }]] : [],
  );
  const known = [status, ...(view.nodes ?? []).slice(1).map((node) => node.status)];
  for (const each of known.filter(Boolean)) {
    for (const error of [each.secondary?.last_error, each.primary?.last_error]) {
      if (error) found.push([`${each.role} ${each.name}`, error]);
    }
  }
  found.sort(([, one], [, other]) => (other.time ?? Infinity) - (one.time ?? Infinity) || 0);
  show(byId("no-errors"), found.length ? "" : "None that is known.");
  show(
    byId("errors"),
    ...found.map(([who, { message, time }]) =>
      element(
        "li",
        {},
        element("p", { class: "more" }, time === null ? `now, ${who}` : `${at(time)}, ${who}`),
        element("p", {}, message),
      ),
    ),
  );
}

function renderLegend() {
  const entries = Object.entries(words.KINDS).map(([kind, [, meaning]]) =>
    element("div", {}, element("dt", {}, badge([kind, kind])), element("dd", {}, meaning)),
  );
  show(byId("legend"), ...entries);
}

renderLegend();
new ResizeObserver(() => view.status && renderLag(view.status)).observe(byId("chart"));
forever(askStatus, PAUSE);
forever(askNodes, PAUSE_OF_OTHERS);

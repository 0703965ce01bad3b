// What the page shows, section by section.

import { chart, most } from "./chart.js";
import { element, show } from "./elements.js";
import { SILENT, badge, position } from "./parts.js";
import { peers, rates } from "./tables.js";
import { Topology, distinct } from "./topology.js";
import * as words from "./words.js";

const topology = new Topology();

const byId = (id) => document.getElementById(id);

// Show what page.js has in its view.
export function render(view) {
  const { status } = view;
  renderSilence(view);
  if (!status) return;
  show(byId("figures"), ...figures(status));
  // This node is the first one, as it is now.
  const [, ...others] = view.nodes ?? [];
  const own = view.silent ? { status: null, error: status.name } : { status, error: null };
  const nodes = distinct([{ url: "", ...own }, ...others]);
  const trees = topology.trees(nodes, status.now);
  renderHead(view, find(trees, (node) => node.here));
  show(byId("topology"), ...trees.map((node) => tree(node, status.now)));
  const missing = view.nodesSilent && !view.silent;
  show(byId("nodes-silent"), missing ? "What the other nodes say could not be asked for." : "");
  renderLag(view);
  show(byId("rates"), ...rates(status));
  renderPeers(status);
  renderErrors(nodes, status.now);
}

function renderSilence({ status, answered, silent }) {
  const since = words.time(answered, Date.now() / 1000);
  const asOf = status ? " What is shown is as it was then." : "";
  const text = `This node has not answered since ${since}.${asOf}`;
  show(byId("silent"), silent ? text : "");
  show(byId("updated"), `Last answer at ${since}. Times are those of your time zone.`);
  if (silent) {
    show(byId("state"), badge(SILENT));
    show(byId("reason"), "");
    document.title = `${words.KINDS.bad[0]} no answer`;
  }
}

// The first node for which `test` is true.
function find(trees, test) {
  for (const node of trees) {
    const found = test(node) ? node : find(node.followers, test);
    if (found) return found;
  }
  return null;
}

function renderHead({ status, silent }, here) {
  const started = words.time(status.started, status.now);
  show(byId("name"), status.name);
  show(byId("what"), `${words.roleOf(status)}, zrs_core ${status.version}, started ${started}`);
  if (silent) return;
  const state = nodeState(here);
  show(byId("state"), badge(state));
  const reasons = [];
  if (!status.ready) reasons.push(`Not ready: ${status.ready_reason}`);
  if (followsSilent(here)) reasons.push(silenceOf(here.leader, status));
  show(byId("reason"), reasons.join(". "));
  const base = status.name.split("/").pop();
  document.title = `${words.KINDS[state[0]][0]} ${state[1]} – ${base}`;
}

function figures({ now, primary, secondary }) {
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
  if (secondary) {
    const { lag_seconds: lag, lag_transactions: waiting } = secondary;
    const more = waiting === null ? null : `${words.count(waiting, "transaction")} on the way`;
    add("Lag", words.duration(lag), more);
    add("News of the primary", secondary.news, heard(secondary));
    add("Last transaction here", ...position(secondary.position, now));
    const { divergence } = secondary;
    if (divergence) {
      const alone = `${words.count(divergence.transactions, "transaction")} after it here alone`;
      add("Last transaction in common", ...position(divergence.common, now), alone);
    }
    const theirs = secondary.primary_position;
    const asOf = theirs && `as of ${words.time(theirs.as_of, now)}`;
    add("Last known of the primary", ...position(theirs, now), asOf);
    add(
      secondary.connected ? "Connected to" : "To be connected to",
      secondary.primary_address,
      link(secondary),
      secondary.connected ? `since ${words.time(secondary.connected_since, now)}` : null,
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
    const here = [...position(primary.position, now), missing(primary)];
    if (!secondary) add("Last transaction here", ...here);
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

function tree(node, now) {
  const [kind, word] = nodeState(node);
  const followers = node.followers.map((each) => tree(each, now));
  return element(
    "li",
    { class: kind },
    element("div", { class: "node" }, badge([kind, word]), nodeLines(node, now)),
    followers.length ? element("ul", { "aria-label": "followed by" }, followers) : null,
  );
}

// Seconds without an answer after which a primary's status server is silent.
const PATIENCE = 2;

// True if the primary that a node follows is asked for its status and does not answer.
function followsSilent({ leader, status }) {
  const age = status.secondary?.primary_status_age ?? Infinity;
  return Boolean(leader?.error && !leader.status && !leader.here) && age > PATIENCE;
}

function silenceOf({ url, last }, { now, secondary }) {
  const since = last ? ` since ${words.time(last.time, now)}` : "";
  return (
    `The primary's status server ${url} has not answered${since}. The primary may hang: then ` +
    `nothing comes, as from a primary that has nothing to send; ${secondary.news}`
  );
}

function nodeState(node) {
  if (node.status) {
    const state = words.stateOf(node.status);
    return state[0] === "good" && followsSilent(node) ? ["careful", "primary silent"] : state;
  }
  if (node.gone) return ["bad", "connection lost"];
  if (node.error) return SILENT;
  return node.peer ? words.peerState(node.peer) : ["unknown", "not asked"];
}

function nodeLines({ address, status, error, last, peer, gone, here }, now) {
  const role = (status ?? last)?.role ?? (peer ? "secondary" : null);
  const name = role ?? (address || "node");
  const called = words.nameOf(status ?? last) ?? peer?.name;
  const lines = [
    element("span", {}, element("strong", {}, name), called ? ` ${called}` : "", here ? " (this node)" : ""),
    role && address ? address : null,
    status?.name ?? (peer?.certificate === called ? null : (peer?.certificate ?? null)),
    error,
    gone ? `since ${words.time(gone, now)}` : null,
  ];
  const rate = (status?.secondary ?? status?.primary)?.rates["10s"];
  if (peer && !gone) lines.push(`lag ${words.duration(peer.lag_seconds)}`);
  if (status?.secondary) lines.push(`lag ${words.duration(status.secondary.lag_seconds)}`);
  if (rate) lines.push(`${words.digits(rate.transactions)} transactions/s`);
  return lines.filter((each) => each !== null).map((each) => element("p", {}, each));
}

export function renderLag({ status, samples, gap }) {
  const peak = most(samples);
  const at = peak && words.time(peak[0], status.now);
  const whose = status.secondary ? "" : ", of the secondary that is furthest behind";
  const summary =
    `Now ${words.duration(words.lagOf(status))}${whose}; ` +
    (peak ? `most ${words.duration(peak[1])}, at ${at}.` : "not known in the last hour.") +
    " Where there is no line, it was not known.";
  show(byId("lag-summary"), summary);
  const width = Math.max(byId("chart").clientWidth, 240);
  show(byId("chart"), chart(samples, status.now, gap, width, summary));
}

function renderPeers(status) {
  const connected = status.primary?.peers ?? [];
  byId("peers-section").hidden = !status.primary;
  show(byId("no-peers"), connected.length ? "" : "None.");
  byId("peers").hidden = !connected.length;
  show(byId("peers"), ...peers(connected, status.now));
}

// Those of all nodes that are known; that one does not answer comes first.
function renderErrors(nodes, now) {
  const found = [];
  for (const { url, status, error } of nodes) {
    if (!status && url) found.push([url, { message: error, time: null }]);
    for (const last of [status?.secondary?.last_error, status?.primary?.last_error]) {
      if (last) found.push([`${words.roleOf(status)} ${status.name}`, last]);
    }
  }
  found.sort(([, one], [, other]) => (other.time ?? Infinity) - (one.time ?? Infinity) || 0);
  show(byId("no-errors"), found.length ? "" : "None that is known.");
  show(
    byId("errors"),
    ...found.map(([who, { message, time, over }]) => {
      const since = over ? ` (over since ${words.time(over, now)})` : "";
      const when = (time === null ? "now" : words.time(time, now)) + since;
      const head = element("p", { class: "more" }, `${when}, ${who}`);
      return element("li", {}, head, element("p", {}, message));
    }),
  );
}

export function renderLegend() {
  const entries = Object.entries(words.KINDS).map(([kind, [, meaning]]) =>
    element("div", {}, element("dt", {}, badge([kind, kind])), element("dd", {}, meaning)),
  );
  show(byId("legend"), ...entries);
}


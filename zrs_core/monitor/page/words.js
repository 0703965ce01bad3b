// Numbers, times and states in words.

const SPACE = "\u00a0";

export const NOT_KNOWN = "not known";

// The symbol of each kind of state, and what it says; style.css has a colour for each.
export const KINDS = {
  good: ["✓", "as it should be"],
  busy: ["…", "on its way: it greets, compares or sends"],
  careful: ["▲", "works, but not ready, or nobody is connected yet"],
  bad: ["✗", "does not replicate: the connection is lost, or an error stands in the way"],
  unknown: ["?", "not known: its own status is not asked for, or does not answer"],
};

const FAILED = new Set(["refused", "diverged", "failing", "stopped"]);

// The state of a node by its own status, as [kind, word].
export function stateOf(status) {
  if (status.secondary) {
    const { state, connected, connections } = status.secondary;
    if (FAILED.has(state)) return ["bad", state];
    if (!connected) return connections ? ["bad", "connection lost"] : ["careful", "connecting"];
    if (state === "comparing") return ["busy", state];
    return status.ready ? ["good", state] : ["careful", "not ready"];
  }
  if (!status.ready) return ["careful", "not ready"];
  return status.primary.peers.length ? ["good", "serving"] : ["careful", "no secondary"];
}

// The name of a secondary, null for none.
export function nameOf(status) {
  return status?.secondary?.name ?? null;
}

// What a node is, and its name if it has one.
export function roleOf(status) {
  const name = nameOf(status);
  return name === null ? status.role : `${status.role} ${name}`;
}

// The state of a connection by what the primary says of it.
export function peerState(peer) {
  return [peer.state === "waiting" ? "good" : "busy", peer.state];
}

// The lag of a node: that of a primary is the largest among its secondaries, as far as it is known.
export function lagOf(status) {
  if (status.secondary) return status.secondary.lag_seconds;
  const lags = status.primary.peers.map((peer) => peer.lag_seconds);
  return lags.reduce((most, lag) => (lag !== null && !(most > lag) ? lag : most), null);
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return NOT_KNOWN;
  if (seconds < 0) return "−" + duration(-seconds);
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)}${SPACE}ms`;
  if (seconds < 9.995) return `${seconds.toFixed(2)}${SPACE}s`;
  if (seconds < 59.95) return `${seconds.toFixed(1)}${SPACE}s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return inTwo(whole, 60, "min", "s");
  if (whole < 172770) return inTwo(Math.round(whole / 60), 60, "h", "min");
  return inTwo(Math.round(whole / 3600), 24, "d", "h");
}

function inTwo(small, ratio, name, smallName) {
  return `${Math.floor(small / ratio)}${SPACE}${name} ${small % ratio}${SPACE}${smallName}`;
}

export function size(bytes) {
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (bytes < 999.5) return `${digits(bytes)}${SPACE}${unit}`;
    bytes /= 1000;
  }
  return `${digits(bytes)}${SPACE}TB`;
}

export function digits(number) {
  if (number === null || number === undefined) return NOT_KNOWN;
  return Number.isInteger(number) || number >= 99.95
    ? Math.round(number).toLocaleString("en")
    : number.toPrecision(number < 0.1 ? 1 : number < 9.995 ? 2 : 3);
}

export function count(number, one) {
  if (number === null || number === undefined) return NOT_KNOWN;
  return `${digits(number)}${SPACE}${one}${number === 1 ? "" : "s"}`;
}

// In the time zone of the one who looks; with the date, if that is another one than at `now`.
export function time(seconds, now) {
  if (seconds === null || seconds === undefined) return NOT_KNOWN;
  const [day, clock] = parts(seconds);
  return parts(now)[0] === day ? clock : `${day} ${clock}`;
}

// Hours and minutes alone.
export function minute(seconds) {
  return parts(seconds)[1].slice(0, 5);
}

function parts(seconds) {
  const date = new Date(seconds * 1000);
  const joined = (separator, ...numbers) =>
    numbers.map((number) => String(number).padStart(2, "0")).join(separator);
  return [
    joined("-", date.getFullYear(), date.getMonth() + 1, date.getDate()),
    joined(":", date.getHours(), date.getMinutes(), date.getSeconds()),
  ];
}

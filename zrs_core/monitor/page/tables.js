// The tables. On a narrow screen their rows become blocks, so that what they are is told anew.

import { element } from "./elements.js";
import { badge, position } from "./parts.js";
import { count, digits, duration, peerState, size, time } from "./words.js";

// What a status says of rates.
export function rates({ primary, secondary }) {
  const names = ["What", "Over", "Transactions/s", "Bytes/s"];
  const rows = (what, of) =>
    Object.entries({ "10 s": of["10s"], "5 min": of["5min"] }).map(([over, rate]) =>
      row(
        rowHeading(what),
        cell(names[1], over),
        cell(names[2], digits(rate.transactions)),
        cell(names[3], `${size(rate.bytes)}/s`),
      ),
    );
  return [
    headings(...names),
    body(
      secondary ? rows("received", secondary.rates) : [],
      primary ? rows("sent", primary.rates) : [],
    ),
  ];
}

// What a primary says of those that are connected.
export function peers(connected, now) {
  const names = ["Name", "State", "Sent up to", "Lag", "Sent", "Did not read for", "Connected"];
  const rows = connected.map((peer) =>
    row(
      rowHeading(...whoIs(peer)),
      cell(names[1], badge(peerState(peer))),
      cell(names[2], position(peer.position, now)),
      cell(names[3], behind(peer)),
      cell(names[4], `${count(peer.transactions, "transaction")}, ${size(peer.bytes)}`),
      cell(names[5], duration(peer.back_pressure_seconds)),
      cell(names[6], `since ${time(peer.connected_since, now)}`, protocol(peer)),
    ),
  );
  return [headings(...names), body(rows)];
}

// The name, then the address and the certificate where they say more.
function whoIs({ name, address, certificate }) {
  const more = [address, certificate].filter((each) => each && each !== name);
  const known = name ?? more.shift();
  return [known, ...more.map((each) => element("small", {}, each))];
}

function protocol({ protocol: word }) {
  return word && `, ${word}`;
}

function behind({ lag_seconds: seconds, lag_transactions: transactions }) {
  const more = transactions === null ? "" : `, ${count(transactions, "transaction")}`;
  return duration(seconds) + more;
}

function headings(...names) {
  const heading = (name) => element("th", { role: "columnheader", scope: "col" }, name);
  return element("thead", { role: "rowgroup" }, row(names.map(heading)));
}

function body(...rows) {
  return element("tbody", { role: "rowgroup" }, rows);
}

function row(...cells) {
  return element("tr", { role: "row" }, cells);
}

function rowHeading(...children) {
  return element("th", { role: "rowheader", scope: "row" }, children);
}

function cell(label, ...children) {
  return element("td", { role: "cell", "data-label": label }, children);
}

// Who follows whom, as a tree.

// Seconds for which a secondary that is connected no more is shown all the same.
const REMEMBERED = 60;

// Puts together what nodes say of themselves and of each other, from one look to the next: where a
// connection is lost, both ends forget the other's address.
export class Topology {
  #leaders = new Map();
  #strangers = new Map();

  // Trees of { address, status, error, last, peer, gone, here, leader, followers }. A node whose own
  // status is known has that as `status`; one that does not answer has an `error`, and what it said
  // before as `last`. Another one is known by `address` alone, by what its primary says of it as
  // `peer`, or by the time since which that has said nothing more, as `gone`.
  trees(nodes, now) {
    const known = nodes.map((node, index) => ({
      address: addressOf(node) ?? node.url,
      status: node.status,
      error: node.error,
      last: node.last ?? null,
      url: node.url,
      leader: null,
      peer: null,
      here: index === 0,
      // Of its followers, those of whose connection only the other end is known.
      unmatched: 0,
      followers: [],
    }));
    const roots = new Map(known.map((node) => [node, node]));
    const strangers = new Map();
    const matched = new Set();
    const following = known.filter(followed);
    const live = following.filter((each) => each.status);
    // What a node said before may have changed: it takes what the others leave.
    for (const node of [...live, ...following.filter((each) => !each.status)]) {
      const leader = this.#leader(node, known, matched);
      const address = followed(node).primary_address;
      if (!leader && !strangers.has(address)) {
        const stranger = { address, status: null, error: null, here: false, followers: [] };
        strangers.set(address, stranger);
        roots.set(stranger, stranger);
      }
      node.leader = leader ?? strangers.get(address);
      node.leader.followers.push(node);
      roots.delete(node);
    }
    for (const node of known) node.followers.push(...this.#peers(node, matched, now));
    return [...roots.values()];
  }

  #leader(node, known, matched) {
    const { connected, local_address: local, primary_address: address } = followed(node);
    const others = known.filter((each) => each !== node && !follows(each, node));
    // The end of a Unix socket has no address: its primary calls it by its own and a number.
    const isIt = (peer) =>
      local === null ? peer.address.startsWith(`unix:${address}#`) : peer.address === local;
    for (const other of connected ? others : []) {
      const peers = other.status?.primary?.peers ?? [];
      const peer = peers.find((each) => isIt(each) && !matched.has(each));
      if (peer) {
        matched.add(peer);
        if (!node.status) node.peer = peer;
        this.#leaders.set(node.url, [address, other.url]);
        return other;
      }
    }
    const [then, url] = this.#leaders.get(node.url) ?? [];
    const primaries = others.filter((each) => roleOf(each) === "primary");
    const leader =
      others.find((each) => then === address && each.url === url) ??
      others.find((each) => addressOf(each) === address) ??
      // Something stands between the two, and there is no other.
      only(primaries) ??
      unheard(others, address);
    if (leader && connected && node.status) leader.unmatched++;
    return leader;
  }

  #peers(node, matched, now) {
    const peers = node.status?.primary?.peers ?? [];
    const left = peers.filter((peer) => !matched.has(peer));
    if (left.length <= node.unmatched) left.forEach((peer) => matched.add(peer));
    // A secondary that connects again has another address, and most often the same name.
    const nameOf = (peer) => peer.name ?? peer.address;
    const key = (peer) => `${node.url} ${nameOf(peer)}`;
    for (const peer of peers) {
      if (matched.has(peer)) this.#strangers.delete(key(peer));
      else this.#strangers.set(key(peer), { peer, seen: now, node: node.url });
    }
    const there = new Set(peers.map(nameOf));
    const gone = [...this.#strangers.values()].filter(
      (each) => each.node === node.url && !there.has(nameOf(each.peer)),
    );
    for (const each of gone) {
      if (now - each.seen > REMEMBERED) this.#strangers.delete(key(each.peer));
    }
    const follower = (peer, since) => ({
      address: peer.address,
      status: null,
      error: null,
      here: false,
      peer,
      gone: since,
      followers: [],
    });
    return [
      ...peers.filter((peer) => !matched.has(peer)).map((peer) => follower(peer, null)),
      // One whose primary does not answer may be connected all the same.
      ...(node.status ? gone : []).map((each) => follower(each.peer, each.seen)),
    ];
  }
}

// What is known of a node that does not answer is from its last answer.
function addressOf({ status, last }) {
  return status ? status.primary?.address : last?.address;
}

// What a secondary says of its connection.
function followed({ status, last }) {
  return status ? status.secondary : last?.secondary;
}

function roleOf({ status, last }) {
  return (status ?? last)?.role;
}

function only(nodes) {
  return nodes.length === 1 ? nodes[0] : undefined;
}

// The node that has not answered since it is asked, and is likely to be the primary at an address:
// the one on the same host, or the only one.
function unheard(nodes, address) {
  const silent = nodes.filter((each) => !each.here && !each.status && !each.last && each.error);
  return only(silent.filter((each) => hostOf(each.url) === hostOf(address))) ?? only(silent);
}

// Without the port; of the path of a Unix socket the path.
function hostOf(address) {
  return address.replace(/^http:[/]{2}/, "").replace(/:\d+(\/.*)?$/, "");
}

// A node may be asked for under two names: the first of each.
export function distinct(nodes) {
  const seen = new Set();
  return nodes.filter(({ url, status }) => {
    const identity = status ? `${status.pid} ${status.started} ${status.name}` : url;
    return !seen.has(identity) && seen.add(identity);
  });
}

// Whether `node` is below `other` already: a circle would be in no tree.
function follows(node, other) {
  return other.followers.some((each) => each === node || follows(node, each));
}

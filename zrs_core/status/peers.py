"""What a primary notes of those that follow it, and how it is read.

A connection's notes are plain attributes that its session writes, once a batch and with no lock.
Who reads them may see a batch in the midst of being noted.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from ..messages import NO_TID
from ..progress import Error
from .rates import Meter, rates_of
from .state import PeerState, PeerStatus, Rates, position_of, time_of

#: Of so many commits a primary knows the tids, to count those that a secondary was not sent.
_REMEMBERED = 10_000

# Seconds after which a connection on which something was sent shows that an error is over: longer
# than one of a search lasts.
_SERVED = 15.0

# What stands before the path of a Unix socket.
_UNIX = "unix:"


class Commits:
    """The tids that were committed last.

    :param last: the last transaction before them.
    :param exact: whether all that is committed is added here, transaction by transaction.
    """

    def __init__(self, last: bytes, *, exact: bool) -> None:
        self._exact = exact
        self._since = last
        self._tids: deque[bytes] = deque(maxlen=_REMEMBERED)

    def add(self, tid: bytes) -> None:
        """One was committed. For any thread."""
        self._tids.append(tid)

    def begin_again(self, last: bytes) -> None:
        """Something else was committed, up to `last`."""
        self._since, self._tids = last, deque(maxlen=_REMEMBERED)

    def known(self) -> KnownCommits:
        """What is known now, to be looked up in."""
        since, remembered = self._since, self._tids
        # Two threads may have added theirs in the other order.
        tids = sorted(remembered)
        if len(tids) == _REMEMBERED:
            since = tids.pop(0)
        return KnownCommits(since, tids, self._exact)


class KnownCommits(NamedTuple):
    """The tids of all commits after `since`, or of some of them if that is not `exact`."""

    since: bytes
    tids: Sequence[bytes]
    exact: bool

    def behind(self, sent: bytes, last: bytes) -> tuple[float | None, int | None]:
        """How many seconds, and transactions, lie between what was sent and `last`."""
        if sent >= last:
            return 0.0, 0
        place = bisect_right(self.tids, sent)
        unsent = len(self.tids) - place
        if self.exact and sent < self.since:
            # One of those that were not sent is at least as old.
            return _age(self.since), None
        if self.exact:
            return (_age(self.tids[place]), unsent) if unsent else (0.0, 0)
        return _age(self.tids[place]) if unsent else None, None


def _age(tid: bytes) -> float:
    return max(time.time() - time_of(tid), 0.0)


def default_name(address: str, certificate: str | None) -> str:
    """Return the name of a secondary that does not send one.

    The name in its certificate, else the host without the port, or the path of the Unix socket: it
    stays the same when the secondary connects again.

    :param address: the other end of the connection, as `transports.sockets.peer_name` has it.
    """
    if certificate:
        return certificate
    if address.startswith(_UNIX):
        return address.removeprefix(_UNIX).rpartition("#")[0]
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        return address
    host = host.removeprefix("[").removesuffix("]")
    try:
        # A socket for IPv4 and IPv6 shows IPv4 peers as IPv6 addresses.
        mapped = ipaddress.IPv6Address(host).ipv4_mapped
    except ValueError:
        return host
    return host if mapped is None else str(mapped)


class Peer:
    """What is noted of one connection."""

    def __init__(self, address: str, certificate: str | None) -> None:
        #: Unique among the connected ones; `Peers` sets it.
        self.name = default_name(address, certificate)
        self.meter = Meter()
        self.address = address
        self._certificate = certificate
        self.connected_since = time.time()
        self._protocol: str | None = None
        self._start: bytes | None = None
        self._sent = NO_TID
        self._state = PeerState.GREETING
        self._back_pressure = 0.0
        # From when on, by the monotonic clock, what it was given is waited for to be sent.
        self._waits_from: float | None = None

    def greeted(self, protocol: str, start: bytes) -> None:
        """It has said what it wants."""
        self._sent, self._protocol = start, protocol
        self._state = PeerState.WAITING
        self._start = start

    @property
    def has_something(self) -> bool:
        """True if it has named a start that could be served."""
        return self._state is not PeerState.GREETING

    @property
    def position(self) -> bytes | None:
        """The last transaction that it has whole; None before it has named its start."""
        return None if self._start is None else self._sent

    def asks(self) -> None:
        """What it was given has been sent, and it is asked what is next."""
        waits_from, self._waits_from = self._waits_from, None
        if waits_from is not None:
            self._back_pressure += max(time.monotonic() - waits_from, 0.0)

    def gets(self, transactions: int, size: int, sent: bytes | None, rest: float) -> None:
        """It is given the end of so many transactions, and so many bytes.

        :param sent: the last one that is over with this; None for none.
        :param rest: seconds until it will be asked again, if it has sent that by then.
        """
        self.meter.add(transactions, size)
        if sent is not None:
            self._sent = sent
        self._waits_from = time.monotonic() + rest
        self._state = PeerState.SENDING

    def has_all(self) -> None:
        """There is nothing to be given."""
        self._state = PeerState.WAITING

    def status(self, commits: KnownCommits, last: bytes) -> PeerStatus:
        start, sent, waits_from = self._start, self._sent, self._waits_from
        back_pressure = self._back_pressure
        if waits_from is not None:
            back_pressure += max(time.monotonic() - waits_from, 0.0)
        seconds, transactions = commits.behind(sent, last) if start is not None else (None, None)
        return PeerStatus(
            name=self.name,
            address=self.address,
            certificate=self._certificate,
            protocol=self._protocol,
            connected_since=self.connected_since,
            start=start,
            position=position_of(sent),
            bytes=self.meter.bytes,
            transactions=self.meter.transactions,
            state=self._state,
            back_pressure_seconds=back_pressure,
            lag_seconds=seconds,
            lag_transactions=transactions,
        )


def _host_of(address: str) -> str:
    """The address of a peer without its port."""
    return address.rpartition(":")[0] or address


class Peers:
    """Those that are connected to a primary, and those that it has refused. Thread-safe."""

    def __init__(self) -> None:
        #: How many were refused.
        self.refusals = 0
        #: Why the last one was, or why one could not go on.
        self.last_error: Error | None = None
        self._last_host = ""
        self._lock = threading.Lock()
        self._connected: dict[Peer, None] = {}
        self._names: set[str] = set()
        # What was sent on connections that are closed.
        self._before = Meter()

    def __len__(self) -> int:
        """How many are connected."""
        return len(self._connected)

    def add(self, address: str, certificate: str | None) -> Peer:
        """One has connected."""
        peer = Peer(address, certificate)
        with self._lock:
            self._connected[peer] = None
            self._give_name(peer, default_name(address, certificate))
        return peer

    def name(self, peer: Peer, name: str) -> None:
        """Give a connected peer a name.

        Where connected peers have the name already, a number follows it: the lowest free one from 2
        on, so that a peer that connects again has a name that was used before.
        """
        with self._lock:
            if peer in self._connected:
                self._names.discard(peer.name)
                self._give_name(peer, name)

    def _give_name(self, peer: Peer, name: str) -> None:
        free, number = name, 1
        while free in self._names:
            number += 1
            free = f"{name}#{number}"
        self._names.add(free)
        peer.name = free

    def remove(self, peer: Peer) -> None:
        """It has left, and nothing more is noted of it. May be called again."""
        with self._lock:
            if peer in self._connected:
                self._mark_over(peer)
                del self._connected[peer]
                self._names.discard(peer.name)
                self._before.absorb(peer.meter)

    def refused(self, reason: str, address: str) -> None:
        """The peer at this address was refused."""
        with self._lock:
            self.refusals += 1
            self._note_error(reason, address)

    def failed(self, reason: str, address: str) -> None:
        """The peer at this address was left, as there was an error here."""
        with self._lock:
            self._note_error(reason, address)

    def error(self) -> Error | None:
        """Return the last error; it is over if a peer from the same host is followed since then."""
        with self._lock:
            for peer in self._connected:
                self._mark_over(peer)
            return self.last_error

    def _mark_over(self, peer: Peer) -> None:
        error = self.last_error
        if error is None or error.over is not None or self._last_host != _host_of(peer.address):
            return
        # A diverged secondary is served too while it searches for what both hold, but not for long.
        begun = peer.connected_since
        if begun >= error.time and time.time() - begun >= _SERVED and peer.has_something:
            self.last_error = replace(error, over=begun)

    def _note_error(self, reason: str, address: str) -> None:
        self.last_error, self._last_host = Error(reason, time.time()), _host_of(address)

    def rates(self) -> Rates:
        with self._lock:
            return rates_of([self._before, *(peer.meter for peer in self._connected)])

    def status(self, commits: Commits, last: bytes) -> tuple[PeerStatus, ...]:
        """All that are connected, the first one first.

        :param last: the last transaction that is committed.
        """
        with self._lock:
            connected = [*self._connected]
        known = commits.known()
        return tuple(peer.status(known, last) for peer in connected)

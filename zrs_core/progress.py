"""What a secondary has received so far, for people to watch."""

from __future__ import annotations

import enum
import time
from dataclasses import dataclass, replace

from .tids import age_of, raw_age_of

#: Seconds after which a connected secondary that is sent nothing counts as having caught up: a
#: primary that has more sends it at once.
QUIET = 2.0


class State(str, enum.Enum):
    """How replication is going; each is its own text."""

    #: There is no connection, and nothing is wrong but that.
    CONNECTING = "connecting"
    #: Connected; what the primary sends is being compared with what is held.
    COMPARING = "comparing"
    #: Connected; what the primary sends is applied.
    REPLICATING = "replicating"
    #: The primary refuses the start: it does not hold it, or nothing that late.
    REFUSED = "refused"
    #: The primary sends something else than is held here.
    DIVERGED = "diverged"
    #: Sessions end in an error, one after the other.
    FAILING = "failing"
    #: The disk has failed; it does not go on until it is opened again.
    STOPPED = "stopped"

    __str__ = str.__str__


@dataclass(frozen=True, slots=True)
class Error:
    """What went wrong, and when (seconds since 1970).

    `over` is since when it has been over, None as long as that is not known.
    """

    message: str
    time: float
    over: float | None = None

    def ended(self) -> Error:
        """Return the same error, over since now or before."""
        return self if self.over is not None else replace(self, over=time.time())


@dataclass(frozen=True, slots=True)
class Divergence:
    """Where the history of a secondary and that of its primary part.

    :param common: the last transaction that both hold; None if none was found.
    :param transactions: how many transactions after it only the secondary holds, at least.
    """

    common: bytes | None
    transactions: int


class Progress:
    """What a client has received, for people to watch.

    `connected` tells whether there is a session, `connections` how many there were; `bytes` and
    `transactions` count since the client was made; `tid` is the last transaction applied, and
    `unfinished` tells whether another one has begun; `partial_since` is when, by the monotonic
    clock, something began to come that is not whole yet. `refusals` counts the sessions in a row
    that the primary ended soon, without having sent a byte. `last_error` says why the last
    connection ended, or why there is none. `stopped` is the error after which it does not go on
    until it is opened again, None as long as it does.

    `state` stays what it is after a failure, also while it is tried again, until the primary sends
    what can be applied; `failure` says then what has failed, else it is None, and `failures`
    counts the sessions that have failed since. `lag` is the number of seconds between the last
    commit on the primary that has come and its arrival here, by the clocks of both; None where
    they tell nothing, and `applied_is_old` tells whether that was committed before there was a
    connection, so that it says nothing about how long the way takes. `late` is the number of
    seconds by which it took longer than the first one after a pause, whatever the clocks say; None
    if there was no pause. `known` is the newest transaction that has begun to come,
    `first_unapplied` the oldest one that could not be read when it was last looked at, `unapplied`
    how many have begun to come on this connection since then; all can be read up to `tid`,
    whatever these say. `last_failure` is the last error of either kind with its time, `divergence`
    tells where the histories part, once that is known of a primary that is not followed for that
    reason; while it is searched for, `searching` is True. `connected_since` and `local_address`
    are those of the connection. `incomplete` is true as long as only a part of a run of packed
    transactions has come (see `visibility`).

    Written by one thread, read by any.
    """

    def __init__(self, tid: bytes) -> None:
        self.connected = False
        self.connections = 0
        self.refusals = 0
        self.unfinished = False
        self.partial_since: float | None = None
        self.bytes = 0
        self.transactions = 0
        self.tid = tid
        self.last_error: str | None = None
        self.stopped: Exception | None = None
        self.state = State.CONNECTING
        self.failure: str | None = None
        self.failures = 0
        self.lag: float | None = None
        self.applied_is_old = True
        self.late: float | None = None
        self.known = tid
        self.first_unapplied: bytes | None = None
        self.unapplied = 0
        self.last_failure: Error | None = None
        self.divergence: Divergence | None = None
        self.searching = False
        self.connected_since: float | None = None
        self.local_address: str | None = None
        self.incomplete = False
        self._contact: float | None = None
        # True if all had come when the primary sent something; the age that the next transaction
        # had when it was applied, by clocks that may differ.
        self._had_all = False
        self._least_age: float | None = None
        self._connected: float | None = None

    def heard(self) -> None:
        """The primary has sent something."""
        if (self.quiet or 0.0) >= QUIET and self.partial is None:
            self._had_all = True
        self._contact = time.monotonic()

    def found(self, local_address: str | None) -> None:
        """There is a connection."""
        self._connected = time.monotonic()
        self.late = None
        self.connected_since = time.time()
        self.local_address = local_address

    def begins(self, tid: bytes) -> None:
        """A transaction begins to come."""
        self.known = tid
        self.unapplied += 1
        if self.first_unapplied is None:
            self.first_unapplied = tid

    def applied(self, transactions: int, tid: bytes, begun: bytes) -> None:
        """So many transactions up to `tid` can be read; `begun` is the last that has begun."""
        self.lag, age = age_of(tid), raw_age_of(tid)
        if self._had_all:
            self._had_all, self._least_age = False, age
        self.late = None if self._least_age is None else max(age - self._least_age, 0.0)
        since = self.connected_since
        self.applied_is_old = since is None or self.lag is None or time.time() - self.lag < since
        self.transactions += transactions
        self.unapplied = int(begun > tid)
        self.first_unapplied = begun if begun > tid else None
        # Who sees this sees the rest too.
        self.tid = tid

    def held_back(self, transactions: int, tid: bytes) -> None:
        """So many transactions were stored; readers see those up to `tid`."""
        self.transactions += transactions
        self.tid = tid

    def caught_up(self, tid: bytes) -> None:
        """Readers see all that was stored, up to `tid`."""
        self.unapplied, self.first_unapplied = 0, None
        self.tid = tid

    def partial_begins(self) -> None:
        """Something begins to come that is not whole yet."""
        self.partial_since = time.monotonic()

    def follows_another(self) -> None:
        """What is known of the primary was about another one."""
        self.known, self.first_unapplied = self.tid, None
        self.late = self._least_age = None
        self.divergence = None

    def failed(self, message: str) -> None:
        """Something went wrong."""
        self.last_failure = Error(message, time.time())

    def recovered(self) -> None:
        """What went wrong is over."""
        if self.last_failure is not None and self.last_failure.over is None:
            self.last_failure = self.last_failure.ended()

    @property
    def silence(self) -> float | None:
        """Seconds since the primary has last sent something; None if it never has."""
        return None if self._contact is None else time.monotonic() - self._contact

    @property
    def partial(self) -> float | None:
        """Seconds since a transaction began to come that is not whole yet; None for none."""
        since = self.partial_since
        return None if since is None else time.monotonic() - since

    @property
    def quiet(self) -> float | None:
        """Seconds since anything has happened on this connection; None if there is none."""
        connected, contact = self._connected, self._contact
        if not self.connected or connected is None:
            return None
        return time.monotonic() - max(connected, connected if contact is None else contact)

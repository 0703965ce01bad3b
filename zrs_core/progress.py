"""What a secondary has received so far, for people to watch."""

from __future__ import annotations

import enum
import time


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


class Progress:
    """What a client has received, for people to watch.

    `connected` tells whether there is a session, `connections` how many there were; `bytes` and
    `transactions` count since the client was made; `tid` is the last transaction applied, and
    `unfinished` tells whether another one has begun. `refusals` counts the sessions in a row that
    the primary ended soon, without having sent a byte. `last_error` says why the last connection
    ended, or why there is none. `stopped` is the error after which it does not go on until it is
    opened again, None as long as it does.

    `state` stays what it is after a failure, also while it is tried again, until the primary sends
    what can be applied; `failure` says then what has failed, else it is None, and `failures` counts
    the sessions that have failed since. `lag` is the number of seconds between the last commit on
    the primary that has come and its arrival here, by the clocks of both; None where they tell
    nothing. Written by one thread, read by any.
    """

    def __init__(self, tid: bytes) -> None:
        self.connected = False
        self.connections = 0
        self.refusals = 0
        self.unfinished = False
        self.bytes = 0
        self.transactions = 0
        self.tid = tid
        self.last_error: str | None = None
        self.stopped: Exception | None = None
        self.state = State.CONNECTING
        self.failure: str | None = None
        self.failures = 0
        self.lag: float | None = None
        self._contact: float | None = None

    def heard(self) -> None:
        """The primary has sent something."""
        self._contact = time.monotonic()

    @property
    def silence(self) -> float | None:
        """Seconds since the primary has last sent something; None if it never has."""
        return None if self._contact is None else time.monotonic() - self._contact

"""What a secondary has received so far, for people to watch."""

from __future__ import annotations


class Progress:
    """What a client has received, for people to watch.

    `connected` tells whether there is a session, `connections` how many there were; `bytes` and
    `transactions` count since the client was made; `tid` is the last transaction applied, and
    `unfinished` tells whether another one has begun. `refusals` counts the sessions in a row that
    the primary ended soon, without having sent a byte. `stopped` is the error after which it does
    not go on until it is opened again, None as long as it does. Written by one thread, read by any.
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

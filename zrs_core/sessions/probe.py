"""A connection that asks one question of a search, and applies nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from zope.interface import implementer

from ..codec import SecondaryConnection
from ..codec.secondary import Incomplete
from ..errors import RemoteProtocolError
from ..interfaces import ISession
from ..logs import event
from ..messages import NO_TID, Commit, Hello, Start, Transaction
from ..tids import describe_tid
from .deadlines import Deadline
from .following import Following
from .log import PeerLog
from .machine import CLOSE, CLOSED_THERE, Machine
from .search import Search

log = logging.getLogger("zrs_core.secondary")

# Transactions that are passed over since a pack may have removed them here.
_MAX_SKIPPED = 10_000

SENDING = Deadline(
    "sending",
    "a session of a search has sent its start, for 10 seconds",
    "if the primary has sent nothing, it has nothing after the start",
)
MESSAGE = Deadline(
    "message",
    "a message comes in part, for `peer_timeout`, and longer if it has come again like that",
    "the connection is closed: the length of the message may be damaged",
)

#: All deadlines of a session of a search.
PROBE_DEADLINES = (SENDING, MESSAGE, CLOSE)


@implementer(ISession)
class ProbeSession(Machine):
    """The secondary's end of a connection of a `Search`.

    :param peer: the name of the other end in the log.
    :param now: the time.
    """

    def __init__(self, client: Following, search: Search, peer: str, now: float) -> None:
        super().__init__(
            peer, {SENDING: self._sending_due, MESSAGE: self._message_due}, client.times.close
        )
        self._client = client
        self._search = search
        self._connection = SecondaryConnection(
            checksums=client.checksums, max_record_size=client.max_record_size
        )
        self._log = PeerLog(log, peer, lambda: client.progress.tid, lambda: client.name)
        self._silent = True
        # What has come in part, and since when.
        self._incomplete: Incomplete | None = None
        self._incomplete_since = now
        # What has come of it; the search goes on when the connection is gone: it reads the disk.
        self._answer: Callable[[], None] = search.inconclusive
        # The transaction that is being sent, and how many were passed over.
        self._tid = NO_TID
        self._skipped = 0
        start, expected = search.start, describe_tid(search.expected)
        fields = event("start", start=start)
        self._log.debug("start %s, the one before %s", describe_tid(start), expected, extra=fields)
        client.greeted(sure=False)
        hello = self._connection.send(Hello(client.protocol))
        self._send([hello + self._connection.send(Start(start))])
        self._timers.set(SENDING, now + client.times.sending)

    def _on_data(self, data: bytes, now: float) -> None:
        if not data:
            return
        self._silent = False
        self._timers.clear(SENDING)
        progress = self._client.progress
        progress.bytes += len(data)
        self._client.meter.add(0, len(data))
        progress.heard()
        try:
            self._connection.receive_data(data)
            for message in self._connection.messages():
                if self._answers(message, now):
                    return
        except RemoteProtocolError as error:
            self._log.debug("%s", error, extra=event("failing", reason=error))
            self._close(now)
            return
        self._note_incomplete(now)

    def _answers(self, message: object, now: float) -> bool:
        """Return True if a message has ended the connection."""
        if isinstance(message, Transaction):
            self._tid = message.tid
            if message.tid == self._search.expected:
                self._answer_by(partial(self._search.sent, message.tid), now)
        elif isinstance(message, Commit):
            if self._connection.mismatch:
                self._close(now)
            elif self._counts():
                self._answer_by(partial(self._search.sent, self._tid), now)
        return self._closing

    def _counts(self) -> bool:
        """Return True if the transaction that has come answers the question.

        Its checksum is known to be right, unless checksums are ignored.
        """
        if self._tid > self._search.expected or not self._search.skips:
            return True
        self._skipped += 1
        return self._skipped > _MAX_SKIPPED

    def _note_incomplete(self, now: float) -> None:
        before, self._incomplete = self._incomplete, self._connection.incomplete
        part = self._incomplete
        if part is None:
            self._timers.clear(MESSAGE)
            return
        if before is None or before.offset != part.offset:
            self._incomplete_since = now
        self._timers.set(MESSAGE, self._incomplete_since + self._client.patience.limit)

    def _on_eof(self, now: float) -> None:
        if self._silent:
            self._answer = self._search.refused
        self._close(now, CLOSED_THERE)

    def refused(self, reason: str, now: float) -> None:
        """As that of a `SecondarySession`."""
        if not (self._closing or self._lost):
            self._client.refused(reason)
            self._abort(reason)

    def _answer_by(self, answer: Callable[[], None], now: float) -> None:
        self._answer = answer
        self._close(now)

    def _sending_due(self, now: float) -> None:
        self._answer_by(self._search.nothing_sent, now)

    def _message_due(self, now: float) -> None:
        patience, part = self._client.patience, self._incomplete
        seconds = now - self._incomplete_since
        if part is not None and patience.is_over(seconds, (part.after, part.size)):
            # Its length may have been damaged on the way.
            self._close(now)
        else:
            self._timers.set(MESSAGE, self._incomplete_since + patience.limit)

    def _on_lost(self, reason: str, now: float) -> None:
        if not self._closing and self._silent:
            # As if the primary had closed.
            self._answer = self._search.refused

        def failed(error: BaseException, now: float) -> None:
            self._client.search_failed(f"cannot read what is held: {error}")
            self._disconnect(reason)

        self._do(self._answer, lambda _, now: self._disconnect(reason), failed)

    def _disconnect(self, reason: str) -> None:
        try:
            fields = event("disconnected", reason=reason)
            self._log.debug("Disconnected (%s)%s", reason, self._log.last(), extra=fields)
        finally:
            self._client.probed(self._search, reason, self._log)
            self._finish()

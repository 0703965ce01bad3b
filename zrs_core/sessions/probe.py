"""A connection that asks one question of a search, and applies nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from zope.interface import implementer

from ..codec import SecondaryConnection
from ..codec.secondary import Incomplete
from ..errors import RemoteProtocolError
from ..interfaces import ISecondarySession
from ..logs import event
from ..messages import NO_TID, Commit, Hello, Start, Transaction
from ..tids import describe_tid
from .log import PeerLog
from .search import Search

if TYPE_CHECKING:
    from .client import ReplicationClient

log = logging.getLogger("zrs_core.secondary")

#: Seconds within which a primary that has something to send begins to send it.
SENDING_TIME = 10.0

# Transactions that are passed over since a pack may have removed them here.
_MAX_SKIPPED = 10_000


@implementer(ISecondarySession)
class ProbeSession:
    """The secondary's end of a connection of a `Search`.

    :param peer: names the other end in the log.
    """

    def __init__(self, client: ReplicationClient, search: Search, peer: str) -> None:
        self.finished = False
        self._client = client
        self._search = search
        self._connection = SecondaryConnection(
            checksums=client.checksums, max_record_size=client.max_record_size
        )
        self._log = PeerLog(log, peer, lambda: client.progress.tid, lambda: client.name)
        self._greeted = False
        self._silent = True
        # How often `keep_alive` was called since a message became complete; what is not.
        self._ticks = 0
        self._incomplete: Incomplete | None = None
        # What has come of it; the search goes on when this is closed, since it reads the disk.
        self._answer: Callable[[], None] | None = None
        self._closed = False
        # The transaction that is being sent, and how many were passed over.
        self._tid = NO_TID
        self._skipped = 0

    def greeting(self) -> bytes:
        if self._closed or self.finished:
            return b""
        start = self._search.start
        self._greeted = True
        fields = event("start", start=start)
        expected = describe_tid(self._search.expected)
        self._log.debug("start %s, the one before %s", describe_tid(start), expected, extra=fields)
        self._client.greeted(sure=False)
        return self._connection.send(Hello(self._client.protocol)) + self._connection.send(
            Start(start)
        )

    def keep_alive(self) -> bytes:
        self._ticks += 1
        seconds = self._ticks * self._client.keep_alive_delay
        if self._silent:
            if seconds >= SENDING_TIME:
                self._answer_by(self._search.nothing_sent)
        elif (part := self._incomplete) is not None:
            # Its length may have been damaged on the way.
            over = self._client.patience.is_over(seconds, (part.after, part.size))
            self.finished = self.finished or over
        return b""

    def receive_data(self, data: bytes, more: Callable[[], bool] = lambda: False) -> None:
        if self.finished or self._closed or not data:
            return
        self._silent = False
        progress = self._client.progress
        progress.bytes += len(data)
        self._client.meter.add(0, len(data))
        progress.heard()
        self._connection.receive_data(data)
        try:
            for message in self._connection.messages():
                if isinstance(message, Transaction):
                    self._tid = message.tid
                    if message.tid == self._search.expected:
                        self._answer_by(partial(self._search.sent, message.tid))
                        break
                elif isinstance(message, Commit) and self._counts():
                    self._answer_by(partial(self._search.sent, self._tid))
                    break
            before, self._incomplete = self._incomplete, self._connection.incomplete
            part = self._incomplete
            if before is None or part is None or before.offset != part.offset:
                self._ticks = 0
        except RemoteProtocolError as error:
            self._log.debug("%s", error, extra=event("failing", reason=error))
            self.finished = True

    def _counts(self) -> bool:
        """Return True if the transaction that has come answers the question.

        Its checksum is known to be right, unless checksums are ignored.
        """
        if self._connection.mismatch:
            self.finished = True
            return False
        if self._tid > self._search.expected or not self._search.skips:
            return True
        self._skipped += 1
        return self._skipped > _MAX_SKIPPED

    def receive_eof(self) -> None:
        if self._silent and self._greeted:
            self._answer_by(self._search.refused)
        self.finished = True

    def refused(self, reason: str) -> None:
        self._client.refused(reason)

    def _answer_by(self, answer: Callable[[], None]) -> None:
        self._answer = self._answer or answer
        self.finished = True

    def close(self, reason: str) -> None:
        if self._closed:
            return
        self._closed = self.finished = True
        try:
            (self._answer or self._search.inconclusive)()
        except Exception as error:  # noqa: BLE001
            self._client.search_failed(f"cannot read what is held: {error}")
        finally:
            fields = event("disconnected", reason=reason)
            self._log.debug("Disconnected (%s)%s", reason, self._log.last(), extra=fields)
            self._client.probed(self._search, reason, self._log)

"""The part of a secondary's session that may wait for a disk: applying what has come."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

from ..codec import SecondaryConnection
from ..codec.secondary import Incomplete
from ..errors import RemoteProtocolError
from ..held import PACKED
from ..messages import NO_TID, Commit, PrimaryMessage, Transaction
from .check import Apply, Check, CompareFirst, Confirmed, Different
from .following import Following


@dataclass(slots=True)
class Applied:
    """The outcome of applying what has come.

    :param transactions: the number of transactions that became visible.
    :param end: the reason for which the session has to end; None to go on.
    :param holds: True if something was applied that is not visible yet.
    :param incomplete: the message that has come in part.
    """

    transactions: int = 0
    end: RemoteProtocolError | CompareFirst | Different | None = None
    holds: bool = False
    incomplete: Incomplete | None = None


@dataclass(slots=True)
class Position:
    """The transactions that a session is at.

    :param complete: the last one that the sink has whole.
    :param begun: the last one that has begun to come.
    """

    complete: bytes = field(default=NO_TID)
    begun: bytes = field(default=NO_TID)


class Applier:
    """Applies what comes to the sink of a client.

    One thread at a time calls it: it is called in the `Work` of a session, of which there is one at
    a time.

    :param connection: the state machine of the protocol.
    :param confirmed: called when the primary is known to hold what is held here.
    """

    def __init__(
        self,
        client: Following,
        connection: SecondaryConnection,
        confirmed: Callable[[Confirmed], None],
    ) -> None:
        self._client = client
        self._connection = connection
        self._confirmed = confirmed
        self.check: Check
        self.position = Position()
        # Transactions that the sink has whole and has not been told to make visible.
        self._committed = 0
        # True if the sink holds anything that it has not been told to make visible.
        self._holds = False

    def prepare(self) -> Check:
        """Choose the start, and read what is to be compared.

        :raises Exception: it cannot be read.
        """
        client = self._client
        self.check = Check(client.sink, client.max_compared_size, client.take_doubt())
        return self.check

    def apply(self, data: Sequence[bytes], more: Callable[[], bool], *, eof: bool) -> Applied:
        """Apply what has come.

        :param data: what has come since the last call.
        :param eof: True if nothing follows.
        :param more: returns True if what was applied may be made visible later.
        :raises Exception: the sink does not take it, or what is held cannot be read.
        """
        result = Applied()
        try:
            for each in data:
                self._connection.receive_data(each)
            if eof:
                self._connection.receive_eof()
            result.end = self._apply_messages()
        except RemoteProtocolError as error:
            result.end = error
        if isinstance(result.end, RemoteProtocolError) or (result.end is None and not more()):
            # What came whole before an error counts.
            result.transactions = self.flush()
        result.holds = self._holds
        result.incomplete = self._connection.incomplete
        return result

    def _apply_messages(self) -> CompareFirst | Different | None:
        messages = self._connection.messages()
        if not self.check.is_over:
            end = self._check_messages(messages)
            if end is not None:
                return end
        # Most of the time of catching up is spent here.
        apply, message = self._client.sink.apply, None
        for message in messages:
            kind = type(message)
            if kind is Transaction:
                self._begin(cast(Transaction, message))
            apply(message)
            if kind is Commit:
                self._commit()
        self._holds = self._holds or message is not None
        return None

    def _check_messages(
        self, messages: Iterator[PrimaryMessage]
    ) -> CompareFirst | Different | None:
        """Apply what the check lets through, until it is over."""
        for message in messages:
            outcome = self.check.take(message, newer_pickles=self._connection.newer_pickles)
            if isinstance(outcome, (CompareFirst, Different)):
                return outcome
            applies = isinstance(outcome, Apply)
            if isinstance(outcome, Confirmed):
                self._confirmed(outcome)
                applies = outcome.applies
            if applies:
                self._apply_one(message)
            if self.check.is_over:
                break
        return None

    def _apply_one(self, message: PrimaryMessage) -> None:
        self._holds = True
        if isinstance(message, Transaction):
            self._begin(message)
        self._client.sink.apply(message)
        if isinstance(message, Commit):
            self._commit()

    def _commit(self) -> None:
        self._committed += 1
        self.position.complete = self.position.begun
        self._client.progress.unfinished = False

    def _begin(self, transaction: Transaction) -> None:
        client = self._client
        self.position.begun = transaction.tid
        client.progress.begins(transaction.tid)
        client.progress.unfinished = True
        if transaction.status == PACKED:
            client.packed_begins(transaction.tid)

    def flush(self) -> int:
        """Make visible what was applied whole; return the number of its transactions.

        :raises OSError: the disk does not take it.
        """
        self._client.sink.flush()
        committed, self._committed = self._committed, 0
        self._holds = False
        self._client.applied(committed, self.position.complete, self.position.begun)
        return committed

    def abort(self) -> None:
        """Undo what is not visible.

        :raises Exception: the sink cannot.
        """
        self.check.close()
        try:
            self._client.sink.abort()
        finally:
            # A database that is lost says so when it is asked again.
            with contextlib.suppress(Exception):
                self._client.aborted()

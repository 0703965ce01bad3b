"""A sink over any storage that provides IStorageRestoreable."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Any

from ZODB.interfaces import IStorageIteration
from ZODB.utils import p64, u64
from zope.interface import implementer

from ..errors import NotComparable, WrittenToByOthers
from ..held import PACKED, HeldTransaction
from ..interfaces import ISearchableSink
from ..logs import event
from ..messages import MAX_TID, NO_TID, Commit, PrimaryMessage, Transaction
from ..tids import describe_tid
from .held import read_held
from .iteration import fields_of, history_before, iterate, last_before, records_of, status_of
from .restoring_sink import RestoringSink
from .wrapped import last_tid

log = logging.getLogger("zrs_core.storage")


@implementer(ISearchableSink)
class GenericSink(RestoringSink):
    """Any storage that restores as a sink.

    What it names as its last transaction is made sure of, if it iterates: a FileStorage within a
    wrapper, say, may name one that it has lost.
    """

    def __init__(self, storage: Any, invalidate: Callable[[bytes, list[bytes]], None]) -> None:
        super().__init__(storage, invalidate)
        # The last transaction, and what the storage says that it is.
        self._tid = self._named = last_tid(storage)
        #: True if a pack has marked the last transaction, so that more of them may have to come.
        self.ends_packed = False
        # One that may or may not have been committed.
        self._unsure: bytes | None = None
        if IStorageIteration.providedBy(storage):
            held = last_before(storage, self._named, MAX_TID)
            self._tid = NO_TID if held is None else held.tid
            self.ends_packed = held is not None and status_of(held) == PACKED
        if self._tid != self._named:
            log.warning(
                "%s names %s as its last transaction, and holds %s as the last; going on from that",
                storage.getName(),
                describe_tid(self._named),
                describe_tid(self._tid),
                extra=event(
                    "other-last", storage=storage.getName(), tid=self._tid, named=self._named
                ),
            )

    def last_tid(self) -> bytes:
        if self._unsure is not None:
            if last_tid(self._storage) == self._unsure:
                self._tid = self._named = self._unsure
            self._unsure = None
        return self._tid

    def last_transaction(self, limit: int) -> HeldTransaction:
        storage, tid = self._storage, self._tid
        if not IStorageIteration.providedBy(storage):
            raise NotComparable("the storage does not iterate")
        # Of a database, what it holds by now.
        last_tid(storage)
        earlier = p64(u64(tid) - 1)
        before = last_before(storage, earlier, earlier)
        with contextlib.closing(iterate(storage, tid, tid)) as found:
            last = next(found, None)
            if last is None:
                raise NotComparable("a pack has removed it here")
            return read_held(
                fields_of(last),
                records_of(last),
                NO_TID if before is None else before.tid,
                before is not None and status_of(before) == PACKED,
                storage if self.blobs else None,
                limit,
            )

    def history(self, before: bytes | None, count: int) -> list[tuple[bytes, bool]]:
        if not IStorageIteration.providedBy(self._storage):
            return []
        # Asking a database also lets it see its newest transactions.
        last = last_tid(self._storage)
        until = last if before is None else p64(max(u64(before) - 1, 0))
        return history_before(self._storage, until, count)

    def apply(self, message: PrimaryMessage) -> None:
        if isinstance(message, Transaction):
            super().apply(message)
            # The storage's commit lock is held from here on, so that this is the last word.
            last = last_tid(self._storage)
            if last != self._named:
                raise WrittenToByOthers(
                    f"{self._storage.getName()} has a transaction {describe_tid(last)} that did "
                    "not come by this replication; nobody else may write to it"
                )
            self._begun = message.tid
        elif isinstance(message, Commit) and self._transaction is not None:
            # A database that is lost meanwhile may have committed it.
            self._unsure = self._begun
            super().apply(message)
            self._unsure = None
            self._tid = self._named = self._begun
        else:
            super().apply(message)

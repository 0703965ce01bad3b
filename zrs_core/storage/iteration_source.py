"""A storage that provides IStorageIteration as a source of transactions."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator
from typing import Any

from ZODB.utils import p64, u64

from ..errors import Diverged, TidTooHigh
from ..logs import event
from ..messages import NO_TID, Store
from .iteration import (
    FIRST_YEAR,
    all_transactions,
    fields_of,
    first_of,
    iterate,
    last_before,
    records_of,
    status_of,
    transactions,
)
from .source import Pieces, StorageReader, StorageSource
from .wrapped import last_tid, own_instance, release

log = logging.getLogger("zrs_core.storage")


class IterationSource(StorageSource):
    """The history of a storage that iterates, followed as it grows.

    What goes through a `Primary` wakes its readers at once. What others commit is asked for every
    `poll_interval` seconds, in a thread of its own, as long as a reader waits.
    """

    def __init__(self, storage: Any) -> None:
        super().__init__(storage)
        #: A tid before all transactions. The time from it on is searched, a month at a time.
        self.earliest = FIRST_YEAR
        # What the thread that polls has seen last.
        self._seen: bytes | None = None
        self._state = threading.Condition(self._lock)
        self._polling: threading.Thread | None = None
        self._closed = False

    def open(self, start: bytes) -> IterationReader:
        reader = IterationReader(self, start)
        with self._state:
            if self._polling is None and not self._closed:
                name = f"zrs_core polling {self.storage.getName()}"
                polling = threading.Thread(target=self._poll, name=name, daemon=True)
                try:
                    polling.start()
                except RuntimeError:
                    # There are no threads left: the next one tries again.
                    reader.close()
                    raise
                self._polling = polling
        return reader

    def last_tid(self) -> bytes:
        instance = own_instance(self.storage)
        try:
            return last_tid(instance)
        finally:
            release(self.storage, instance)

    def _all_after(self, tid: bytes) -> Generator[object]:
        return all_transactions(self.storage, tid)

    def position(self) -> bytes:
        # To ask a database, an instance of its own is made; while a reader waits, the thread asks.
        seen = self._seen
        return seen if self._waiting and seen is not None else self.last_tid()

    def add_waiting(self, wake: Callable[[], None]) -> None:
        super().add_waiting(wake)
        with self._state:
            self._state.notify_all()

    def _poll(self) -> None:
        instance: Any = None
        # The first answer is news: a reader may have read to the end before it.
        known: bytes | None = None
        failed = False
        try:
            while self._wait_for_turn():
                try:
                    if instance is None:
                        instance = own_instance(self.storage)
                    last = self._seen = last_tid(instance)
                    if failed:
                        fields = event("polled-again", storage=self.storage.getName(), tid=last)
                        log.info("%s: polled again", self.storage.getName(), extra=fields)
                    failed = False
                except Exception as error:  # noqa: BLE001
                    if not failed:
                        name = self.storage.getName()
                        # Some errors of databases have no text.
                        reason = str(error) or type(error).__name__
                        fields = event("cannot-poll", storage=name, reason=reason, tid=known)
                        log.warning("%s: cannot be polled: %s", name, reason, extra=fields)
                    failed = True
                # A reader that is woken after a failure fails itself, which ends its connection.
                if failed or last != known:
                    known = None if failed else last
                    self.changed()
        finally:
            if instance is not None:
                release(self.storage, instance)

    def _wait_for_turn(self) -> bool:
        """Wait until somebody waits, and then for the interval; False when it is closed."""
        with self._state:
            self._state.wait_for(lambda: self._closed or self._waiting)
            return not self._state.wait_for(lambda: self._closed, self.poll_interval)

    def close(self) -> None:
        with self._state:
            self._closed = True
            self._state.notify_all()
        if self._polling is not None:
            self._polling.join()


class IterationReader(StorageReader):
    """One reader's place in what a storage iterates over.

    :raises StartError: as `ITransactionSource.open`.
    """

    _source: IterationSource

    def __init__(self, source: IterationSource, start: bytes) -> None:
        super().__init__(source, own_instance(source.storage))
        # The last transaction that was read.
        self._tid = start
        # What is being read: the storage's transactions up to its last one.
        self._found: Generator[Any] | None = None
        # The storage's last transaction, and the source's count of changes, up to which it was.
        self._read_to: tuple[bytes, int] | None = None
        try:
            self._check_start()
        except BaseException:
            self.close()
            raise

    def _check_start(self) -> None:
        """Raise StartError if the primary cannot continue after the start (protocol, section 6)."""
        start = self._tid
        if start == NO_TID or first_of(iterate(self._storage, start, start)) is not None:
            return
        earlier = p64(u64(start) - 1)
        before = last_before(self._storage, earlier, earlier)
        last = last_tid(self._storage)
        after = first_of(transactions(self._storage, self._tid, last, self._source.earliest))
        # Not every storage marks what a pack has left.
        was_packed = start <= self._source.packed_to
        if after is None:
            if start <= last and (was_packed or (before is not None and status_of(before) == "p")):
                return
            raise TidTooHigh(start, max(last, before.tid if before else NO_TID))
        if not was_packed and status_of(after) != "p":
            raise Diverged(start, before.tid if before else None, after.tid)

    def _next_transaction(self) -> Pieces | None:
        while True:
            if self._found is None:
                # Asked before the storage is: what is committed in between counts as new.
                changes = self._source.changes
                last = last_tid(self._storage)
                if (last, changes) == self._read_to:
                    return None
                if self._source.limit() is not None:
                    # What comes next is not complete; when it is, that counts as a change.
                    self._read_to = last, changes
                    return None
                if last < self._tid:
                    raise TidTooHigh(self._tid, last)
                self._read_to = last, changes
                self._found = transactions(self._storage, self._tid, last, self._source.earliest)
            found = next(self._found, None)
            if found is not None:
                return self._transaction(found)
            self._found = None

    def _transaction(self, found: Any) -> Pieces:
        begin = self._begin(self._tid, *fields_of(found))
        yield from self._pieces_of(begin, records_of(found), Store)
        self._tid = found.tid

    def _has_changed(self) -> bool:
        return self._read_to is None or self._source.changes != self._read_to[1]

    def close(self) -> None:
        super().close()
        if self._found is not None:
            self._found.close()
            self._found = None
        instance, self._storage = self._storage, self._source.storage
        release(self._source.storage, instance)

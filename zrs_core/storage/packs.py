"""Packs of a storage to which transactions are applied."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from ZODB.Connection import TransactionMetaData

from ..errors import NotWritten


class Packs:
    """Whether the storage of a sink is being packed.

    A pack of FileStorage keeps what the records point back to that were there when it began. It
    fails over one that comes later and points back to what it has left behind (`copyOne` of
    `ZODB.FileStorage.fspack`, 5.5 to 6.4: a PackError or an AssertionError). An application is kept
    from bringing that about, since `undoLog` is refused during a pack; what is replicated is not.
    So as long as `running` is true, a sink stores records with their data. It also lets the pack,
    which needs the lock for commits again and again, have it after each transaction.

    :param begin: called before each pack, while nobody can commit.
    :param done: called after each pack.
    """

    def __init__(
        self,
        storage: Any,
        *,
        begin: Callable[[], None] = lambda: None,
        done: Callable[[], None] = lambda: None,
    ) -> None:
        self._storage = storage
        self._begin = begin
        self._done = done
        self._lock = threading.Lock()
        self._running = 0

    @property
    def running(self) -> bool:
        return self._running > 0

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """To pack the storage in. It waits for the end of a transaction that is being applied."""
        # What is not in the file yet when the pack begins must not point back either. To begin a
        # transaction is the public way to be in between those of others.
        between = TransactionMetaData()
        self._count(1)
        try:
            try:
                self._storage.tpc_begin(between, self._storage.lastTransaction())
                self._begin()
            finally:
                # Also if it has failed: FileStorage's then holds the lock, and would for ever.
                self._storage.tpc_abort(between)
            try:
                yield
            finally:
                # Also after a failure: the file may be replaced already.
                self._done()
        finally:
            self._count(-1)

    @contextlib.contextmanager
    def cutting_off(self) -> Iterator[None]:
        """To cut something off in behind the end of the file.

        :raises NotWritten: that fails, and a pack is running. It takes what is left there for a
            transaction (`copyRest` of `ZODB.FileStorage.fspack`, 5.5 to 6.4), so that whatever
            follows would be cut off with that when the file is opened again.
        """
        try:
            yield
        except OSError as error:
            if self.running:
                raise NotWritten(error) from error
            raise

    def _count(self, change: int) -> None:
        with self._lock:
            self._running += change

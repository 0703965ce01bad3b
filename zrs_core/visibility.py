"""The last transaction that readers of a secondary see.

A pack of the primary removes all records that are not current at its time from the transactions
before that time, and marks these transactions as packed. A secondary that receives some of them
after the pack is, after each but the last, in a state that the primary never had: objects are
missing, and changes that were made together are not. Such a run of packed transactions ends with
the first transaction that is not marked, or when the primary has nothing more to send. Readers see
the state before the run until then, and all of it at once afterwards.

The transactions of a run are in the storage as soon as they come, so that a lost connection loses
nothing. A note beside the storage names the transaction before the run, so that a run that is not
complete is known after a restart too.

A storage that was empty before the run has no earlier state, and other storages than a FileStorage
cannot show one. Their readers see each transaction as it comes; the node is not ready meanwhile.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from ZODB.fsIndex import fsIndex

from .messages import NO_TID


class Note(Protocol):
    """The record that a run has begun, which survives a restart."""

    def write(self, tid: bytes) -> None:
        """Record that a run has begun after the transaction `tid`; return when it is on disk."""

    def remove(self) -> None:
        """Remove the record, if there is one."""


class NoNote:
    """A note for a storage beside which nothing can be recorded."""

    def write(self, tid: bytes) -> None:
        """Record nothing."""

    def remove(self) -> None:
        """There is nothing to remove."""


class Visibility:
    """Decides which transactions readers see. Thread-safe.

    `incomplete` is true as long as the storage holds a part of a run. `held` is then the last
    transaction that readers see, if later ones are held back from them; otherwise None.

    :param last: the last transaction that the storage holds.
    :param deliver: called with a tid and oids when objects change for readers.
    :param note: records that a run has begun.
    :param holds: hold transactions back; False where readers see them in any case.
    """

    def __init__(
        self,
        last: bytes,
        deliver: Callable[[bytes, list[bytes]], None],
        note: Note | None = None,
        *,
        holds: bool = False,
    ) -> None:
        self.incomplete = False
        self.held: bytes | None = None
        self._last = last
        self._deliver = deliver
        self._note: Note = note or NoNote()
        self._noted = False
        self._holds = holds
        # The packed transactions that have begun to come and are not in the storage yet.
        self._coming: deque[bytes] = deque()
        # The objects in the transactions that are held back, as compact as in FileStorage's index.
        self._changed = fsIndex()
        self._lock = threading.Lock()

    def resume(self, before: bytes, changed: Iterable[bytes]) -> None:
        """Continue a run that began after `before`, of which `changed` objects came before."""
        self._noted = True
        self._begin(before, changed)

    def packed_begins(self, tid: bytes) -> None:
        """A packed transaction begins to come. To be called before it is in the storage.

        :raises OSError: the note cannot be written.
        """
        with self._lock:
            while self._coming and self._coming[-1] >= tid:
                # It was given up, and comes again.
                self._coming.pop()
            self._coming.append(tid)
            noted, self._noted, last = self._noted, True, self._last
        if not noted:
            try:
                self._note.write(last)
            except BaseException:
                self._noted = False
                raise

    def committed(self, tid: bytes, oids: list[bytes]) -> None:
        """A transaction is in the storage. To be called before readers can find it there."""
        with self._lock:
            while self._coming and self._coming[0] < tid:
                self._coming.popleft()
            packed = bool(self._coming) and self._coming[0] == tid
            if packed:
                self._coming.popleft()
                if not self.incomplete:
                    self._begin(self._last, ())
            self._last = tid
            if self.held is None:
                if not packed and self.incomplete:
                    self._end()
                self._deliver(tid, oids)
            elif packed:
                self._add(oids)
            else:
                self._add(oids)
                self._deliver(tid, list(self._changed))
                self._end()

    def settle(self) -> bool:
        """End the run, since the primary has nothing more to send; return True if there was one.

        Not to be called while a transaction is being applied.
        """
        with self._lock:
            if not self.incomplete:
                return False
            self._coming.clear()
            if self.held is not None:
                self._deliver(self._last, list(self._changed))
            self._end()
            return True

    def limit(self) -> bytes | None:
        """Return the last transaction of the last complete state; None for the last one there is.

        `NO_TID` if there is no complete state.
        """
        if not self.incomplete:
            return None
        held = self.held
        return NO_TID if held is None else held

    def _begin(self, before: bytes, changed: Iterable[bytes]) -> None:
        self._add(changed)
        # What is read without the lock is never wrong in between.
        if self._holds and before != NO_TID:
            self.held = before
        self.incomplete = True

    def _add(self, oids: Iterable[bytes]) -> None:
        for oid in oids:
            self._changed[oid] = 1

    def _end(self) -> None:
        self.incomplete = False
        self.held = None
        self._changed = fsIndex()
        if not self._coming:
            self._noted = False
            self._note.remove()

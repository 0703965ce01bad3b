"""Iteration over the transactions of a storage that provides IStorageIteration.

All functions take the storage that holds the records as they are stored.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Generator, Iterator
from typing import Any

from persistent.timestamp import TimeStamp
from ZODB.Connection import TransactionMetaData
from ZODB.interfaces import IMVCCStorage
from ZODB.utils import p64, u64

from ..held import PACKED
from ..messages import NO_TID
from .committed import Record
from .wrapped import last_tid, own_instance, release

# Differences of tids.
_MINUTE = 1 << 32
_MONTH = 30 * 24 * 60 * _MINUTE

#: A tid before all transactions: no ZODB is older.
FIRST_YEAR = TimeStamp(1996, 1, 1).raw()

# A stretch of history is made longer when it has fewer transactions than the first number, and
# shorter when it has more than the second.
_STRETCH = (500, 2000)


def all_transactions(storage: Any, after: bytes = NO_TID) -> Generator[Any]:
    """All that a storage has now, as its iterator gives them (IStorageTransactionInformation).

    :param after: the transaction after which to begin.
    """
    instance = own_instance(storage)
    try:
        yield from transactions(instance, after, last_tid(instance))
    finally:
        release(storage, instance)


def transactions(
    instance: Any, after: bytes, last: bytes, earliest: bytes = FIRST_YEAR
) -> Generator[Any]:
    """Return the transactions after `after`, and up to `last`.

    :param earliest: a tid before all transactions.
    """
    begin, end = u64(after) + 1, u64(last)
    if not IMVCCStorage.providedBy(instance):
        yield from iterate(instance, p64(begin), p64(end))
        return
    # It is a database: as long as an iterator is open, it keeps a snapshot, and the list of the
    # iterator's transactions is in memory. So it is asked for one stretch after another.
    stretch = _MINUTE
    while begin <= end:
        stop = min(max(begin + stretch, u64(earliest)), end)
        count = 0
        for found in iterate(instance, p64(begin), p64(stop)):
            count += 1
            yield found
        if count < _STRETCH[0]:
            stretch = min(stretch * 2, _MONTH)
        elif count > _STRETCH[1]:
            stretch //= 2
        begin = stop + 1


def status_of(found: Any) -> str:
    """A transaction's status; not every storage has one."""
    status: str = getattr(found, "status", " ")
    return status


def extension_of(found: Any) -> bytes:
    """The bytes of a transaction's extension; pickled where the storage has its objects alone."""
    extension: bytes | None = getattr(found, "extension_bytes", None)
    if extension is None:
        extension = TransactionMetaData(b"", b"", found.extension).extension_bytes
    return extension


def fields_of(found: Any) -> tuple[bytes, str, bytes, bytes, bytes]:
    """Return the tid, status, user, description and extension of a transaction."""
    return found.tid, status_of(found), found.user, found.description, extension_of(found)


def records_of(found: Any) -> Iterator[Record]:
    """A transaction's records; those of one that was undone in place are void."""
    for each in () if status_of(found) == "u" else found:
        yield Record(each.oid, each.tid, each.data or b"", each.data_txn)


def iterate(storage: Any, start: bytes, stop: bytes) -> Generator[Any]:
    """The storage's iterator, closed in the end if it can be."""
    found = storage.iterator(start, stop)
    try:
        # Not `yield from`: what ZODB's iterators raise at their end (StorageStopIteration) makes
        # CPython crash then, up to 3.13 at least.
        for each in found:  # noqa: UP028
            yield each
    finally:
        close = getattr(found, "close", None)
        if close is not None:
            close()


def first_of(found: Generator[Any]) -> Any:
    """Return the first transaction and close the iterator; None if there is no transaction."""
    with contextlib.closing(found):
        return next(found, None)


def last_before(storage: Any, near: bytes, until: bytes) -> Any:
    """Return the last transaction up to `until`; None if there is no such transaction.

    :param near: a tid from which to search backwards.
    """
    stretch = _MINUTE
    while until != NO_TID:
        # No transaction is 0, but for one that RelStorage begins with, of no meaning.
        begin = max(u64(near) - stretch, 1)
        found = deque(iterate(storage, p64(begin), until), maxlen=1)
        if found:
            return found[0]
        if begin == 1:
            break
        stretch *= 2
    return None


def history_before(storage: Any, until: bytes, count: int) -> list[tuple[bytes, bool]]:
    """Return the tids of up to `count` transactions, newest first, and True for a packed one.

    :param until: the highest tid to return.
    """
    end = u64(until)
    found: list[tuple[bytes, bool]] = []
    stretch = _MINUTE
    while end > 0 and len(found) < count:
        begin = max(end - stretch, 1)
        part = [
            (each.tid, status_of(each) == PACKED) for each in iterate(storage, p64(begin), p64(end))
        ]
        found += reversed(part)
        end = begin - 1
        if len(part) < _STRETCH[0]:
            stretch *= 2
    return found[:count]

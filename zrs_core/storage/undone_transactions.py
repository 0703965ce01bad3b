"""Iteration over a FileStorage that has undone transactions.

Old versions of ZODB undid a transaction in place and gave it status `u`; its records are void.
FileStorage's iterator means to skip such a transaction, but raises an UnboundLocalError (5.8 to
6.4). Its `lastInvalidations`, which a ZEO server calls when it starts, does too.
"""

from __future__ import annotations

from typing import Any

from ZODB.FileStorage.FileStorage import FileIterator
from ZODB.FileStorage.format import CorruptedDataError

from .fs_format import FIRST_OFFSET, U64

_UNDONE = "u"


class TransactionIterator(FileIterator):  # type: ignore[misc]
    """FileStorage's iterator, which skips undone transactions."""

    _pos: int

    def __next__(self) -> Any:
        self._skip_undone()
        return super().__next__()

    next = __next__

    def _skip_undone(self) -> None:
        while self._file is not None:
            try:
                header = self._read_txn_header(self._pos)
            except CorruptedDataError:
                # The end, or damage, about which the iterator says more.
                return
            end = self._pos + header.tlen
            undone = header.status == _UNDONE and header.tlen >= header.headerlen()
            within = end + U64.size <= self._file_size
            wanted = self._stop is None or header.tid <= self._stop
            if not (undone and within and wanted) or self._read_num(end) != header.tlen:
                return
            self._ltid = header.tid
            self._pos = end + U64.size


def skip_undone(storage: Any) -> None:
    """Let the iterators of a FileStorage skip undone transactions."""

    def iterator(start: bytes | None = None, stop: bytes | None = None) -> TransactionIterator:
        return TransactionIterator(storage._file_name, start, stop)

    def last_invalidations(count: int) -> list[tuple[bytes, list[bytes]]]:
        with storage._lock:
            file = storage._file
            pos = storage._pos
            while count > 0 and pos > FIRST_OFFSET:
                count -= 1
                file.seek(pos - U64.size)
                pos -= U64.size + U64.unpack(file.read(U64.size))[0]
            file.seek(0)
            found = TransactionIterator(storage._file_name, pos=pos)
            return [(each.tid, [record.oid for record in each]) for each in found]

    storage.iterator = iterator
    storage.lastInvalidations = last_invalidations

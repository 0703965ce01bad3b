"""A pack of a FileStorage that is replicated.

ZODB's pack keeps of each transaction the records that are needed, and drops a transaction without
any. Two things are different here:

- The last transaction that the pack goes over stays, without records if none is needed. A secondary
  may hold any of the transactions that were dropped as its last one. All of them lie before that
  one, which is marked as packed, so the primary can see that a pack removed what the secondary
  names; also after a restart, and in a copy of the file.
- A pack without garbage collection, as that of a secondary is, keeps the records that an undo after
  its time points back to.

The pack writes a new file and gives it its name at the end, so both are done as a whole or not at
all.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ZODB.FileStorage.format import FileStorageFormatter
from ZODB.FileStorage.fspack import GC, FileStoragePacker
from ZODB.POSException import StorageError

from ..held import PACKED
from .fs_format import U64


def packer(
    check: Callable[[], object], limit: Callable[[], bytes] | None = None
) -> Callable[[Any, Any, bytes, bool], Any]:
    """Return a `packer` for a FileStorage.

    :param check: called when the new file is complete, before it gets its name; raises an error if
        the storage's file is not the one at its path.
    :param limit: called when a pack begins; returns the last transaction that it may go over.
    """

    def pack(storage: Any, references: Any, stop: bytes, gc: bool) -> Any:
        if limit is not None:
            stop = min(stop, limit())
        packing = _Packer(storage, references, stop, gc)
        try:
            end = packing.pack()
            if end is None:
                return None
            try:
                # ZODB opens the file again by its path for the last part of a pack, and closes the
                # open file before it gives the new one its name.
                check()
                _check_new(packing)
            except BaseException:
                # `pack` holds this lock when it returns a position. The caller releases it if it
                # gets one. The new file stays: it may be all that is left.
                storage._commit_lock.release()
                raise
            return end, packing.index
        finally:
            packing.close()

    return pack


def _check_new(packing: Any) -> None:
    """:raises StorageError: the new file was removed."""
    path = packing._name + ".pack"
    if not os.path.exists(path):
        raise StorageError(f"{path} was removed before the pack was complete: pack again")


class _AllObjects(GC):  # type: ignore[misc]
    """Keep every object that exists at the time of the pack, but not its older revisions."""

    def findReachable(self) -> None:
        self.buildPackIndex()
        self.reachable = self.oid2curpos
        # ZODB omits this step in a pack without garbage collection. Such a pack fails if an undo
        # that came after its time points back to a record that it drops.
        self.findReachableFromFuture()

    def findrefs(self, pos: int) -> list[bytes]:
        return []


class _Packer(FileStoragePacker):  # type: ignore[misc]
    def __init__(self, storage: Any, references: Any, stop: bytes, gc: bool) -> None:
        super().__init__(storage, references, stop, gc)
        if not gc:
            self.gc = _AllObjects(self._file, self.file_end, stop, gc, references)

    def copyToPacktime(self) -> tuple[int, int]:
        begin: int = self._metadata_size
        old_end, new_end = super().copyToPacktime()
        if old_end > begin:
            last = _header_before(self._file, old_end)
            kept = new_end > begin and _header_before(self._tfile, new_end).tid == last.tid
            # The rest of the pack writes where the file stands.
            self._tfile.seek(new_end)
            if not kept:
                new_end += self._tfile.write(_without_records(last))
        return old_end, new_end


def _header_before(file: Any, end: int) -> Any:
    """Return the header of the transaction that ends at `end`."""
    reader = FileStorageFormatter()
    reader._file = file
    return reader._read_txn_header(end - U64.size - reader._read_num(end - U64.size))


def _without_records(header: Any) -> bytes:
    header.status = PACKED
    header.tlen = header.headerlen()
    return bytes(header.asString()) + U64.pack(header.tlen)

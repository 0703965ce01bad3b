"""Whether two databases hold the same: transactions, records and blobs, byte by byte."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import IO, Any

from ZODB.interfaces import IBlobStorage, IStorageIteration

from ..errors import UnsuitableStorage
from ..messages import NO_TID
from .committed import Header, Record
from .comparison import Comparison, Run
from .fs_access import is_file_storage
from .fs_source import FileStorageSource
from .iteration import all_transactions, extension_of, records_of, status_of
from .sides import FileSide, Side
from .snapshot import BlobFiles, check_existing_blobs, open_snapshot
from .wrapped import as_stored


def compare(
    primary: Any,
    secondary: Any,
    *,
    primary_blobs: str | os.PathLike[str] | None = None,
    secondary_blobs: str | os.PathLike[str] | None = None,
    subset: bool = False,
    max_differences: int = 100,
) -> Comparison:
    """Compare two databases, reading only.

    Where a side is no FileStorage, the records of a transaction are compared in any order, and
    what one side has as a copy may be a back-pointer on the other: a RelStorage keeps neither.

    :param primary: the path of a FileStorage, which may be in use elsewhere and is compared as far
        as it is complete; or an open storage that provides IStorageIteration.
    :param secondary: likewise.
    :param primary_blobs: the directory of the blobs that belong to a path.
    :param secondary_blobs: likewise.
    :param subset: the primary was packed: what it still holds must be in the secondary, which
        may hold more.
    :param max_differences: give up when there are more than this.
    :raises UnsuitableStorage: there is no FileStorage, or no directory of blobs, or a storage that
        does not iterate.
    :raises DamagedFile: one of the files is damaged.
    :raises OSError: a file cannot be read.
    """
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(contextlib.closing(_side(primary, primary_blobs)))
        theirs = stack.enter_context(contextlib.closing(_side(secondary, secondary_blobs)))
        run = Run(ours, theirs, subset=subset)
        for difference in run.differences():
            if len(run.result.differences) >= max_differences:
                run.result.complete = False
                break
            run.result.differences.append(difference)
        return run.result


def _side(storage: Any, blobs: str | os.PathLike[str] | None) -> Side:
    if not isinstance(storage, (str, os.PathLike)):
        return side_of(storage)
    check_existing_blobs(blobs)
    return FileSide(open_snapshot(storage), None if blobs is None else BlobFiles(blobs).open)


def side_of(storage: Any) -> Side:
    """An open storage as a side; closing that leaves the storage open.

    :raises UnsuitableStorage: it does not iterate.
    """
    if not IStorageIteration.providedBy(storage):
        raise UnsuitableStorage(
            f"{storage!r} is neither the path of a FileStorage nor a storage that provides "
            "IStorageIteration"
        )
    open_blob = storage.openCommittedBlobFile if IBlobStorage.providedBy(storage) else None
    if is_file_storage(storage):
        return FileSide(FileStorageSource(storage).open_file(), open_blob)
    return IteratingSide(as_stored(storage), open_blob)


class IteratingSide(Side):
    """An open storage, from behind the transaction `after` on."""

    is_exact = False

    def __init__(
        self,
        storage: Any,
        open_blob: Callable[[bytes, bytes], IO[bytes]] | None,
        after: bytes = NO_TID,
    ) -> None:
        super().__init__(open_blob)
        self._transactions = all_transactions(storage, after)
        self._found: Any = None

    def next_header(self) -> Header | None:
        found = self._found = next(self._transactions, None)
        if found is None:
            return None
        return Header(
            0,
            found.tid,
            status_of(found),
            0,
            0,
            found.user,
            found.description,
            extension_of(found),
        )

    def records(self, header: Header) -> Iterator[Record]:
        return records_of(self._found)

    def close(self) -> None:
        self._transactions.close()

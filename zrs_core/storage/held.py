"""The last transaction that a storage holds, read for a comparison."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import IO, Any

from ..errors import InvalidMessage, NotComparable
from ..held import PACKED, HeldTransaction, digest
from ..messages import MAX_METADATA_SIZE, NO_TID, Transaction
from .blobs import MISSING_BLOB, is_ordinary_record
from .committed import CommittedFile, Record
from .fs_format import FIRST_OFFSET


def held_in_file(
    file: CommittedFile, tid: bytes, blobs_of: Any | None, limit: int
) -> HeldTransaction:
    """The last transaction of a FileStorage's file.

    :param tid: what it must be.
    :param blobs_of: the storage that has its blobs, None without.
    :param limit: the most bytes of records and blobs.
    :raises NotComparable: as `IComparableSink.last_transaction`.
    """
    if file.end <= FIRST_OFFSET or file.last_tid() != tid:
        raise NotComparable("a pack has removed it here")
    pos = file.before(file.end)
    header = file.header(pos)
    if header.end - header.pos > limit:
        raise _too_large(header.end - header.pos, limit)
    before = file.header(file.before(pos)) if pos > FIRST_OFFSET else None
    return read_held(
        (header.tid, header.status, header.user, header.description, header.extension),
        () if header.status == "u" else file.records(header),
        NO_TID if before is None else before.tid,
        before is not None and before.status == PACKED,
        blobs_of,
        limit,
    )


def read_held(
    fields: tuple[bytes, str, bytes, bytes, bytes],
    records: Iterable[Record],
    before: bytes,
    gaps: bool,
    blobs_of: Any | None,
    limit: int,
) -> HeldTransaction:
    """A transaction with these records, after `before`.

    :param fields: its tid, status, user, description and extension.
    :raises NotComparable: as `IComparableSink.last_transaction`.
    """
    header = _header(fields, before)
    if header.status == PACKED:
        raise NotComparable("a pack here has gone over it")
    open_blob = _opener(blobs_of, header.tid)
    digests = {}
    size = 0
    for record in records:
        if record.tid != header.tid:
            raise _never_sent(f"object 0x{record.oid.hex()} has another serial in it")
        digests[record.oid] = digest(record.data)
        size += len(record.data)
        if not is_ordinary_record(record.data):
            size += _size(open_blob(record.oid))
        if size > limit:
            raise _too_large(size, limit)
    return HeldTransaction(before, gaps, header, digests, open_blob)


def _header(fields: tuple[bytes, str, bytes, bytes, bytes], before: bytes) -> Transaction:
    tid, status, user, description, extension = fields
    if tid <= before:
        raise _never_sent("its tid is not above that of the transaction before it")
    if len(extension) > MAX_METADATA_SIZE:
        # A primary leaves it out.
        extension = b""
    try:
        return Transaction(tid, status, user, description, extension)
    except InvalidMessage as error:
        raise _never_sent(f"its {error}") from error


def _never_sent(reason: str) -> NotComparable:
    return NotComparable(f"no primary can send it: {reason}")


def _too_large(size: int, limit: int) -> NotComparable:
    return NotComparable(f"it has at least {size} bytes, and at most {limit} are compared")


def _opener(blobs_of: Any | None, tid: bytes) -> Callable[[bytes], IO[bytes] | None]:
    def open_blob(oid: bytes) -> IO[bytes] | None:
        if blobs_of is None:
            return None
        try:
            file: IO[bytes] = blobs_of.openCommittedBlobFile(oid, tid)
        except MISSING_BLOB:
            return None
        return file

    return open_blob


def _size(blob: IO[bytes] | None) -> int:
    if blob is None:
        return 0
    with blob:
        return os.fstat(blob.fileno()).st_size

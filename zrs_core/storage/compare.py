"""Whether two databases hold the same: transactions, records and blobs, byte by byte."""

from __future__ import annotations

import contextlib
import enum
import hashlib
import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any

from ZODB.interfaces import IBlobStorage, IStorageIteration

from ..errors import UnsuitableStorage
from .blobs import MISSING_BLOB, is_blob_record
from .committed import FIRST, CommittedFile, Header, Record
from .filestorage import FileStorageSource, is_file_storage
from .generic import all_transactions, extension_of, records_of, status_of
from .snapshot import BlobFiles, check_existing_blobs, open_snapshot
from .wrapped import as_stored

_BLOCK_SIZE = 1024 * 1024
_LONGEST_VALUE = 60


class Kind(enum.Enum):
    """What a difference is about."""

    #: The secondary lacks a transaction, a record or a blob.
    MISSING = "missing"
    #: The secondary holds one that the primary does not.
    EXTRA = "extra"
    #: Both hold the transaction, with another status, user, description or extension.
    TRANSACTION = "transaction"
    #: Both hold the record, with other contents.
    RECORD = "record"
    #: Both hold the blob, with other contents.
    BLOB = "blob"


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference, in transaction `tid` and, unless it is None, in object `oid`."""

    kind: Kind
    tid: bytes
    oid: bytes | None
    text: str

    def __str__(self) -> str:
        where = f"transaction 0x{self.tid.hex()}"
        if self.oid is not None:
            where += f", object 0x{self.oid.hex()}"
        return f"{where}: {self.text}"


@dataclass(slots=True)
class Comparison:
    """What was compared: counts of what the primary holds, and what differs.

    `bytes` are those of records and blobs. `missing_blobs` counts blob records whose blob is on
    neither side, which is no difference. `complete` is False if there were more differences than
    were asked for, so that the comparison was given up.
    """

    transactions: int = 0
    records: int = 0
    blobs: int = 0
    missing_blobs: int = 0
    bytes: int = 0
    differences: list[Difference] = field(default_factory=list)
    complete: bool = True

    @property
    def equal(self) -> bool:
        return not self.differences


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
        ours = stack.enter_context(_Side.open(primary, primary_blobs))
        theirs = stack.enter_context(_Side.open(secondary, secondary_blobs))
        run = _Run(ours, theirs, subset)
        for difference in run.differences():
            if len(run.result.differences) >= max_differences:
                run.result.complete = False
                break
            run.result.differences.append(difference)
        return run.result


class _Side(ABC):
    """One of the two databases. A transaction's records are read before the next transaction."""

    #: Whether it has records in the order, and with the back-pointers, with which they came.
    is_exact = True

    def __init__(self, open_blob: Callable[[bytes, bytes], IO[bytes]] | None) -> None:
        self._open_blob = open_blob

    @staticmethod
    @contextlib.contextmanager
    def open(storage: Any, blobs: str | os.PathLike[str] | None) -> Iterator[_Side]:
        if isinstance(storage, (str, os.PathLike)):
            check_existing_blobs(blobs)
            open_blob = None if blobs is None else _opener_in(blobs)
            side: _Side = _FileSide(open_snapshot(storage), open_blob)
        elif not IStorageIteration.providedBy(storage):
            raise UnsuitableStorage(
                f"{storage!r} is neither the path of a FileStorage nor a storage that provides "
                "IStorageIteration"
            )
        else:
            open_blob = storage.openCommittedBlobFile if IBlobStorage.providedBy(storage) else None
            if is_file_storage(storage):
                side = _FileSide(FileStorageSource(storage).open_file(), open_blob)
            else:
                side = _IteratingSide(as_stored(storage), open_blob)
        with contextlib.closing(side):
            yield side

    @abstractmethod
    def headers(self) -> Iterator[Header]:
        """Of all transactions."""

    @abstractmethod
    def records(self, header: Header) -> Iterator[Record]:
        """Of the transaction that came last from `headers`."""

    def open_blob(self, record: Record) -> IO[bytes] | None:
        if self._open_blob is not None:
            with contextlib.suppress(*MISSING_BLOB):
                return self._open_blob(record.oid, record.tid)
        return None

    def close(self) -> None:  # noqa: B027
        """Nothing of its own to give up."""


def _opener_in(directory: str | os.PathLike[str]) -> Callable[[bytes, bytes], IO[bytes]]:
    files = BlobFiles(directory)
    return lambda oid, tid: open(files.path(oid, tid), "rb")


class _FileSide(_Side):
    def __init__(
        self, file: CommittedFile, open_blob: Callable[[bytes, bytes], IO[bytes]] | None
    ) -> None:
        super().__init__(open_blob)
        self._file = file

    def headers(self) -> Iterator[Header]:
        pos = FIRST
        while pos < self._file.end:
            header = self._file.header(pos)
            yield header
            pos = header.next

    def records(self, header: Header) -> Iterator[Record]:
        # The records of an undone transaction are void, and not replicated.
        return iter(()) if header.status == "u" else self._file.records(header)

    def close(self) -> None:
        self._file.close()


class _IteratingSide(_Side):
    is_exact = False

    def __init__(self, storage: Any, open_blob: Callable[[bytes, bytes], IO[bytes]] | None) -> None:
        super().__init__(open_blob)
        self._storage = storage
        self._found: Any = None

    def headers(self) -> Iterator[Header]:
        for found in all_transactions(self._storage):
            self._found = found
            yield Header(
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


class _Run:
    def __init__(self, primary: _Side, secondary: _Side, subset: bool) -> None:
        self.result = Comparison()
        self._primary = primary
        self._secondary = secondary
        self._subset = subset
        self._exact = primary.is_exact and secondary.is_exact
        if subset:
            self._compare_records = self._records_of_subset
        elif self._exact:
            self._compare_records = self._records
        else:
            self._compare_records = self._records_in_any_order

    def differences(self) -> Iterator[Difference]:
        there = self._secondary.headers()
        their = next(there, None)
        for our in self._primary.headers():
            self.result.transactions += 1
            while their is not None and their.tid < our.tid:
                yield from self._extra(their)
                their = next(there, None)
            if their is None or their.tid != our.tid:
                yield Difference(Kind.MISSING, our.tid, None, "is not in the secondary")
                continue
            yield from self._headers(our, their)
            yield from self._compare_records(our, their)
            their = next(there, None)
        while their is not None:
            yield from self._extra(their)
            their = next(there, None)

    def _extra(self, header: Header) -> Iterator[Difference]:
        if not self._subset:
            yield Difference(Kind.EXTRA, header.tid, None, "is not in the primary")

    def _headers(self, our: Header, their: Header) -> Iterator[Difference]:
        for name in ("status", "user", "description", "extension"):
            here, there = getattr(our, name), getattr(their, name)
            # A pack marks what it has gone over.
            packed = self._subset and name == "status" and here == "p" and there == " "
            if here != there and not packed:
                yield Difference(Kind.TRANSACTION, our.tid, None, _text(name, here, there))

    def _records(self, our: Header, their: Header) -> Iterator[Difference]:
        ours, theirs = self._primary.records(our), self._secondary.records(their)
        for record, other in itertools.zip_longest(ours, theirs):
            if record is None:
                yield Difference(Kind.EXTRA, our.tid, other.oid, "is not in the primary")
                continue
            self._count(record)
            if other is None:
                yield Difference(Kind.MISSING, our.tid, record.oid, "is not in the secondary")
            elif record.oid != other.oid:
                text = _text("the object at its place", _hex(record.oid), _hex(other.oid))
                yield Difference(Kind.RECORD, our.tid, record.oid, text)
                return
            else:
                yield from self._record(our.tid, record, other)
                if _may_have_blob(record):
                    yield from self._blob(our.tid, record, bool(record.data))

    def _records_in_any_order(self, our: Header, their: Header) -> Iterator[Difference]:
        # Of an object that has several records in a transaction, the last one counts.
        theirs = {other.oid: _digested(other) for other in self._secondary.records(their)}
        ours = {}
        for record in self._primary.records(our):
            self._count(record)
            ours[record.oid] = _digested(record), _may_have_blob(record), bool(record.data)
        for oid, (record, may_have_blob, needs_blob) in ours.items():
            found = theirs.pop(oid, None)
            if found is None:
                yield Difference(Kind.MISSING, our.tid, oid, "is not in the secondary")
                continue
            yield from self._record(our.tid, record, found)
            if may_have_blob:
                yield from self._blob(our.tid, record, needs_blob)
        for oid in theirs:
            yield Difference(Kind.EXTRA, our.tid, oid, "is not in the primary")

    def _records_of_subset(self, our: Header, their: Header) -> Iterator[Difference]:
        theirs: dict[bytes, list[Record]] = {}
        for other in self._secondary.records(their):
            theirs.setdefault(other.oid, []).append(_digested(other))
        for record in self._primary.records(our):
            self._count(record)
            candidates = theirs.get(record.oid)
            if candidates is None:
                yield Difference(Kind.MISSING, our.tid, record.oid, "is not in the secondary")
                continue
            # A transaction may hold more than one record of an object.
            digested = _digested(record)
            found = [list(self._record(our.tid, digested, other)) for other in candidates]
            yield from min(found, key=len)
            if _may_have_blob(record):
                yield from self._blob(our.tid, record, bool(record.data))

    def _count(self, record: Record) -> None:
        self.result.records += 1
        self.result.bytes += len(record.data)

    def _record(self, tid: bytes, our: Record, their: Record) -> Iterator[Difference]:
        if our.tid != their.tid:
            text = _text("the record's tid", _hex(our.tid), _hex(their.tid))
            yield Difference(Kind.RECORD, tid, our.oid, text)
        # Where a pack removes the record that has the data, it copies them.
        copied = self._subset and our.data_txn is None
        if self._exact and our.data_txn != their.data_txn and not copied:
            text = _text("data_txn", _hex(our.data_txn), _hex(their.data_txn))
            yield Difference(Kind.RECORD, tid, our.oid, text)
        if our.data != their.data:
            yield Difference(Kind.RECORD, tid, our.oid, "the data differ")

    def _blob(self, tid: bytes, record: Record, needed: bool) -> Iterator[Difference]:
        with contextlib.ExitStack() as stack:
            here, there = (
                None if file is None else stack.enter_context(file)
                for file in (self._primary.open_blob(record), self._secondary.open_blob(record))
            )
            if here is None and there is None:
                self.result.missing_blobs += needed
            elif here is None:
                if needed:
                    yield Difference(Kind.EXTRA, tid, record.oid, "the primary has no blob")
            else:
                self.result.blobs += 1
                self.result.bytes += os.fstat(here.fileno()).st_size
                if there is None:
                    yield Difference(Kind.MISSING, tid, record.oid, "the secondary has no blob")
                else:
                    yield from _blob_contents(tid, record.oid, here, there)


def _blob_contents(
    tid: bytes, oid: bytes, here: IO[bytes], there: IO[bytes]
) -> Iterator[Difference]:
    sizes = [os.fstat(file.fileno()).st_size for file in (here, there)]
    if sizes[0] != sizes[1]:
        yield Difference(Kind.BLOB, tid, oid, _text("the blob's size", *sizes))
        return
    pos = 0
    while block := here.read(_BLOCK_SIZE):
        if block != there.read(_BLOCK_SIZE):
            text = f"the blobs differ between byte {pos} and byte {pos + len(block)}"
            yield Difference(Kind.BLOB, tid, oid, text)
            return
        pos += len(block)


def _may_have_blob(record: Record) -> bool:
    # An undone creation has no data, and may have a file; it is not missed if it has none.
    return not record.data or is_blob_record(record.data)


def _digested(record: Record) -> Record:
    """The record with a digest for its data: a whole transaction's data may be too much."""
    return record._replace(data=hashlib.sha256(record.data).digest())


def _text(name: str, here: object, there: object) -> str:
    return f"{name} is {_short(here)} in the primary, {_short(there)} in the secondary"


def _short(value: object) -> str:
    text = value if isinstance(value, str) and value.startswith("0x") else repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


def _hex(value: bytes | None) -> str | None:
    return None if value is None else f"0x{value.hex()}"

"""Goes through two sides at once, and tells what differs."""

from __future__ import annotations

import contextlib
import enum
import hashlib
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

from ..messages import NO_TID
from .blobs import is_blob_record
from .committed import Header, Record
from .sides import Side

_BLOCK_SIZE = 1024 * 1024
_LONGEST_VALUE = 60


class Kind(enum.Enum):
    """What a difference is about."""

    #: The secondary lacks a transaction, or a record of one.
    MISSING = "missing"
    #: The secondary holds one that the primary does not.
    EXTRA = "extra"
    #: The secondary lacks a blob.
    MISSING_BLOB = "missing blob"
    #: The secondary holds a blob that the primary does not.
    EXTRA_BLOB = "extra blob"
    #: Both hold the transaction, with another status, user, description or extension.
    TRANSACTION = "meta data"
    #: Both hold the record, with other contents.
    RECORD = "record"
    #: Both hold the blob, with other contents.
    BLOB = "blob"
    #: One of them cannot be read there, since its file is damaged.
    DAMAGED = "damaged"
    #: An object refers to one that is not there, or its blob is not.
    DANGLING = "dangling reference"
    #: A record is not made of pickles.
    UNREADABLE = "unreadable record"


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference, in transaction `tid` and, unless it is None, in object `oid`."""

    kind: Kind
    tid: bytes
    oid: bytes | None
    text: str

    @property
    def name(self) -> str:
        """The kind in words: `missing transaction`, `meta data`, `record`, ..."""
        name: str = self.kind.value
        if self.kind in (Kind.MISSING, Kind.EXTRA):
            name += " transaction" if self.oid is None else " record"
        return name

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
    were asked for, or a file was too damaged to go on, so that the comparison was given up.
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


class Run:
    """One comparison of two sides.

    :param subset: as in `compare`.
    :param blobs: whether the blobs of records are compared.
    :param names: what the texts of differences call the two.
    :param packed: one side was packed since, so that it may have a copy of data that the other
        side shares with an earlier record. Replication copies them while a pack is running.
    :param heads: transactions that were read from the sides already, to begin with.
    """

    def __init__(
        self,
        primary: Side,
        secondary: Side,
        *,
        subset: bool = False,
        blobs: bool = True,
        names: tuple[str, str] = ("the primary", "the secondary"),
        packed: bool = False,
        heads: tuple[Header | None, Header | None] = (None, None),
    ) -> None:
        self.result = Comparison()
        self._packed = packed
        self._heads = heads
        #: The last transaction that was compared.
        self.tid = NO_TID
        self._primary = primary
        self._secondary = secondary
        self._subset = subset
        self._blobs = blobs
        self._here, self._there = names
        self._exact = primary.is_exact and secondary.is_exact
        if subset:
            self._compare_records = self._records_of_subset
        elif self._exact:
            self._compare_records = self._records
        else:
            self._compare_records = self._records_in_any_order

    def differences(self) -> Iterator[Difference]:
        """What differs, as it is found; `result` counts meanwhile.

        :raises DamagedFile: a file is damaged where the other one has nothing to go by.
        """
        our, their = self._heads
        while True:
            if our is None and their is None:
                yield from self._between()
            our = our or self._next(self._primary)
            their = their or self._next(self._secondary)
            if our is None and their is not None:
                our = self._grown(self._primary, their.tid)
            elif their is None and our is not None:
                their = self._grown(self._secondary, our.tid)
            if our is not None and (their is None or our.tid <= their.tid):
                self.result.transactions += 1
            if our is not None and their is not None and our.tid == their.tid:
                yield from self._transaction(our, their)
                self.tid = our.tid
                our = their = None
            elif our is not None and (their is None or our.tid < their.tid):
                yield from self._missing(our, their is None)
                our = None
            elif their is not None:
                yield from self._extra(their, our is None)
                their = None
            else:
                return

    def _between(self) -> Iterator[Difference]:
        """To be done when both sides stand behind the same transaction."""
        return iter(())

    def _next(self, side: Side) -> Header | None:
        return side.next_header()

    def _grown(self, side: Side, tid: bytes) -> Header | None:
        return side.grown(tid)

    def _transaction(self, our: Header, their: Header) -> Iterator[Difference]:
        yield from self._headers(our, their)
        yield from self._compare_records(our, their)

    def _missing(self, header: Header, at_end: bool) -> Iterator[Difference]:
        """A transaction that the secondary has not; `at_end`, and nothing after it either."""
        self.tid = header.tid
        yield Difference(Kind.MISSING, header.tid, None, f"is not in {self._there}")

    def _extra(self, header: Header, at_end: bool) -> Iterator[Difference]:
        self.tid = header.tid
        if not self._subset:
            yield Difference(Kind.EXTRA, header.tid, None, f"is not in {self._here}")

    def _headers(self, our: Header, their: Header) -> Iterator[Difference]:
        for name in ("status", "user", "description", "extension"):
            here, there = getattr(our, name), getattr(their, name)
            # A pack marks what it has gone over.
            packed = self._subset and name == "status" and here == "p" and there == " "
            if here != there and not packed:
                yield Difference(Kind.TRANSACTION, our.tid, None, self._text(name, here, there))

    def _records(self, our: Header, their: Header) -> Iterator[Difference]:
        ours, theirs = self._primary.records(our), self._secondary.records(their)
        for record, other in itertools.zip_longest(ours, theirs):
            if record is None:
                yield Difference(Kind.EXTRA, our.tid, other.oid, f"is not in {self._here}")
                continue
            self._count(record)
            if other is None:
                yield Difference(Kind.MISSING, our.tid, record.oid, f"is not in {self._there}")
            elif record.oid != other.oid:
                text = self._text("the object at its place", _hex(record.oid), _hex(other.oid))
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
                yield Difference(Kind.MISSING, our.tid, oid, f"is not in {self._there}")
                continue
            yield from self._record(our.tid, record, found)
            if may_have_blob:
                yield from self._blob(our.tid, record, needs_blob)
        for oid in theirs:
            yield Difference(Kind.EXTRA, our.tid, oid, f"is not in {self._here}")

    def _records_of_subset(self, our: Header, their: Header) -> Iterator[Difference]:
        theirs: dict[bytes, list[Record]] = {}
        for other in self._secondary.records(their):
            theirs.setdefault(other.oid, []).append(_digested(other))
        for record in self._primary.records(our):
            self._count(record)
            candidates = theirs.get(record.oid)
            if candidates is None:
                yield Difference(Kind.MISSING, our.tid, record.oid, f"is not in {self._there}")
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
            text = self._text("the record's tid", _hex(our.tid), _hex(their.tid))
            yield Difference(Kind.RECORD, tid, our.oid, text)
        # Where a pack removes the record that has the data, it copies them.
        copied = (self._subset and our.data_txn is None) or (
            self._packed and None in (our.data_txn, their.data_txn)
        )
        if self._exact and our.data_txn != their.data_txn and not copied:
            text = self._text("data_txn", _hex(our.data_txn), _hex(their.data_txn))
            yield Difference(Kind.RECORD, tid, our.oid, text)
        if our.data != their.data:
            yield Difference(Kind.RECORD, tid, our.oid, "the data differ")

    def _blob(self, tid: bytes, record: Record, needed: bool) -> Iterator[Difference]:
        if not self._blobs:
            return
        if self._primary.has_digests_alone or self._secondary.has_digests_alone:
            yield from self._blob_by_digest(tid, record, needed)
            return
        with contextlib.ExitStack() as stack:
            here, there = (
                None if file is None else stack.enter_context(file)
                for file in (self._primary.open_blob(record), self._secondary.open_blob(record))
            )
            size = None if here is None else os.fstat(here.fileno()).st_size
            yield from self._blob_presence(tid, record, needed, size, there is not None)
            if here is not None and there is not None:
                yield from self._blob_contents(tid, record.oid, here, there)

    def _blob_by_digest(self, tid: bytes, record: Record, needed: bool) -> Iterator[Difference]:
        here, there = (each.blob_digest(record) for each in (self._primary, self._secondary))
        size = None if here is None else here.size
        yield from self._blob_presence(tid, record, needed, size, there is not None)
        if here is not None and there is not None:
            if here.size != there.size:
                text = self._text("the blob's size", here.size, there.size)
                yield Difference(Kind.BLOB, tid, record.oid, text)
            elif here != there:
                yield Difference(Kind.BLOB, tid, record.oid, "the blobs differ")

    def _blob_presence(
        self, tid: bytes, record: Record, needed: bool, size: int | None, is_there: bool
    ) -> Iterator[Difference]:
        """:param size: of the primary's blob, None if it has none."""
        if size is not None:
            self.result.blobs += 1
            self.result.bytes += size
            if not is_there:
                yield Difference(Kind.MISSING_BLOB, tid, record.oid, f"{self._there} has no blob")
        elif not is_there:
            self.result.missing_blobs += needed
        elif needed:
            yield Difference(Kind.EXTRA_BLOB, tid, record.oid, f"{self._here} has no blob")

    def _blob_contents(
        self, tid: bytes, oid: bytes, here: IO[bytes], there: IO[bytes]
    ) -> Iterator[Difference]:
        sizes = [os.fstat(file.fileno()).st_size for file in (here, there)]
        if sizes[0] != sizes[1]:
            yield Difference(Kind.BLOB, tid, oid, self._text("the blob's size", *sizes))
            return
        pos = 0
        while block := here.read(_BLOCK_SIZE):
            if block != there.read(_BLOCK_SIZE):
                text = f"the blobs differ between byte {pos} and byte {pos + len(block)}"
                yield Difference(Kind.BLOB, tid, oid, text)
                return
            pos += len(block)

    def _text(self, name: str, here: object, there: object) -> str:
        return f"{name} is {_short(here)} in {self._here}, {_short(there)} in {self._there}"


def _may_have_blob(record: Record) -> bool:
    # An undone creation has no data, and may have a file; it is not missed if it has none.
    return not record.data or is_blob_record(record.data)


def _digested(record: Record) -> Record:
    """The record with a digest for its data: a whole transaction's data may be too much."""
    return record._replace(data=hashlib.sha256(record.data).digest())


def _short(value: object) -> str:
    text = value if isinstance(value, str) and value.startswith("0x") else repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


def _hex(value: bytes | None) -> str | None:
    return None if value is None else f"0x{value.hex()}"

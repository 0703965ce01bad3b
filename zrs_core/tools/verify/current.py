"""The current revisions of objects as of a transaction, whatever came before."""

from __future__ import annotations

import contextlib
import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ...errors import Unverifiable
from ...held import PACKED
from ...messages import NO_TID
from ...storage.blobs import is_blob_record
from ...storage.committed import Header, Record
from ...storage.comparison import Difference, Kind
from ...storage.sides import BlobDigest, Side
from ...tids import describe_tid
from .blobs import Key
from .files import VerifiedFile
from .references import BadRecord, references

_ROOT = bytes(8)
_POLL_INTERVAL = 0.05


class Current(NamedTuple):
    """The current record of an object: its data by their SHA-256."""

    oid: bytes
    tid: bytes
    size: int
    digest: bytes
    is_blob: bool


class CurrentObjects(ABC):
    """The current record of each object of a side, as of the last transaction that was read.

    :param wait: seconds for which a transaction that the side does not hold yet is waited for.
    :param step: called now and then.
    :raises DamagedFile: the file is damaged.
    """

    def __init__(self, side: Side, wait: float, step: Callable[[], None]) -> None:
        self.side = side
        #: The last transaction that was read.
        self.tid = NO_TID
        self._step = step
        self._wait = wait
        #: The transaction that comes next.
        self.head = side.next_header()

    def read_packed(self) -> bytes:
        """Read what a pack has marked, at the beginning; return the last tid of that."""
        while self.head is not None and self.head.status == PACKED:
            self._read(self.head)
        return self.tid

    def read_until(self, tid: bytes) -> None:
        """Read all transactions up to `tid`."""
        deadline = time.monotonic() + self._wait
        while True:
            while self.head is not None and self.head.tid <= tid:
                self._read(self.head)
            if self.head is not None or self.tid >= tid:
                return
            self.head = self.side.grown(tid)
            if self.head is None:
                if not self.side.may_grow or time.monotonic() >= deadline:
                    return
                self._step()
                time.sleep(_POLL_INTERVAL)

    def check_state(self, name: str) -> None:
        """Check that a pack has left the current records as of the last one that was read.

        :param name: what the database is called.
        :raises Unverifiable: it has not.
        """
        if self.head is not None and self.head.status == PACKED:
            raise Unverifiable(
                f"{name} was packed beyond {describe_tid(self.tid)}, where the other one ends, and "
                "does not hold the objects as of then: wait until the other one has more"
            )

    def _read(self, header: Header) -> None:
        self._step()
        if header.status != "u":
            self._add(header)
        self.tid = header.tid
        self.head = self.side.next_header()

    @abstractmethod
    def _add(self, header: Header) -> None:
        """Add the records of a transaction."""

    @abstractmethod
    def current(self) -> Iterator[Current]:
        """Return the current records in the order of their oids, without those without data."""

    @abstractmethod
    def references(self, oid: bytes) -> set[bytes] | None:
        """Return the objects that the current record of one refers to; None without a record.

        :raises BadRecord: the record cannot be read.
        """

    @abstractmethod
    def blob_digest(self, current: Current) -> BlobDigest | None:
        """Return the digest of an object's blob; None if there is none."""

    def reachable(self) -> set[bytes]:
        """Return the objects that can be reached from the root, which a pack would keep.

        :raises BadRecord: a record that cannot be read is among them.
        """
        found: set[bytes] = set()
        left = [_ROOT]
        while left:
            oid = left.pop()
            if oid not in found and (referred := self.references(oid)) is not None:
                found.add(oid)
                left += referred
        return found


class FileObjects(CurrentObjects):
    """The current objects in a FileStorage's file; a few tens of bytes of memory for each."""

    side: VerifiedFile

    def __init__(self, side: VerifiedFile, wait: float, step: Callable[[], None]) -> None:
        # BTrees take longer to import than a large file to compare, and are seldom needed.
        from ZODB.fsIndex import fsIndex

        self._file = side.file
        self._places = fsIndex()
        super().__init__(side, wait, step)

    def _add(self, header: Header) -> None:
        for oid, pos in self._file.record_places(header):
            self._places[oid] = pos

    def __contains__(self, oid: bytes) -> bool:
        pos = self._places.get(oid)
        # Without data, its creation was undone.
        return pos is not None and bool(self._file.record_at(pos).data)

    def __iter__(self) -> Iterator[Record]:
        """In the order of their oids; those without data are left out."""
        for pos in self._places.values():
            record = self._file.record_at(pos)
            if record.data:
                yield record

    def current(self) -> Iterator[Current]:
        for record in self:
            yield _current_of(record)

    def references(self, oid: bytes) -> set[bytes] | None:
        pos = self._places.get(oid)
        return None if pos is None else references(self._file.record_at(pos).data)

    def blob_digest(self, current: Current) -> BlobDigest | None:
        return self.side.blob_digest(Record(current.oid, current.tid, b"", None))


class StreamObjects(CurrentObjects):
    """The current objects of a side that is read once; some hundred bytes of memory for each."""

    def __init__(self, side: Side, wait: float, step: Callable[[], None]) -> None:
        self._found: dict[bytes, tuple[Current, bytes | None, BlobDigest | None]] = {}
        super().__init__(side, wait, step)

    def _add(self, header: Header) -> None:
        for record in self.side.records(header):
            if not record.data:
                self._found.pop(record.oid, None)
                continue
            current = _current_of(record)
            referred: bytes | None = None
            with contextlib.suppress(BadRecord):
                referred = b"".join(references(record.data))
            blob = self.side.blob_digest(record) if current.is_blob else None
            self._found[record.oid] = current, referred, blob

    def current(self) -> Iterator[Current]:
        for oid in sorted(self._found):
            yield self._found[oid][0]

    def references(self, oid: bytes) -> set[bytes] | None:
        found = self._found.get(oid)
        if found is None:
            return None
        if found[1] is None:
            raise BadRecord(f"the record of object 0x{oid.hex()} cannot be read")
        return {found[1][place : place + 8] for place in range(0, len(found[1]), 8)}

    def blob_digest(self, current: Current) -> BlobDigest | None:
        return self._found[current.oid][2]


def objects_of(side: Side, wait: float, step: Callable[[], None]) -> CurrentObjects:
    """Return the current objects of a side, of which nothing was read yet."""
    kind = FileObjects if isinstance(side, VerifiedFile) else StreamObjects
    return kind(side, wait, step)  # type: ignore[arg-type]


def _current_of(record: Record) -> Current:
    oid, tid, data, _ = record
    return Current(oid, tid, len(data), hashlib.sha256(data).digest(), is_blob_record(data))


class CurrentPair:
    """Compares the current records of two sides: oid by oid, their tids, data and blobs.

    :param blobs: True to compare blobs by their digests. False to collect them in `keys`.
    """

    def __init__(self, ours: CurrentObjects, theirs: CurrentObjects, *, blobs: bool) -> None:
        self._sides = ours, theirs
        self._blobs = blobs
        self._reachable: list[set[bytes] | None] = [None, None]
        self.records = 0
        self.bytes = 0
        #: Blobs that A has and that were compared.
        self.blobs = 0
        #: The blobs of objects that both sides have, where they were not compared.
        self.keys: list[Key] = []
        #: Objects that one side alone has, and that cannot be reached there.
        self.garbage = 0

    def differences(self, step: Callable[[], None]) -> Iterator[Difference]:
        """:raises DamagedFile: one of the files is damaged."""
        ours, theirs = (each.current() for each in self._sides)
        our, their = next(ours, None), next(theirs, None)
        while our is not None or their is not None:
            step()
            if their is None or (our is not None and our.oid < their.oid):
                yield from self._one_sided(our, 0)
                our = next(ours, None)
            elif our is None or their.oid < our.oid:
                yield from self._one_sided(their, 1)
                their = next(theirs, None)
            else:
                yield from self._pair(our, their)
                our, their = next(ours, None), next(theirs, None)

    def _pair(self, our: Current, their: Current) -> Iterator[Difference]:
        self.records += 1
        self.bytes += our.size
        if our.tid != their.tid:
            text = f"its current record is of 0x{our.tid.hex()} in A, 0x{their.tid.hex()} in B"
            yield Difference(Kind.RECORD, max(our.tid, their.tid), our.oid, text)
        elif our.digest != their.digest:
            yield Difference(Kind.RECORD, our.tid, our.oid, "the data differ")
        elif our.is_blob and self._blobs:
            yield from self._blob(our, their)
        elif our.is_blob:
            self.keys.append((our.tid, our.oid))

    def _blob(self, our: Current, their: Current) -> Iterator[Difference]:
        here, there = self._sides[0].blob_digest(our), self._sides[1].blob_digest(their)
        if here is not None:
            self.blobs += 1
            self.bytes += here.size
        if here == there:
            return
        kind, text = Kind.BLOB, "the blobs differ"
        if here is None:
            kind, text = Kind.EXTRA_BLOB, "A has no blob"
        elif there is None:
            kind, text = Kind.MISSING_BLOB, "B has no blob"
        elif here.size != there.size:
            text = f"the blob's size is {here.size} in A, {there.size} in B"
        yield Difference(kind, our.tid, our.oid, text)

    def _one_sided(self, current: Current | None, side: int) -> Iterator[Difference]:
        if current is None:
            return
        if current.oid not in self._reachable_in(side):
            self.garbage += 1
            return
        kind = (Kind.MISSING, Kind.EXTRA)[side]
        yield Difference(kind, current.tid, current.oid, f"is not in {'BA'[side]}")

    def _reachable_in(self, side: int) -> set[bytes] | _All:
        found = self._reachable[side]
        if found is None:
            found = set()
            with contextlib.suppress(BadRecord):
                found = self._sides[side].reachable()
            self._reachable[side] = found
        # The root is always there, if anything can be known.
        return found or _All()


class _All:
    """A set that has everything in it."""

    def __contains__(self, oid: object) -> bool:
        return True

"""The current revisions of the objects in a FileStorage's file, whatever its history is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from ..storage.blobs import is_blob_record
from ..storage.committed import Record
from ..storage.comparison import Difference, Kind
from .blobs import Key
from .files import VerifiedFile
from .references import BadRecord, references

_ROOT = bytes(8)


class CurrentRecords:
    """The current record of each object that a file has; a few tens of bytes of memory for each.

    :param until: the last transaction that counts.
    :param step: called now and then.
    :raises DamagedFile: the file is damaged.
    """

    def __init__(self, side: VerifiedFile, until: bytes, step: Callable[[], None]) -> None:
        # BTrees take longer to import than a large file to compare, and are seldom needed.
        from ZODB.fsIndex import fsIndex

        self._file = side.file
        self._places = fsIndex()
        self.transactions = 0
        while (header := side.next_header()) is not None and header.tid <= until:
            self.transactions += 1
            step()
            if header.status != "u":
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

    def reachable(self) -> set[bytes]:
        """The objects that can be reached from the root; what a pack would keep.

        :raises BadRecord: a record that cannot be read is among them.
        """
        found: set[bytes] = set()
        left = [_ROOT]
        while left:
            oid = left.pop()
            pos = self._places.get(oid)
            if oid not in found and pos is not None:
                found.add(oid)
                left += references(self._file.record_at(pos).data)
        return found


class CurrentPair:
    """Compares the current records of two files: oid by oid, their tids and their data."""

    def __init__(self, ours: CurrentRecords, theirs: CurrentRecords) -> None:
        self._sides = ours, theirs
        self._reachable: list[set[bytes] | None] = [None, None]
        self.records = 0
        self.bytes = 0
        #: Objects that one side alone has, and that cannot be reached there.
        self.garbage = 0
        #: The blobs of objects that both sides have.
        self.blobs: list[Key] = []

    def differences(self, step: Callable[[], None]) -> Iterator[Difference]:
        """:raises DamagedFile: one of the files is damaged."""
        ours, theirs = map(iter, self._sides)
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

    def _pair(self, our: Record, their: Record) -> Iterator[Difference]:
        self.records += 1
        self.bytes += len(our.data)
        if our.tid != their.tid:
            text = f"its current record is of 0x{our.tid.hex()} in A, 0x{their.tid.hex()} in B"
            yield Difference(Kind.RECORD, max(our.tid, their.tid), our.oid, text)
        elif our.data != their.data:
            yield Difference(Kind.RECORD, our.tid, our.oid, "the data differ")
        elif is_blob_record(our.data):
            self.blobs.append((our.tid, our.oid))

    def _one_sided(self, record: Record | None, side: int) -> Iterator[Difference]:
        if record is None:
            return
        if record.oid not in self._reachable_in(side):
            self.garbage += 1
            return
        kind = (Kind.MISSING, Kind.EXTRA)[side]
        yield Difference(kind, record.tid, record.oid, f"is not in {'BA'[side]}")

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

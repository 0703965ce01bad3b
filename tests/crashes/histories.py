"""The shapes of transactions that a secondary applies: each makes a primary's storage."""

from __future__ import annotations

import contextlib
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ZODB.Connection import TransactionMetaData
from ZODB.utils import p64, z64

from ..databases import open_file_storage, traffic

_CLASS = b"\x80\x03cpersistent.mapping\nPersistentMapping\nq\x00."
_ROOT = _CLASS + b"\x80\x03}q\x01X\x04\x00\x00\x00dataq\x02}q\x03s."
_BLOB = b"\x80\x03cZODB.blob\nBlob\nq\x01.\x80\x03N."

# Transactions that the secondary has from the beginning.
_HELD = 2


class Writer:
    """Commits to a storage, a transaction at a time."""

    def __init__(self, storage: Any, directory: Path) -> None:
        self.storage = storage
        self.directory = directory
        self._serials: dict[int, bytes] = {}

    def commit(
        self,
        records: dict[int, bytes | None] | None = None,
        blobs: dict[int, bytes] | None = None,
        **meta: Any,
    ) -> bytes:
        """One transaction of such records (zeros are a hole that proves nothing) and blobs."""
        metadata = TransactionMetaData(
            meta.get("user", ""), meta.get("description", ""), meta.get("extension", {})
        )
        self.storage.tpc_begin(metadata)
        for oid, data in (records or {}).items():
            self.storage.store(p64(oid), self._serials.get(oid, z64), data, "", metadata)
        for oid, data in (blobs or {}).items():
            path = self.directory / f"{oid}.incoming"
            path.write_bytes(data)
            self.storage.storeBlob(
                p64(oid), self._serials.get(oid, z64), _BLOB, str(path), "", metadata
            )
        self.storage.tpc_vote(metadata)
        tid: bytes = self.storage.tpc_finish(metadata)
        for oid in (*(records or ()), *(blobs or ())):
            self._serials[oid] = tid
        return tid

    def undo(self) -> None:
        """Undo the last transaction."""
        metadata = TransactionMetaData("", "undo")
        self.storage.tpc_begin(metadata)
        _, oids = self.storage.undo(self.storage.undoLog(0, 1)[0]["id"], metadata)
        self.storage.tpc_vote(metadata)
        tid = self.storage.tpc_finish(metadata)
        for oid in oids or ():
            self._serials[int.from_bytes(oid, "big")] = tid


def _record(chance: random.Random, size: int) -> bytes:
    """A record; what is not random in it are zeros, as in what a hole leaves."""
    return _CLASS + chance.randbytes(size // 2) + bytes(size - size // 2)


def one_small_record(writer: Writer, chance: random.Random) -> None:
    writer.commit({1: _record(chance, 200)})


def many_records(writer: Writer, chance: random.Random) -> None:
    writer.commit({oid: _record(chance, chance.randrange(300)) for oid in range(1, 200)})


def blobs_of_all_sizes(writer: Writer, chance: random.Random) -> None:
    sizes = (0, 1, 65_536, 65_537)
    writer.commit(
        {1: _record(chance, 50)}, {10 + n: chance.randbytes(size) for n, size in enumerate(sizes)}
    )
    writer.commit({}, {10: b"another", 300: b"x"})


def undo_with_back_pointers(writer: Writer, chance: random.Random) -> None:
    for _ in range(4):
        writer.commit({oid: _record(chance, 100) for oid in range(1, 6)})
    for _ in range(3):
        writer.undo()


def undone_creation(writer: Writer, chance: random.Random) -> None:
    writer.commit({7: _record(chance, 100)}, {8: b"a blob"})
    writer.undo()
    writer.undo()
    writer.undo()


def large_transactions(writer: Writer, chance: random.Random) -> None:
    for _ in range(2):
        writer.commit({oid: _record(chance, 5_000) for oid in range(1, 20)}, {30: b"blob"})
        writer.commit({1: _record(chance, 10)})


def many_transactions(writer: Writer, chance: random.Random) -> None:
    for number in range(60):
        writer.commit({1 + number % 7: _record(chance, chance.randrange(400))})


def extensions(writer: Writer, chance: random.Random) -> None:
    for size in (0, 1, 600, 5_000):
        writer.commit(
            {1: _record(chance, 20)},
            user="u" * size,
            description="ü" * size,
            extension={"request": "x" * size, "numbers": [1, 2.5, None]} if size else {},
        )


def no_records(writer: Writer, chance: random.Random) -> None:
    for _ in range(3):
        writer.commit()
        writer.commit(description="none")


def packed(writer: Writer, chance: random.Random) -> None:
    """What a pack of the primary has left, and more."""
    many_transactions(writer, chance)
    writer.storage.pack(time.time() + 1, lambda data: [], gc=False)
    undo_with_back_pointers(writer, chance)


def mixed(writer: Writer, chance: random.Random) -> None:
    with traffic(writer.storage, seed=chance.randrange(100)) as commits:
        commits.commit(40)


def restored(writer: Writer, chance: random.Random) -> None:
    """What has come from elsewhere already, as in a cascade."""
    origin = open_file_storage(writer.directory / "origin")
    with traffic(origin, seed=chance.randrange(100)) as commits:
        commits.commit(20)
        writer.storage.copyTransactionsFrom(origin)


def records_that_are_zeros(writer: Writer, chance: random.Random) -> None:
    for _ in range(5):
        writer.commit({oid: bytes(chance.randrange(1, 3_000)) for oid in range(1, 4)})


def from_nothing(writer: Writer, chance: random.Random) -> None:
    """For a secondary that has to be made first."""
    writer.commit({1: _record(chance, 200)}, {2: b"blob"})


#: What a shape is called, and what makes it.
SHAPES: dict[str, Callable[[Writer, random.Random], None]] = {
    shape.__name__: shape
    for shape in (
        one_small_record,
        many_records,
        blobs_of_all_sizes,
        undo_with_back_pointers,
        undone_creation,
        large_transactions,
        many_transactions,
        extensions,
        no_records,
        packed,
        mixed,
        restored,
        records_that_are_zeros,
        from_nothing,
    )
}


def make(primary: Path, secondary: Path, shape: str) -> None:
    """A primary's storage, and that of a secondary that has its first transactions."""
    primary.mkdir(parents=True)
    with contextlib.closing(open_file_storage(primary)) as storage:
        writer = Writer(storage, primary)
        for number in range(_HELD):
            writer.commit({0: _ROOT, number + 1: _ROOT})
        if shape == from_nothing.__name__:
            secondary.mkdir()
        else:
            open_file_storage(secondary).close()
            (secondary / "Data.fs.index").unlink()
            shutil.copy(primary / "Data.fs", secondary / "Data.fs")
        SHAPES[shape](writer, random.Random(shape))

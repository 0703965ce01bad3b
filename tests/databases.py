"""Databases with a bit of everything in them, and how to compare two of them."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import pickle
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import transaction
import ZODB
from persistent.mapping import PersistentMapping
from ZODB.blob import Blob, is_blob_record
from ZODB.FileStorage import FileStorage

from zrs_core.storage.blobs import MISSING_BLOB

BLOB_SIZES = (0, 1, 65_535, 65_536, 65_537, 131_072, 300_000)


def open_file_storage(path: Path, blobs: bool = True) -> FileStorage:
    """The FileStorage `Data.fs` in a directory, with `blobs` beside it."""
    path.mkdir(exist_ok=True)
    return FileStorage(str(path / "Data.fs"), blob_dir=str(path / "blobs") if blobs else None)


class Traffic:
    """Commits of all kinds, the same for the same seed (but for their tids)."""

    def __init__(self, db: ZODB.DB, seed: int = 0, blobs: bool = True) -> None:
        self._db = db
        self._random = random.Random(seed)
        self._blobs = blobs
        self._sizes = itertools.cycle(BLOB_SIZES)
        self._transactions = transaction.TransactionManager()
        self._connection = db.open(self._transactions)
        self._count = 0

    def commit(self, count: int = 1) -> None:
        """Commit `count` transactions, most of them small."""
        for _ in range(count):
            self._count += 1
            self._change()
            current = self._transactions.get()
            current.setUser(f"user{self._count}", "")
            current.note(f"change {self._count} – ünïcode")
            if self._count % 3 == 0:
                current.setExtendedInfo("request", f"POST /{self._count}")
                current.setExtendedInfo("numbers", [self._count, 1.5, None, (b"x", True)])
            self._transactions.commit()

    def _change(self) -> None:
        root = self._connection.root()
        chance = self._random.random()
        key = f"k{self._random.randrange(40)}"
        if self._count > 5 and chance < 0.05 and (undoable := self._db.undoLog(0, 1)):
            self._db.undo(undoable[0]["id"], self._transactions.get())
        elif self._blobs and chance < 0.12:
            root[key] = Blob(self._random.randbytes(next(self._sizes)))
        elif chance < 0.15:
            root[key] = PersistentMapping(data=self._random.randbytes(200_000))
        elif chance < 0.2 and key in root:
            del root[key]
        else:
            root[key] = PersistentMapping()
            for number in range(self._random.randrange(4)):
                root[key][str(number)] = PersistentMapping(value=self._random.random())

    def pack(self) -> None:
        self._db.pack()

    def close(self) -> None:
        self._transactions.abort()
        self._connection.close()


@contextlib.contextmanager
def traffic(storage: Any, seed: int = 0, blobs: bool = True) -> Iterator[Traffic]:
    """A database over `storage` with traffic to commit; both are closed in the end."""
    db = ZODB.DB(storage)
    try:
        commits = Traffic(db, seed, blobs)
        try:
            yield commits
        finally:
            commits.close()
    finally:
        db.close()


class Stored(NamedTuple):
    """A transaction as a storage has it; records are (oid, tid, data, data_txn, blob)."""

    tid: bytes
    status: str
    user: bytes
    description: bytes
    extension: bytes
    records: list[tuple[Any, ...]]


def contents(storage: Any) -> list[Stored]:
    """All that a storage holds."""
    return [
        Stored(
            each.tid,
            each.status,
            each.user,
            each.description,
            each.extension_bytes,
            [
                (record.oid, record.tid, record.data, record.data_txn, blob_of(storage, record))
                for record in each
            ],
        )
        for each in storage.iterator()
    ]


def assert_holds_what_a_pack_left(here: list[Stored], packed: list[Stored]) -> None:
    """Whether `here`, which was not packed, has every record of `packed`.

    A pack marks transactions and turns back-pointers into data; the rest stays.
    """
    by_tid = {each.tid: each for each in here}
    for each in packed:
        other = by_tid[each.tid]
        assert other[2:5] == each[2:5]
        records = {(oid, data, blob) for oid, _, data, _, blob in other.records}
        assert {(oid, data, blob) for oid, _, data, _, blob in each.records} <= records


def as_sent_by_zc_zrs(transactions: list[Stored]) -> list[Stored]:
    """What a primary of zc.zrs sends: extensions are loaded, and pickled in a way of its own."""

    def pickled_again(value: object) -> bytes:
        file = io.BytesIO()
        pickler = pickle.Pickler(file, 1)
        pickler.fast = True
        pickler.dump(value)
        return file.getvalue()

    return [
        each._replace(extension=each.extension and pickled_again(pickle.loads(each.extension)))
        for each in transactions
    ]


def as_kept_by_zc_zrs(transactions: list[Stored]) -> list[Stored]:
    """What a secondary of zc.zrs keeps: of an empty blob the record alone, and extensions as its
    ZODB pickles them, whether they came so or not.
    """
    return [
        each._replace(
            extension=each.extension and pickle.dumps(pickle.loads(each.extension), 3),
            records=[(*record[:-1], record[-1] or None) for record in each.records],
        )
        for each in transactions
    ]


def blob_of(storage: Any, record: Any) -> bytes | None:
    """The bytes of a record's blob, if it is one and has them."""
    if not record.data or not is_blob_record(record.data):
        return None
    try:
        return Path(storage.loadBlob(record.oid, record.tid)).read_bytes()
    except (*MISSING_BLOB, AttributeError):
        return None


def stored(path: Path) -> list[Stored]:
    """`contents` of the FileStorage in a directory, which nobody has open."""
    blobs = path / "blobs"
    options = {"blob_dir": str(blobs)} if blobs.exists() else {}
    storage = FileStorage(str(path / "Data.fs"), read_only=True, **options)
    try:
        return contents(storage)
    finally:
        storage.close()


def blob_files(path: Path) -> dict[str, bytes]:
    """The blobs in a directory, by their names below it."""
    files = {}
    for directory, _, names in os.walk(path):
        for name in names:
            if name.endswith(".blob"):
                file = Path(directory, name)
                files[str(file.relative_to(path))] = file.read_bytes()
    return files


def temporary_files(path: Path) -> list[str]:
    """What lies in a blob directory that is neither a blob nor ZODB's own."""
    found = []
    for directory, _, names in os.walk(path):
        found += [
            str(Path(directory, name).relative_to(path))
            for name in names
            if not name.endswith(".blob") and name != ".layout"
        ]
        found += [
            str(Path(directory, name).relative_to(path))
            for name in names
            if Path(directory).name == "tmp"
        ]
    return found

"""Databases to be replicated: the same bytes for the same arguments, on any machine.

Transactions of records are written as FileStorage would have written them, but straight to the
file: with a million of them that is seconds instead of minutes.
"""

from __future__ import annotations

import contextlib
import itertools
import pickle
import random
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from persistent.mapping import PersistentMapping
from ZODB.blob import Blob, FilesystemHelper
from ZODB.FileStorage import FileStorage
from ZODB.fsIndex import fsIndex

_TRANSACTION = struct.Struct(">8sQcHHH")
_RECORD = struct.Struct(">8s8sQQHQ")
_NUMBER = struct.Struct(">Q")
_MAGIC = b"FS30"
_FIRST = len(_MAGIC)

_BLOB = pickle.dumps(Blob, 3) + pickle.dumps(None, 3)
_BLOCK = 1 << 20

_DESCRIPTION = b"/site/folder/document/edit"
#: How many times an object is written, on average.
_REVISIONS = 4
#: 2007-03-01: the days after it that a million seconds take are of the same month.
_FIRST_MINUTE = (((107 * 12 + 2) * 31) * 24) * 60


class History(NamedTuple):
    """A generated database: `size` is the bytes of records and blobs."""

    path: Path
    blobs: Path | None
    transactions: int
    records: int
    size: int
    last_tid: bytes


def tid_of(number: int) -> bytes:
    """The id of a transaction by its number: one in each second."""
    minutes, seconds = divmod(number, 60)
    return struct.pack(">LL", _FIRST_MINUTE + minutes, seconds * 2**32 // 60)


def generate_records(directory: Path, transactions: int, records: int, size: int) -> History:
    """So many transactions of so many records of `size` bytes each, if they are not there yet."""
    path = directory / f"{transactions}x{records}x{size}" / "Data.fs"
    with _unless_there(path.parent) as unfinished:
        if unfinished is not None:
            _write_records(unfinished / path.name, transactions, records, _mappings(size))
    count = transactions * records
    return History(path, None, transactions, count, count * size, tid_of(transactions - 1))


def generate_blobs(directory: Path, count: int, size: int) -> History:
    """So many transactions with a blob of `size` bytes each, if they are not there yet."""
    path = directory / f"{count}-blobs-of-{size}" / "Data.fs"
    with _unless_there(path.parent) as unfinished:
        if unfinished is not None:
            _write_records(unfinished / path.name, count, 1, itertools.repeat(_BLOB))
            _write_blobs(unfinished / "blobs", count, size)
    return History(path, path.parent / "blobs", count, count, count * size, tid_of(count - 1))


def cut(history: History, transactions: int) -> tuple[Path, Path]:
    """A file with so many of its first transactions, and its index."""
    path = history.path.parent / f"first-{transactions}" / history.path.name
    with _unless_there(path.parent) as unfinished:
        if unfinished is not None:
            copy = unfinished / path.name
            shutil.copyfile(history.path, copy)
            with copy.open("r+b") as file:
                file.truncate(_end_of(history.path, transactions))
            FileStorage(str(copy)).close()
    return path, path.with_name(f"{path.name}.index")


def _end_of(path: Path, transactions: int) -> int:
    pos = _FIRST
    with path.open("rb") as file:
        for _ in range(transactions):
            file.seek(pos)
            _, length, *_ = _TRANSACTION.unpack(file.read(_TRANSACTION.size))
            pos += length + _NUMBER.size
    return pos


@contextlib.contextmanager
def _unless_there(directory: Path) -> Iterator[Path | None]:
    """A directory to be filled, which becomes `directory` after it; None if that is there."""
    if directory.exists():
        yield None
        return
    unfinished = directory.with_name("unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    yield unfinished
    unfinished.rename(directory)


def _write_records(path: Path, transactions: int, records: int, data: Iterator[bytes]) -> None:
    index = fsIndex()
    objects = max(records, transactions * records // _REVISIONS)
    pos = _FIRST
    with path.open("wb") as file:
        file.write(_MAGIC)
        for number in range(transactions):
            tid, begin = tid_of(number), pos
            pos += _TRANSACTION.size + len(_DESCRIPTION)
            pieces: list[bytes] = []
            # The objects take turns: no transaction has one twice, and the first has the root.
            for each in range(number * records, (number + 1) * records):
                oid, record = _NUMBER.pack(each % objects), next(data)
                pieces += _RECORD.pack(oid, tid, index.get(oid, 0), begin, 0, len(record)), record
                index[oid] = pos
                pos += _RECORD.size + len(record)
            length = pos - begin
            header = _TRANSACTION.pack(tid, length, b" ", 0, len(_DESCRIPTION), 0)
            file.write(header + _DESCRIPTION + b"".join(pieces) + _NUMBER.pack(length))
            pos += _NUMBER.size
    # Without it FileStorage would read the whole file when it is opened.
    index.save(pos, f"{path}.index")


def _mappings(size: int) -> Iterator[bytes]:
    """Records of `size` bytes as ZODB writes them, each of a mapping with random bytes."""
    kind = pickle.dumps(PersistentMapping, 3)
    data = b"?" * size
    while len(kind) + len(state := pickle.dumps({"data": data}, 3)) > size:
        data = data[1:]
    before, after = state.split(data)
    rng = random.Random(1)
    while True:
        yield b"".join((kind, before, rng.randbytes(len(data)), after))


def _write_blobs(directory: Path, count: int, size: int) -> None:
    rng = random.Random(1)
    helper = FilesystemHelper(str(directory))
    helper.create()
    for number in range(count):
        oid = _NUMBER.pack(number % max(1, count // _REVISIONS))
        helper.getPathForOID(oid, create=True)
        with open(helper.getBlobFilename(oid, tid_of(number)), "wb") as file:
            for begin in range(0, size, _BLOCK):
                file.write(rng.randbytes(min(_BLOCK, size - begin)))

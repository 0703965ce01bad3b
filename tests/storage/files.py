"""Files that look like a FileStorage's, more or less."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from ZODB.Connection import TransactionMetaData
from ZODB.FileStorage import FileStorage
from ZODB.utils import z64


def _begin(length, status=b" ", sizes=(0, 0, 0)):
    return b"FS30" + struct.pack(">8sQcHHH", b"\x03tid-one", length, status, *sizes)


#: What begins with the magic of a FileStorage, and goes on with something else.
GARBAGE = [
    pytest.param(b"FS30 of a song, and not of a database at all", id="text"),
    pytest.param(b"FS30x", id="a byte"),
    pytest.param(_begin(23, b"x") + struct.pack(">Q", 23), id="a status that there is not"),
    pytest.param(_begin(5) + bytes(100), id="a length that is too short"),
    pytest.param(_begin(23, sizes=(9, 9, 9)) + bytes(100), id="texts longer than it"),
    pytest.param(_begin(1 << 40) + bytes(100), id="a length beyond the end"),
    pytest.param(_begin(23) + struct.pack(">Q", 24) + bytes(9), id="two lengths"),
]


def unfinished(directory: Path) -> Path:
    """A FileStorage with nothing but a transaction that was voted for: a kill left it so."""
    path = directory / "Data.fs"
    storage = FileStorage(str(path))
    metadata = TransactionMetaData()
    storage.tpc_begin(metadata)
    storage.store(storage.new_oid(), z64, b"record", "", metadata)
    storage.tpc_vote(metadata)
    data = path.read_bytes()
    storage.tpc_abort(metadata)
    storage.close()
    for each in directory.glob("Data.fs*"):
        os.remove(each)
    path.write_bytes(data)
    return path

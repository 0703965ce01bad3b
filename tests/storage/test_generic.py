"""What a sink makes of an undo whose original is not there any more."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import transaction
from ZODB.blob import Blob, BlobStorage, is_blob_record
from ZODB.FileStorage import FileStorage
from ZODB.utils import p64, z64

from ..databases import contents, open_file_storage


def current(storage):
    """The present records and blobs of a storage."""
    found = {}
    for number in range(len(storage)):
        oid = p64(number)
        data, tid = storage.load(oid)
        blob = Path(storage.loadBlob(oid, tid)).read_bytes() if is_blob_record(data) else None
        found[oid] = data, tid, blob
    return found


def file_storage(path):
    return open_file_storage(path)


def blob_storage(path):
    path.mkdir()
    return BlobStorage(str(path / "blobs"), FileStorage(str(path / "Data.fs")))


@pytest.mark.parametrize("make", [file_storage, blob_storage])
def test_an_undo_of_what_was_packed_away_here(
    make, open_primary, open_secondary, database, network, tmp_path
):
    db = database(open_primary())
    secondary = open_secondary(make(tmp_path / "other"))
    connection = db.open()
    root = connection.root()
    root["number"], root["blob"] = 1, Blob(b"first" * 20_000)
    transaction.commit()
    first = db.storage.lastTransaction()
    root["number"] = 2
    with root["blob"].open("w") as file:
        file.write(b"second")
    transaction.commit()
    undone = db.undoLog(0, 1)[0]["id"]
    network.run()
    secondary_db = database(secondary)
    secondary_db.pack()
    assert first not in [each.tid for each in contents(secondary)]

    db.undo(undone)
    transaction.commit()
    root["after"] = "the undo"
    transaction.commit()
    network.run()
    assert secondary.progress.connections == 1
    assert current(secondary) == current(db.storage)
    assert {record[3] for each in contents(db.storage)[-2:] for record in each.records} == {
        first,
        None,
    }
    (undo, _) = contents(secondary)[-2:]
    assert {oid: data_txn for oid, _, _, data_txn, _ in undo.records} == {z64: None, p64(1): None}
    with secondary_db.transaction() as there:
        assert there.root()["number"] == 1
        with there.root()["blob"].open() as file:
            assert file.read() == b"first" * 20_000
    assert not [name for name in os.listdir(secondary.temporaryDirectory()) if "zrs-" in name]

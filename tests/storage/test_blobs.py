from __future__ import annotations

import pickle

import pytest
import ZODB
from persistent.mapping import PersistentMapping
from ZODB.blob import Blob
from ZODB.blob import is_blob_record as zodb_is_blob_record

from zrs_core.storage.blobs import is_blob_record

from ..databases import open_file_storage


def records(tmp_path):
    db = ZODB.DB(open_file_storage(tmp_path / "db"))
    with db.transaction() as connection:
        connection.root()["blob"] = Blob(b"x")
        connection.root()["mapping"] = PersistentMapping(name="ZODB.blob Blob")
        connection.root()["empty"] = Blob()
    found = [record.data for each in db.storage.iterator() for record in each]
    db.close()
    return found


def test_it_agrees_with_zodb_about_real_records(tmp_path):
    answers = [
        (is_blob_record(data), bool(zodb_is_blob_record(data))) for data in records(tmp_path)
    ]
    assert set(answers) == {(True, True), (False, False)}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("pickler", [pickle.Pickler, pickle._Pickler])
def test_a_blob_is_recognised_in_every_pickle_protocol(protocol, pickler):
    assert is_blob_record(pickle.dumps(Blob, protocol) + pickle.dumps(None, protocol))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"cZODB.blob\nBlobby\n.N.",
        b"cZODB.blob\nBlob\n",
        b"(cZODB.blob\nBlob\nNt.N.",
        b"xcZODB.blob\nBlob\n.N.",
        pickle.dumps(PersistentMapping) + pickle.dumps({"ZODB.blob": "Blob"}),
    ],
)
def test_what_only_looks_like_a_blob_is_none(data):
    assert not is_blob_record(data)
    assert not zodb_is_blob_record(data)

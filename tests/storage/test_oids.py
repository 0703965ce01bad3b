"""The oids that a primary gives out, after a change of servers."""

from __future__ import annotations

import pytest
import ZODB
from persistent.mapping import PersistentMapping
from zc.zlibstorage import ZlibStorage
from ZODB.blob import BlobStorage
from ZODB.Connection import TransactionMetaData
from ZODB.FileStorage import FileStorage
from ZODB.utils import p64, u64, z64

from ..databases import open_file_storage


def grow(storage, objects):
    """Commit so many objects; the highest oid."""
    db = ZODB.DB(storage)
    with db.transaction() as connection:
        for number in range(objects):
            connection.root()[number] = PersistentMapping()
    highest = max(oid for oid in iterate(storage))
    db.close()
    return u64(highest)


def iterate(storage):
    iterator = storage.iterator()
    yield from (record.oid for each in iterator for record in each)
    iterator.close()


KINDS = {
    "path": lambda path: str(path / "Data.fs"),
    "storage": lambda path: FileStorage(str(path / "Data.fs")),
    "blobs around": lambda path: BlobStorage(
        str(path / "blobs"), FileStorage(str(path / "Data.fs"))
    ),
    "wrapped": lambda path: ZlibStorage(FileStorage(str(path / "Data.fs"))),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("objects", [0, 5])
def test_they_begin_above_those_in_the_file(kind, objects, tmp_path, open_primary):
    highest = grow(open_file_storage(tmp_path, blobs=False), objects)
    data = (tmp_path / "Data.fs").read_bytes()
    for _ in range(2):
        primary = open_primary(KINDS[kind](tmp_path))
        first = u64(primary.new_oid())
        assert first > highest + 10_000
        assert (first - highest) % 10_000 == 1
        assert u64(primary.new_oid()) == first + 1
        primary.close()
    # What is not used leaves no trace.
    assert (tmp_path / "Data.fs").read_bytes() == data


def test_those_of_a_new_database_begin_at_the_begin(tmp_path, open_primary):
    primary = open_primary(str(tmp_path / "Data.fs"))
    assert grow(primary, 3) == 3


def test_a_client_keeps_what_it_has_fetched_in_advance(
    tmp_path, network, open_primary, open_secondary
):
    old = open_primary()
    secondary = open_secondary()
    # As a ZEO client fetches them, and uses the first.
    fetched = [old.new_oid() for _ in range(100)]
    metadata = TransactionMetaData()
    old.tpc_begin(metadata)
    old.store(fetched[0], z64, b"record", "", metadata)
    old.tpc_vote(metadata)
    old.tpc_finish(metadata)
    network.run()
    secondary.close()
    new = open_primary(open_file_storage(tmp_path / "secondary"), ("", 8001))
    assert not {new.new_oid() for _ in range(100)} & {*fetched}


def test_two_servers_over_the_same_objects_begin_differently(tmp_path, open_primary):
    grow(open_file_storage(tmp_path, blobs=False), 5)
    begins = set()
    for _ in range(20):
        primary = open_primary(str(tmp_path / "Data.fs"))
        begins.add(primary.new_oid())
        primary.close()
    assert len(begins) > 1


def test_a_secondary_does_not_give_any(open_primary, open_secondary, tmp_path, network):
    grow(open_file_storage(tmp_path / "secondary"), 5)
    secondary = open_secondary()
    files = secondary._storage
    before = files._oid
    open_primary(secondary, ("", 8001))
    assert files._oid == before


def test_the_last_oids_are_not_left_out(open_primary, tmp_path):
    storage = open_file_storage(tmp_path)
    metadata = TransactionMetaData()
    storage.tpc_begin(metadata)
    storage.store(p64((1 << 64) - 9_000), z64, b"record", "", metadata)
    storage.tpc_vote(metadata)
    storage.tpc_finish(metadata)
    primary = open_primary(storage)
    assert u64(primary.new_oid()) == (1 << 64) - 8_999

"""Storages above and below: transforming wrappers, and replication over replication."""

from __future__ import annotations

import os

import pytest
import transaction
import ZODB
from ZODB.blob import Blob
from ZODB.FileStorage import FileStorage
from ZODB.utils import p64, z64

from zrs_core import Primary, Secondary
from zrs_core.errors import UnsuitableStorage

from ..databases import Traffic, blob_files, contents, open_file_storage, traffic
from .conftest import ADDRESS
from .hexstorage import HexStorage

SECOND = ("", 8001)


def hex_database(path):
    """A directory with a database in hexadecimal form, with a blob that was changed, undone too."""
    db = ZODB.DB(HexStorage(open_file_storage(path)))
    with db.transaction() as connection:
        connection.root()["blob"] = Blob(b"first" * 20_000)
    with db.transaction() as connection:
        with connection.root()["blob"].open("w") as file:
            file.write(b"second")
    db.undo(db.undoLog(0, 1)[0]["id"])
    transaction.commit()
    db.close()
    return path


class TestTransformingWrappers:
    def test_blobs_are_recognised_below_one(
        self, open_primary, open_secondary, database, network, tmp_path
    ):
        primary, secondary = open_primary(), open_secondary()
        commits = Traffic(database(HexStorage(primary)))
        commits.commit(60)
        commits.close()
        network.run()
        assert contents(secondary) == contents(primary)
        records = [record for each in contents(primary) for record in each.records]
        assert {record[2][:2] for record in records if record[2]} == {b".h"}
        blobs = blob_files(tmp_path / "primary" / "blobs")
        assert blob_files(tmp_path / "secondary" / "blobs") == blobs != {}

        read = database(HexStorage(secondary)).open()
        written = database(HexStorage(primary)).open()
        assert sorted(read.root()) == sorted(written.root())
        for key, value in written.root().items():
            if isinstance(value, Blob):
                with value.open() as ours, read.root()[key].open() as theirs:
                    assert theirs.read() == ours.read()
        # What comes later is seen through the wrapper too.
        written.root()["later"] = "here"
        transaction.commit()
        network.run()
        read.sync()
        assert read.root()["later"] == "here"

    def test_blobs_are_recognised_before_a_database_is_opened(
        self, open_primary, open_secondary, network, tmp_path
    ):
        hex_database(tmp_path / "primary")
        primary, secondary = open_primary(), open_secondary()
        network.run()
        assert contents(secondary) == contents(primary)
        blobs = blob_files(tmp_path / "primary" / "blobs")
        assert len(blobs) == 3
        assert blob_files(tmp_path / "secondary" / "blobs") == blobs

    def test_a_missing_blob_is_noticed_below_one(
        self, open_primary, open_secondary, database, network, tmp_path
    ):
        hex_database(tmp_path / "primary")
        primary = open_primary()
        database(HexStorage(primary))
        os.remove(primary.loadBlob(p64(1), primary.lastTransaction()))
        open_secondary()
        network.run()
        assert primary.missing_blobs == 1

    def test_without_blobs_none_are_looked_for(
        self, open_primary, open_secondary, network, tmp_path
    ):
        hex_database(tmp_path / "primary")
        primary = open_primary(open_file_storage(tmp_path / "primary", blobs=False))
        secondary = open_secondary()
        network.run()
        assert secondary.lastTransaction() == primary.lastTransaction()
        assert blob_files(tmp_path / "secondary" / "blobs") == {}

    @pytest.mark.parametrize("end", [Primary, Secondary])
    def test_below_either_end_they_are_refused(self, end, network, tmp_path):
        storage = HexStorage(open_file_storage(tmp_path))
        with pytest.raises(UnsuitableStorage, match=r"\(HexStorage\) is not a FileStorage"):
            end(storage, ADDRESS, network, transport="memory")
        storage.close()


class TestReplicationOverReplication:
    def test_a_primary_over_a_primary_is_refused(self, open_primary, network):
        with pytest.raises(UnsuitableStorage, match="is a primary already"):
            Primary(open_primary(), SECOND, network, transport="memory")

    @pytest.mark.parametrize("below", ["primary", "secondary"])
    def test_a_secondary_over_either_is_refused(self, below, open_primary, open_secondary, network):
        storage = open_primary() if below == "primary" else open_secondary()
        with pytest.raises(UnsuitableStorage, match="one end of a replication already"):
            Secondary(storage, SECOND, network, transport="memory")
        assert storage.lastTransaction() == z64

    def test_a_secondary_over_a_read_only_storage_is_refused(self, network, tmp_path):
        with traffic(open_file_storage(tmp_path)) as commits:
            commits.commit(2)
        storage = FileStorage(str(tmp_path / "Data.fs"), read_only=True)
        with pytest.raises(UnsuitableStorage, match="cannot be replicated into: it is read-only"):
            Secondary(storage, ADDRESS, network, transport="memory")
        storage.close()

    def test_a_cascade_of_three(self, open_primary, open_secondary, database, network, tmp_path):
        first = open_primary()
        commits = Traffic(database(first))
        commits.commit(20)
        middle = open_primary(open_secondary(open_file_storage(tmp_path / "middle")), SECOND)
        last = open_secondary(address=SECOND)
        network.run()
        assert contents(last) == contents(middle) == contents(first)
        reader = database(last).open()
        for _ in range(10):
            commits.commit()
            network.run()
            assert last.lastTransaction() == middle.lastTransaction() == first.lastTransaction()
        reader.sync()
        assert sorted(reader.root()) == sorted(commits._connection.root())
        commits.close()
        assert contents(last) == contents(middle) == contents(first)
        assert last.progress.connections == 1
        assert middle.isReadOnly()

"""Storages above and below: transforming wrappers, and replication over replication."""

from __future__ import annotations

import os
import time

import pytest
import transaction
import ZODB
import ZODB.tests.hexstorage
from zc.zlibstorage import ZlibStorage
from ZODB.blob import Blob, BlobStorage
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


WRAPPERS = [
    pytest.param(ZODB.tests.hexstorage.HexStorage, id="hex"),
    pytest.param(ZlibStorage, id="zlib"),
    # It cannot be looked into.
    pytest.param(HexStorage, id="opaque hex"),
]
PLACES = ["above", "below"]


class TestWrappersAnywhere:
    """Records pass through as they are stored, wherever a wrapper stands on either side."""

    @pytest.fixture
    def primary(self, open_primary, tmp_path):
        self.first = open_file_storage(tmp_path / "primary")

        def make(wrapper, place):
            if place == "above":
                return wrapper(open_primary(self.first))
            return open_primary(wrapper(self.first))

        return make

    @pytest.fixture
    def secondary(self, open_secondary, tmp_path):
        self.second = open_file_storage(tmp_path / "secondary")

        def make(wrapper, place):
            if place == "above":
                return wrapper(open_secondary(self.second))
            return open_secondary(wrapper(self.second))

        return make

    @pytest.mark.parametrize("wrapper", WRAPPERS)
    @pytest.mark.parametrize("there", PLACES)
    @pytest.mark.parametrize("here", PLACES)
    def test_both_ends(self, here, there, wrapper, primary, secondary, database, network, tmp_path):
        if wrapper is ZlibStorage:
            # It is mostly added to a database that has been there without.
            with traffic(self.first) as plain:
                plain.commit(20)
            self.first = open_file_storage(tmp_path / "primary")
        above, below = primary(wrapper, there), secondary(wrapper, here)
        network.run()
        commits = Traffic(database(above), seed=1)
        commits.commit(30)
        network.run()
        copy = database(below).open()
        commits.commit(30)
        network.run()
        copy.sync()
        commits.close()
        # Byte for byte, also where the wrapper would have made something else of it.
        files = [tmp_path / end / "Data.fs" for end in ("primary", "secondary")]
        assert files[1].read_bytes() == files[0].read_bytes()
        blobs = blob_files(tmp_path / "primary" / "blobs")
        assert blob_files(tmp_path / "secondary" / "blobs") == blobs != {}
        root = database(above).open().root()
        assert sorted(copy.root()) == sorted(root)
        for key, value in root.items():
            if isinstance(value, Blob):
                with value.open() as ours, copy.root()[key].open() as theirs:
                    assert theirs.read() == ours.read()
            else:
                assert sorted(copy.root()[key]) == sorted(value)

    @pytest.mark.parametrize("wrapper", WRAPPERS)
    def test_a_blob_whose_record_says_nothing(
        self, wrapper, primary, secondary, database, network, tmp_path
    ):
        """Undo writes a record that is that of a blob, and the blob is recognised again."""
        db = database(primary(wrapper, "below"))
        secondary(wrapper, "below")
        with db.transaction() as connection:
            connection.root()["blob"] = Blob(b"first" * 20_000)
        with db.transaction() as connection:
            with connection.root()["blob"].open("w") as file:
                file.write(b"second")
        db.undo(db.undoLog(0, 1)[0]["id"])
        transaction.commit()
        network.run()
        blobs = blob_files(tmp_path / "primary" / "blobs")
        assert blob_files(tmp_path / "secondary" / "blobs") == blobs
        assert len(blobs) == 3

    @pytest.mark.parametrize("wrapper", WRAPPERS[:2])
    def test_both_are_packed_through_them(self, wrapper, primary, secondary, database, network):
        db = database(primary(wrapper, "below"))
        storage = secondary(wrapper, "below")
        commits = Traffic(db)
        commits.commit(30)
        network.run()
        db.pack()
        # A secondary keeps garbage unless it is asked to remove it.
        storage.pack(time.time(), database(storage).references, gc=True)
        assert contents(self.second) == contents(self.first)
        commits.commit(3)
        network.run()
        commits.close()
        assert contents(self.second)[-4:] == contents(self.first)[-4:]

    def test_a_cascade_through_them(
        self, primary, secondary, open_primary, open_secondary, database, network, tmp_path
    ):
        above = primary(ZlibStorage, "below")
        middle = open_primary(secondary(ZlibStorage, "below"), SECOND)
        last = open_secondary(open_file_storage(tmp_path / "last"), SECOND)
        commits = Traffic(database(above))
        commits.commit(30)
        network.run()
        commits.close()
        assert contents(last) == contents(self.second) == contents(self.first)
        assert middle.isReadOnly()
        blobs = blob_files(tmp_path / "primary" / "blobs")
        assert blob_files(tmp_path / "last" / "blobs") == blobs != {}

    def test_blobs_below_the_wrapper(
        self, open_primary, open_secondary, database, network, tmp_path
    ):
        def make(name):
            (tmp_path / name).mkdir()
            base = FileStorage(str(tmp_path / name / "Data.fs"))
            return ZlibStorage(BlobStorage(str(tmp_path / name / "blobs"), base))

        db = database(open_primary(make("primary")))
        open_secondary(make("secondary"))
        commits = Traffic(db)
        commits.commit(30)
        network.run()
        commits.close()
        files = [tmp_path / end / "Data.fs" for end in ("primary", "secondary")]
        assert files[1].read_bytes() == files[0].read_bytes()
        blobs = blob_files(tmp_path / "primary" / "blobs")
        assert blob_files(tmp_path / "secondary" / "blobs") == blobs != {}


class TestReplicationOverReplication:
    def test_a_primary_over_a_primary_is_refused(self, open_primary, network):
        with pytest.raises(UnsuitableStorage, match="is a primary already"):
            Primary(open_primary(), SECOND, network, transport="memory")

    def test_nor_with_a_wrapper_between(self, open_primary, network):
        wrapper = ZlibStorage(open_primary())
        with pytest.raises(UnsuitableStorage, match="is a primary already"):
            Primary(wrapper, SECOND, network, transport="memory")

    @pytest.mark.parametrize("below", ["primary", "secondary", "wrapped primary"])
    def test_a_secondary_over_either_is_refused(self, below, open_primary, open_secondary, network):
        storage = open_secondary() if below == "secondary" else open_primary()
        if below == "wrapped primary":
            storage = ZlibStorage(storage)
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

"""Primary and Secondary as storages, joined by the memory transport."""

from __future__ import annotations

import logging
import os

import pytest
import transaction
import ZODB
from persistent import Persistent
from persistent.mapping import PersistentMapping
from ZODB.blob import Blob, BlobStorage
from ZODB.Connection import TransactionMetaData
from ZODB.FileStorage import FileStorage
from ZODB.interfaces import (
    IBlobStorage,
    IBlobStorageRestoreable,
    IExternalGC,
    IStorageRestoreable,
    IStorageUndoable,
)
from ZODB.MappingStorage import MappingStorage
from ZODB.POSException import ReadOnlyError
from ZODB.utils import p64, z64
from zope.interface import providedBy
from zope.interface.verify import verifyObject

import zrs_core
from zrs_core import Primary, Secondary
from zrs_core.errors import (
    ConfigurationError,
    InvalidAddress,
    ListenError,
    UnknownTransport,
    UnsuitableStorage,
)
from zrs_core.transports.memory import MemoryNetwork

from ..databases import Traffic, blob_files, contents, open_file_storage, temporary_files
from .conftest import ADDRESS


class Counter(Persistent):
    """Two increments at once are one of both."""

    value = 0

    def _p_resolveConflict(self, old, saved, new):
        difference = new["value"] - old.get("value", 0)
        return {**saved, "value": saved["value"] + difference}


def listing(path):
    return sorted(os.path.join(where, name) for where, _, names in os.walk(path) for name in names)


class TestInterfaces:
    @pytest.mark.parametrize("blobs", [True, False])
    def test_both_provide_what_the_storage_allows(
        self, blobs, open_primary, open_secondary, tmp_path
    ):
        primary = open_primary(open_file_storage(tmp_path / "primary", blobs))
        secondary = open_secondary(open_file_storage(tmp_path / "secondary", blobs))
        for storage in (primary, secondary):
            for interface in providedBy(storage).flattened():
                assert verifyObject(interface, storage)
        given = set(providedBy(primary._storage).flattened())
        assert set(providedBy(primary).flattened()) == given
        assert set(providedBy(secondary).flattened()) == given - {
            IStorageRestoreable,
            IBlobStorageRestoreable,
            IExternalGC,
        }
        assert IBlobStorage.providedBy(secondary) is blobs
        assert IStorageUndoable.providedBy(secondary)

    def test_a_blob_storage_around_a_file_storage_will_do(
        self, open_primary, open_secondary, database, network, tmp_path
    ):
        plain = FileStorage(str(tmp_path / "P.fs"))
        primary = open_primary(BlobStorage(str(tmp_path / "pblobs"), plain))
        secondary = open_secondary(
            FileStorage(str(tmp_path / "S.fs")), blob_dir=str(tmp_path / "sblobs")
        )
        with database(primary).transaction() as connection:
            connection.root()["blob"] = Blob(b"blob" * 50_000)
        network.run()
        assert contents(secondary) == contents(primary)
        assert blob_files(tmp_path / "sblobs") == blob_files(tmp_path / "pblobs") != {}

    def test_the_file_that_a_blob_storage_keeps_of_an_undone_creation(
        self, open_primary, open_secondary, database, network, tmp_path
    ):
        """The undo of that undo needs it, which may happen where a secondary has taken over."""

        def open_storage(name):
            plain = FileStorage(str(tmp_path / f"{name}.fs"))
            return BlobStorage(str(tmp_path / name), plain)

        db = database(open_primary(open_storage("primary")))
        secondary = open_secondary(open_storage("secondary"))
        with db.transaction() as connection:
            connection.root()["blob"] = Blob(b"a blob")
        db.undo(db.undoLog(0, 1)[0]["id"])
        transaction.commit()
        network.run()
        files = blob_files(tmp_path / "secondary")
        assert files == blob_files(tmp_path / "primary")
        assert list(files.values()) == [b"a blob", b"a blob"]

        secondary.close()
        db = database(open_storage("secondary"))
        db.undo(db.undoLog(0, 1)[0]["id"])
        transaction.commit()
        with db.transaction() as connection, connection.root()["blob"].open() as file:
            assert file.read() == b"a blob"


class TestPrimary:
    def test_it_is_used_like_any_storage(
        self, open_primary, open_secondary, database, network, caplog
    ):
        caplog.set_level(logging.INFO, "zrs_core")
        primary = open_primary()
        secondary = open_secondary()
        commits = Traffic(database(primary))
        commits.commit(80)
        assert primary.history(z64, 3)
        assert list(primary.undoLog(0, 5))
        database_ = commits._db
        database_.pack()
        commits.commit(10)
        commits.close()
        network.run()
        assert contents(secondary)[-10:] == contents(primary)[-10:]
        assert "ERROR" not in [record.levelname for record in caplog.records]

    def test_conflicts_are_resolved(self, open_primary, open_secondary, database, network):
        primary = open_primary()
        secondary = open_secondary()
        db = database(primary)
        with db.transaction() as connection:
            connection.root()["counter"] = Counter()
        managers = [transaction.TransactionManager() for _ in range(2)]
        connections = [db.open(manager) for manager in managers]
        for number, connection in enumerate(connections):
            connection.root()["counter"].value += number + 1
        for manager in managers:
            manager.commit()
        for connection in connections:
            connection.close()
        network.run()
        with database(secondary).transaction() as connection:
            assert connection.root()["counter"].value == 3
        transaction.abort()

    def test_restoring_into_a_primary_reaches_its_secondaries(
        self, open_primary, open_secondary, network, tmp_path
    ):
        other = open_file_storage(tmp_path / "other")
        db = ZODB.DB(other)
        commits = Traffic(db)
        commits.commit(10)
        commits.close()
        primary = open_primary()
        secondary = open_secondary()
        network.run()
        primary.copyTransactionsFrom(other)
        network.run()
        assert contents(secondary) == contents(primary) == contents(other)
        db.close()

    def test_missing_blobs_are_counted(self, open_primary, open_secondary, database, network):
        primary = open_primary()
        with database(primary).transaction() as connection:
            connection.root()["blob"] = Blob(b"x")
        os.remove(primary.loadBlob(p64(1), primary.lastTransaction()))
        open_secondary()
        network.run()
        assert primary.missing_blobs == 1

    def test_close_lets_secondaries_catch_up(self, open_primary, open_secondary, database):
        primary = open_primary()
        secondary = open_secondary()
        commits = Traffic(database(primary))
        commits.commit(50)
        commits.close()
        expected = contents(primary)
        primary.close()
        primary.close()
        assert contents(secondary) == expected

    def test_it_tells_where_it_listens(self, network, tmp_path):
        primary = Primary(tmp_path / "Data.fs", ":0", network, transport="memory")
        assert primary.replication_address.port != 0
        primary.close()

    def test_an_address_in_use_is_an_error_and_closes_what_was_opened(
        self, open_primary, network, tmp_path
    ):
        open_primary()
        for _ in range(2):
            with pytest.raises(ListenError, match="cannot listen on :8000"):
                Primary(tmp_path / "Other.fs", ADDRESS, network, transport="memory")
        given = FileStorage(str(tmp_path / "Given.fs"))
        with pytest.raises(ListenError):
            Primary(given, ADDRESS, network, transport="memory")
        assert given.lastTransaction() == z64
        given.close()

    def test_any_wrong_argument_is_an_error_before_anything_is_written(self, network, tmp_path):
        path = tmp_path / "Data.fs"
        wrong = [
            (InvalidAddress, {"address": "nowhere"}),
            (UnknownTransport, {"transport": "pigeon"}),
            (ConfigurationError, {"pickle_protocol": 2}),
            (UnsuitableStorage, {"storage": object()}),
        ]
        for error, arguments in wrong:
            given = {"storage": path, "address": ADDRESS, "transport": "memory", **arguments}
            with pytest.raises(error):
                Primary(**given, reactor=network)
        assert listing(tmp_path) == []


class TestSecondary:
    def test_it_can_be_used_once_the_first_transaction_is_there(
        self, open_primary, open_secondary, database, network
    ):
        secondary = open_secondary()
        with pytest.raises(ReadOnlyError, match="has no data yet"):
            ZODB.DB(secondary)
        primary = open_primary()
        database(primary)
        network.advance(1)
        network.run()
        connection = database(secondary).open()
        assert dict(connection.root()) == {}

    def test_connections_see_what_is_new_at_their_next_boundary(
        self, open_primary, open_secondary, database, network
    ):
        there = database(open_primary()).open()
        secondary = open_secondary()
        network.run()
        manager = transaction.TransactionManager()
        here = database(secondary).open(manager)
        for number in range(3):
            there.root()["x"] = PersistentMapping(number=number)
            transaction.commit()
            before = dict(here.root())
            network.run()
            assert dict(here.root()) == before
            manager.begin()
            assert here.root()["x"]["number"] == number
        here.close()

    def test_it_holds_all_that_the_primary_holds(
        self, open_primary, open_secondary, database, network
    ):
        primary = open_primary()
        commits = Traffic(database(primary))
        commits.commit(30)
        secondary = open_secondary()
        network.run()
        commits.commit(30)
        commits.close()
        network.run()
        assert contents(secondary) == contents(primary)
        assert temporary_files(secondary.fshelper.base_dir) == []
        assert secondary.progress.transactions == 61
        assert secondary.progress.tid == primary.lastTransaction()

    def test_writing_is_refused(self, open_primary, open_secondary, database, network):
        database(open_primary())
        secondary = open_secondary()
        network.run()
        db = database(secondary)
        connection = db.open()
        connection.root()["x"] = 1
        with pytest.raises(ReadOnlyError):
            transaction.commit()
        transaction.abort()
        assert secondary.isReadOnly()
        assert db.storage.isReadOnly()
        db.undo(db.undoLog(0, 1)[0]["id"])
        with pytest.raises(ReadOnlyError):
            transaction.commit()
        transaction.abort()
        metadata = TransactionMetaData()
        for call in [
            lambda: secondary.new_oid(),
            lambda: secondary.tpc_begin(metadata),
            lambda: secondary.tpc_begin(metadata, p64(9), "p"),
            lambda: secondary.tpc_vote(metadata),
            lambda: secondary.tpc_finish(metadata),
            lambda: secondary.store(z64, z64, b"", "", metadata),
            lambda: secondary.storeBlob(z64, z64, b"", "file", "", metadata),
            lambda: secondary.restore(z64, z64, b"", "", None, metadata),
            lambda: secondary.restoreBlob(z64, z64, b"", "file", None, metadata),
            lambda: secondary.deleteObject(z64, z64, metadata),
            lambda: secondary.undo(b"", metadata),
            lambda: secondary.copyTransactionsFrom(secondary),
        ]:
            with pytest.raises(ReadOnlyError, match="is a secondary: write to its primary"):
                call()

    def test_it_can_be_packed(self, open_primary, open_secondary, database, network):
        commits = Traffic(database(open_primary()))
        commits.commit(30)
        secondary = open_secondary()
        network.run()
        before = len(contents(secondary))
        database(secondary).pack()
        assert len(contents(secondary)) < before
        commits.commit(5)
        commits.close()
        network.run()
        assert contents(secondary)[-5:] == contents(commits._db.storage)[-5:]

    def test_it_goes_on_where_it_was(
        self, open_primary, open_secondary, database, network, tmp_path
    ):
        primary = open_primary()
        commits = Traffic(database(primary))
        for _ in range(3):
            commits.commit(10)
            secondary = open_secondary()
            network.run()
            assert contents(secondary) == contents(primary)
            secondary.close()
        commits.close()

    @pytest.mark.parametrize("policy", ["require", "verify", "ignore", True, False])
    def test_checksums_can_be_checked_or_not(
        self, policy, open_primary, open_secondary, database, network
    ):
        primary = open_primary()
        database(primary)
        secondary = open_secondary(check_checksums=policy)
        network.run()
        assert contents(secondary) == contents(primary)

    @pytest.mark.parametrize("protocol", [1, 3])
    def test_either_pickle_protocol_brings_the_same(
        self, protocol, open_primary, open_secondary, database, network
    ):
        primary = open_primary(pickle_protocol=protocol)
        commits = Traffic(database(primary))
        commits.commit(40)
        commits.close()
        secondary = open_secondary()
        network.run()
        theirs, ours = contents(secondary), contents(primary)
        assert [each.records for each in theirs] == [each.records for each in ours]
        assert [each[:4] for each in theirs] == [each[:4] for each in ours]

    def test_closing_in_the_middle_of_a_transaction_leaves_nothing_of_it(
        self, open_primary, database, tmp_path
    ):
        network = MemoryNetwork(chunk_size=1000)
        path = tmp_path / "primary"
        with Primary_(open_file_storage(path), network) as primary:
            with database(primary).transaction() as connection:
                connection.root()["blob"] = Blob(b"x" * 100_000)
            storage = open_file_storage(tmp_path / "secondary")
            secondary = Secondary(storage, ADDRESS, network, transport="memory")
            while not temporary_files(tmp_path / "secondary" / "blobs"):
                assert network.step()
            secondary.close()
            assert temporary_files(tmp_path / "secondary" / "blobs") == []
            again = open_file_storage(tmp_path / "secondary")
            assert len(contents(again)) == 1
            again.close()

    def test_any_wrong_argument_is_an_error_before_anything_is_written(self, network, tmp_path):
        wrong = [
            (InvalidAddress, {"address": ("host", "80")}),
            (UnknownTransport, {"transport": "pigeon"}),
            (ConfigurationError, {"check_checksums": "sometimes"}),
            (ConfigurationError, {"keep_alive_delay": -1}),
            (ConfigurationError, {"reconnect_delay": 0}),
            (ConfigurationError, {"reconnect_delay": (2, 1)}),
            (UnsuitableStorage, {"storage": MappingStorage()}),
        ]
        for error, arguments in wrong:
            given = {"storage": tmp_path / "Data.fs", "address": ADDRESS, **arguments}
            with pytest.raises(error):
                Secondary(**{"transport": "memory", **given}, reactor=network)
        assert listing(tmp_path) == []

    def test_a_transport_that_cannot_start_closes_what_was_opened(self, tmp_path):
        for _ in range(2):
            with pytest.raises(ConfigurationError, match="runs on a MemoryNetwork, not on int"):
                Secondary(tmp_path / "Data.fs", ADDRESS, 3, transport="memory")


class Primary_:
    """A primary over a network, closed in the end."""

    def __init__(self, storage, network):
        self._primary = Primary(storage, ADDRESS, network, transport="memory")

    def __enter__(self):
        return self._primary

    def __exit__(self, *exc_info):
        self._primary.close()


def test_the_package_has_a_version():
    assert zrs_core.__version__

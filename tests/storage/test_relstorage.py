"""RelStorage with history, on SQLite and on PostgreSQL, under a primary and under a secondary."""

from __future__ import annotations

import contextlib
import logging
import os
import time

import pytest
import transaction
import ZODB
from persistent.mapping import PersistentMapping
from persistent.timestamp import TimeStamp
from zc.zlibstorage import ZlibStorage
from ZODB.blob import Blob
from ZODB.Connection import TransactionMetaData
from ZODB.POSException import ReadOnlyError
from ZODB.utils import p64, u64, z64

from zrs_core.errors import UnsuitableStorage, WrittenToByOthers
from zrs_core.messages import NO_TID, BlobBlock, Commit, Store, StoreBlob, Transaction
from zrs_core.progress import Divergence, State
from zrs_core.storage.blobs import MISSING_BLOB
from zrs_core.storage.compare import compare
from zrs_core.storage.fs_source import FileStorageReader
from zrs_core.storage.generic_sink import GenericSink
from zrs_core.storage.iteration_source import IterationSource
from zrs_core.storage.opening import sink_of

from ..conditions import wait_for
from ..databases import (
    BLOB_SIZES,
    Stored,
    Traffic,
    assert_holds_what_a_pack_left,
    contents,
    open_file_storage,
    temporary_files,
    traffic,
)
from .relstorages import open_on_postgresql, open_on_sqlite

SECOND = ("", 8001)


@pytest.fixture
def open_primary(open_primary):
    """Opens primaries whose sources search one day: each month would cost a connection."""
    yesterday = TimeStamp(*time.gmtime(time.time() - 86_400)[:5]).raw()

    def open_it(*arguments, **options):
        primary = open_primary(*arguments, **options)
        primary._source.earliest = yesterday
        return primary

    return open_it


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("sqlite, shared blobs", marks=pytest.mark.long),
        pytest.param("postgresql", marks=pytest.mark.long),
        pytest.param("postgresql, shared blobs", marks=pytest.mark.long),
    ]
)
def relstorage(request, tmp_path):
    """Opens a RelStorage by a name; for the same name, the same one again."""
    opened, dsns = [], {}
    database, _, shared = request.param.partition(", ")
    server = request.getfixturevalue("postgresql") if database == "postgresql" else None

    with contextlib.ExitStack() as databases:

        def open_it(name="relstorage", **options):
            options.setdefault("shared_blob_dir", bool(shared))
            if server is None:
                opened.append(open_on_sqlite(tmp_path / name, **options))
            else:
                if name not in dsns:
                    dsns[name] = databases.enter_context(server.database())
                opened.append(open_on_postgresql(dsns[name], tmp_path / name, **options))
            return opened[-1]

        yield open_it
        transaction.abort()
        for each in opened:
            each.close()


def as_kept(found: list[Stored]) -> list[Stored]:
    """What RelStorage keeps: the records by their oids, and no back-pointers."""
    return [
        each._replace(
            records=sorted((oid, tid, data, None, blob) for oid, tid, data, _, blob in each.records)
        )
        for each in found
    ]


def history(commits):
    """Transactions of every kind; the names say which."""
    db = commits._db
    commits.commit(40)
    with db.transaction() as connection:
        connection.root()["undone"] = PersistentMapping(text="soon gone")
    db.undo(db.undoLog(0, 1)[0]["id"])
    transaction.get().note("undo of a creation")
    transaction.commit()
    with db.transaction() as connection:
        connection.root()["blob"] = Blob(b"first" * 20_000)
    with db.transaction() as connection:
        with connection.root()["blob"].open("w") as file:
            file.write(b"second")
    db.undo(db.undoLog(0, 1)[0]["id"])
    transaction.commit()
    with db.transaction() as connection:
        for size in BLOB_SIZES:
            connection.root()[f"blob of {size}"] = Blob(b"x" * size)
    commits._transactions.begin()
    commits.commit(5)


class TestASecondarysStorage:
    def test_it_gets_everything(
        self, relstorage, open_primary, open_secondary, network, database, tmp_path
    ):
        primary = open_primary()
        storage = relstorage()
        secondary = open_secondary(storage)
        assert type(secondary._client.sink) is GenericSink
        commits = Traffic(database(primary))
        history(commits)
        network.run()
        commits.commit(20)
        network.run()
        commits.close()
        assert contents(secondary) == as_kept(contents(primary))
        blobs = [record[4] for each in contents(secondary) for record in each.records]
        assert {*BLOB_SIZES} <= {len(each) for each in blobs if each is not None}
        result = compare(primary, secondary)
        assert result.equal
        assert (result.transactions, result.blobs) == (
            len(contents(primary)),
            len(blobs) - blobs.count(None),
        )
        assert secondary.progress.connections == 1
        assert secondary.lastTransaction() == primary.lastTransaction()
        assert [name for name in os.listdir(secondary.temporaryDirectory()) if "zrs-" in name] == []

    def test_it_is_read_as_a_database(
        self, relstorage, open_primary, open_secondary, network, database
    ):
        there = database(open_primary()).open()
        secondary = open_secondary(relstorage())
        with pytest.raises(ReadOnlyError, match="has no data yet"):
            ZODB.DB(secondary)
        network.run()
        manager = transaction.TransactionManager()
        db = database(secondary)
        here = db.open(manager)
        for number in range(3):
            there.root()["number"] = number
            there.root()["blob"] = Blob(b"b" * number)
            transaction.commit()
            before = dict(here.root())
            network.run()
            assert dict(here.root()) == before
            here.sync()
            assert here.root()["number"] == number
            with here.root()["blob"].open() as file:
                assert file.read() == b"b" * number
        here.root()["number"] = 100
        with pytest.raises(ReadOnlyError, match="write to its primary"):
            manager.commit()
        manager.abort()
        db.undo(db.undoLog(0, 1)[0]["id"])
        with pytest.raises(ReadOnlyError):
            transaction.commit()
        transaction.abort()
        # Instances of instances too.
        instance = secondary.new_instance().new_instance()
        assert instance.isReadOnly()
        with pytest.raises(ReadOnlyError):
            instance.tpc_begin(None)
        instance.release()

    def test_it_is_not_ready_with_a_part_of_what_a_pack_has_left(
        self, relstorage, open_primary, open_secondary, network, database, tmp_path
    ):
        db = database(open_primary(poll_interval=0.01))
        root = db.open().root()
        for number in range(5):
            root[number] = PersistentMapping()
            transaction.commit()
        db.pack()
        network.chunk_size = 100
        secondary = open_secondary(relstorage())
        progress = secondary.progress
        while not progress.transactions or progress.unfinished:
            network.step()
        assert progress.incomplete
        secondary.close()
        secondary = open_secondary(relstorage())
        assert secondary.progress.incomplete
        # What follows it gets nothing yet.
        open_primary(secondary, ("", 8001), poll_interval=0.01)
        end = open_secondary(open_file_storage(tmp_path / "end"), ("", 8001))
        network.run()
        assert secondary.lastTransaction() == db.storage.lastTransaction()
        assert secondary.progress.incomplete
        assert end.lastTransaction() == NO_TID
        root["more"] = 1
        transaction.commit()
        last = db.storage.lastTransaction()
        network.run()
        assert not secondary.progress.incomplete

        def came():
            network.run()
            return end.lastTransaction() == last

        wait_for(came, "the end of the chain")

    def test_it_goes_on_where_it_was(self, relstorage, open_primary, open_secondary, network):
        with traffic(open_primary()) as commits:
            for _ in range(3):
                secondary = open_secondary(relstorage())
                commits.commit(5)
                network.run()
                commits.commit(5)
                network.cut()
                secondary.close()
                commits.commit(5)
            secondary = open_secondary(relstorage())
            network.run()
            primary = commits._db.storage
            assert contents(secondary) == as_kept(contents(primary))

    def test_it_is_compared_before_it_goes_on(
        self, relstorage, open_primary, open_secondary, network, database, monkeypatch, caplog
    ):
        """Toward a primary that does not look whether it holds what a secondary has."""
        caplog.set_level(logging.INFO, "zrs_core")
        monkeypatch.setattr(FileStorageReader, "_check_start", lambda self: None)
        db = database(open_primary())
        for text in (b"a blob" * 20_000, b"another"):
            with db.transaction() as connection:
                connection.root()["blob"] = Blob(text)
            secondary = open_secondary(relstorage())
            network.run()
            assert secondary.progress.state is State.REPLICATING
            secondary.close()
        assert contents(relstorage()) == as_kept(contents(db.storage))
        compared = [m for m in caplog.messages if "start" in m and "the one before" in m]
        assert len(compared) == 1

        with database(relstorage()).transaction() as connection:
            connection.root()["mistake"] = True
        before = contents(relstorage())
        with db.transaction() as connection:
            connection.root()["truth"] = True
        secondary = open_secondary(relstorage())
        network.run()
        for _ in range(5):
            network.advance(1)
            network.run()
        assert secondary.progress.state is State.DIVERGED
        assert secondary.progress.divergence == Divergence(before[-2].tid, 1)
        assert contents(relstorage()) == before

    @pytest.mark.parametrize("chunk_size", [997, 4001])
    def test_cuts_leave_nothing_behind(
        self, relstorage, open_primary, open_secondary, network, chunk_size, tmp_path
    ):
        primary = open_primary()
        storage = relstorage()
        secondary = open_secondary(storage, reconnect_delay=1)
        with traffic(primary) as commits:
            commits.commit(40)
            network.chunk_size = chunk_size
            # Each connection lasts a bit longer than the one before, so that it ends elsewhere.
            steps = 20
            while secondary.lastTransaction() != primary.lastTransaction():
                for _ in range(steps):
                    network.step()
                network.cut()
                network.advance(2)
                steps += 17
            network.run()
            assert contents(secondary) == as_kept(contents(primary))
        assert secondary.progress.connections > 3
        blob_dir = tmp_path / "relstorage" / "blobs"
        left = temporary_files(blob_dir)
        assert [name for name in left if "zrs-" in name or name.endswith(".blob")] == []

    def test_an_aborted_blob_is_gone(self, relstorage, tmp_path):
        storage = relstorage()
        sink = sink_of(storage.new_instance(), lambda tid, oids: None, "batch")
        tid, record = p64(1 << 62), b"cZODB.blob\nBlob\n."
        sink.apply(Transaction(tid))
        sink.apply(StoreBlob(p64(1), tid, record, None, 2))
        sink.apply(BlobBlock(b"x" * 65_536))
        sink.apply(BlobBlock(b"y"))
        sink.apply(StoreBlob(p64(2), tid, record, None, 2))
        sink.apply(BlobBlock(b"x" * 65_536))
        sink.abort()
        assert sink.last_tid() == z64 == storage.lastTransaction()
        with pytest.raises(MISSING_BLOB):
            storage.loadBlob(p64(1), tid)
        assert [name for name in temporary_files(tmp_path) if name.endswith(".blob")] == []

    def test_two_records_of_an_object_in_a_transaction(self, relstorage):
        """A FileStorage may have them, after undoing twice in one; the last one counts."""
        storage = relstorage()
        sink = sink_of(storage.new_instance(), lambda tid, oids: None, "batch")
        tid = p64(1 << 62)
        for message in (
            Transaction(tid),
            Store(z64, tid, b"first"),
            Store(p64(1), tid, b"other"),
            Store(z64, tid, b"second"),
            Commit(),
        ):
            sink.apply(message)
        (found,) = contents(storage)
        assert [record[2] for record in found.records] == [b"second", b"other"]

    def test_nobody_else_may_write(self, relstorage):
        storage, other = relstorage(), relstorage()
        sink = sink_of(storage.new_instance(), lambda tid, oids: None, "batch")
        tid = p64(1 << 60)
        for message in (Transaction(tid), Store(z64, tid, b"first"), Commit()):
            sink.apply(message)
        metadata = TransactionMetaData()
        other.tpc_begin(metadata)
        other.store(p64(1), z64, b"mine", "", metadata)
        other.tpc_vote(metadata)
        other.tpc_finish(metadata)
        with pytest.raises(WrittenToByOthers, match="did not come by this replication"):
            sink.apply(Transaction(p64((1 << 62) + 1)))
        sink.abort()
        assert len(contents(other)) == 2

    def test_it_is_written_to_when_replication_ends(
        self, relstorage, open_primary, open_secondary, network
    ):
        """New objects get ids of their own, and what was replicated can be undone."""
        primary = open_primary()
        with traffic(primary) as commits:
            commits.commit(30)
            with commits._db.transaction() as connection:
                connection.root()["last"] = 1
            secondary = open_secondary(relstorage())
            network.run()
            secondary.close()
            before = contents(primary)
        db = ZODB.DB(relstorage())
        oids = {record[0] for each in before for record in each.records}
        with db.transaction() as connection:
            new = connection.root()["new"] = PersistentMapping()
            connection.add(new)
            assert new._p_oid not in oids
            connection.root()["last"] = 2
        for expected in (1, None):
            db.undo(db.undoLog(0, 3)[0 if expected else 2]["id"])
            transaction.commit()
            with db.transaction() as connection:
                assert connection.root().get("last") == expected
        after = contents(db.storage)
        assert after[: len(before)] == as_kept(before)
        assert [each.tid for each in after] == sorted(each.tid for each in after)
        db.close()


class TestAPrimarysStorage:
    def test_it_gives_everything(self, relstorage, open_primary, open_secondary, network, database):
        primary = open_primary(relstorage())
        assert type(primary._source) is IterationSource
        secondary = open_secondary()
        commits = Traffic(database(primary))
        history(commits)
        network.run()
        # Its databases have instances of their own, and their commits need no poll.
        primary._source.poll_interval = 3600
        commits.commit(20)
        network.run()
        commits.close()
        assert contents(secondary) == contents(primary)
        assert secondary.progress.connections == 1
        assert secondary.lastTransaction() == primary.lastTransaction()

    def test_what_other_processes_commit_follows(
        self, relstorage, open_primary, open_secondary, network
    ):
        primary = open_primary(relstorage(), poll_interval=0.05)
        secondary = open_secondary()
        network.run()
        # Another RelStorage over the same database is what another process has.
        with traffic(relstorage()) as commits:
            for _ in range(5):
                commits.commit(3)
                last = commits._db.storage.new_instance().lastTransaction()
                wait_for(
                    lambda last=last: network.run() or secondary.lastTransaction() == last,
                    "the transactions",
                )
        assert contents(secondary) == contents(primary)
        assert primary.lastTransaction() == last

    def test_a_secondary_goes_on_where_it_was(
        self, relstorage, open_primary, open_secondary, network, tmp_path
    ):
        for _ in range(3):
            primary = open_primary(relstorage())
            secondary = open_secondary(open_file_storage(tmp_path / "secondary"))
            with traffic(primary) as commits:
                commits.commit(10)
                network.run()
                commits.commit(2)
                secondary.close()
        primary = open_primary(relstorage())
        secondary = open_secondary(open_file_storage(tmp_path / "secondary"))
        network.run()
        assert contents(secondary) == contents(primary)

    def test_a_pack(self, relstorage, open_primary, open_secondary, network, database, tmp_path):
        primary = open_primary(relstorage())
        connected = open_secondary()
        behind = open_secondary(open_file_storage(tmp_path / "behind"))
        db = database(primary)
        with db.transaction() as connection:
            connection.root()["number"] = -1
        network.run()
        start = behind.lastTransaction()
        behind.close()
        commits = Traffic(db)
        commits.commit(20)
        network.run()
        unpacked = contents(connected)
        db.pack()
        packed = contents(primary)
        assert start not in [each.tid for each in packed]
        assert {each.status for each in packed} == {"p"}
        commits.commit(3)
        network.run()
        # Who was connected has noticed nothing; who was behind its beginning is served the rest.
        assert connected.progress.connections == 1
        assert contents(connected)[: len(unpacked)] == unpacked
        assert_holds_what_a_pack_left(contents(connected), contents(primary))
        behind = open_secondary(open_file_storage(tmp_path / "behind"))
        fresh = open_secondary(open_file_storage(tmp_path / "fresh"))
        network.run()
        assert contents(fresh) == contents(primary)
        assert contents(behind)[2:] == contents(primary)
        commits.close()

    def test_a_secondary_of_another_history_is_refused(
        self, relstorage, open_primary, open_secondary, network, tmp_path, caplog
    ):
        with traffic(open_file_storage(tmp_path / "other")) as commits:
            commits.commit(3)
        primary = open_primary(relstorage())
        with traffic(primary) as commits:
            commits.commit(3)
            secondary = open_secondary(open_file_storage(tmp_path / "other"))
            network.run()
        assert secondary.progress.refusals == 1
        first = contents(primary)[0].tid
        assert "the histories have diverged" in caplog.text
        assert f"none before it and 0x{first.hex()} after it" in caplog.text

    def test_a_storage_that_was_restored_from_a_backup(
        self, relstorage, open_primary, open_secondary, network, tmp_path, caplog
    ):
        primary = open_primary(relstorage("primary"))
        with traffic(primary) as commits:
            commits.commit(3)
        with traffic(open_file_storage(tmp_path / "secondary")) as commits:
            commits.commit(3)
        open_primary(relstorage("primary"))
        secondary = open_secondary()
        network.run()
        assert secondary.progress.refusals == 1
        assert "is later than this primary's last one" in caplog.text

    def test_a_blob_that_is_missing(
        self, relstorage, open_primary, open_secondary, network, database, tmp_path
    ):
        """As after moving a database where one was missing already."""
        first = open_primary()
        middle = open_primary(open_secondary(relstorage()), SECOND)
        last = open_secondary(open_file_storage(tmp_path / "last"), SECOND)
        root = database(first).open().root()
        root["blob"] = Blob(b"a blob")
        transaction.commit()
        os.remove(root["blob"].committed())
        root["other"] = Blob(b"another one")
        transaction.commit()
        network.run()
        assert (first.missing_blobs, middle.missing_blobs) == (1, 1)
        assert contents(last) == contents(middle) == as_kept(contents(first))


class TestBothAtOnce:
    def test_from_one_to_another(self, relstorage, open_primary, open_secondary, network, database):
        primary = open_primary(relstorage("primary"))
        secondary = open_secondary(relstorage("secondary"))
        commits = Traffic(database(primary))
        history(commits)
        network.run()
        commits.commit(10)
        network.run()
        commits.close()
        assert contents(secondary) == contents(primary)

    def test_in_a_chain(
        self, relstorage, open_primary, open_secondary, network, database, tmp_path
    ):
        first = open_primary()
        middle = open_primary(open_secondary(relstorage()), SECOND, poll_interval=3600)
        last = open_secondary(open_file_storage(tmp_path / "last"), SECOND)
        commits = Traffic(database(first))
        history(commits)
        network.run()
        for _ in range(10):
            commits.commit()
            network.run()
            assert last.lastTransaction() == middle.lastTransaction() == first.lastTransaction()
        commits.close()
        assert contents(last) == contents(middle) == as_kept(contents(first))
        assert middle.isReadOnly()
        with pytest.raises(ReadOnlyError):
            middle.new_instance().tpc_begin(None)

    def test_compressed(self, relstorage, open_primary, open_secondary, network, database):
        """Records pass through as they are stored, and blobs are recognised."""
        primary = open_primary(ZlibStorage(relstorage("primary")))
        secondary = open_secondary(ZlibStorage(relstorage("secondary")))
        above = open_secondary(relstorage("above"))
        db = database(primary)
        commits = Traffic(db)
        commits.commit(30)
        network.run()
        commits.commit(10)
        network.run()
        commits.close()
        stored = [contents(each) for each in (primary, secondary, above)]
        plain, copy, compressed = stored
        assert copy == plain
        assert compressed != plain
        assert any(record[2].startswith(b".z") for each in compressed for record in each.records)
        root = db.open().root()
        for other in (database(secondary), database(ZlibStorage(above))):
            there = other.open().root()
            assert sorted(there) == sorted(root)
            for key, value in root.items():
                if isinstance(value, Blob):
                    with value.open() as ours, there[key].open() as theirs:
                        assert theirs.read() == ours.read()


@pytest.mark.parametrize("end", ["primary", "secondary"])
def test_one_without_history_is_refused(end, open_primary, open_secondary, tmp_path):
    storage = open_on_sqlite(tmp_path / "free", keep_history=False)
    opener = open_primary if end == "primary" else open_secondary
    with pytest.raises(UnsuitableStorage) as caught:
        opener(storage)
    assert str(caught.value) == (
        "free (RelStorage) cannot take part in replication: it keeps no history, so its "
        "transactions lose records; set keep-history"
    )
    assert u64(storage.lastTransaction()) == 0
    storage.close()


@pytest.mark.long
class TestADatabaseServerThatDisconnects:
    """PostgreSQL ends all connections, as it does when it is restarted."""

    @pytest.fixture
    def dsn(self, postgresql):
        with postgresql.database() as found:
            name = found.rpartition("=")[2]
            self.disconnect = lambda: postgresql.run(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
            )
            yield found

    def test_under_a_primary(self, dsn, open_primary, open_secondary, network, tmp_path):
        primary = open_primary(open_on_postgresql(dsn, tmp_path / "rel"), poll_interval=0.05)
        secondary = open_secondary(reconnect_delay=1)
        for _ in range(3):
            with traffic(open_on_postgresql(dsn, tmp_path / "other")) as commits:
                commits.commit(5)
                last = commits._db.storage.new_instance().lastTransaction()
            self.disconnect()

            def caught_up(last=last):
                network.advance(1)
                network.run()
                return secondary.lastTransaction() == last

            wait_for(caught_up, "the transactions")
        assert contents(secondary) == contents(primary)

    def test_under_a_secondary(self, dsn, open_primary, open_secondary, network, tmp_path):
        primary = open_primary()
        with traffic(primary) as commits:
            commits.commit(30)
            storage = open_on_postgresql(dsn, tmp_path / "rel")
            secondary = open_secondary(storage, reconnect_delay=1)
            network.chunk_size = 4001
            for _ in range(5):
                for _ in range(40):
                    network.step()
                self.disconnect()
            network.chunk_size = 1 << 20

            def caught_up():
                network.advance(1)
                network.run()
                return secondary.lastTransaction() == primary.lastTransaction()

            wait_for(caught_up, "the transactions")
            assert contents(secondary) == as_kept(contents(primary))
        assert secondary.progress.connections > 1

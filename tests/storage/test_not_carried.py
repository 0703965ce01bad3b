"""Transactions that no secondary can be sent are refused, or replication stops before them."""

from __future__ import annotations

import contextlib
import logging
import pickle
import sqlite3

import pytest
import transaction
from persistent.timestamp import TimeStamp
from ZODB.Connection import TransactionMetaData
from ZODB.FileStorage import FileStorage
from ZODB.interfaces import IMVCCStorage
from ZODB.POSException import StorageTransactionError
from ZODB.utils import p64, z64

from zrs_core import Primary, Secondary
from zrs_core.errors import Diverged, NotCarried, TidTooHigh
from zrs_core.messages import NO_TID, Commit, Transaction
from zrs_core.progress import State
from zrs_core.sessions.secondary import EARLY_ENDS
from zrs_core.storage.fs_source import FileStorageSource
from zrs_core.storage.generic_sink import GenericSink
from zrs_core.storage.iteration_source import IterationSource

from ..conditions import wait_for
from ..databases import contents, open_file_storage
from .relstorages import open_on_sqlite

RECORD = b"cpersistent.mapping\nPersistentMapping\n.}."
RISE, FALL = (1, 2, 3), (1, 2, 30, 4, 5)


def nested(depth):
    value = "end"
    for _ in range(depth):
        value = [value]
    return value


def with_long_name():
    name = b"X" * 257
    return b"\x80\x03}X\x01\x00\x00\x00ac" + b"module\n" + name + b"\n)Rs."


EXTENSIONS = {
    "nested too deep": pickle.dumps({"a": nested(70)}, 3),
    "a long name": with_long_name(),
    "no pickle": b"garbage",
    "not a dict": pickle.dumps([1, 2], 3),
    "cut off": pickle.dumps({"a": 1}, 3)[:-1],
    "more than one": pickle.dumps({"a": 1}, 3) * 2,
}


def tid_at(second):
    return TimeStamp(2020, 1, 1, 0, 0, second).raw()


def commit(storage, oid=1000, tid=None, serial=None, extension=b"", user=b"", description=b""):
    """Commit a record, as a client of ZEO may, or a copy."""
    metadata = TransactionMetaData(user, description, extension)
    try:
        if tid is None:
            storage.tpc_begin(metadata)
            storage.store(p64(oid), z64, RECORD, "", metadata)
        else:
            storage.tpc_begin(metadata, tid, " ")
            storage.restore(p64(oid), serial or tid, RECORD, "", None, metadata)
        storage.tpc_vote(metadata)
        return storage.tpc_finish(metadata)
    except BaseException:
        storage.tpc_abort(metadata)
        raise


def tids_of(storage):
    return [each.tid for each in storage.iterator()]


def file_with(path, seconds):
    storage = open_file_storage(path)
    for oid, second in enumerate(seconds):
        commit(storage, oid, tid_at(second))
    return storage


class TestCommits:
    """A primary refuses what it could not send, and can be used after that."""

    @pytest.fixture(params=["file storage", "relstorage"])
    def primary(self, request, open_primary, tmp_path):
        if request.param == "relstorage":
            return open_primary(open_on_sqlite(tmp_path / "primary"))
        return open_primary()

    @pytest.mark.parametrize("what", EXTENSIONS)
    def test_an_extension_that_cannot_be_carried(self, what, primary, open_secondary, network):
        storage = primary.new_instance() if IMVCCStorage.providedBy(primary) else primary
        with pytest.raises(StorageTransactionError, match="its extension must be the pickle of a"):
            commit(storage, extension=EXTENSIONS[what])
        tid = commit(storage, extension=pickle.dumps({"a": 1}, 3))
        secondary = open_secondary()
        network.run()
        assert secondary.lastTransaction() == tid
        if storage is not primary:
            storage.release()

    @pytest.mark.parametrize("name", ["user", "description", "extension"])
    def test_texts_that_are_too_long(self, name, primary):
        text = pickle.dumps({"a": "x" * 65_535}, 3) if name == "extension" else b"x" * 65_536
        with pytest.raises(StorageTransactionError, match=f"its {name} has 65,"):
            commit(primary, **{name: text})
        assert commit(primary)

    def test_an_application_commits_after_it(self, primary, database):
        db = database(primary)
        with db.transaction() as connection:
            connection.root()["a"] = 1
        manager = transaction.TransactionManager()
        root = db.open(manager).root()
        root["a"] = 2
        manager.get().setExtendedInfo("path", nested(70))
        with pytest.raises(StorageTransactionError):
            manager.commit()
        manager.abort()
        root["a"] = 3
        manager.commit()
        with db.transaction() as connection:
            assert connection.root()["a"] == 3

    def test_a_tid_that_is_not_above_the_last_one(self, open_primary):
        primary = open_primary()
        commit(primary, tid=tid_at(2))
        for second in (1, 2):
            with pytest.raises(StorageTransactionError, match="not above that of the transaction"):
                commit(primary, tid=tid_at(second))
        assert commit(primary, tid=tid_at(3)) == primary.lastTransaction()

    def test_a_serial_that_is_not_the_tid(self, open_primary):
        primary = open_primary()
        with pytest.raises(StorageTransactionError, match="its serial must be the tid"):
            commit(primary, tid=tid_at(2), serial=tid_at(1))
        commit(primary, tid=tid_at(2))
        assert tids_of(primary) == [tid_at(2)]

    def test_what_is_copied(self, open_primary, tmp_path):
        primary = open_primary()
        with contextlib.closing(file_with(tmp_path / "source", FALL)) as source:
            with pytest.raises(StorageTransactionError, match="not above that of the transaction"):
                primary.copyTransactionsFrom(source)
        assert tids_of(primary) == [tid_at(second) for second in (1, 2, 30)]
        with contextlib.closing(file_with(tmp_path / "other", (40, 50))) as source:
            primary.copyTransactionsFrom(source)
        assert primary.lastTransaction() == tid_at(50)

    def test_what_is_copied_from_an_iterable(self, open_primary, tmp_path):
        class Source:
            def iterator(self):
                return self

            def __iter__(self):
                return source.iterator()

        primary = open_primary()
        with contextlib.closing(file_with(tmp_path / "source", (1, 2))) as source:
            primary.copyTransactionsFrom(Source())
        assert tids_of(primary) == [tid_at(1), tid_at(2)]

    def test_protocol_1_has_less_room(self, open_primary):
        extension = pickle.dumps({"a": b"\xff" * 40_000}, 3)
        with pytest.raises(StorageTransactionError, match="protocol 1"):
            commit(open_primary(pickle_protocol=1), extension=extension)

    def test_protocol_3_has_it(self, open_primary):
        assert commit(open_primary(), extension=pickle.dumps({"a": b"\xff" * 40_000}, 3))


class TestExtensionsThatWereCommitted:
    """The transaction is sent without its extension."""

    @pytest.mark.parametrize("what", EXTENSIONS)
    def test_it_is_sent_without(
        self, what, open_primary, open_secondary, network, tmp_path, caplog
    ):
        storage = open_file_storage(tmp_path / "primary")
        tids = [commit(storage), commit(storage, 2, extension=EXTENSIONS[what]), commit(storage, 3)]
        primary = open_primary(storage)
        secondary = open_secondary()
        network.run()
        assert tids_of(secondary) == tids
        assert not any(each.extension_bytes for each in secondary.iterator())
        (told,) = [each for each in caplog.records if each.levelno >= logging.ERROR]
        assert told.event == "extension-left-out"
        assert tids[1].hex() in told.getMessage()
        assert tids[1].hex() in primary.status().last_error.message

    def test_it_is_the_last_one_and_comes_again(
        self, open_primary, open_secondary, network, tmp_path, caplog
    ):
        storage = open_file_storage(tmp_path / "primary")
        commit(storage)
        commit(storage, 2, extension=b"garbage")
        primary = open_primary(storage)
        secondary = open_secondary()
        network.run()
        network.cut()
        network.advance(1)
        network.run()
        assert secondary.progress.state is State.REPLICATING
        tid = commit(primary, 3)
        network.run()
        assert secondary.lastTransaction() == tid
        # Once, although it was sent twice.
        assert [each.levelname for each in caplog.records].count("ERROR") == 1

    def test_a_copy_of_the_primarys_file_has_it(
        self, open_primary, open_secondary, network, tmp_path
    ):
        for name in ("primary", "secondary"):
            with contextlib.closing(file_with(tmp_path / name, RISE)) as storage:
                commit(storage, 7, tid_at(40), extension=b"garbage")
        primary = open_primary()
        secondary = open_secondary()
        network.run()
        assert secondary.progress.state is State.REPLICATING
        tid = commit(primary)
        network.run()
        assert secondary.lastTransaction() == tid

    def test_a_relstorage_may_have_one_that_is_too_long(
        self, open_primary, open_secondary, network, tmp_path, caplog
    ):
        storage = open_on_sqlite(tmp_path / "primary")
        tid = commit(storage, extension=pickle.dumps({"a": "x" * 70_000}, 3))
        open_primary(storage)
        secondary = open_secondary()
        network.run()
        assert secondary.lastTransaction() == tid
        (told,) = [each for each in caplog.records if each.levelno >= logging.ERROR]
        assert (told.event, told.tid) == ("extension-left-out", f"0x{tid.hex()}")


@pytest.fixture(params=["socket-thread", "twisted-tcp"])
def transport(request):
    return request.param


class TestTransactionsThatWereCommitted:
    """What precedes them is sent; then the connection is closed, and both ends say so."""

    def test_a_tid_that_falls(self, transport, tmp_path, caplog):
        caplog.set_level(logging.INFO, "zrs_core")
        file_with(tmp_path / "primary", FALL).close()
        with contextlib.ExitStack() as stack:
            primary = Primary(
                open_file_storage(tmp_path / "primary"), "127.0.0.1:0", transport=transport
            )
            stack.callback(primary.close)
            secondary = Secondary(
                open_file_storage(tmp_path / "secondary"),
                primary.replication_address,
                transport=transport,
                reconnect_delay=(0.01, 0.05),
            )
            stack.callback(secondary.close)
            wait_for(lambda: secondary.progress.state is State.FAILING, "the failure")
            assert tids_of(secondary) == [tid_at(second) for second in (1, 2, 30)]
            assert "it cannot send what follows" in secondary.progress.failure
            assert tid_at(4).hex() in primary.status().last_error.message
        ours = [each for each in caplog.records if each.levelno >= logging.ERROR]
        (told,) = [each for each in ours if each.name == "zrs_core.primary"]
        assert told.event == "not-carried"
        assert not told.exc_info
        assert tid_at(4).hex() in told.getMessage()
        assert "zrs snapshot" in told.getMessage()
        # Nothing asks for an empty storage.
        assert not any("empty storage" in each.getMessage() for each in caplog.records)

    def test_a_copy_of_the_file_continues(self, open_primary, open_secondary, network, tmp_path):
        for name in ("primary", "secondary"):
            file_with(tmp_path / name, FALL).close()
        primary = open_primary()
        secondary = open_secondary()
        network.run()
        assert secondary.progress.state is State.REPLICATING
        tid = commit(primary)
        network.run()
        assert secondary.lastTransaction() == tid
        assert contents(secondary) == contents(primary)

    def test_a_copy_that_ends_with_it_continues(
        self, open_primary, open_secondary, network, tmp_path
    ):
        for name in ("primary", "secondary"):
            file_with(tmp_path / name, FALL[:4]).close()
        primary = open_primary()
        secondary = open_secondary()
        network.run()
        tid = commit(primary)
        network.run()
        assert secondary.lastTransaction() == tid
        assert secondary.progress.state is State.REPLICATING

    def test_a_description_that_is_too_long_is_shortened(
        self, open_primary, open_secondary, network, tmp_path, caplog
    ):
        storage = open_on_sqlite(tmp_path / "primary")
        first = commit(storage)
        second = commit(storage, 2, description=b"x" * 70_000)
        open_primary(storage)
        secondary = open_secondary(reconnect_delay=1)
        network.run()
        assert tids_of(secondary) == [first]
        (told,) = [each for each in caplog.records if each.levelno >= logging.ERROR]
        assert (told.event, told.tid) == ("not-carried", f"0x{second.hex()}")
        for _ in range(EARLY_ENDS):
            network.advance(2)
            network.run()
        assert secondary.progress.state is State.FAILING
        path = tmp_path / "primary" / "main.sqlite3"
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(
                'UPDATE "transaction" SET description = ? WHERE tid = ?',
                (b"shortened", int.from_bytes(second, "big")),
            )
        network.advance(2)
        network.run()
        assert tids_of(secondary) == [first, second]
        assert secondary.progress.state is State.REPLICATING

    def test_a_record_of_another_serial(self, open_primary, open_secondary, network, tmp_path):
        storage = file_with(tmp_path / "primary", RISE)
        commit(storage, 7, tid_at(40), serial=tid_at(5))
        primary = open_primary(storage)
        secondary = open_secondary()
        network.run()
        assert tids_of(secondary) == [tid_at(second) for second in RISE]
        assert "has another serial" in primary.status().last_error.message


class TestReaders:
    def batches(self, source, start=NO_TID, budget=1 << 20):
        reader = source.open(start)
        try:
            while batch := reader.read(budget):
                yield batch
        finally:
            reader.close()

    def read(self, source, budget):
        """What is read before a transaction that cannot be sent."""
        found = []
        with pytest.raises(NotCarried) as caught:  # noqa: PT012
            for batch in self.batches(source, budget=budget):
                found += batch
        return found, caught.value

    @pytest.fixture(params=["a falling tid", "a long text"])
    def source(self, request, tmp_path):
        """The fourth of its transactions cannot be sent, and the fifth could be."""
        if request.param == "a falling tid":
            storage = file_with(tmp_path, (1, 2, 30, 4, 50))
            source = FileStorageSource(storage)
        else:
            storage = open_on_sqlite(tmp_path)
            for number in range(5):
                commit(storage, number, description=b"x" * 70_000 * (number == 3))
            source = IterationSource(storage)
        yield source
        source.close()
        storage.close()

    @pytest.mark.parametrize("budget", [1, 1 << 20])
    def test_what_precedes_comes_first(self, source, budget):
        found, error = self.read(source, budget)
        *first, bad, _ = tids_of(source.storage)
        assert [each.tid for each in found if isinstance(each, Transaction)] == first
        assert isinstance(found[-1], Commit)
        assert error.tid == bad

    def test_it_is_raised_again_and_skips_nothing(self, source):
        reader = source.open(tids_of(source.storage)[2])
        for _ in range(3):
            with pytest.raises(NotCarried):
                reader.read(1 << 20)
        reader.close()

    def test_a_transaction_that_was_begun_is_not_begun_again(self, tmp_path):
        storage = open_file_storage(tmp_path)
        metadata = TransactionMetaData()
        storage.tpc_begin(metadata, tid_at(2), " ")
        large = RECORD + bytes(70_000)
        for oid, serial in ((1, 2), (2, 2), (3, 1)):
            storage.restore(p64(oid), tid_at(serial), large, "", None, metadata)
        storage.tpc_vote(metadata)
        storage.tpc_finish(metadata)
        source = FileStorageSource(storage)
        for begun in (True, False):
            found, error = self.read(source, 1)
            assert "0x0000000000000003 has another serial" in str(error)
            assert bool(found) == begun
            assert not any(isinstance(each, Commit) for each in found)
        storage.close()

    @pytest.mark.parametrize("second", FALL)
    def test_each_start_is_found_in_a_file_in_which_a_tid_falls(self, second, tmp_path):
        with contextlib.closing(file_with(tmp_path, (*FALL, 6))) as storage:
            reader = FileStorageSource(storage).open(tid_at(second))
            with contextlib.closing(reader):
                if second == 30:
                    with pytest.raises(NotCarried):
                        reader.read(1)
                else:
                    begin = reader.read(1)[0]
                    assert begin.tid == tid_at((*FALL, 6)[FALL.index(second) + 1])

    @pytest.mark.parametrize(
        ("second", "error"), [(3, Diverged), (20, TidTooHigh), (50, TidTooHigh)]
    )
    def test_a_start_that_is_not_there(self, second, error, tmp_path):
        for number, seconds in enumerate((FALL, RISE[:2])):
            with contextlib.closing(file_with(tmp_path / str(number), seconds)) as storage:
                with pytest.raises((Diverged, TidTooHigh) if number else error):
                    FileStorageSource(storage).open(tid_at(second))

    def test_a_file_is_gone_through_once(self, tmp_path):
        with contextlib.closing(file_with(tmp_path, (1, 2, 4))) as storage:
            source = FileStorageSource(storage)
            for _ in range(2):
                with pytest.raises(Diverged):
                    source.open(tid_at(3))
            commit(storage, 9, tid_at(5))
            with contextlib.closing(source.open_file()) as file:
                read = []
                header = file.header
                file.header = lambda pos: read.append(pos) or header(pos)
                assert source.tids_rise(file)
                assert len(read) == 1


class TestWhatASecondaryHolds:
    def test_a_generic_one_whose_text_is_too_long(self, tmp_path):
        storage = open_on_sqlite(tmp_path)
        commit(storage, description=b"x" * 70_000)
        sink = GenericSink(storage, lambda tid, oids: None)
        with pytest.raises(Exception, match="no primary can send it: its description has 70000"):
            sink.last_transaction(1 << 20)
        storage.close()


def test_databases_open_over_such_a_file(tmp_path):
    """FileStorage opens it, and so do both ends."""
    file_with(tmp_path, FALL).close()
    primary = Primary(str(tmp_path / "Data.fs"), "127.0.0.1:0", transport="socket-thread")
    assert primary.lastTransaction() == tid_at(5)
    commit(primary)
    primary.close()
    storage = FileStorage(str(tmp_path / "Data.fs"))
    assert len(tids_of(storage)) == len(FALL) + 1
    storage.close()

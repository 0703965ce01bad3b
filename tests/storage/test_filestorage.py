"""FileStorage as a source and as a sink."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
import transaction
import ZODB
from persistent.mapping import PersistentMapping
from persistent.TimeStamp import TimeStamp
from ZODB.blob import Blob, BlobStorage
from ZODB.Connection import TransactionMetaData
from ZODB.DemoStorage import DemoStorage
from ZODB.FileStorage import FileStorage
from ZODB.MappingStorage import MappingStorage
from ZODB.utils import p64, u64, z64
from zope.interface.verify import verifyObject

from zrs_core.errors import Diverged, InvalidMessage, MissingBlobSupport, NotWritten, TidTooHigh
from zrs_core.interfaces import ITransactionReader, ITransactionSink, ITransactionSource
from zrs_core.messages import BlobBlock, Commit, Store, StoreBlob, Transaction
from zrs_core.storage.committed import DamagedFile
from zrs_core.storage.fs_access import is_file_storage
from zrs_core.storage.fs_sink import FileStorageSink, file_storage_sink
from zrs_core.storage.fs_source import FileStorageSource
from zrs_core.storage.fs_tail import last_tid_in_file
from zrs_core.storage.opening import source_of

from ..databases import (
    Traffic,
    blob_files,
    contents,
    open_file_storage,
    temporary_files,
    traffic,
)

PLENTY = 1 << 40


def no_invalidation(tid, oids):
    pass


@pytest.fixture
def storage(tmp_path):
    storage = open_file_storage(tmp_path / "primary")
    yield storage
    storage.close()


@pytest.fixture
def target(tmp_path):
    storage = open_file_storage(tmp_path / "secondary")
    yield storage
    storage.close()


@pytest.fixture
def db(storage):
    db = ZODB.DB(storage)
    yield db
    db.close()


@pytest.fixture
def commits(db):
    commits = Traffic(db)
    yield commits
    commits.close()


@pytest.fixture
def source(storage):
    return FileStorageSource(storage)


@pytest.fixture
def open_reader(source):
    readers = []

    def opened(start=z64):
        readers.append(source.open(start))
        return readers[-1]

    yield opened
    for reader in readers:
        reader.close()


def read_all(reader, budget=PLENTY):
    messages = []
    while batch := reader.read(budget):
        messages += batch
    return messages


def tids(messages):
    return [message.tid for message in messages if isinstance(message, Transaction)]


def apply_all(sink, messages):
    for message in messages:
        sink.apply(message)
    sink.flush()


def voted(storage, data=b"x" * 100):
    """A transaction that has been voted for and not finished."""
    metadata = TransactionMetaData()
    storage.tpc_begin(metadata)
    storage.store(storage.new_oid(), z64, data, "", metadata)
    storage.tpc_vote(metadata)
    return metadata


class TestSource:
    def test_it_provides_its_interfaces(self, source, open_reader):
        assert verifyObject(ITransactionSource, source)
        assert verifyObject(ITransactionReader, open_reader())

    def test_an_empty_storage_has_nothing(self, storage, source):
        reader = source.open(z64)
        assert reader.read(PLENTY) == []
        reader.close()

    def test_all_that_the_storage_holds_is_read(self, storage, commits, open_reader):
        commits.commit(60)
        messages = read_all(open_reader())
        stored = contents(storage)
        assert tids(messages) == [each.tid for each in stored]
        assert [m for m in messages if isinstance(m, Transaction)] == [
            Transaction(each.tid, each.status, each.user, each.description, each.extension)
            for each in stored
        ]
        records = [m for m in messages if isinstance(m, (Store, StoreBlob))]
        assert [(m.oid, m.serial, m.data or None, m.data_txn) for m in records] == [
            record[:4] for each in stored for record in each.records
        ]
        blobs = b"".join(m.data for m in messages if isinstance(m, BlobBlock))
        assert blobs == b"".join(
            record[4] for each in stored for record in each.records if record[4]
        )

    def test_the_size_of_the_batches_does_not_matter(self, commits, open_reader):
        commits.commit(40)
        messages = read_all(open_reader())
        assert read_all(open_reader(), budget=1) == messages
        assert read_all(open_reader(), budget=100_000) == messages

    def test_a_batch_ends_once_its_budget_is_full(self, db, open_reader):
        with db.transaction() as connection:
            connection.root()["blob"] = Blob(b"x" * 1_000_000)
        reader = open_reader()
        while batch := reader.read(200_000):
            size = sum(len(m.data) for m in batch if not isinstance(m, (Transaction, Commit)))
            assert size < 200_000 + 65_536

    def test_a_transaction_that_is_not_finished_is_not_read(self, storage, commits, open_reader):
        commits.commit(3)
        reader = open_reader()
        assert len(tids(read_all(reader))) == 4
        metadata = voted(storage)
        assert reader.read(PLENTY) == []
        assert len(tids(read_all(open_reader()))) == 4
        tid = storage.tpc_finish(metadata)
        assert tids(read_all(reader)) == [tid]

    def test_bytes_beyond_the_committed_end_are_never_parsed(self, storage, commits, open_reader):
        commits.commit(3)
        reader = open_reader()
        read_all(reader)
        with open(storage.getName(), "ab") as file:
            file.write(b"half a header")
        assert reader.read(PLENTY) == []
        assert len(tids(read_all(open_reader()))) == 4
        commits.commit()
        assert len(tids(read_all(reader))) == 1

    def test_bytes_that_change_before_they_are_committed_are_read_as_committed(
        self, storage, commits, open_reader
    ):
        commits.commit(3)
        reader = open_reader()
        metadata = voted(storage, b"first")
        read_all(reader)
        storage.tpc_abort(metadata)
        tid = storage.tpc_finish(voted(storage, b"other"))
        (begin, store, _) = read_all(reader)
        assert (begin.tid, store.data) == (tid, b"other")

    def test_reading_holds_no_lock_of_the_storage(self, storage, commits, open_reader):
        commits.commit(3)
        held = threading.Event()
        release = threading.Event()

        def hold():
            with storage._lock, storage._files.write_lock():
                held.set()
                release.wait()

        holder = threading.Thread(target=hold)
        holder.start()
        held.wait()
        try:
            assert len(tids(read_all(open_reader()))) == 4
        finally:
            release.set()
            holder.join()

    @pytest.mark.parametrize("position", range(12))
    def test_it_goes_on_after_any_start(self, position, storage, commits, open_reader):
        commits.commit(11)
        all_tids = [each.tid for each in storage.iterator()]
        assert tids(read_all(open_reader(all_tids[position]))) == all_tids[position + 1 :]

    def test_a_start_beyond_the_end_is_too_high(self, storage, commits, source):
        commits.commit(3)
        start = p64(u64(storage.lastTransaction()) + 1)
        with pytest.raises(TidTooHigh) as caught:
            source.open(start)
        assert (caught.value.start, caught.value.last) == (start, storage.lastTransaction())

    def test_any_start_is_too_high_for_an_empty_storage(self, source):
        with pytest.raises(TidTooHigh):
            source.open(p64(1))

    @pytest.mark.parametrize("position", range(1, 6))
    def test_a_start_that_never_was_is_a_divergence(self, position, storage, commits, source):
        commits.commit(5)
        all_tids = [each.tid for each in storage.iterator()]
        start = p64(u64(all_tids[position]) - 1)
        with pytest.raises(Diverged) as caught:
            source.open(start)
        assert caught.value.before == all_tids[position - 1]
        assert caught.value.after == all_tids[position]
        for tid in (start, all_tids[position - 1], all_tids[position]):
            assert tid.hex() in str(caught.value)

    def test_a_start_before_all_in_a_storage_never_packed_is_a_divergence(
        self, storage, commits, source
    ):
        commits.commit()
        with pytest.raises(Diverged) as caught:
            source.open(p64(1))
        assert caught.value.before is None

    def test_a_start_that_was_packed_away_is_none(self, db, storage, open_reader):
        root = db.open().root()
        for number in range(6):
            root["number"] = number
            transaction.commit()
        before = [each.tid for each in storage.iterator()]
        db.pack()
        root["number"] = "after the pack"
        transaction.commit()
        after = [each.tid for each in storage.iterator()]
        gone = sorted(set(before) - set(after))
        assert len(gone) >= 4
        for start in gone:
            assert tids(read_all(open_reader(start))) == [tid for tid in after if tid > start]

    def test_the_last_transaction_may_be_packed_away(self, storage, db, open_reader):
        metadata = TransactionMetaData()
        storage.tpc_begin(metadata)
        storage.store(storage.new_oid(), z64, b"\x80\x03N.N.", "", metadata)
        storage.tpc_vote(metadata)
        tid = storage.tpc_finish(metadata)
        db.pack()
        assert tid not in [each.tid for each in storage.iterator()]
        assert read_all(open_reader(tid)) == []

    @pytest.mark.parametrize("kept", [True, False])
    @pytest.mark.parametrize("after", [0, 1, 7, 30, 90])
    def test_a_pack_in_mid_stream_is_survived(self, after, kept, storage, db, open_reader):
        storage.pack_keep_old = kept
        commits = Traffic(db)
        commits.commit(60)
        reader = open_reader()
        messages = []
        while len(messages) < after:
            messages += reader.read(1)
        db.pack()
        commits.commit(5)
        messages += read_all(reader)
        commits.close()
        seen = tids(messages)
        left = [each.tid for each in storage.iterator()]
        assert seen == sorted(set(seen))
        assert set(left) <= set(seen)

    def test_blobs_that_a_pack_has_removed_are_not_missed(self, storage, source, db, open_reader):
        """They are in the old file, of which a reader is in the midst."""
        with db.transaction() as connection:
            connection.root()["blob"] = Blob(b"first")
        for number in range(5):
            with db.transaction() as connection:
                with connection.root()["blob"].open("w") as blob:
                    blob.write(b"%d" % number)
        reader = open_reader()
        messages = reader.read(1)
        db.pack()
        messages += read_all(reader, 1)
        assert source.missing_blobs == 0
        assert [each.data for each in messages if isinstance(each, BlobBlock)] == [b"4"]

    def test_two_packs_between_two_reads_are_survived(self, storage, db, commits, open_reader):
        commits.commit(20)
        reader = open_reader()
        read_all(reader)
        for _ in range(2):
            commits.commit(10)
            db.pack()
        expected = [each.tid for each in storage.iterator()]
        seen = tids(read_all(reader))
        assert seen == expected[-len(seen) :]

    def test_undo_brings_the_data_and_names_where_it_was(self, db, storage, open_reader):
        connection = db.open()
        connection.root()["x"] = 1
        transaction.commit()
        first = storage.lastTransaction()
        connection.root()["x"] = 2
        transaction.commit()
        db.undo(db.undoLog(0, 1)[0]["id"])
        transaction.commit()
        *_, store, _ = read_all(open_reader())
        assert store.data_txn == first
        assert store.data == storage.loadSerial(z64, first)

    def test_an_undone_creation_has_no_data(self, db, storage, open_reader):
        connection = db.open()
        connection.root()["x"] = PersistentMapping()
        transaction.commit()
        db.undo(db.undoLog(0, 1)[0]["id"])
        transaction.commit()
        assert b"" in [m.data for m in read_all(open_reader()) if isinstance(m, Store)]

    def test_an_undone_transaction_has_no_records(self, storage, commits, open_reader):
        commits.commit(2)
        (_, second, _) = list(storage.iterator())
        with open(storage.getName(), "r+b") as file:
            file.seek(second._tpos + 16)
            file.write(b"u")
        messages = read_all(open_reader())
        at = messages.index(next(m for m in messages if getattr(m, "status", " ") == "u"))
        assert messages[at + 1] == Commit()
        assert len(tids(messages)) == 3

    def test_a_missing_blob_is_counted_and_logged(self, db, storage, source, open_reader, caplog):
        with db.transaction() as connection:
            connection.root()["blob"] = Blob(b"x")
        os.remove(storage.loadBlob(p64(1), storage.lastTransaction()))
        assert not [m for m in read_all(open_reader()) if isinstance(m, StoreBlob)]
        assert source.missing_blobs == 1
        assert "the blob of object 0x0000000000000001" in caplog.text

    @pytest.mark.parametrize("reads", range(6))
    def test_who_stops_within_a_blob_leaves_no_file_open(
        self, reads, db, storage, open_reader, monkeypatch
    ):
        with db.transaction() as connection:
            connection.root()["blob"] = Blob(b"x" * 100_000)
        opened, open_blob = [], storage.openCommittedBlobFile

        def open_and_remember(oid, tid):
            opened.append(open_blob(oid, tid))
            return opened[-1]

        monkeypatch.setattr(storage, "openCommittedBlobFile", open_and_remember)
        reader = open_reader()
        for _ in range(reads):
            reader.read(1)
        reader.close()
        assert [file for file in opened if not file.closed] == []
        assert opened or reads < 3

    def test_a_blob_that_cannot_be_read_is_an_error(self, db, storage, open_reader):
        with db.transaction() as connection:
            connection.root()["blob"] = Blob(b"x")
        path = storage.loadBlob(p64(1), storage.lastTransaction())
        os.remove(path)
        os.mkdir(path)
        with pytest.raises(IsADirectoryError):
            read_all(open_reader())

    def test_a_blob_that_has_become_shorter_is_an_error(self, db, storage, open_reader):
        with db.transaction() as connection:
            connection.root()["blob"] = Blob(b"x" * 100_000)
        path = storage.loadBlob(p64(1), storage.lastTransaction())
        reader = open_reader()
        while not isinstance(reader.read(1)[0], StoreBlob):
            pass
        os.chmod(path, 0o600)
        os.truncate(path, 0)
        with pytest.raises(InvalidMessage):
            read_all(reader)

    def test_a_storage_opened_without_its_blobs_misses_them(self, tmp_path, caplog):
        storage = open_file_storage(tmp_path / "db")
        db = ZODB.DB(storage)
        with db.transaction() as connection:
            connection.root()["blob"] = Blob(b"x")
        db.close()
        storage = open_file_storage(tmp_path / "db", blobs=False)
        source = FileStorageSource(storage)
        assert not source.blobs
        reader = source.open(z64)
        assert not [m for m in read_all(reader) if isinstance(m, StoreBlob)]
        reader.close()
        assert source.missing_blobs == 1
        assert "opened without a blob directory" in caplog.text
        storage.close()

    def test_who_waits_is_woken_once(self, commits, source, open_reader):
        commits.commit()
        reader = open_reader()
        read_all(reader)
        woken = []
        reader.wait(lambda: woken.append(1))
        assert woken == []
        commits.commit()
        source.changed()
        source.changed()
        assert woken == [1]

    def test_who_waits_too_late_is_woken_at_once(self, commits, source, open_reader):
        commits.commit()
        reader = open_reader()
        read_all(reader)
        commits.commit()
        source.changed()
        woken = []
        reader.wait(lambda: woken.append(1))
        assert woken == [1]

    def test_a_closed_reader_is_not_woken_and_holds_no_file(self, commits, source):
        commits.commit(3)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(10):
            reader = source.open(z64)
            reader.read(1)
            reader.wait(pytest.fail)
            reader.close()
            reader.close()
        assert len(os.listdir("/proc/self/fd")) == before
        source.changed()

    def test_who_waits_again_waits_once(self, commits, source, open_reader):
        commits.commit()
        reader = open_reader()
        read_all(reader)
        woken = []
        reader.wait(pytest.fail)
        reader.wait(lambda: woken.append(1))
        source.changed()
        assert woken == [1]

    def test_a_wake_that_fails_keeps_no_one_from_being_woken(
        self, commits, source, open_reader, caplog
    ):
        commits.commit()
        woken = []
        for wake in (lambda: 1 / 0, lambda: woken.append(1)):
            reader = open_reader()
            read_all(reader)
            reader.wait(wake)
        source.changed()
        assert woken == [1]
        assert "cannot be woken" in caplog.text

    def test_a_refused_start_holds_no_file(self, commits, source):
        commits.commit(3)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            with pytest.raises(Diverged):
                source.open(p64(1))
        assert len(os.listdir("/proc/self/fd")) == before

    def test_one_that_waits_holds_nothing_of_the_file(self, commits, open_reader, source):
        commits.commit(60)
        reader = open_reader()
        read_all(reader)
        last = source.open(source.last_tid())
        assert last.read(1 << 20) == []
        assert reader._file.window == last._file.window == b""
        last.close()

    def test_a_damaged_file_is_an_error(self, storage, commits, open_reader):
        commits.commit(3)
        third = list(storage.iterator())[2]
        with open(storage.getName(), "r+b") as file:
            file.seek(third._tpos + 8)
            file.write(b"\0" * 8)
        with pytest.raises(DamagedFile, match="is damaged"):
            read_all(open_reader())

    def test_a_file_that_is_gone_is_an_error(self, storage):
        source = FileStorageSource(storage, pack_timeout=0)
        os.remove(storage.getName())
        with pytest.raises(FileNotFoundError):
            source.open(z64)


@pytest.fixture(params=["one by one", "appending"])
def make_sink(request):
    """Both ways into a FileStorage."""
    if request.param == "one by one":
        return FileStorageSink
    return lambda storage, invalidate: file_storage_sink(storage, invalidate, "batch")


class TestSink:
    def messages(self, commits, open_reader, count=40):
        commits.commit(count)
        return read_all(open_reader())

    def test_it_provides_its_interface(self, make_sink, target):
        assert verifyObject(ITransactionSink, make_sink(target, no_invalidation))

    def test_what_is_applied_is_bit_for_bit_what_was_read(
        self, make_sink, commits, open_reader, storage, target
    ):
        apply_all(make_sink(target, no_invalidation), self.messages(commits, open_reader))
        assert contents(target) == contents(storage)
        assert Path(target.getName()).read_bytes() == Path(storage.getName()).read_bytes()
        assert blob_files(target.blob_dir) == blob_files(storage.blob_dir)
        assert temporary_files(target.blob_dir) == []

    def test_a_blob_storage_around_a_file_storage_takes_the_same(
        self, make_sink, commits, open_reader, storage, tmp_path
    ):
        target = BlobStorage(str(tmp_path / "blobs"), FileStorage(str(tmp_path / "Other.fs")))
        apply_all(make_sink(target, no_invalidation), self.messages(commits, open_reader))
        assert Path(target.getName()).read_bytes() == Path(storage.getName()).read_bytes()
        assert blob_files(tmp_path / "blobs") == blob_files(storage.blob_dir)
        target.close()

    @pytest.mark.parametrize("make", [open_file_storage, "blob storage"])
    def test_whatever_was_applied_of_a_transaction_an_abort_leaves_nothing(
        self, make_sink, make, db, open_reader, tmp_path
    ):
        with db.transaction() as connection:
            for number in range(3):
                connection.root()[number] = Blob(b"x" * 65_536 * number)
                connection.root()[str(number)] = PersistentMapping()
        messages = read_all(open_reader())
        first = messages.index(Commit()) + 1
        path = tmp_path / "other"
        if callable(make):
            target = make(path)
        else:
            path.mkdir()
            target = BlobStorage(str(path / "blobs"), FileStorage(str(path / "Data.fs")))
        sink = make_sink(target, no_invalidation)
        apply_all(sink, messages[:first])
        before = Path(target.getName()).read_bytes()
        for end in range(first, len(messages)):
            apply_all(sink, messages[first:end])
            sink.abort()
            assert Path(target.getName()).read_bytes() == before
            assert blob_files(path / "blobs") == {}
            assert temporary_files(path / "blobs") == []
        apply_all(sink, messages[first:])
        assert contents(target) == contents(db.storage)
        target.close()

    def test_an_abort_without_a_transaction_does_nothing(self, make_sink, target):
        make_sink(target, no_invalidation).abort()

    def test_the_database_hears_of_each_transaction_inside_its_finish(
        self, make_sink, commits, open_reader, target
    ):
        heard = []

        def invalidate(tid, oids):
            assert target._commit_lock.locked()
            assert target._files.writing
            heard.append((tid, oids))

        messages = self.messages(commits, open_reader, 5)
        apply_all(make_sink(target, invalidate), messages)
        assert [tid for tid, _ in heard] == tids(messages)
        assert [oid for _, oids in heard for oid in oids] == [
            m.oid for m in messages if isinstance(m, (Store, StoreBlob))
        ]

    def test_an_empty_blob_has_an_empty_file(self, make_sink, target):
        tid, oid = p64(1 << 40), p64(1)
        record = b"cZODB.blob\nBlob\n.N."
        sink = make_sink(target, no_invalidation)
        apply_all(sink, [Transaction(tid), StoreBlob(oid, tid, record, None, 0), Commit()])
        assert Path(target.loadBlob(oid, tid)).read_bytes() == b""

    def test_an_undone_transaction_brings_no_records(self, make_sink, target):
        tid, oid = p64(1 << 40), p64(1)
        sink = make_sink(target, no_invalidation)
        blob = [StoreBlob(p64(2), tid, b"record", None, 1), BlobBlock(b"x")]
        apply_all(sink, [Transaction(tid, "u"), Store(oid, tid, b"x"), *blob, Commit()])
        assert len(target) == 0
        assert (target.lastTransaction(), last_tid_in_file(target)) == (tid, tid)
        assert blob_files(target.blob_dir) == {}
        assert temporary_files(target.blob_dir) == []

    def test_a_blob_for_a_storage_without_is_an_error(self, make_sink, tmp_path):
        target = open_file_storage(tmp_path / "db", blobs=False)
        sink = make_sink(target, no_invalidation)
        tid = p64(1 << 40)
        sink.apply(Transaction(tid))
        with pytest.raises(MissingBlobSupport, match="give it a blob directory"):
            sink.apply(StoreBlob(p64(1), tid, b"record", None, 0))
        sink.abort()
        target.close()

    @pytest.mark.parametrize("message", [Commit(), Store(p64(1), p64(2)), BlobBlock(b"x")])
    def test_messages_out_of_order_are_refused(self, make_sink, message, target):
        with pytest.raises(ValueError, match="outside of a"):
            make_sink(target, no_invalidation).apply(message)

    def test_a_block_without_a_blob_is_refused(self, make_sink, target):
        sink = make_sink(target, no_invalidation)
        sink.apply(Transaction(p64(1 << 40)))
        with pytest.raises(ValueError, match="outside of a blob"):
            sink.apply(BlobBlock(b"x"))
        sink.abort()

    def test_what_a_killed_process_left_is_removed(self, make_sink, target):
        left = Path(target.temporaryDirectory(), "zrs-left.blob")
        other = Path(target.temporaryDirectory(), "other.blob")
        left.touch()
        other.touch()
        make_sink(target, no_invalidation)
        assert not left.exists()
        assert other.exists()

    def test_clean_up_goes_on_when_a_part_of_it_fails(self, target, monkeypatch):
        tid = p64(1 << 40)
        sink = FileStorageSink(target, no_invalidation)
        sink.apply(Transaction(tid))
        sink.apply(StoreBlob(p64(1), tid, b"record", None, 1))
        sink.apply(BlobBlock(b"x"))
        sink.apply(StoreBlob(p64(2), tid, b"record", None, 2))

        def fail(transaction):
            raise OSError("cannot abort")

        with monkeypatch.context() as patched:
            patched.setattr(target, "tpc_abort", fail)
            with pytest.raises(OSError, match="cannot abort"):
                sink.abort()
        target.tpc_abort(target.tpc_transaction())
        assert temporary_files(target.blob_dir) == []
        assert blob_files(target.blob_dir) == {}

    def test_applying_after_a_failed_vote_and_an_abort_works(self, target, monkeypatch):
        tid = p64(1 << 40)
        whole = [Transaction(tid), Store(p64(1), tid, b"x"), Commit()]
        sink = FileStorageSink(target, no_invalidation)

        def fail(transaction):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(target, "tpc_vote", fail)
            with pytest.raises(OSError, match="No space"):
                apply_all(sink, whole)
            sink.abort()
        assert sink.last_tid() == z64
        apply_all(sink, whole)
        assert sink.last_tid() == tid


class TestTheTrueLastTransaction:
    """What FileStorage believes after it was opened over an unfinished or damaged end."""

    def left_behind(self, path, end):
        storage = open_file_storage(path)
        with traffic(storage) as commits:
            commits.commit(5)
            last = storage.lastTransaction()
            # What a kill between vote and finish leaves is what is on disk at that moment.
            metadata = voted(storage)
            file = Path(storage.getName()).read_bytes()
            storage.tpc_abort(metadata)
        Path(storage.getName()).write_bytes(end(file, storage.getSize()))
        os.remove(storage.getName() + ".index")
        return last

    @pytest.mark.parametrize(
        "end",
        [
            pytest.param(lambda file, size: file, id="voted and not finished"),
            pytest.param(lambda file, size: file[:-9], id="cut off"),
            pytest.param(lambda file, size: file[:size] + b"\0" * 23, id="zeros"),
            pytest.param(lambda file, size: file[:size] + b"\0" * 4096, id="many zeros"),
        ],
    )
    def test_it_is_read_from_the_file(self, end, tmp_path, caplog):
        last = self.left_behind(tmp_path / "db", end)
        storage = open_file_storage(tmp_path / "db")
        wrong = storage.lastTransaction()
        sink = FileStorageSink(storage, no_invalidation)
        assert wrong != last
        assert sink.last_tid() == last
        assert storage.lastTransaction() == last
        assert "holds 0x" + last.hex() in caplog.text
        storage.close()

    @pytest.mark.parametrize("end", [b"\0" * 23, b""])
    def test_a_primary_reads_it_from_the_file_too(self, end, tmp_path):
        last = self.left_behind(
            tmp_path / "db", lambda file, size: file[:size] + end if end else file
        )
        storage = open_file_storage(tmp_path / "db")
        assert storage.lastTransaction() != last
        assert source_of(storage).last_tid() == storage.lastTransaction() == last
        # Whatever the clock says, what is committed next comes after it.
        assert storage._ts >= TimeStamp(last)
        storage.close()

    def test_a_primary_remembers_what_a_pack_has_removed(self, storage, db):
        with db.transaction() as connection:
            connection.root()["x"] = PersistentMapping()
        with db.transaction() as connection:
            del connection.root()["x"]
        root = storage.lastTransaction()
        metadata = TransactionMetaData()
        storage.tpc_begin(metadata)
        storage.store(p64(99), z64, b"nobody refers to it", "", metadata)
        storage.tpc_vote(metadata)
        last = storage.tpc_finish(metadata)
        db.pack(time.time() + 1)
        assert last_tid_in_file(storage) == root
        assert source_of(storage).last_tid() == last

    def test_a_blob_storage_is_set_right_too(self, tmp_path):
        last = self.left_behind(tmp_path / "db", lambda file, size: file)
        storage = BlobStorage(
            str(tmp_path / "blobs"), open_file_storage(tmp_path / "db", blobs=False)
        )
        FileStorageSink(storage, no_invalidation)
        assert storage.lastTransaction() == last
        storage.close()

    def test_a_storage_without_the_private_attribute_is_left_alone(self, tmp_path, monkeypatch):
        last = self.left_behind(tmp_path / "db", lambda file, size: file)
        storage = open_file_storage(tmp_path / "db")
        wrong = storage.lastTransaction()
        del storage._ltid
        monkeypatch.setattr(type(storage), "lastTransaction", lambda self: wrong)
        assert FileStorageSink(storage, no_invalidation).last_tid() == last
        assert not hasattr(storage, "_ltid")
        monkeypatch.undo()
        storage.close()

    def test_an_empty_file_has_none(self, target):
        assert last_tid_in_file(target) == z64


class TestOneByOne:
    """The sink over the public methods of a FileStorage."""

    def transaction(self, number):
        tid = p64(number << 40)
        return [Transaction(tid), Store(p64(1), tid, b"x"), Commit()]

    def test_what_cannot_be_voted_for_leaves_nothing_in_the_file(self, target, monkeypatch):
        sink = FileStorageSink(target, no_invalidation)
        apply_all(sink, self.transaction(1))
        data = Path(target.getName()).read_bytes()
        with monkeypatch.context() as patched:
            patched.setattr(target, "tpc_vote", lambda transaction: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                apply_all(sink, self.transaction(2))
        sink.abort()
        assert Path(target.getName()).read_bytes() == data
        apply_all(sink, self.transaction(3))
        assert len(contents(target)) == 2

    def test_after_a_storage_that_has_closed_itself_nothing_is_applied(self, target, monkeypatch):
        sink = FileStorageSink(target, no_invalidation)
        monkeypatch.setattr(target, "_finish_finish", lambda tid: 1 / 0)
        with pytest.raises(NotWritten):
            apply_all(sink, self.transaction(1))
        sink.abort()
        with pytest.raises(NotWritten):
            sink.apply(Transaction(p64(2 << 40)))
        assert sink.last_tid() == z64


class TestRecognising:
    def test_a_file_storage_and_a_blob_storage_around_one(self, storage, tmp_path):
        assert is_file_storage(storage)
        plain = open_file_storage(tmp_path / "db", blobs=False)
        around = BlobStorage(str(tmp_path / "blobs"), plain)
        assert is_file_storage(around)
        around.close()

    def test_nothing_else(self):
        assert not is_file_storage(MappingStorage())
        assert not is_file_storage(DemoStorage())

    def test_what_only_looks_like_one_is_none(self, storage):
        """A wrapper has all attributes of what it wraps, and other records than its file."""
        assert not is_file_storage(Attributes(storage))

    def test_its_name_will_do_where_the_private_path_is_missing(
        self, storage, commits, monkeypatch
    ):
        monkeypatch.delattr(storage, "_file_name")
        commits.commit()
        assert last_tid_in_file(storage) == storage.lastTransaction()
        monkeypatch.undo()


class Attributes:
    """Has the attributes of another object."""

    def __init__(self, other):
        self._other = other

    def __getattr__(self, name):
        return getattr(self._other, name)


def test_what_a_primary_finds_in_its_file_is_on_disk(tmp_path, open_primary, monkeypatch):
    open_file_storage(tmp_path / "primary").close()
    synced = []
    fsync = os.fsync

    def recording(fd):
        synced.append(os.fstat(fd).st_ino)
        fsync(fd)

    storage = open_file_storage(tmp_path / "primary")
    monkeypatch.setattr(os, "fsync", recording)
    open_primary(storage)
    # Who wrote it may have been killed before it was.
    assert os.stat(tmp_path / "primary" / "Data.fs").st_ino in synced

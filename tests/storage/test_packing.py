"""A primary that is packed while it replicates."""

from __future__ import annotations

import errno
import logging
import os
import pickle
import sys
import threading
import time
from contextlib import closing

import pytest
import transaction
from persistent.mapping import PersistentMapping
from persistent.timestamp import TimeStamp
from ZODB.blob import Blob, BlobStorage, is_blob_record
from ZODB.serialize import referencesf
from ZODB.utils import z64

from zrs_core.errors import Diverged, NotWritten, TidTooHigh
from zrs_core.messages import Commit, Store, StoreBlob, Transaction
from zrs_core.progress import State
from zrs_core.storage import disk, fs_writer
from zrs_core.storage.appending import AppendingSink
from zrs_core.storage.committed import DamagedFile
from zrs_core.storage.fs_sink import FileStorageSink, file_storage_sink
from zrs_core.storage.fs_source import FileStorageSource
from zrs_core.storage.opening import sink_of

from ..databases import Traffic, contents, open_file_storage, traffic

PLENTY = 1 << 40
EMPTY = pickle.dumps(PersistentMapping, 3) + pickle.dumps({"data": {}}, 3)


def tid(minute, second=0.0):
    return TimeStamp(2024, 5, 6, 7, minute, second).raw()


def seconds(tid):
    return TimeStamp(tid).timeTime()


@pytest.fixture
def storage(tmp_path):
    """The root object at minute 1; then, at 2 and 3, what nothing refers to."""
    storage = open_file_storage(tmp_path / "primary")
    sink = FileStorageSink(storage, lambda tid, oids: None)
    for minute in (1, 2, 3):
        oid = z64 if minute == 1 else storage.new_oid()
        for message in (
            Transaction(tid(minute)),
            Store(oid, tid(minute), EMPTY),
            Commit(),
        ):
            sink.apply(message)
    yield storage
    storage.close()


def references(data, oids=None):
    return [] if oids is None else oids


def tids(storage):
    return [each.tid for each in storage.iterator()]


def served(primary, start):
    """What a secondary gets that has `start` as its last transaction."""
    reader = primary._source.open(start)
    try:
        return [each.tid for each in reader.read(PLENTY) if isinstance(each, Transaction)]
    finally:
        reader.close()


class TestAnEndThatWasPackedAway:
    def test_those_who_have_it_are_served(self, storage, open_primary, database):
        primary = open_primary(storage)
        primary.pack(seconds(tid(4)), references)
        # The last one is empty now, and has kept its place.
        assert tids(primary) == [tid(1), tid(3)]
        assert primary.lastTransaction() == tid(3)
        for start in (tid(1), tid(2), tid(3)):
            assert served(primary, start) == [tid(3)] * (start < tid(3))
        with pytest.raises(TidTooHigh):
            served(primary, tid(3, 1.0))

        with database(primary).transaction() as connection:
            connection.root.number = 1
        last = primary.lastTransaction()
        assert last in tids(primary)
        for start in (tid(1), tid(2), tid(3)):
            assert served(primary, start)[-1] == last
        # It was not there before the pack, and the pack cannot have removed it.
        with pytest.raises(Diverged):
            served(primary, tid(3, 1.0))

    def test_an_earlier_pack_vouches_for_nothing_later(self, storage, open_primary, database):
        primary = open_primary(storage)
        primary.pack(seconds(tid(2, 30.0)), references)
        # The last one before the time of the pack is empty now.
        assert tids(primary) == [tid(1), tid(2), tid(3)]
        assert served(primary, tid(2)) == [tid(3)]
        with pytest.raises(Diverged):
            served(primary, tid(2, 31.0))

    def test_a_second_pack_forgets_nothing_of_the_first(self, storage, open_primary, database):
        primary = open_primary(storage)
        primary.pack(seconds(tid(4)), references)
        with database(primary).transaction() as connection:
            connection.root.number = 1
        primary.pack(seconds(tid(1, 30.0)), references)
        assert served(primary, tid(3))[-1] == primary.lastTransaction()

    def test_where_nothing_was_packed_a_stranger_is_one(self, storage, open_primary):
        primary = open_primary(storage)
        with pytest.raises(Diverged):
            served(primary, tid(2, 1.0))


@pytest.mark.skipif(sys.platform != "linux", reason="looks at its open files")
@pytest.mark.parametrize("kept", [True, False])
def test_who_waits_gives_up_the_packed_file(
    kept, open_primary, open_secondary, database, network, tmp_path
):
    primary = open_primary()
    primary._storage.pack_keep_old = kept
    commits = Traffic(database(primary))
    commits.commit(30)
    open_secondary()
    network.run()

    def files():
        found = [os.readlink(f"/proc/self/fd/{each.name}") for each in os.scandir("/dev/fd")]
        return [each for each in found if each.startswith(str(tmp_path / "primary" / "Data.fs"))]

    commits._db.pack()
    network.run()
    assert files()
    assert not [each for each in files() if "old" in each or "deleted" in each]
    commits.close()


def test_a_commit_and_a_pack_that_leave_the_size_as_it_was_wake_a_reader(tmp_path, open_primary):
    storage = open_file_storage(tmp_path / "packed")
    sink = FileStorageSink(storage, lambda tid, oids: None)

    def commit(minute):
        for message in (Transaction(tid(minute)), Store(z64, tid(minute), EMPTY), Commit()):
            sink.apply(message)

    commit(1)
    commit(2)
    primary = open_primary(storage)
    with closing(primary._source.open(z64)) as reader:
        assert [each for each in reader.read(PLENTY) if isinstance(each, Commit)] == [Commit()] * 2
        assert reader.read(PLENTY) == []
        size = storage.getSize()
        # Between the last read and the wait.
        commit(3)
        primary.pack(seconds(tid(2, 30.0)), referencesf)
        assert storage.getSize() == size
        woken = []
        reader.wait(lambda: woken.append(1))
        assert woken == [1]
        assert [each.tid for each in reader.read(PLENTY) if isinstance(each, Transaction)] == [
            tid(3)
        ]
        reader.wait(lambda: woken.append(2))
        assert woken == [1]


class TestBetweenThePackedFileAndItsSize:
    """The new file has its name already, and getSize() is still that of the old one."""

    @pytest.fixture
    def packed(self, tmp_path):
        storage = open_file_storage(tmp_path / "db")
        with traffic(storage) as commits:
            commits.commit(40)
            source = FileStorageSource(storage)
            reader = source.open(z64)
            while reader.read(PLENTY):
                pass
            stale = storage.getSize()
            commits._db.pack()
            yield storage, source, reader, stale
            reader.close()

    def test_its_size_is_waited_for(self, packed, monkeypatch):
        storage, source, reader, stale = packed
        size = storage.getSize()
        assert size < stale
        answers = [stale] * 5
        monkeypatch.setattr(storage, "getSize", lambda: answers.pop() if answers else size)
        file = source.open_file()
        assert answers == []
        assert file.end == os.stat(storage.getName()).st_size == size
        file.close()
        answers[:] = [stale] * 5
        assert reader.read(PLENTY) == []
        assert (reader._file.end, answers) == (size, [])
        monkeypatch.undo()

    def test_a_size_below_the_true_one_is_waited_for(self, packed, monkeypatch):
        """The pack was long, and the file has grown meanwhile: the old size lies within it."""
        storage, source, _, _ = packed
        size = storage.getSize()
        answers = [size - 100, size - 1, 4 + 7]
        monkeypatch.setattr(storage, "getSize", lambda: answers.pop() if answers else size)
        file = source.open_file()
        assert file.end == size
        file.close()
        monkeypatch.undo()

    def test_a_size_that_never_comes_is_damage(self, packed, monkeypatch):
        storage, _, _, stale = packed
        source = FileStorageSource(storage, pack_timeout=0)
        monkeypatch.setattr(storage, "getSize", lambda: stale)
        with pytest.raises(DamagedFile, match=f"no transaction ends at {stale}"):
            source.open_file()
        monkeypatch.undo()


def test_packs_and_commits_in_any_order_lose_nothing(
    open_primary, open_secondary, database, network
):
    primary, secondary = open_primary(), open_secondary()
    db = database(primary)
    root = db.open().root()
    for number in range(12):
        root[number] = PersistentMapping(number=number)
        transaction.commit()
        if number % 3 == 0:
            del root[number]
            transaction.commit()
            db.pack()
        if number % 4 == 0:
            network.run()
    network.run()
    assert contents(secondary)[-1] == contents(primary)[-1]
    assert secondary.progress.connections == 1
    with database(secondary).transaction() as connection:
        assert {key: each["number"] for key, each in connection.root().items()} == {
            number: number for number in range(12) if number % 3
        }


def in_blob_storage(path):
    return BlobStorage(str(path / "blobs"), open_file_storage(path, blobs=False))


class TestBlobsThatAPackRemoves:
    """A reader is still in the file of before."""

    @pytest.fixture(params=[open_file_storage, in_blob_storage])
    def primary(self, request, open_primary, tmp_path):
        return open_primary(request.param(tmp_path / "blobs"))

    @pytest.fixture
    def replaced(self, primary, database):
        """A database with two revisions of a blob, a reader of it, and then a pack."""
        db = database(primary)
        with db.transaction() as connection:
            connection.root()["blob"] = Blob(b"first")
            connection.root()["kept"] = Blob(b"kept")
            connection.root()["garbage"] = Blob(b"garbage")
        reader = primary._source.open(z64)
        messages = reader.read(1)
        while not isinstance(messages[-1], StoreBlob):
            messages += reader.read(1)
        with db.transaction() as connection:
            with connection.root()["blob"].open("w") as file:
                file.write(b"second")
            del connection.root()["garbage"]
        yield db, reader, messages
        reader.close()

    def rest(self, reader, messages):
        while found := reader.read(1):
            messages += found
        return messages

    def test_they_are_not_missing(self, primary, replaced, caplog):
        db, reader, messages = replaced
        db.pack()
        self.rest(reader, messages)
        assert primary.missing_blobs == 0
        assert not [each for each in caplog.records if each.levelno >= logging.ERROR]
        # Each blob that is named came.
        records = [m for m in messages if isinstance(m, Store) and is_blob_record(m.data)]
        assert records == []

    def test_one_whose_record_is_still_there_is(self, primary, replaced, caplog):
        db, reader, messages = replaced
        with db.transaction() as connection:
            os.remove(connection.root()["kept"].committed())
        db.pack()
        self.rest(reader, messages)
        assert primary.missing_blobs == 1


@pytest.fixture(params=[AppendingSink, FileStorageSink])
def either_sink(request, monkeypatch):
    if request.param is FileStorageSink:
        request.getfixturevalue("sinks_one_by_one")
    # Nothing is written at once: there is an unfinished header in the file for a while.
    monkeypatch.setattr(disk, "block_size", lambda fd: 1)
    return request.param


def apply_one(sink, minute):
    for message in (Transaction(tid(minute)), Store(z64, tid(minute), EMPTY), Commit()):
        sink.apply(message)
    sink.flush()


def apply_in_vain(sink, minute):
    try:
        apply_one(sink, minute)
    finally:
        sink.abort()


def fail_to_cut_off(storage, monkeypatch):
    """Nor does the disk take a transaction as a whole."""
    real, written = os.pwrite, []

    def fail(*args):
        raise OSError(errno.EIO, "Input/output error")

    def write_one(*args):
        written.append(args)
        return real(*args) if len(written) == 1 else fail()

    monkeypatch.setattr(os, "pwrite", write_one)
    monkeypatch.setattr(storage, "tpc_vote", fail)
    for name in ("truncate", "ftruncate"):
        monkeypatch.setattr(os, name, fail)
    monkeypatch.setattr(fs_writer.OpenDataFile, "truncate", fail)


class TestAPackOfASecondary:
    def test_a_disk_that_is_full_when_it_begins_keeps_nobody_else_waiting(
        self, tmp_path, monkeypatch
    ):
        """FileStorage takes the lock for commits first, and then does what fails."""
        target = open_file_storage(tmp_path / "db")
        sink = file_storage_sink(target, lambda tid, oids: None, "batch")
        with sink.packs.one():
            pass
        with monkeypatch.context() as patched:
            patched.setattr(target, "_clear_temp", lambda: 1 / 0)
            with pytest.raises(ZeroDivisionError), sink.packs.one():
                pass
        assert not target._commit_lock.locked()
        assert not sink.packs.running
        target.close()

    def test_after_a_disk_that_failed_there_is_none(self, open_secondary):
        secondary = open_secondary()
        secondary.progress.stopped = NotWritten(OSError("I/O error"))
        with pytest.raises(NotWritten):
            secondary.pack(time.time(), lambda data: [])

    def test_a_disk_that_fails_in_it_stops_replication(
        self, open_primary, open_secondary, database, network, monkeypatch
    ):
        primary = open_primary()
        db = database(primary)
        secondary = open_secondary()
        network.run()
        error = OSError("I/O error")

        def fail(*arguments, **options):
            raise NotWritten(error)

        monkeypatch.setattr(secondary._storage, "pack", fail)
        with pytest.raises(NotWritten, match="I/O error"):
            secondary.pack(time.time(), lambda data: [])
        last = secondary.lastTransaction()
        with db.transaction() as connection:
            connection.root()["more"] = 1
        network.run()
        assert secondary.progress.stopped.__class__ is NotWritten
        assert secondary.progress.state is State.STOPPED
        assert secondary.lastTransaction() == last

    @pytest.mark.usefixtures("either_sink")
    def test_what_could_not_be_cut_off_is_no_transaction(self, tmp_path, monkeypatch):
        """ZODB's pack takes an unfinished header for one, and more would be written behind it."""
        storage = open_file_storage(tmp_path / "secondary")
        sink = sink_of(storage, lambda tid, oids: None, "batch")
        for number in (1, 2):
            apply_one(sink, number)
        with monkeypatch.context() as patched:
            fail_to_cut_off(storage, patched)
            with pytest.raises(OSError, match="Input/output error"):
                apply_in_vain(sink, 3)
            with pytest.raises(OSError, match="Input/output error"), sink.packs.one():
                pass
        end, path = storage.getSize(), tmp_path / "secondary" / "Data.fs"
        assert path.stat().st_size > end
        with sink.packs.one():
            assert path.stat().st_size == end
            storage.pack(time.time(), lambda data: [])
        assert storage.getSize() == path.stat().st_size < end
        apply_one(sink, 3)
        storage.close()
        path.with_suffix(".fs.index").unlink()
        with closing(open_file_storage(tmp_path / "secondary")) as again:
            assert again.lastTransaction() == tid(3)

    @pytest.mark.usefixtures("either_sink")
    def test_nothing_more_is_written_if_there_may_be_such_a_one(self, tmp_path, monkeypatch):
        storage = open_file_storage(tmp_path / "secondary")
        sink = sink_of(storage, lambda tid, oids: None, "batch")
        apply_one(sink, 1)
        with sink.packs.one(), monkeypatch.context() as patched:
            fail_to_cut_off(storage, patched)
            with pytest.raises(NotWritten, match="Input/output error"):
                apply_in_vain(sink, 2)
        with pytest.raises(NotWritten, match="Input/output error"):
            sink.apply(Transaction(tid(3)))
        assert sink.last_tid() == tid(1)
        storage.close()

    @pytest.mark.usefixtures("either_sink")
    def test_it_begins_between_two_transactions(self, tmp_path):
        storage = open_file_storage(tmp_path / "secondary")
        sink, order = sink_of(storage, lambda tid, oids: None, "batch"), []

        def pack():
            with sink.packs.one():
                order.append(("pack", sink.packs.running))

        packing = threading.Thread(target=pack)
        sink.apply(Transaction(tid(1)))
        packing.start()
        sink.apply(Store(z64, tid(1), EMPTY))
        order.append("end")
        sink.apply(Commit())
        sink.flush()
        packing.join()
        assert order == ["end", ("pack", True)]
        assert not sink.packs.running
        storage.close()

    @pytest.mark.usefixtures("either_sink")
    def test_what_is_undone_meanwhile_is_stored_with_its_data(
        self, network, open_primary, open_secondary, database
    ):
        primary, secondary = open_primary(), open_secondary()
        db = database(primary)
        for title in ("first", "second"):
            with db.transaction() as connection:
                connection.root.title = title
        network.run()

        def undo_meanwhile(data, oids=None):
            # It looks for what is reachable: it has seen what there is, and will leave "first" out.
            if secondary.lastTransaction() == primary.lastTransaction():
                db.undo(db.undoLog(0, 1)[0]["id"])
                transaction.commit()
                network.run()
            return referencesf(data, oids)

        secondary.pack(time.time() + 1, undo_meanwhile, gc=True)
        [*_, (oid, _, data, data_txn, _)] = contents(primary)[-1].records
        assert data_txn
        assert contents(secondary)[-1].records == [
            (oid, primary.lastTransaction(), data, None, None)
        ]

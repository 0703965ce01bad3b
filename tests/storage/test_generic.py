"""Storages other than FileStorage, as source and as sink; undo of what is not there any more."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from contextlib import closing
from pathlib import Path
from pickle import loads

import pytest
import transaction
from persistent.timestamp import TimeStamp
from ZODB.blob import Blob, BlobStorage, is_blob_record
from ZODB.Connection import TransactionMetaData
from ZODB.DemoStorage import DemoStorage
from ZODB.FileStorage import FileStorage
from ZODB.interfaces import (
    IBlobStorage,
    IMVCCStorage,
    IStorage,
    IStorageIteration,
    IStorageRestoreable,
)
from ZODB.MappingStorage import MappingStorage, TransactionRecord
from ZODB.POSException import POSKeyError
from ZODB.utils import p64, u64, z64
from zope.component import getGlobalSiteManager
from zope.interface import Interface, alsoProvides, directlyProvides
from zope.interface.verify import verifyObject

from zrs_core.errors import (
    ConfigurationError,
    Diverged,
    TidTooHigh,
    UnsuitableStorage,
    WrittenToByOthers,
)
from zrs_core.interfaces import IStorageSource
from zrs_core.messages import NO_TID, BlobBlock, Commit, Store, StoreBlob, Transaction
from zrs_core.storage.generic_sink import GenericSink
from zrs_core.storage.iteration_source import IterationReader, IterationSource
from zrs_core.storage.opening import sink_of, source_of
from zrs_core.storage.restoring_sink import RestoringSink
from zrs_core.tids import describe_tid

from ..conditions import DEADLINE, wait_for
from ..databases import (
    BLOB_SIZES,
    blob_files,
    contents,
    open_file_storage,
    traffic,
)
from .hexstorage import HexStorage


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


class Plain:
    """A storage that has what it was given, and nothing that it is not asked for."""

    def __init__(self, base, *interfaces):
        self._base = base
        directlyProvides(self, IStorage, *interfaces)

    def __getattr__(self, name):
        return getattr(self._base, name)


def commit(storage, tid=None, data=b"a record", oid=z64, **metadata):
    """Commit one record to a storage without a database."""
    transaction = TransactionMetaData(**metadata)
    storage.tpc_begin(transaction, tid)
    serial = storage.getTid(oid) if oid in oids(storage) else z64
    storage.store(oid, serial, data, "", transaction)
    storage.tpc_vote(transaction)
    return storage.tpc_finish(transaction)


def oids(storage):
    return {record.oid for each in storage.iterator() for record in each}


def read_all(reader):
    """All that a reader has now, in small batches."""
    found = []
    while batch := reader.read(1):
        found += batch
    return found


def tids(messages):
    return [message.tid for message in messages if isinstance(message, Transaction)]


@pytest.fixture
def mapping():
    storage = MappingStorage("mapping")
    yield storage
    storage.close()


@pytest.fixture
def source(mapping):
    found = source_of(mapping)
    assert type(found) is IterationSource
    yield found
    found.close()


class TestASourceThatIterates:
    def test_it_gives_transactions_as_messages(self, mapping, source):
        extension = {"a": [1, None]}
        first = commit(mapping, user="u", description="ünïcode", extension=extension)
        second = commit(mapping, data=b"more", oid=p64(1))
        with closing(source.open(NO_TID)) as reader:
            begin, *rest = read_all(reader)
            assert (begin.tid, begin.status, begin.user) == (first, " ", b"u")
            assert begin.description == "ünïcode".encode()
            assert loads(begin.extension) == extension
            assert rest == [
                Store(z64, first, b"a record"),
                Commit(),
                Transaction(second),
                Store(p64(1), second, b"more"),
                Commit(),
            ]
            assert reader.read(1000) == []
            third = commit(mapping)
            assert tids(read_all(reader)) == [third]

    def test_a_batch_ends_when_it_is_large_enough(self, mapping, source):
        for number in range(10):
            commit(mapping, data=b"x" * 1000, oid=p64(number))
        with closing(source.open(NO_TID)) as reader:
            assert len(tids(reader.read(2500))) == 2
            assert len(tids(reader.read(1 << 20))) == 8

    def test_it_begins_behind_what_a_secondary_has(self, mapping, source):
        found = [commit(mapping, oid=p64(number)) for number in range(5)]
        for number, tid in enumerate(found):
            with closing(source.open(tid)) as reader:
                assert tids(read_all(reader)) == found[number + 1 :]

    @pytest.mark.parametrize("start", [2, 4])
    def test_a_start_that_it_never_had(self, mapping, source, start):
        for number in (1, 3, 5):
            commit(mapping, p64(number << 40), oid=p64(number))
        with pytest.raises(Diverged) as caught:
            source.open(p64(start << 40))
        before, after = p64((start - 1) << 40), p64((start + 1) << 40)
        assert (caught.value.before, caught.value.after) == (before, after)

    def test_a_start_before_all_that_it_has(self, mapping, source):
        commit(mapping, p64(2 << 40))
        with pytest.raises(Diverged) as caught:
            source.open(p64(1))
        assert (caught.value.before, caught.value.after) == (None, p64(2 << 40))

    @pytest.mark.parametrize("count", [0, 1])
    def test_a_start_behind_all_that_it_has(self, mapping, source, count):
        last = commit(mapping) if count else NO_TID
        start = p64(u64(last) + 1)
        with pytest.raises(TidTooHigh) as caught:
            source.open(start)
        assert (caught.value.start, caught.value.last) == (start, last)

    def test_a_start_that_was_packed_away(self, mapping, source):
        """A storage that marks what it has packed: MappingStorage marks what has lost records."""
        lost, left = commit(mapping), []
        transaction = TransactionMetaData()
        mapping.tpc_begin(transaction)
        for number in (0, 1):
            serial = lost if not number else z64
            mapping.store(p64(number), serial, b"", "", transaction)
        mapping.tpc_vote(transaction)
        left = [mapping.tpc_finish(transaction), commit(mapping)]
        mapping.pack(time.time() + 100, lambda data: [p64(1)])
        with closing(source.open(lost)) as reader:
            found = read_all(reader)
        assert [(each.tid, each.status) for each in found if isinstance(each, Transaction)] == [
            (left[0], "p"),
            (left[1], " "),
        ]

    def test_a_start_that_was_packed_away_without_a_mark(self, mapping, source):
        """It is known as long as the primary is open that has packed."""
        lost = commit(mapping)
        left = commit(mapping)
        mapping.pack(time.time() + 100, lambda data: [])
        with pytest.raises(Diverged):
            source.open(lost)
        source.packed_to = left
        with closing(source.open(lost)) as reader:
            assert tids(read_all(reader)) == [left]

    def test_a_storage_that_goes_back_is_an_error(self, mapping, source):
        found = [commit(mapping, oid=p64(number)) for number in range(3)]
        with closing(source.open(found[1])) as reader:
            assert tids(read_all(reader)) == found[2:]
            mapping._ltid = found[0]
            with pytest.raises(TidTooHigh):
                reader.read(1)

    def test_the_records_of_an_undone_transaction_are_void(self, mapping, source):
        tid = commit(mapping)
        mapping._transactions[tid].status = "u"
        with closing(source.open(NO_TID)) as reader:
            assert read_all(reader) == [Transaction(tid, "u"), Commit()]

    def test_closing_in_the_middle(self, mapping, source):
        commit(mapping)
        reader = source.open(NO_TID)
        reader.read(1)
        reader.close()
        reader.close()

    def test_it_provides_what_a_primary_asks_for(self, source, tmp_path):
        assert verifyObject(IStorageSource, source)
        storage = open_file_storage(tmp_path / "file")
        assert verifyObject(IStorageSource, source_of(storage))
        storage.close()


class TestPolling:
    def test_what_goes_through_wakes_at_once(self, mapping, source):
        source.poll_interval = 3600
        woken = threading.Event()
        with closing(source.open(NO_TID)) as reader:
            assert reader.read(1) == []
            reader.wait(woken.set)
            commit(mapping)
            source.changed()
            assert woken.is_set()
            assert read_all(reader) != []

    def test_what_others_commit_is_found(self, mapping, source):
        source.poll_interval = 0.02
        with closing(source.open(NO_TID)) as reader:
            for _ in range(3):
                assert reader.read(1) == []
                tid = commit(mapping)

                def arrived(tid=tid):
                    woken = threading.Event()
                    reader.wait(woken.set)
                    assert woken.wait(DEADLINE)
                    return tids(read_all(reader)) == [tid]

                wait_for(arrived, "the transaction")

    def test_what_was_committed_between_reading_and_waiting(self, mapping, source):
        source.poll_interval = 3600
        woken = threading.Event()
        with closing(source.open(NO_TID)) as reader:
            assert reader.read(1) == []
            commit(mapping)
            source.changed()
            reader.wait(woken.set)
            assert woken.is_set()

    def test_only_the_last_wish_counts(self, source):
        source.poll_interval = 3600
        first, second = threading.Event(), threading.Event()
        reader = source.open(NO_TID)
        reader.read(1)
        reader.wait(first.set)
        reader.wait(second.set)
        source.changed()
        assert (first.is_set(), second.is_set()) == (False, True)
        reader.read(1)
        reader.wait(first.set)
        reader.close()
        source.changed()
        assert not first.is_set()

    def test_an_error_without_a_text_is_logged_by_its_name(
        self, mapping, source, caplog, monkeypatch
    ):
        source.poll_interval = 0.02

        def fail():
            raise KeyError

        woken = threading.Event()
        with closing(source.open(NO_TID)) as reader:
            assert reader.read(1) == []
            with monkeypatch.context() as patch:
                patch.setattr(mapping, "lastTransaction", fail)
                reader.wait(woken.set)
                assert woken.wait(DEADLINE)
        assert [each.message for each in caplog.records][:1] == [
            "mapping: cannot be polled: KeyError"
        ]

    def test_a_failure_is_the_readers_and_told_once(self, mapping, source, caplog, monkeypatch):
        source.poll_interval = 0.02
        asked = []

        def fail():
            asked.append(1)
            raise OSError("the database is away")

        woken = threading.Event()
        with closing(source.open(NO_TID)) as reader:
            assert reader.read(1) == []
            with monkeypatch.context() as patch:
                patch.setattr(mapping, "lastTransaction", fail)
                reader.wait(woken.set)
                assert woken.wait(DEADLINE)
                with pytest.raises(OSError, match="away"):
                    reader.read(1)
                for _ in range(3):
                    woken.clear()
                    source.add_waiting(woken.set)
                    assert woken.wait(DEADLINE)
            commit(mapping)
            assert read_all(reader) != []
        assert len(asked) >= 5
        assert [each.message for each in caplog.records] == [
            "mapping: cannot be polled: the database is away"
        ]

    def test_where_there_are_no_threads_left_the_next_reader_asks_again(
        self, mapping, source, monkeypatch
    ):
        closed = []
        close = IterationReader.close
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            patched.setattr(IterationReader, "close", lambda it: closed.append(it) or close(it))
            with pytest.raises(RuntimeError):
                source.open(z64)
        # The caller has no reader that it could close.
        assert len(closed) == 1
        source.open(z64).close()
        assert source._polling.is_alive()
        source.close()
        assert not source._polling.is_alive()

    def test_the_thread_ends_with_the_source(self, mapping):
        before = {*threading.enumerate()}
        source = source_of(mapping)
        with closing(source.open(NO_TID)), closing(source.open(NO_TID)):
            (thread,) = {*threading.enumerate()} - before
            assert thread.name == "zrs_core polling mapping"
        source.close()
        assert {*threading.enumerate()} == before
        source.close()


class Snapshots:
    """A MappingStorage that passes for one with snapshots; counts what it is asked for."""

    def __init__(self, base):
        self._base = base
        self.asked = []
        self.instances = []
        directlyProvides(self, IMVCCStorage, IStorageIteration)

    def __getattr__(self, name):
        return getattr(self._base, name)

    def new_instance(self):
        self.instances.append(Snapshots(self._base))
        return self.instances[-1]

    def release(self):
        self.released = True

    def sync(self):
        pass

    def poll_invalidations(self):
        self._seen = self._base.lastTransaction()

    def lastTransaction(self):
        return self._seen

    def iterator(self, start=None, stop=None):
        found = list(self._base.iterator(start, stop))
        self.asked.append(len(found))
        return iter(found)


class TestAStorageWithSnapshots:
    def test_it_is_read_in_stretches(self, mapping):
        storage = Snapshots(mapping)
        begin = u64(TimeStamp(2020, 1, 1).raw())
        # A transaction every ten minutes for some months, then one a day for years.
        minute = 1 << 32
        times = [begin + number * 10 * minute for number in range(20_000)]
        times += [times[-1] + number * 24 * 60 * minute for number in range(1, 1000)]
        for each in times:
            tid = p64(each)
            mapping._transactions[tid] = TransactionRecord(tid, TransactionMetaData(), {})
        mapping._ltid = p64(times[-1])
        source = source_of(storage)
        with closing(source.open(NO_TID)) as reader:
            assert tids(read_all(reader)) == [p64(each) for each in times]
            (instance,) = storage.instances
            # Never more than those of a month, soon no more than some thousand; and few questions
            # where there is little.
            found = [each for each in instance.asked if each]
            assert found[0] <= 30 * 24 * 6 + 1
            assert max(found[2:]) <= 2100
            assert len(instance.asked) < 600
            assert storage.asked == []
        assert instance.released
        source.close()

    def test_each_user_has_an_instance(self, mapping):
        storage = Snapshots(mapping)
        commit(mapping)
        source = source_of(storage)
        source.poll_interval = 0.01
        woken = threading.Event()
        with closing(source.open(NO_TID)) as one, closing(source.open(NO_TID)) as other:
            for reader in (one, other):
                read_all(reader)
                reader.wait(woken.set)
            assert woken.wait(DEADLINE)
            assert source.last_tid() == mapping.lastTransaction()
        source.close()
        assert len(storage.instances) == 4
        assert all(each.released for each in storage.instances)

    def test_an_instance_is_given_up_when_the_start_is_refused(self, mapping):
        storage = Snapshots(mapping)
        source = source_of(storage)
        with pytest.raises(TidTooHigh):
            source.open(p64(1))
        assert [each.released for each in storage.instances] == [True]
        source.close()


class TestASinkThatRestores:
    @pytest.fixture
    def storage(self, tmp_path):
        found = HexStorage(open_file_storage(tmp_path / "storage"))
        yield found
        found.close()

    def sink(self, storage):
        found = sink_of(storage, lambda tid, oids: self.told.append((tid, oids)), "batch")
        assert type(found) is GenericSink
        return found

    def setup_method(self):
        self.told = []

    def apply(self, sink, tid, *records):
        sink.apply(Transaction(tid))
        for record in records:
            sink.apply(record)
        sink.apply(Commit())

    def test_it_applies_and_tells(self, storage):
        sink = self.sink(storage)
        assert sink.last_tid() == NO_TID
        first, second = p64(1 << 40), p64(2 << 40)
        self.apply(sink, first, Store(z64, first, b"one"))
        self.apply(sink, second, Store(z64, second, b"two"), Store(p64(1), second, b"three"))
        assert sink.last_tid() == second == storage.lastTransaction()
        assert self.told == [(first, [z64]), (second, [z64, p64(1)])]
        assert self.sink(storage).last_tid() == second

    def test_a_transaction_that_the_storage_only_claims_to_have(self, storage, caplog):
        sink = self.sink(storage)
        tid = p64(1 << 40)
        self.apply(sink, tid, Store(z64, tid, b"one"))
        # What FileStorage does when it is opened over an unfinished transaction.
        storage._base._ltid = p64(2 << 40)
        again = self.sink(storage)
        assert again.last_tid() == tid
        assert f"names {describe_tid(p64(2 << 40))} as its last" in caplog.text
        lost = p64(2 << 40)
        self.apply(again, lost, Store(z64, lost, b"two"))
        assert again.last_tid() == lost

    def test_a_storage_that_forgets_that_it_has_any(self, storage):
        tid = p64(1 << 40)
        self.apply(self.sink(storage), tid, Store(z64, tid, b"one"))
        storage._base._ltid = NO_TID
        assert self.sink(storage).last_tid() == tid

    def test_nobody_else_may_write(self, storage):
        sink = self.sink(storage)
        tid = p64(1 << 40)
        self.apply(sink, tid, Store(z64, tid, b"one"))
        other = TransactionMetaData()
        storage._base.tpc_begin(other)
        storage._base.tpc_vote(other)
        storage._base.tpc_finish(other)
        with pytest.raises(WrittenToByOthers, match="did not come by this replication"):
            sink.apply(Transaction(p64((1 << 63) - 1)))
        sink.abort()
        assert sink.last_tid() == tid

    @pytest.mark.parametrize("committed", [True, False])
    def test_a_commit_whose_end_is_not_known(self, storage, committed, monkeypatch):
        """A database may be lost before its answer comes; what it has done, one must look."""
        sink = self.sink(storage)
        first, second = p64(1 << 40), p64(2 << 40)
        self.apply(sink, first, Store(z64, first, b"one"))
        finish = storage._base.tpc_finish

        def lose(*args):
            if committed:
                finish(*args)
            raise OSError("the connection was lost")

        monkeypatch.setattr(storage._base, "tpc_finish", lose)
        with pytest.raises(OSError, match="lost"):
            self.apply(sink, second, Store(z64, second, b"two"))
        monkeypatch.undo()
        sink.abort()
        assert sink.last_tid() == (second if committed else first)
        if not committed:
            self.apply(sink, second, Store(z64, second, b"two"))
        third = p64(3 << 40)
        self.apply(sink, third, Store(z64, third, b"three"))
        assert [each.tid for each in contents(storage)] == [first, second, third]

    def test_one_that_does_not_iterate_is_believed(self, tmp_path):
        base = open_file_storage(tmp_path / "plain", blobs=False)
        storage = Plain(base, IStorageRestoreable)
        sink = self.sink(storage)
        tid = p64(1 << 40)
        self.apply(sink, tid, Store(z64, tid, b"one"))
        assert self.sink(storage).last_tid() == tid
        base.close()


class TestWhoServes:
    def test_all_that_iterate_and_none_else(self, tmp_path, mapping, open_primary):
        storage = Plain(mapping)
        with pytest.raises(UnsuitableStorage) as caught:
            open_primary(storage)
        assert str(caught.value) == (
            "mapping (Plain) cannot be replicated: it does not provide IStorageIteration"
        )

    @pytest.mark.parametrize("make", [MappingStorage, DemoStorage])
    def test_none_is_replicated_into_that_does_not_restore(self, make, open_secondary):
        storage = make("name")
        with pytest.raises(UnsuitableStorage) as caught:
            open_secondary(storage)
        assert str(caught.value) == (
            f"name ({make.__name__}) cannot be replicated into: it does not provide "
            "IStorageRestoreable"
        )
        assert storage.lastTransaction() == z64
        storage.close()

    def test_none_that_keeps_no_history(self, mapping, open_primary, open_secondary):
        mapping.keep_history = False
        for end in (open_primary, open_secondary):
            with pytest.raises(UnsuitableStorage, match="it keeps no history, so its transac"):
                end(mapping)
        assert mapping.opened()

    @pytest.mark.parametrize("make", [MappingStorage, DemoStorage])
    def test_one_in_memory(self, make, open_primary, open_secondary, database, network):
        primary = open_primary(make())
        secondary = open_secondary()
        connection = database(primary).open()
        blobs = IBlobStorage.providedBy(primary)
        assert blobs is (make is DemoStorage)
        for number in range(5):
            connection.root()["number"] = number
            if blobs:
                connection.root()["blob"] = Blob(b"x" * number * 40_000)
            transaction.commit()
            network.run()
            assert secondary.lastTransaction() == primary.lastTransaction()
        assert secondary.progress.connections == 1
        there = database(secondary).open().root()
        assert there["number"] == 4
        if blobs:
            with there["blob"].open() as file:
                assert file.read() == b"x" * 160_000

    def test_a_demo_storage_over_a_database(
        self, open_primary, open_secondary, database, network, tmp_path
    ):
        with traffic(open_file_storage(tmp_path / "base")) as commits:
            commits.commit(20)
        base = open_file_storage(tmp_path / "base")
        primary = open_primary(DemoStorage(base=base))
        secondary = open_secondary()
        with database(primary).transaction() as connection:
            connection.root()["changed"] = True
        network.run()
        assert contents(secondary)[:-1] == contents(base)
        assert secondary.lastTransaction() == primary.lastTransaction()

    def test_an_adapter_of_somebody_elses_comes_first(self, mapping):
        class IOther(Interface):
            pass

        class Source(IterationSource):
            pass

        registry = getGlobalSiteManager()
        alsoProvides(mapping, IOther)
        assert type(source_of(mapping)) is IterationSource
        registry.registerAdapter(Source, (IOther,), IStorageSource)
        try:
            assert type(source_of(mapping)) is Source
        finally:
            registry.unregisterAdapter(Source, (IOther,), IStorageSource)


class TestPrimariesOverThem:
    def test_what_is_committed_beside_the_primary_follows(
        self, open_primary, open_secondary, network, mapping
    ):
        primary = open_primary(mapping, poll_interval=0.02)
        secondary = open_secondary()
        network.run()
        for _ in range(3):
            tid = commit(mapping)
            wait_for(
                lambda tid=tid: network.run() or secondary.lastTransaction() == tid, "a transaction"
            )
        assert primary.lastTransaction() == tid

    def test_what_is_committed_through_it_needs_no_poll(
        self, open_primary, open_secondary, network, mapping
    ):
        primary = open_primary(mapping, poll_interval=3600)
        secondary = open_secondary()
        for _ in range(3):
            network.run()
            tid = commit(primary)
        network.run()
        assert secondary.lastTransaction() == tid

    def test_closing_lets_secondaries_catch_up_with_what_others_committed(
        self, open_primary, open_secondary, network, mapping
    ):
        primary = open_primary(mapping, poll_interval=3600)
        secondary = open_secondary()
        network.run()
        tid = commit(mapping)
        network.run()
        assert secondary.lastTransaction() == z64
        primary.close()
        assert secondary.lastTransaction() == tid

    def test_blobs_of_others_than_filestorage(
        self, open_primary, open_secondary, database, network, tmp_path
    ):
        """Over a wrapper that cannot be looked into; one blob is missing."""
        primary = open_primary(HexStorage(open_file_storage(tmp_path / "primary")))
        assert type(primary._source) is IterationSource
        secondary = open_secondary(HexStorage(open_file_storage(tmp_path / "secondary")))
        assert type(secondary._client.sink) is GenericSink
        root = database(primary).open().root()
        for number, size in enumerate(BLOB_SIZES):
            root[number] = Blob(b"b" * size)
            transaction.commit()
        os.remove(root[0].committed())
        network.run()
        assert primary.missing_blobs == 1
        assert contents(secondary._storage._base) == contents(primary._storage._base)
        blobs = blob_files(tmp_path / "primary" / "blobs")
        assert blob_files(tmp_path / "secondary" / "blobs") == blobs
        assert len(blobs) == len(BLOB_SIZES) - 1
        there = database(secondary).open().root()
        with there[6].open() as file:
            assert file.read() == b"b" * BLOB_SIZES[6]

    @pytest.mark.parametrize("value", [0, -1, 3601, "often", None])
    def test_an_interval_that_is_none(self, value, open_primary, tmp_path):
        with pytest.raises(ConfigurationError, match=r"poll_interval must be 0\.01 to 3600 sec"):
            open_primary(tmp_path / "Data.fs", poll_interval=value)
        assert list(tmp_path.iterdir()) == []


def test_a_blob_whose_creation_was_undone(tmp_path):
    storage = blob_storage(tmp_path / "other")
    sink = RestoringSink(storage, lambda tid, oids: None)
    oid, tid = p64(1), p64(1 << 40)
    for message in (
        Transaction(tid),
        StoreBlob(oid, tid, b"", None, 1),
        BlobBlock(b"for the undo of it"),
        Commit(),
    ):
        sink.apply(message)
    with pytest.raises(POSKeyError):
        storage.load(oid)
    assert Path(storage.loadBlob(oid, tid)).read_bytes() == b"for the undo of it"
    assert [record[2] for each in contents(storage) for record in each.records] == [None]
    storage.close()


def test_a_blob_of_what_may_have_been_committed_is_kept(tmp_path, monkeypatch):
    """A database that is lost in the end of a commit does not tell whether that was done."""
    storage = open_file_storage(tmp_path / "db")
    sink = GenericSink(storage, lambda tid, oids: None)
    tid, finish = p64(1 << 40), storage.tpc_finish

    def lost(*args):
        finish(*args)
        raise OSError("connection lost")

    record = b"\x80\x03cZODB.blob\nBlob\nq\x01.\x80\x03N."
    for message in (Transaction(tid), StoreBlob(p64(1), tid, record, None, 1), BlobBlock(b"x")):
        sink.apply(message)
    with monkeypatch.context() as patched:
        patched.setattr(storage, "tpc_finish", lost)
        with pytest.raises(OSError, match="connection lost"):
            sink.apply(Commit())
    with contextlib.suppress(Exception):
        sink.abort()
    assert sink.last_tid() == tid
    with open(storage.loadBlob(p64(1), tid), "rb") as blob:
        assert blob.read() == b"x"
    storage.close()


def refuse(thread):
    raise RuntimeError("can't start new thread")

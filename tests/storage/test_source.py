"""What all sources do alike: count, wake readers, fill batches, report what cannot be sent."""

from __future__ import annotations

import shutil
from contextlib import closing

import pytest
from ZODB.blob import BlobStorage
from ZODB.Connection import TransactionMetaData
from ZODB.FileStorage import FileStorage
from ZODB.MappingStorage import MappingStorage
from ZODB.utils import p64, u64, z64

from zrs_core.errors import Diverged, NotCarried, StartError, TidTooHigh
from zrs_core.messages import (
    MAX_METADATA_SIZE,
    NO_TID,
    BlobBlock,
    Commit,
    Store,
    StoreBlob,
    Transaction,
)
from zrs_core.storage.committed import DamagedFile
from zrs_core.storage.fs_source import FileStorageSource
from zrs_core.storage.iteration_source import IterationSource
from zrs_core.storage.opening import source_of
from zrs_core.storage.restoring_sink import RestoringSink
from zrs_core.storage.source import DEFAULT_POLL_INTERVAL, MAX_COUNTED, PIECE_SIZE

from ..databases import open_file_storage

DATA = b"cpersistent.mapping\nPersistentMapping\n."
BLOB = b"cZODB.blob\nBlob\n."
# What a message costs in a batch besides its data.
OVERHEAD = 128


@pytest.fixture(params=["file", "iterating"])
def storage(request, tmp_path):
    if request.param == "file":
        storage = open_file_storage(tmp_path / "db", blobs=False)
    else:
        storage = MappingStorage("it")
    with closing(storage):
        yield storage


@pytest.fixture
def source(storage):
    with closing(source_of(storage)) as source:
        yield source


def commit(storage, number, data=DATA, oids=1, **metadata):
    meta = TransactionMetaData(**metadata)
    tid = p64(number << 40)
    storage.tpc_begin(meta, tid)
    for oid in range(oids):
        storage.store(p64(1000 * number + oid), z64, data, "", meta)
    storage.tpc_vote(meta)
    storage.tpc_finish(meta)
    return tid


def read_all(source, start=NO_TID):
    found = []
    with closing(source.open(start)) as reader:
        while batch := reader.read(1 << 30):
            found += batch
    return found


class TestTheWhole:
    def test_it_begins_with_defaults(self, source, storage):
        assert (source.storage, source.blobs, source.missing_blobs) == (storage, False, 0)
        assert source.packed_to == NO_TID
        assert source.poll_interval == DEFAULT_POLL_INTERVAL == 1.0
        assert source.changes == 0
        assert source.not_carried == {}
        assert source.limit() is None
        assert source.untransform(b"a record") == b"a record"

    def test_the_last_tid_is_its_position(self, source, storage):
        assert source.last_tid() == source.position() == NO_TID
        tid = commit(storage, 7)
        assert source.last_tid() == source.position() == tid

    def test_it_counts_what_follows(self, source, storage):
        tids = [commit(storage, number) for number in (1, 2, 3)]
        assert [source.count_after(tid) for tid in (NO_TID, *tids)] == [3, 2, 1, 0]

    @pytest.mark.parametrize(("count", "expected"), [(0, MAX_COUNTED), (1, None)])
    def test_it_counts_up_to_a_maximum(self, count, expected, storage):
        class Long(IterationSource):
            def _all_after(self, tid):
                return (number for number in range(MAX_COUNTED + count))

        assert Long(storage).count_after(NO_TID) == expected

    def test_a_limit_hides_what_comes_after_it(self, storage, source):
        first = commit(storage, 1)
        commit(storage, 2)
        source.limit = lambda: first
        if isinstance(source, FileStorageSource):
            assert source.last_tid() == first
            assert [each.tid for each in read_all(source) if isinstance(each, Transaction)] == [
                first
            ]
        else:
            assert read_all(source) == []


class TestReaders:
    def test_they_get_messages_in_order(self, source, storage):
        first = commit(storage, 1, user=b"somebody", description=b"first", oids=2)
        second = commit(storage, 2, data=DATA + b"2")
        assert read_all(source) == [
            Transaction(first, " ", b"somebody", b"first", b""),
            Store(p64(1000), first, DATA),
            Store(p64(1001), first, DATA),
            Commit(),
            Transaction(second, " ", b"", b"", b""),
            Store(p64(2000), second, DATA + b"2"),
            Commit(),
        ]
        assert read_all(source, first) == read_all(source)[4:]
        assert read_all(source, second) == []

    def test_at_the_end_is_known_after_the_last_batch(self, source, storage):
        commit(storage, 1)
        with closing(source.open(NO_TID)) as reader:
            assert not reader.at_end
            reader.read(1)
            assert not reader.at_end
            assert reader.read(1) == []
            assert reader.at_end
            commit(storage, 2)
            source.changed()
            reader.read(1)
            assert not reader.at_end
            reader.read(1 << 20)
            assert reader.at_end

    @pytest.mark.parametrize("more", [-1, 0, 1])
    def test_a_batch_ends_with_its_budget(self, more, tmp_path):
        """Each message counts its data and an overhead; nothing is split."""
        storage = MappingStorage("it")
        for number in (1, 2, 3):
            commit(storage, number)
        with closing(source_of(storage)) as source, closing(source.open(NO_TID)) as reader:
            one = len(DATA) + 3 * OVERHEAD
            batch = reader.read(2 * one + more)
            assert len([each for each in batch if isinstance(each, Commit)]) == 2 + (more > 0)

    @pytest.mark.parametrize("count", [1, 2, 3, 40])
    def test_a_large_transaction_comes_in_pieces(self, count, tmp_path):
        """A piece ends with the record with which it exceeds its size."""
        data = DATA + b"x" * (PIECE_SIZE // 2)
        storage, sizes = MappingStorage("it"), []
        commit(storage, 1, data=data, oids=count)
        with closing(source_of(storage)) as source, closing(source.open(NO_TID)) as reader:
            while batch := reader.read(1):
                sizes.append(sum(len(each.data) for each in batch if isinstance(each, Store)))
        whole = [2 * len(data)] * (count // 2)
        assert sizes == [*whole, len(data) * (count % 2)]

    def test_a_tid_that_does_not_rise_is_an_error(self, storage, source):
        commit(storage, 3)
        with closing(source.open(NO_TID)) as reader:
            reader.read(1 << 20)
            with pytest.raises(NotCarried) as caught:
                reader._begin(p64(3 << 40), p64(3 << 40), " ", b"", b"", b"")
        assert (
            caught.value.reason
            == f"its tid is not above that of the transaction before it, 0x{p64(3 << 40).hex()}"
        )
        assert (caught.value.tid, caught.value.remedy) == (p64(3 << 40), source.remedy)

    def test_a_text_that_is_too_long_is_an_error(self, source):
        with closing(source.open(NO_TID)) as reader:
            with pytest.raises(NotCarried, match="its description") as caught:
                reader._begin(NO_TID, p64(1), " ", b"", b"x" * (MAX_METADATA_SIZE + 1), b"")
        assert caught.value.tid == p64(1)

    @pytest.mark.parametrize("more", [0, 1])
    def test_an_extension_that_is_too_long_is_left_out(self, more, source, caplog):
        extension = b"x" * (MAX_METADATA_SIZE + more)
        with closing(source.open(NO_TID)) as reader:
            for number in (1, 1, 2, 1):
                begin = reader._begin(NO_TID, p64(number), " ", b"u", b"d", extension)
        assert begin == Transaction(p64(1), " ", b"u", b"d", b"" if more else extension)
        records = [each for each in caplog.records if each.event == "extension-left-out"]
        if not more:
            assert records == []
            return
        # Once for each transaction.
        record, other = records
        assert other.tid == "0x0000000000000002"
        assert record.getMessage() == (
            f"{source.storage.getName()}: the extension of transaction 0x0000000000000001 cannot "
            "be replicated: it has 65,536 bytes, more than 65,535; the transaction is replicated "
            "without it"
        )
        assert (record.storage, record.tid) == (source.storage.getName(), "0x0000000000000001")
        assert record.reason == "it has 65,536 bytes, more than 65,535"

    def test_a_record_of_another_serial_is_an_error(self, tmp_path):
        storage = open_file_storage(tmp_path / "db", blobs=False)
        meta = TransactionMetaData()
        storage.tpc_begin(meta, p64(1 << 40), " ")
        storage.restore(p64(5), p64(7), DATA, "", None, meta)
        storage.tpc_vote(meta)
        storage.tpc_finish(meta)
        source = source_of(storage)
        with closing(storage), closing(source.open(NO_TID)) as reader:
            for _ in range(2):
                with pytest.raises(NotCarried) as caught:
                    reader.read(1)
        assert caught.value.reason == (
            "the record of its object 0x0000000000000005 has another serial, 0x0000000000000007"
        )
        assert caught.value.tid == p64(1 << 40)

    def test_what_precedes_an_error_comes_first(self, source, storage):
        commit(storage, 1)
        commit(storage, 2)
        commit(storage, 3)
        error = NotCarried(p64(2 << 40), "it is special", "Nothing")
        source.not_carried[error.tid] = error
        with closing(source.open(NO_TID)) as reader:
            # A run is read without looking at each transaction.
            reader._read_run = lambda: NO_RUN
            found = reader.read(1 << 20)
            assert [each.tid for each in found if isinstance(each, Transaction)] == [p64(1 << 40)]
            for _ in range(2):
                with pytest.raises(NotCarried, match="it is special"):
                    reader.read(1 << 20)


class _NoRun:
    messages, tid, incomplete = (), None, False


NO_RUN = _NoRun()


class TestWaking:
    def test_each_that_waits_is_woken_once(self, source, storage):
        woken = []
        source.add_waiting(lambda: woken.append(1))
        source.add_waiting(lambda: woken.append(2))
        source.changed()
        assert (woken, source.changes) == ([1, 2], 1)
        source.changed()
        assert (woken, source.changes) == ([1, 2], 2)

    def test_who_is_removed_is_not_woken(self, source):
        def wake():
            pytest.fail("was woken")

        source.add_waiting(wake)
        assert source.remove_waiting(wake) is True
        assert source.remove_waiting(wake) is False
        source.changed()

    def test_one_that_fails_keeps_no_other_from_being_woken(self, source, caplog):
        woken = []
        source.add_waiting(lambda: 1 / 0)
        source.add_waiting(lambda: woken.append(1))
        source.changed()
        assert woken == [1]
        (record,) = [each for each in caplog.records if each.event == "not-woken"]
        name = source.storage.getName()
        assert record.getMessage() == f"{name}: a reader cannot be woken"
        assert (record.storage, record.levelname) == (name, "ERROR")
        assert record.exc_info[0] is ZeroDivisionError

    def test_a_reader_waits_for_what_comes_next(self, source, storage):
        woken = []
        with closing(source.open(NO_TID)) as reader:
            assert reader.read(1) == []
            reader.wait(lambda: woken.append(1))
            reader.wait(lambda: woken.append(2))
            assert woken == []
            commit(storage, 1)
            source.changed()
            assert woken == [2]

    def test_a_change_before_it_waits_wakes_it_at_once(self, source, storage):
        woken = []
        with closing(source.open(NO_TID)) as reader:
            assert reader.read(1) == []
            commit(storage, 1)
            source.changed()
            reader.wait(lambda: woken.append(1))
            assert woken == [1]
            source.changed()
            assert woken == [1]

    def test_a_reader_that_is_closed_is_not_woken(self, source):
        reader = source.open(NO_TID)
        reader.read(1)
        reader.wait(lambda: pytest.fail("was woken"))
        reader.close()
        source.changed()

    def test_a_file_is_read_again_only_after_a_change(self, tmp_path):
        """Otherwise each wait would read the file."""
        storage = open_file_storage(tmp_path / "db", blobs=False)
        with closing(storage), closing(source_of(storage)) as source:
            with closing(source.open(NO_TID)) as reader:
                assert reader.read(1) == []
                assert not reader._has_changed()
                source.changed()
                assert reader._has_changed()
                assert reader.read(1) == []
                assert not reader._has_changed()


class TestBlobs:
    @pytest.fixture
    def blobs(self, tmp_path):
        storage = open_file_storage(tmp_path / "db")
        with closing(storage):
            yield storage

    def store_blob(self, storage, content, data=BLOB):
        tid, sink = p64(1 << 40), RestoringSink(storage, lambda tid, oids: None)
        sizes = range(0, len(content), 65_536)
        blocks = [BlobBlock(content[pos : pos + 65_536]) for pos in sizes]
        record = StoreBlob(p64(5), tid, data, None, len(blocks))
        for message in (Transaction(tid), record, *blocks, Commit()):
            sink.apply(message)
        return [Transaction(tid, " ", b"", b"", b""), record, *blocks, Commit()]

    @pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 200_000])
    def test_they_come_in_blocks(self, size, blobs):
        messages = self.store_blob(blobs, b"0123456789" * (size // 10) + b"x" * (size % 10))
        source = source_of(blobs)
        assert source.blobs
        assert read_all(source) == messages
        assert source.missing_blobs == 0

    def test_one_whose_creation_was_undone(self, blobs):
        messages = self.store_blob(blobs, b"kept", data=b"")
        assert read_all(source_of(blobs)) == messages

    def test_a_transformed_record(self, blobs):
        """Known by its file, or as it was before it was transformed."""
        messages = self.store_blob(blobs, b"transformed", data=b".h" + BLOB[::-1])
        source = source_of(blobs)
        source.untransform = lambda data: data[:1:-1] if data.startswith(b".h") else data
        assert read_all(source) == messages

    @pytest.mark.parametrize(
        ("blob_dir", "why"),
        [
            (True, "is missing"),
            (False, "cannot be found, since the storage was opened without a blob directory"),
        ],
    )
    def test_one_without_its_file(self, blob_dir, why, tmp_path, caplog):
        path = tmp_path / "Data.fs"
        plain = FileStorage(str(path))
        commit(plain, 1, data=BLOB)
        storage = BlobStorage(str(tmp_path / "blobs"), plain) if blob_dir else plain
        source = source_of(storage)
        with closing(storage):
            found = read_all(source)
            read_all(source)
        assert found[1] == Store(p64(1000), p64(1 << 40), BLOB)
        assert source.missing_blobs == 2
        record, _ = [each for each in caplog.records if each.event == "blob-missing"]
        assert record.getMessage() == (
            f"{storage.getName()}: the blob of object 0x{p64(1000).hex()} in transaction "
            f"0x{p64(1 << 40).hex()} {why}; its record is replicated without it"
        )
        assert (record.storage, u64(bytes.fromhex(record.oid[2:]))) == (storage.getName(), 1000)
        assert record.tid == f"0x{p64(1 << 40).hex()}"


@pytest.fixture
def file(tmp_path):
    with closing(open_file_storage(tmp_path / "db", blobs=False)) as storage:
        yield storage


def restore(storage, number, status=" "):
    sink, tid = RestoringSink(storage, lambda tid, oids: None), p64(number << 40)
    for message in (Transaction(tid, status), Store(p64(5), tid, DATA), Commit()):
        sink.apply(message)
    return tid


@pytest.fixture(params=[FileStorageSource, IterationSource])
def make_source(request):
    opened = []

    def make(storage):
        opened.append(request.param(storage))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


class TestStarts:
    def starts(self, source, *numbers):
        """The tids that follow what a reader may begin after, and the errors for the others."""
        found = {}
        for number in numbers:
            try:
                with closing(source.open(p64(number << 40))) as reader:
                    begins = (each for each in reader.read(1) if isinstance(each, Transaction))
                    found[number] = u64(next(begins, Transaction(p64(0))).tid) >> 40
            except StartError as error:
                found[number] = type(error)
        return found

    def test_a_start_that_was_never_there(self, file, make_source):
        for number in (2, 4, 6):
            restore(file, number)
        assert self.starts(make_source(file), 1, 2, 3, 4, 5, 6, 7) == {
            1: Diverged,
            2: 4,
            3: Diverged,
            4: 6,
            5: Diverged,
            6: 0,
            7: TidTooHigh,
        }

    def test_starts_that_a_pack_may_have_removed(self, file, make_source):
        """A transaction that is marked as packed explains what is missing before it."""
        restore(file, 2, "p")
        restore(file, 4, "p")
        restore(file, 6)
        assert self.starts(make_source(file), 1, 2, 3, 4, 5, 6, 7) == {
            1: 2,
            2: 4,
            3: 4,
            4: 6,
            5: Diverged,
            6: 0,
            7: TidTooHigh,
        }

    def test_a_start_after_the_last_one_that_is_known_to_be_packed(self, file, make_source):
        restore(file, 2, "p")
        file._ltid = p64(5 << 40)
        # As of a storage that is open since before the pack.
        source = make_source(file)
        for number in (3, 5):
            with closing(source.open(p64(number << 40))) as reader:
                assert reader.read(1) == []
        with pytest.raises(TidTooHigh) as caught:
            source.open(p64(6 << 40))
        assert (caught.value.start, caught.value.last) == (p64(6 << 40), p64(5 << 40))

    def test_a_start_up_to_which_the_primary_has_packed(self, file, make_source):
        restore(file, 2, "p")
        restore(file, 6)
        source = make_source(file)
        source.packed_to = p64(4 << 40)
        with closing(source.open(p64(4 << 40))) as reader:
            assert reader.read(1)[0].tid == p64(6 << 40)
        with pytest.raises(Diverged) as caught:
            source.open(p64(5 << 40))
        assert (caught.value.start, caught.value.before, caught.value.after) == (
            p64(5 << 40),
            p64(2 << 40),
            p64(6 << 40),
        )

    def test_a_start_before_the_first_one(self, file, make_source):
        restore(file, 2)
        with pytest.raises(Diverged) as caught:
            make_source(file).open(p64(1 << 40))
        assert (caught.value.before, caught.value.after) == (None, p64(2 << 40))

    def test_a_start_for_an_empty_storage(self, file, make_source):
        with pytest.raises(TidTooHigh) as caught:
            make_source(file).open(p64(1 << 40))
        assert (caught.value.start, caught.value.last) == (p64(1 << 40), NO_TID)


class TestFiles:
    """What a source of a FileStorage finds in its data file."""

    def test_the_file_before_the_last_pack(self, file, tmp_path):
        source = source_of(file)
        assert not source.held_before_pack(p64(1 << 40))
        first, second = restore(file, 1), restore(file, 2)
        shutil.copyfile(file.getName(), file.getName() + ".old")
        assert source.held_before_pack(first)
        assert source.held_before_pack(first, second)
        assert not source.held_before_pack(first, p64(3 << 40))
        assert not source.held_before_pack(p64(u64(second) - 1))
        assert not source.held_before_pack(NO_TID)
        with open(file.getName() + ".old", "ab") as old:
            old.write(b"more")
        assert not source.held_before_pack(first)

    def test_a_limit_where_the_file_does_not_end_as_the_storage_says(self, file):
        first = restore(file, 1)
        source = FileStorageSource(file, pack_timeout=0)
        source.limit = lambda: first
        assert source.committed_size() == file.getSize()
        restore(file, 2)
        assert source.committed_size() < file.getSize()
        with open(file.getName(), "r+b") as data:
            data.truncate(file.getSize() - 1)
        with pytest.raises(DamagedFile) as caught:
            source.committed_size()
        assert str(caught.value) == (
            f"{file.getName()} is damaged: it does not end where the storage says"
        )

"""What sinks say of what they hold, and how they refuse what cannot be."""

from __future__ import annotations

from contextlib import closing
from functools import partial

import pytest
from ZODB.FileStorage import FileStorage
from ZODB.interfaces import IBlobStorageRestoreable, IStorage, IStorageRestoreable
from ZODB.utils import p64, u64
from zope.interface import directlyProvides

from zrs_core.errors import MissingBlobSupport, NotComparable, WrittenToByOthers
from zrs_core.held import digest
from zrs_core.messages import (
    NO_TID,
    BlobBlock,
    Commit,
    Store,
    StoreBlob,
    Transaction,
)
from zrs_core.storage.fs_sink import FileStorageSink, file_storage_sink
from zrs_core.storage.generic_sink import GenericSink

from ..databases import blob_files, contents, open_file_storage, temporary_files

DATA = b"cpersistent.mapping\nPersistentMapping\n."
BLOB = b"cZODB.blob\nBlob\n."
LIMIT = 1 << 20


SINKS = [GenericSink, FileStorageSink, partial(file_storage_sink, durability="batch")]


@pytest.fixture(params=SINKS)
def make(request):
    return request.param


@pytest.fixture
def storage(tmp_path):
    with closing(open_file_storage(tmp_path / "db")) as storage:
        yield storage


@pytest.fixture
def heard():
    return []


@pytest.fixture
def sink(make, storage, heard):
    return make(storage, lambda tid, oids: heard.append((tid, oids)))


def tid(number):
    return p64(number << 40)


def transaction(number, *records, status=" "):
    return [Transaction(tid(number), status, b"user", b"text", b""), *records, Commit()]


def apply(sink, *numbers, status=" "):
    for number in numbers:
        for message in transaction(number, Store(p64(number), tid(number), DATA), status=status):
            sink.apply(message)
        sink.flush()


class TestWhatItHolds:
    def test_nothing(self, sink):
        assert sink.last_tid() == NO_TID
        assert sink.history(None, 10) == []

    @pytest.mark.parametrize("count", [0, 1, 2, 5, 6, 100])
    def test_history_goes_backwards(self, count, sink):
        apply(sink, 1, 2, 3)
        apply(sink, 4, status="p")
        apply(sink, 5)
        expected = [(tid(number), number == 4) for number in (5, 4, 3, 2, 1)]
        assert sink.history(None, count) == expected[:count]
        assert sink.history(tid(5), count) == expected[1:][:count]
        assert sink.history(p64(u64(tid(5)) + 1), count) == expected[:count]
        assert sink.history(tid(1), count) == []
        assert sink.history(p64(u64(tid(1)) + 1), count) == expected[4:][:count]

    def test_nothing_is_before_the_first_tid_there_is(self, sink):
        apply(sink, 1)
        assert sink.history(p64(1), 5) == []

    def test_a_history_with_gaps(self, sink):
        """Stretches without transactions are passed over."""
        numbers = [1, 2, 1000, 1001, 4_000_000]
        apply(sink, *numbers)
        assert [found for found, _ in sink.history(None, 10)] == [*map(tid, reversed(numbers))]

    def test_the_last_transaction(self, sink):
        apply(sink, 1, 2)
        last = sink.last_transaction(LIMIT)
        assert last.before == tid(1)
        assert last.gaps is False
        assert last.header == Transaction(tid(2), " ", b"user", b"text", b"")
        assert last.records == {p64(2): digest(DATA)}
        assert last.open_blob(p64(2)) is None

    def test_the_only_transaction(self, sink):
        apply(sink, 1)
        last = sink.last_transaction(LIMIT)
        assert (last.before, last.gaps) == (NO_TID, False)

    def test_one_right_after_another(self, sink):
        apply(sink, 1)
        close = p64(u64(tid(1)) + 1)
        for message in (Transaction(close), Store(p64(2), close, DATA), Commit()):
            sink.apply(message)
        sink.flush()
        assert sink.last_transaction(LIMIT).before == tid(1)

    def test_one_after_what_a_pack_has_left(self, sink):
        apply(sink, 1, status="p")
        apply(sink, 2)
        last = sink.last_transaction(LIMIT)
        assert (last.before, last.gaps) == (tid(1), True)

    def test_one_that_a_pack_has_left(self, sink):
        apply(sink, 1)
        apply(sink, 2, status="p")
        with pytest.raises(NotComparable) as caught:
            sink.last_transaction(LIMIT)
        assert str(caught.value) == "a pack here has gone over it"

    def test_one_that_is_too_large(self, sink):
        apply(sink, 1)
        with pytest.raises(NotComparable, match="and at most 10 are compared"):
            sink.last_transaction(10)

    def test_one_with_a_blob(self, sink):
        record = StoreBlob(p64(7), tid(1), BLOB, None, 1)
        for message in transaction(1, record, BlobBlock(b"content")):
            sink.apply(message)
        sink.flush()
        with sink.last_transaction(LIMIT).open_blob(p64(7)) as blob:
            assert blob.read() == b"content"
        assert sink.blobs_written == 1
        size = len(BLOB) + len(b"content")
        with pytest.raises(NotComparable, match="are compared"):
            sink.last_transaction(size - 1)

    def test_one_that_is_not_there(self, make, storage, sink):
        apply(sink, 1)
        # Another sink commits, which this one does not know of.
        apply(make(storage, lambda tid, oids: None), 2)
        if make is GenericSink:
            assert sink.last_transaction(LIMIT).header.tid == tid(1)
        else:
            with pytest.raises(NotComparable, match="a pack has removed it here"):
                sink.last_transaction(LIMIT)


class TestApplying:
    def test_each_transaction_is_notified_with_its_oids(self, sink, heard):
        records = [Store(p64(oid), tid(1), DATA) for oid in (3, 4)]
        for message in transaction(1, *records):
            sink.apply(message)
        sink.flush()
        apply(sink, 2)
        assert heard == [(tid(1), [p64(3), p64(4)]), (tid(2), [p64(2)])]
        assert sink.last_tid() == tid(2)

    def test_what_it_writes(self, sink, storage):
        back = Store(p64(2), tid(3), DATA, tid(2))
        apply(sink, 1, 2)
        for message in transaction(3, back, Store(p64(9), tid(3), b"")):
            sink.apply(message)
        sink.flush()
        third = contents(storage)[2]
        assert third[:4] == (tid(3), " ", b"user", b"text")
        assert [record[:4] for record in third.records] == [
            (p64(2), tid(3), DATA, tid(2)),
            (p64(9), tid(3), None, None),
        ]

    def test_a_blob_is_notified_and_points_back(self, sink, storage, heard):
        for number, back in ((1, None), (2, tid(1))):
            record = StoreBlob(p64(7), tid(number), BLOB, back, 1)
            for message in transaction(number, record, BlobBlock(b"%d" % number)):
                sink.apply(message)
            sink.flush()
        assert heard == [(tid(1), [p64(7)]), (tid(2), [p64(7)])]
        assert [each.records[0][3] for each in contents(storage)] == [None, tid(1)]
        assert sink.blobs_written == 2

    def test_the_records_of_an_undone_transaction_are_void(self, sink, storage, heard):
        blob = StoreBlob(p64(7), tid(1), BLOB, None, 1)
        messages = transaction(1, Store(p64(1), tid(1), DATA), blob, BlobBlock(b"x"), status="u")
        for message in messages:
            sink.apply(message)
        sink.flush()
        assert heard == [(tid(1), [])]
        assert len(storage) == 0
        assert blob_files(storage.blob_dir) == {}
        assert temporary_files(storage.blob_dir) == []

    @pytest.mark.parametrize(
        "message",
        [Store(p64(1), tid(1), DATA), Commit(), BlobBlock(b"x")],
        ids=["a record", "a commit", "a block"],
    )
    def test_a_message_outside_of_a_transaction(self, sink, message):
        with pytest.raises(ValueError, match="outside of a"):
            sink.apply(message)

    def test_a_block_outside_of_a_blob(self, sink):
        sink.apply(Transaction(tid(1)))
        with pytest.raises(ValueError, match=r"^a blob block outside of a blob$"):
            sink.apply(BlobBlock(b"x"))
        sink.abort()

    def test_a_block_too_many(self, sink):
        sink.apply(Transaction(tid(1)))
        sink.apply(StoreBlob(p64(7), tid(1), BLOB, None, 1))
        sink.apply(BlobBlock(b"x"))
        with pytest.raises(ValueError, match=r"^a blob block outside of a blob$"):
            sink.apply(BlobBlock(b"x"))
        sink.abort()

    def test_an_abort_leaves_nothing(self, sink, storage, heard):
        sink.apply(Transaction(tid(1)))
        sink.apply(Store(p64(1), tid(1), DATA))
        sink.apply(StoreBlob(p64(7), tid(1), BLOB, None, 1))
        sink.apply(BlobBlock(b"x"))
        sink.apply(StoreBlob(p64(8), tid(1), BLOB, None, 2))
        sink.apply(BlobBlock(b"x"))
        # The file is beside the blobs, so that it can be renamed.
        assert temporary_files(storage.blob_dir) != []
        sink.abort()
        assert blob_files(storage.blob_dir) == {}
        assert temporary_files(storage.blob_dir) == []
        assert (contents(storage), heard, sink.blobs_written) == ([], [], 0)
        apply(sink, 1)
        assert [found for found, _ in heard] == [tid(1)]
        # There is nothing to take back.
        sink.abort()
        assert len(contents(storage)) == 1

    def test_records_of_blobs_without_their_files_are_counted(self, sink):
        for message in transaction(1, Store(p64(7), tid(1), BLOB), Store(p64(1), tid(1), DATA)):
            sink.apply(message)
        sink.flush()
        assert (sink.missing_blobs, sink.blobs_written) == (1, 0)

    def test_another_writer_is_refused(self, sink, storage, make):
        apply(sink, 1)
        apply(make(storage, lambda tid, oids: None), 2)
        with pytest.raises(WrittenToByOthers) as caught:
            sink.apply(Transaction(tid(3)))
        sink.abort()
        assert str(caught.value).startswith(f"{storage.getName()} has a transaction 0x")
        assert tid(2).hex() in str(caught.value)
        assert str(caught.value).endswith(
            "that did not come by this replication; nobody else may write to it"
        )


def test_a_storage_without_a_blob_directory_refuses_blobs(make, tmp_path):
    with closing(FileStorage(str(tmp_path / "Data.fs"))) as storage:
        sink = make(storage, lambda tid, oids: None)
        assert sink.blobs is False
        sink.apply(Transaction(tid(1)))
        with pytest.raises(MissingBlobSupport) as caught:
            sink.apply(StoreBlob(p64(7), tid(1), BLOB, None, 1))
        assert str(caught.value) == (
            f"object 0x{p64(7).hex()} is a blob, and {storage.getName()} keeps none: give it a "
            "blob directory"
        )
        sink.abort()


class NoIteration:
    """A FileStorage that cannot be iterated over."""

    def __init__(self, base):
        self._base = base
        directlyProvides(self, IStorage, IStorageRestoreable, IBlobStorageRestoreable)

    def __getattr__(self, name):
        if name == "iterator":
            raise AttributeError(name)
        return getattr(self._base, name)


def test_a_storage_that_does_not_iterate(storage):
    sink = GenericSink(NoIteration(storage), lambda tid, oids: None)
    assert sink.ends_packed is False
    apply(sink, 1)
    assert sink.last_tid() == tid(1)
    assert sink.history(None, 5) == []
    with pytest.raises(NotComparable) as caught:
        sink.last_transaction(LIMIT)
    assert str(caught.value) == "the storage does not iterate"


@pytest.mark.parametrize("status", [" ", "p"])
def test_an_end_that_was_packed_is_known(status, storage):
    apply(GenericSink(storage, lambda tid, oids: None), 1, status=status)
    assert GenericSink(storage, lambda tid, oids: None).ends_packed is (status == "p")


def test_a_transaction_that_was_removed_is_not_comparable(storage):
    sink = GenericSink(storage, lambda tid, oids: None)
    sink._tid = tid(3)
    apply(GenericSink(storage, lambda tid, oids: None), 1)
    with pytest.raises(NotComparable) as caught:
        sink.last_transaction(LIMIT)
    assert str(caught.value) == "a pack has removed it here"


@pytest.mark.parametrize("make", [GenericSink, FileStorageSink])
def test_a_wrong_last_tid_is_logged(make, storage, caplog):
    apply(GenericSink(storage, lambda tid, oids: None), 1)
    storage._ltid = tid(9)
    sink = make(storage, lambda tid, oids: None)
    assert sink.last_tid() == tid(1)
    (record,) = [each for each in caplog.records if each.event == "other-last"]
    name = storage.getName()
    assert record.getMessage().startswith(f"{name} names 0x{tid(9).hex()}")
    assert f"and holds 0x{tid(1).hex()}" in record.getMessage()
    assert (record.storage, record.levelname) == (name, "WARNING")
    assert (record.tid, record.named) == (f"0x{tid(1).hex()}", f"0x{tid(9).hex()}")


@pytest.mark.parametrize("make", [FileStorageSink, partial(file_storage_sink, durability="batch")])
def test_a_pack_begins_with_a_file_that_ends_where_the_storage_says(make, storage):
    sink = make(storage, lambda tid, oids: None)
    apply(sink, 1)
    end = storage.getSize()
    if make is FileStorageSink:
        with open(storage.getName(), "ab") as file:
            file.write(b"left behind")
    else:
        sink._publisher.writer._write(end, b"left behind")
    with sink.packs.one():
        assert sink.packs.running
        with open(storage.getName(), "rb") as file:
            assert len(file.read()) == end
    assert not sink.packs.running

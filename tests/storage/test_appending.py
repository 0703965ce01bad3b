"""The sink that appends batches, where it is more than another way to do the same."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import random
import shutil
import struct
import threading
import time
from pathlib import Path

import pytest
from ZODB.blob import BlobStorage
from ZODB.FileStorage import FileStorage
from ZODB.serialize import referencesf
from ZODB.utils import p64, u64, z64

from zrs_core.errors import NotWritten
from zrs_core.messages import (
    BlobBlock,
    Commit,
    Store,
    StoreBlob,
    Transaction,
)
from zrs_core.options import DURABILITIES
from zrs_core.storage import batches, disk, fs_access
from zrs_core.storage.batches import BatchLimits
from zrs_core.storage.fs_format import FIRST_OFFSET
from zrs_core.storage.fs_last_tid import establish_last_tid
from zrs_core.storage.fs_sink import FileStorageSink, file_storage_sink
from zrs_core.storage.fs_source import FileStorageSource
from zrs_core.storage.received_blobs import ReceivedBlobs

from ..databases import blob_files, contents, open_file_storage, temporary_files, traffic

# It is synced in the background.
LARGE_BLOB = b"abcdefgh" * (1 << 17)

BLOB_RECORD = b"\x80\x03cZODB.blob\nBlob\nq\x01.\x80\x03N."


def no_invalidation(tid, oids):
    pass


def history(storage):
    reader = FileStorageSource(storage).open(z64)
    messages = []
    while batch := reader.read(1 << 20):
        messages += batch
    reader.close()
    return messages


@pytest.fixture
def messages(tmp_path):
    """Of a database with blobs, undo and objects that change often; its file is `Data.fs`."""
    storage = open_file_storage(tmp_path / "original")
    with traffic(storage) as commits:
        commits.commit(60)
        return history(storage)


@pytest.fixture
def original(tmp_path, messages):
    return (tmp_path / "original" / "Data.fs").read_bytes()


@pytest.fixture(autouse=True)
def block_size(monkeypatch):
    """Whatever disk this machine has. It may be changed before a sink is made."""
    sizes = [disk.SECTOR]
    monkeypatch.setattr(disk, "block_size", lambda fd: sizes[-1])
    return sizes.append


@pytest.fixture
def target(tmp_path):
    storage = open_file_storage(tmp_path / "copy")
    yield storage
    storage.close()


def data_of(storage):
    return Path(storage.getName()).read_bytes()


def tids(messages):
    return [each.tid for each in messages if isinstance(each, Transaction)]


def whole_transactions(messages):
    """Where transactions end in a list of messages."""
    return [number for number, each in enumerate(messages, 1) if each == Commit()]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("durability", DURABILITIES)
def test_wherever_it_is_flushed_the_file_is_the_same(
    seed, durability, messages, original, target, tmp_path
):
    chance = random.Random(seed)
    sink = file_storage_sink(target, no_invalidation, durability)
    assert any(each.data_txn for each in messages if isinstance(each, Store))
    for message in messages:
        sink.apply(message)
        if chance.random() < 0.1:
            sink.flush()
    sink.flush()
    assert data_of(target) == original
    assert blob_files(tmp_path / "copy" / "blobs") == blob_files(tmp_path / "original" / "blobs")
    assert temporary_files(tmp_path / "copy" / "blobs") == []


def test_what_it_has_published_can_be_read_as_ever(messages, target, tmp_path):
    sink = file_storage_sink(target, no_invalidation, "batch")
    for message in messages:
        sink.apply(message)
    sink.flush()
    with contextlib.closing(
        FileStorage(str(tmp_path / "original" / "Data.fs"), read_only=True)
    ) as same:
        assert dict(target._index) == dict(same._index)
        assert target.getSize() == same.getSize()
        assert target.lastTransaction() == same.lastTransaction() == sink.last_tid()
        assert target._oid == same._oid
        for oid in same._index:
            assert target.history(oid, 100) == same.history(oid, 100)
    assert len(target.undoLog(0, 1000)) > 10


def test_a_storage_goes_on_from_there_by_itself(messages, target):
    sink = file_storage_sink(target, no_invalidation, "batch")
    for message in messages:
        sink.apply(message)
    sink.flush()
    before = target.lastTransaction()
    with traffic(target) as commits:
        commits.commit(5)
        assert target.lastTransaction() > before
        assert len(contents(target)) == len(whole_transactions(messages)) + 5


def test_nothing_is_visible_before_it_is_flushed(messages, target):
    heard = []
    sink = file_storage_sink(target, lambda tid, oids: heard.append(tid), "batch")
    first, second = whole_transactions(messages)[:2]
    for message in messages[: second + 1]:
        sink.apply(message)
    assert (sink.last_tid(), target.lastTransaction(), len(target), heard) == (z64, z64, 0, [])
    sink.flush()
    assert heard == [messages[0].tid, messages[first].tid]
    assert sink.last_tid() == target.lastTransaction() == heard[-1]
    sink.abort()


def test_nobody_commits_and_no_pack_ends_within_a_transaction(messages, target):
    sink = file_storage_sink(target, no_invalidation, "batch")
    end = whole_transactions(messages)[0]
    sink.apply(messages[0])
    assert target._commit_lock.locked()
    for message in messages[1 : end + 1]:
        sink.apply(message)
    sink.flush()
    # The next one has begun.
    assert target._commit_lock.locked()
    sink.abort()
    assert not target._commit_lock.locked()


def test_a_pack_in_between_moves_what_it_builds_upon(messages, original, target, tmp_path):
    sink = file_storage_sink(target, no_invalidation, "batch")
    ends = whole_transactions(messages)
    half = ends[len(ends) // 2]
    for message in messages[:half]:
        sink.apply(message)
    sink.flush()
    target.pack(time.time(), referencesf)
    assert data_of(target) != original[: target.getSize()]
    for message in messages[half:]:
        sink.apply(message)
    sink.flush()
    added = [each for each in messages[half:] if isinstance(each, Transaction)]
    assert [each.tid for each in contents(target)][-len(added) :] == [each.tid for each in added]
    for number, transaction in enumerate(target.iterator(added[0].tid)):
        assert transaction.tid == added[number].tid
        for record in transaction:
            if record.data:
                assert target.loadSerial(record.oid, record.tid) == record.data


class TestLargeTransactions:
    limits = BatchLimits(batch=1000)

    def test_they_are_written_as_they_come(self, messages, original, target):
        sink = file_storage_sink(target, no_invalidation, "batch", self.limits)
        for message in messages:
            sink.apply(message)
            held = sink._publisher.batch.chunks + (sink._encoder.chunks if sink._encoder else [])
            assert (
                sum(map(len, held))
                < 1000 + max(len(getattr(each, "data", b"")) for each in messages) + 200
            )
        sink.flush()
        assert data_of(target) == original

    def large(self):
        tid = p64(1 << 50)
        records = [Store(p64(number), tid, b"x" * 300) for number in range(20)]
        return [Transaction(tid, " ", b"me"), *records, Commit()]

    def test_an_abort_leaves_nothing(self, messages, target):
        sink = file_storage_sink(target, no_invalidation, "batch", self.limits)
        first = whole_transactions(messages)[0]
        for message in (*messages[:first], *self.large()[:-1]):
            sink.apply(message)
        assert len(data_of(target)) > target.getSize() + 4000
        sink.abort()
        assert len(data_of(target)) == target.getSize()
        for message in self.large():
            sink.apply(message)
        sink.flush()
        assert len(contents(target)) == 2

    def test_a_kill_in_the_midst_leaves_what_is_cut_off(self, messages, target, tmp_path):
        sink = file_storage_sink(target, no_invalidation, "batch", self.limits)
        first = whole_transactions(messages)[0]
        for message in messages[:first]:
            sink.apply(message)
        sink.flush()
        states = set()
        for number, message in enumerate(self.large()):
            sink.apply(message)
            if len(data_of(target)) in states:
                continue
            states.add(len(data_of(target)))
            left = tmp_path / f"left{number}"
            left.mkdir()
            shutil.copy(target.getName(), left / "Data.fs")
            again = open_file_storage(left)
            second = file_storage_sink(again, no_invalidation, "batch", self.limits)
            expected = 2 if message == Commit() else 1
            assert len(contents(again)) == expected
            assert second.last_tid() == [messages[0].tid, p64(1 << 50)][expected - 1]
            again.close()
        assert len(states) > 3
        sink.flush()
        assert len(contents(target)) == 2


class TestALargeBlob:
    """It is synced while others work."""

    @pytest.fixture
    def blob(self, monkeypatch, target):
        """A transaction with one, and the sink that is to apply it."""
        monkeypatch.setattr(target, "_save_index", lambda: None)
        return file_storage_sink(target, no_invalidation, "batch"), [
            Transaction(p64(1), " ", b"", b"", b""),
            StoreBlob(p64(7), p64(1), BLOB_RECORD, None, 16),
            *[BlobBlock(LARGE_BLOB[:65_536])] * 16,
            Commit(),
        ]

    def test_nothing_is_visible_before_it_is_on_disk(self, blob, target, monkeypatch):
        sink, messages = blob
        may_be_synced, real, begun = threading.Event(), disk.sync, []

        def sync(fd):
            begun.append(fd)
            if len(begun) == 1:
                assert may_be_synced.wait(60)
                assert target.lastTransaction() == z64
            real(fd)

        monkeypatch.setattr(disk, "sync", sync)
        for message in messages:
            sink.apply(message)
        flushing = threading.Thread(target=sink.flush)
        flushing.start()
        may_be_synced.set()
        flushing.join()
        assert target.lastTransaction() == p64(1)
        assert Path(target.loadBlob(p64(7), p64(1))).read_bytes() == LARGE_BLOB

    def test_that_the_disk_does_not_take_ends_it(self, blob, target, monkeypatch, tmp_path):
        sink, messages = blob
        real, begun = disk.sync, []

        def sync(fd):
            begun.append(fd)
            if len(begun) == 1:
                raise NotWritten(OSError(errno.EIO, "Input/output error"))
            real(fd)

        monkeypatch.setattr(disk, "sync", sync)
        for message in messages:
            sink.apply(message)
        for _ in range(2):
            with pytest.raises(NotWritten, match="Input/output error"):
                sink.flush()
        sink.abort()
        assert target.lastTransaction() == z64
        assert temporary_files(tmp_path / "copy" / "blobs") == []
        with pytest.raises(NotWritten):
            sink.apply(messages[0])


class TestTrouble:
    def failing(self, monkeypatch, name, times=1):
        real, failed = getattr(os, name), []

        def fail(*args):
            if len(failed) < times:
                failed.append(args)
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*args)

        monkeypatch.setattr(os, name, fail)

    def test_a_batch_counts_whose_padding_cannot_be_cut_off(
        self, messages, original, target, monkeypatch
    ):
        self.failing(monkeypatch, "ftruncate")
        sink = file_storage_sink(target, no_invalidation, "batch")
        for message in messages:
            sink.apply(message)
            if isinstance(message, Commit):
                # Who follows it would not be told of it, if this failed.
                sink.flush()
        assert sink.last_tid() == tids(messages)[-1]
        assert data_of(target) == original

    def test_what_cannot_be_written_leaves_nothing_and_may_come_again(
        self, messages, original, target, monkeypatch, tmp_path
    ):
        sink = file_storage_sink(target, no_invalidation, "batch")
        blobs = blob_files(tmp_path / "original" / "blobs")
        place = 0
        for end in whole_transactions(messages)[::10]:
            for message in messages[place:end]:
                sink.apply(message)
            with monkeypatch.context() as patched:
                self.failing(patched, "pwrite")
                with pytest.raises(OSError, match="No space left"):
                    sink.flush()
            sink.abort()
            assert not target._commit_lock.locked()
            # What a back-pointer needed was written before.
            assert data_of(target) == original[: target.getSize()]
            assert target.lastTransaction() == sink.last_tid()
            done = len([tid for tid in tids(messages) if tid <= sink.last_tid()])
            place = [0, *whole_transactions(messages)][done]
            assert blob_files(tmp_path / "copy" / "blobs").items() <= blobs.items()
        for message in messages[place:]:
            sink.apply(message)
        sink.flush()
        assert data_of(target) == original
        assert blob_files(tmp_path / "copy" / "blobs") == blobs

    @pytest.mark.parametrize(("small", "step"), [(65_536, 1), (65_536, 2), (0, 1), (0, 2), (0, 3)])
    def test_after_an_fsync_that_failed_nothing_more_is_written(
        self, small, step, messages, target, monkeypatch, tmp_path
    ):
        """The system forgets what it could not write: the next fsync would succeed."""
        monkeypatch.setattr(target, "_save_index", lambda: None)
        limits = BatchLimits(searched=small)
        sink = file_storage_sink(target, no_invalidation, "batch", limits)
        first, second = whole_transactions(messages)[9:11]
        for message in messages[:first]:
            sink.apply(message)
        sink.flush()
        for message in messages[first:second]:
            sink.apply(message)
        real, calls = os.fdatasync, []

        def fail(fd):
            calls.append(fd)
            if len(calls) == step:
                raise OSError(errno.EIO, "Input/output error")
            real(fd)

        with monkeypatch.context() as patched:
            patched.setattr(os, "fdatasync", fail)
            with pytest.raises(NotWritten, match="Input/output error"):
                sink.flush()
            sink.abort()
            with pytest.raises(NotWritten):
                sink.apply(messages[first])
            sink.abort()
            assert len(calls) == step
        assert not target._commit_lock.locked()
        assert target.lastTransaction() == sink.last_tid() == tids(messages)[9]
        target.close()
        with contextlib.closing(open_file_storage(tmp_path / "copy")) as again:
            # The last step had been taken, as it turns out.
            assert len(contents(again)) == (11 if step == (2 if small else 3) else 10)

    def test_a_blob_that_is_needed_stays_after_an_fsync_that_failed(self, target, monkeypatch):
        tid = p64(1 << 60)
        sink = file_storage_sink(target, no_invalidation, "batch")
        blob = [StoreBlob(p64(7), tid, BLOB_RECORD, None, 1), BlobBlock(b"x")]
        for message in (Transaction(tid), *blob, Commit()):
            sink.apply(message)
        with monkeypatch.context() as patched:
            self.failing(patched, "fdatasync")
            with pytest.raises(NotWritten):
                sink.flush()
        sink.abort()
        assert Path(target.loadBlob(p64(7), tid)).read_bytes() == b"x"

    def test_a_short_write_is_gone_on_with(self, messages, original, target, monkeypatch):
        real = os.pwrite
        monkeypatch.setattr(os, "pwrite", lambda fd, data, pos: real(fd, data[:1000], pos))
        sink = file_storage_sink(target, no_invalidation, "batch")
        for message in messages:
            sink.apply(message)
        sink.flush()
        assert data_of(target) == original

    def test_clean_up_goes_on_when_a_part_of_it_fails(self, target, monkeypatch):
        tid = p64(1 << 40)
        sink = file_storage_sink(target, no_invalidation, "batch")
        sink.apply(Transaction(tid))
        sink.apply(StoreBlob(p64(1), tid, b"record", None, 1))
        sink.apply(BlobBlock(b"x"))
        sink.apply(StoreBlob(p64(2), tid, b"record", None, 2))
        sink._publisher.writer.dirty = True
        with monkeypatch.context() as patched:
            patched.setattr(type(sink._file), "truncate", lambda self: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                sink.abort()
        assert temporary_files(target.blob_dir) == []
        assert blob_files(target.blob_dir) == {}
        assert not target._commit_lock.locked()

    def test_one_that_cannot_be_told_of_one_is_told_of_the_others(self, messages, target, caplog):
        heard = []

        def fail_once(tid, oids):
            heard.append(tid)
            if len(heard) == 1:
                raise RuntimeError("cannot hear")

        sink = file_storage_sink(target, fail_once, "batch")
        third = whole_transactions(messages)[2]
        for message in messages[:third]:
            sink.apply(message)
        sink.flush()
        assert heard == tids(messages)[:3]
        assert sink.last_tid() == target.lastTransaction() == heard[-1]
        assert "cannot hear" in caplog.text

    def test_handles_hold_nothing_of_what_was_cut_off(self, target):
        """Another transaction at the same place, after readers have read near the end."""

        def transaction(tid, data):
            return [
                Transaction(p64(tid), " ", data[:1]),
                Store(p64(1), p64(tid), data * 100),
                Commit(),
            ]

        sink = file_storage_sink(target, no_invalidation, "batch")
        for message in transaction(1 << 40, b"first"):
            sink.apply(message)
        sink.flush()
        for message in transaction(2 << 40, b"AAAAA"):
            sink.apply(message)
        sink._publisher.writer._write(sink._publisher.batch.begin, *sink._publisher.batch.chunks)
        target.loadSerial(p64(1), p64(1 << 40))
        target.undoLog(0, 10)
        sink.abort()
        for message in transaction(2 << 40, b"BBBBB"):
            sink.apply(message)
        sink.flush()
        assert target.loadSerial(p64(1), p64(2 << 40)) == b"BBBBB" * 100
        assert target.history(p64(1), 5)[0]["user_name"] in ("B", b"B")
        assert len(target.undoLog(0, 10)) == 2

    def test_what_could_not_be_cut_off_is_cut_off_later(self, messages, original, target):
        sink = file_storage_sink(target, no_invalidation, "batch")
        end = whole_transactions(messages)[9]
        for message in messages[:end]:
            sink.apply(message)
        sink._publisher.writer._write(target.getSize(), b"x" * 1_000_000)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(type(sink._file), "truncate", lambda self: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                sink.abort()
        place = len([each for each in tids(messages) if each <= sink.last_tid()])
        for message in messages[[0, *whole_transactions(messages)][place] : end]:
            sink.apply(message)
        sink.flush()
        assert data_of(target) == original[: target.getSize()]

    @pytest.mark.parametrize("name", fs_access.PRIVATE)
    def test_a_storage_without_what_it_needs_is_written_to_another_way(
        self, name, target, monkeypatch, caplog
    ):
        caplog.set_level(logging.WARNING, "zrs_core.storage")

        class Other:
            def __getattr__(self, wanted):
                if wanted == name:
                    raise AttributeError(wanted)
                return getattr(target, wanted)

        monkeypatch.setattr(fs_access, "file_storage_of", lambda storage: Other())
        sink = file_storage_sink(target, no_invalidation, "batch")
        assert type(sink) is FileStorageSink
        assert f"has no {name}, so that transactions are stored one by one" in caplog.text


def test_a_spilled_transaction_is_published_by_itself_if_each_is(target):
    limits = BatchLimits(batch=100)
    sink = file_storage_sink(target, no_invalidation, "transaction", limits)
    for number in range(1, 5):
        tid = p64(number << 40)
        for message in (Transaction(tid), Store(p64(1), tid, b"x" * 50 * number), Commit()):
            sink.apply(message)
        assert target.lastTransaction() == tid
    sink.flush()


def test_a_pack_gets_its_turn_while_a_stream_lasts(target):
    sink = file_storage_sink(target, no_invalidation, "batch")
    packed = threading.Event()

    def pack():
        with sink.packs.one():
            packed.set()

    packing = threading.Thread(target=pack)
    number = 0
    while not packed.is_set():
        number += 1
        tid = p64(number << 30)
        # Each flush comes within a transaction, as with a stream that does not pause.
        sink.apply(Transaction(tid))
        sink.flush()
        if number == 3:
            packing.start()
        sink.apply(Store(p64(1), tid, b"x"))
        sink.apply(Commit())
    packing.join()
    sink.flush()


def apply_blobs(storage, sink, monkeypatch, count=5):
    """Apply a transaction of blobs; return if each fsync with some in their places was locked."""
    tid = p64(1 << 60)
    real, locked = os.fsync, []

    def placed():
        return [name for name in blob_files(storage.blob_dir) if not name.startswith("tmp/")]

    def look():
        if storage._lock.acquire(timeout=0.01):
            storage._lock.release()
            locked.append(False)
        else:
            locked.append(True)

    def fsync(fd):
        if placed():
            looking = threading.Thread(target=look)
            looking.start()
            looking.join()
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    messages = [Transaction(tid)]
    for number in range(count):
        messages += [StoreBlob(p64(7 + number), tid, BLOB_RECORD, None, 1), BlobBlock(b"x")]
    for message in (*messages, Commit()):
        assert placed() == []
        sink.apply(message)
    sink.flush()
    assert len(placed()) == count
    return set(locked)


def test_readers_do_not_wait_for_blobs_to_get_their_places(target, monkeypatch):
    sink = file_storage_sink(target, no_invalidation, "batch")
    assert apply_blobs(target, sink, monkeypatch) == {False}


def test_nor_while_a_pack_runs(target, monkeypatch):
    sink = file_storage_sink(target, no_invalidation, "batch")
    with sink.packs.one():
        assert apply_blobs(target, sink, monkeypatch) == {False}


def test_a_pack_makes_sure_that_no_directory_gets_a_blob_while_it_looks(target, monkeypatch):
    sink = file_storage_sink(target, no_invalidation, "batch")
    make, locked = sink._received._directories.make, []

    def make_locked(directory):
        looking = threading.Thread(target=lambda: locked.append(not target._lock.acquire(False)))
        looking.start()
        looking.join()
        make(directory)

    monkeypatch.setattr(sink._received._directories, "make", make_locked)
    with sink.packs.one():
        apply_blobs(target, sink, monkeypatch, count=1)
    assert locked == [True]


def test_a_pack_of_a_blob_storage_does_not_look_before_the_record_is_known(tmp_path, monkeypatch):
    """It removes the files of blobs whose records it does not find."""
    storage = open_file_storage(tmp_path / "blobless", blobs=False)
    target = BlobStorage(str(tmp_path / "around"), storage)
    sink = file_storage_sink(target, no_invalidation, "batch")
    target.blob_dir = str(tmp_path / "around")
    with sink.packs.one():
        assert apply_blobs(target, sink, monkeypatch) == {True}
    target.close()


@pytest.mark.parametrize(
    ("durability", "fsyncs"), [("transaction", 122), ("batch", 2), ("none", 0)]
)
def test_durability_is_a_matter_of_fsync(durability, fsyncs, target, monkeypatch):
    synced = []
    sink = file_storage_sink(target, no_invalidation, durability)
    monkeypatch.setattr(os, "fdatasync", synced.append)
    for number in range(1, 62):
        tid = p64(number << 40)
        # None is within a sector.
        for message in (Transaction(tid), Store(p64(number), tid, b"x" * 600), Commit()):
            sink.apply(message)
    sink.flush()
    assert len(synced) == fsyncs
    assert len(contents(target)) == 61


def left_by_a_disk(before, after, block):
    """All that a disk may hold that had `before`, as long as `after` is not synced.

    :param block: bytes that it writes all or not at all.
    """
    changed = [
        place
        for place in range(0, len(after), block)
        if before[place : place + block] != after[place : place + block]
    ]
    for number in range(2 ** len(changed)):
        kept = [place for bit, place in enumerate(changed) if number >> bit & 1]
        disk = bytearray(before)
        for place in kept:
            piece = after[place : place + block]
            disk.extend(bytes(max(0, place + len(piece) - len(disk))))
            disk[place : place + len(piece)] = piece
        yield bytes(disk)


LENGTH_AT_THE_END = [
    # Where a sector ends, after the lengths that come before it, stands what could be a length.
    bytes(distance) + struct.pack(">Q", 100) + b"x" * 900
    for distance in range(340, 400)
]


# The last of them leave a block of 4,096 bytes, which the others do not.
@pytest.mark.parametrize("begin", [0, 100, 350, 498, 507, 2600, 4090])
@pytest.mark.parametrize("data", [b"x" * 1500, bytes(1500), *LENGTH_AT_THE_END[::20]])
@pytest.mark.parametrize("block", [512, 4096])
def test_whatever_is_on_disk_a_file_storage_opens(begin, data, block, block_size, tmp_path):
    block_size(block)
    target = FileStorage(str(tmp_path / "Data.fs"))
    sink = file_storage_sink(target, no_invalidation, "batch")

    def apply(number, data):
        tid = p64(number << 40)
        for message in (Transaction(tid), Store(p64(number), tid, data), Commit()):
            sink.apply(message)
        sink.flush()

    # So that the next one begins at that place in a block.
    overhead = FIRST_OFFSET + 23 + 42 + 8 + 23 + 42 + 8 + 8
    apply(1, b"x" * ((begin - overhead) % 4096 + 4096))
    # What that one has left to be done is done.
    apply(2, b"")
    assert target.getSize() % 4096 == begin
    old = Path(target.getName()).read_bytes()
    states = [old]
    sync = sink._file.sync

    def record():
        states.append(Path(target.getName()).read_bytes())
        sync()

    sink._file.sync = record
    apply(3, data)
    whole = Path(target.getName()).read_bytes()
    target.close()
    within = len(old) // block == (len(whole) - 1) // block
    assert within == (block == 4096 and begin < (2600 if len(data) == 1500 else 4090))
    assert len(states) == 2 if within else len(states) in (3, 4)
    path = tmp_path / "left" / "Data.fs"
    path.parent.mkdir()
    last = len(states) - 2
    for step in range(last + 1):
        for left in left_by_a_disk(states[step], states[step + 1], block):
            path.write_bytes(left)
            storage = FileStorage(str(path))
            last_tid = establish_last_tid(storage)
            storage.close()
            found = path.read_bytes()
            assert found in ((old, whole) if step == last else (old,))
            assert last_tid == p64((3 if found == whole else 2) << 40)


def test_what_is_within_a_block_takes_one_write_and_one_fsync(block_size, target, monkeypatch):
    block_size(4096)
    done = []
    for name in ("pwrite", "fdatasync", "ftruncate"):
        real = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *args, n=name, real=real: done.append(n) or real(*args)
        )
    sink = file_storage_sink(target, no_invalidation, "batch")

    def apply(number, size):
        done.clear()
        tid = p64(number << 40)
        for message in (Transaction(tid), Store(p64(1), tid, b"x" * size), Commit()):
            sink.apply(message)
        sink.flush()
        return done

    apply(1, 10)
    assert apply(2, 10) == ["pwrite", "fdatasync"]
    steps = ["pwrite", "fdatasync"]
    assert apply(3, 5000) == [*steps, *steps, "ftruncate"]
    # Half of the block could be on its way to the disk, for what was cut off.
    assert apply(4, 10) == ["fdatasync", *steps]
    assert apply(5, 10) == steps
    assert len(contents(target)) == 5


class TestBatchesOneAfterTheOther:
    """The disk is busy with one while the next one comes."""

    limits = BatchLimits(batch=3000, held=1000)

    def transactions(self, count):
        for number in range(1, count + 1):
            tid = p64(number << 40)
            # Each object twice: what comes points back to what is on its way.
            stores = [Store(p64(oid), tid, b"%d" % number * 100) for oid in (1, number // 2)]
            yield from (Transaction(tid), *stores, Commit())

    def apply_all(self, sink, messages):
        for message in messages:
            sink.apply(message)
        sink.flush()

    def test_the_next_one_is_written_before_the_disk_has_the_first(self, target, monkeypatch):
        may_be_synced, real, begun = threading.Event(), disk.sync, []
        main = threading.get_ident()

        def sync(fd):
            if threading.get_ident() != main:
                begun.append(fd)
                assert may_be_synced.wait(60)
            real(fd)

        monkeypatch.setattr(disk, "sync", sync)
        sink = file_storage_sink(target, no_invalidation, "batch", self.limits)
        messages = self.transactions(100)
        while sink._publisher._syncing is None:
            sink.apply(next(messages))
        first = sink._publisher._syncing.end
        while not sink._publisher.batch.place > first:
            sink.apply(next(messages))
        assert os.path.getsize(target.getName()) > first
        assert target.lastTransaction() == z64
        may_be_synced.set()
        self.apply_all(sink, messages)
        assert begun
        assert [each.tid for each in contents(target)] == [p64(n << 40) for n in range(1, 101)]
        assert len(target.history(p64(1), 1000)) == 100
        assert os.path.getsize(target.getName()) == target.getSize()

    def test_each_is_visible_once_the_disk_has_it(self, target):
        sink = file_storage_sink(target, no_invalidation, "batch", self.limits)
        seen = set()
        for message in self.transactions(200):
            sink.apply(message)
            seen.add(target.lastTransaction())
        sink.flush()
        assert len(seen) > 10

    @pytest.mark.parametrize("failing", range(1, 12))
    def test_after_an_fsync_that_failed_beside_nothing_counts(
        self, failing, target, monkeypatch, tmp_path
    ):
        monkeypatch.setattr(target, "_save_index", lambda: None)
        sink = file_storage_sink(target, no_invalidation, "batch", self.limits)
        real, calls = os.fdatasync, []

        def fail(fd):
            calls.append(fd)
            if len(calls) == failing:
                raise OSError(errno.EIO, "Input/output error")
            real(fd)

        monkeypatch.setattr(os, "fdatasync", fail)
        with pytest.raises(NotWritten, match="Input/output error"):
            self.apply_all(sink, self.transactions(100))
        sink.abort()
        with pytest.raises(NotWritten):
            sink.apply(next(self.transactions(1)))
        last = sink.last_tid()
        assert target.lastTransaction() == last
        target.close()
        with contextlib.closing(open_file_storage(tmp_path / "copy")) as again:
            held = [each.tid for each in contents(again)]
        # A batch that was not visible may be there.
        assert held == [p64(n << 40) for n in range(1, len(held) + 1)]
        assert ([z64, *held])[-1] >= last

    def test_what_was_not_written_beside_is_cut_off(self, target, monkeypatch):
        sink = file_storage_sink(target, no_invalidation, "batch", self.limits)
        messages = [*self.transactions(100)]
        real, failed = os.pwrite, []

        def fail(fd, data, pos):
            # What finishes a batch.
            if len(data) == 9 and len(failed) < 1:
                failed.append(pos)
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(fd, data, pos)

        monkeypatch.setattr(os, "pwrite", fail)
        with pytest.raises(OSError, match="No space left"):
            self.apply_all(sink, messages)
        with pytest.raises(OSError, match="No space left"):
            sink.flush()
        sink.abort()
        assert target.lastTransaction() == z64
        assert data_of(target) == b"FS30"
        self.apply_all(sink, messages)
        assert len(contents(target)) == 100

    def test_an_abort_takes_back_what_is_not_visible(self, target):
        sink = file_storage_sink(target, no_invalidation, "batch", self.limits)
        messages = self.transactions(100)
        while sink._publisher._syncing is None:
            sink.apply(next(messages))
        sink.abort()
        assert target.lastTransaction() == sink.last_tid() == z64
        assert data_of(target) == b"FS30"
        assert not target._commit_lock.locked()


def test_only_what_could_be_a_length_calls_for_another_fsync():
    batch = bytearray(b"x" * 2000 + bytes(8))
    assert not batches._could_mislead(0, [bytes(batch)], 65_536)
    assert not batches._could_mislead(510, [bytes(batch)], 65_536)
    batch[504:512] = struct.pack(">Q", 512)
    assert batches._could_mislead(0, [bytes(batch)], 65_536)
    assert not batches._could_mislead(1, [bytes(batch)], 65_536)
    for harmless in (22, 513):
        batch[504:512] = struct.pack(">Q", harmless)
        assert not batches._could_mislead(0, [bytes(batch)], 65_536)
    assert batches._could_mislead(0, [bytes(1 << 20)], 65_536)


def test_who_reads_meanwhile_sees_whole_transactions(tmp_path):
    """Two objects that are always equal, read by threads while batches come."""
    target = open_file_storage(tmp_path / "copy")
    sink = file_storage_sink(target, no_invalidation, "batch")
    wrong, stop = [], threading.Event()
    read = []

    def reader():
        while not stop.is_set():
            tid = target.lastTransaction()
            if tid == z64:
                continue
            before = p64(u64(tid) + 1)
            found = {target.loadBefore(p64(oid), before)[:2] for oid in (1, 2)}
            read.append(tid)
            if len({data for data, _ in found}) != 1 or {tid for _, tid in found} != {tid}:
                wrong.append(found)

    threads = [threading.Thread(target=reader) for _ in range(2)]
    for each in threads:
        each.start()
    number = 1 << 40
    while len(read) < 200 or number < (1 << 40) + 300:
        for _ in range(3):
            number += 1
            tid = p64(number)
            stores = [Store(p64(oid), tid, b"%d" % number) for oid in (1, 2)]
            for message in (Transaction(tid), *stores, Commit()):
                sink.apply(message)
        sink.flush()
    stop.set()
    for each in threads:
        each.join()
    assert wrong == []
    target.close()


def test_a_blob_is_there_when_its_record_is(target):
    tid = p64(1 << 60)
    sink = file_storage_sink(target, no_invalidation, "batch")
    blob = [StoreBlob(p64(7), tid, BLOB_RECORD, None, 2), BlobBlock(b"x" * 65_536), BlobBlock(b"y")]
    for message in (Transaction(tid), *blob, Commit()):
        sink.apply(message)
    sink.flush()
    assert Path(target.loadBlob(p64(7), tid)).read_bytes() == b"x" * 65_536 + b"y"


def test_a_transaction_of_many_blobs_keeps_few_files_open(target, tmp_path):
    received = ReceivedBlobs(target, sync=True, max_syncing=2)
    for number in range(6):
        received.begin(StoreBlob(p64(number), p64(1), BLOB_RECORD, None, 1))
        received.add_block(LARGE_BLOB)
        assert received.take_complete(keep=True) is not None
    assert [each._file.closed for each in received._current] == [True] * 4 + [False] * 2
    received.commit()
    received.settle()
    assert all(each._file.closed for each in received._committed)
    received.place(None)
    assert received.published() == 6
    assert len(blob_files(tmp_path / "copy" / "blobs")) == 6


@pytest.mark.parametrize("durability", DURABILITIES)
def test_a_part_of_a_transaction_that_ends_like_a_length_is_cut_off(durability, target, tmp_path):
    """FileStorage takes the last 8 bytes of the file for it, where a transaction has none."""
    sink = file_storage_sink(target, no_invalidation, durability, BatchLimits(batch=1000))
    sink.apply(Transaction(p64(1)))
    sink.apply(Store(p64(1), p64(1), b"first"))
    sink.apply(Commit())
    sink.flush()
    end = target.getSize()
    sink.apply(Transaction(p64(2)))
    sink.apply(Store(p64(2), p64(2), b"x" * 2000 + p64(end)))
    copy = tmp_path / "killed.fs"
    shutil.copyfile(target.getName(), copy)
    assert copy.stat().st_size > end + 2000
    sink.abort()
    killed = FileStorage(str(copy))
    assert [each.tid for each in killed.iterator()] == [p64(1)]
    assert killed.getSize() == copy.stat().st_size == end
    killed.close()

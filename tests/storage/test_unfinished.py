"""What a killed secondary leaves at the end of its file."""

from __future__ import annotations

import os
import pickle
import struct
import tracemalloc

import pytest
import zc.lockfile
from ZODB.FileStorage import FileStorage
from ZODB.utils import p64

from zrs_core.errors import UnsuitableStorage
from zrs_core.messages import Commit, Store, Transaction
from zrs_core.storage import disk, fs_sink, fs_writer, unfinished
from zrs_core.storage.batches import BatchLimits
from zrs_core.storage.batches import unfinished as guard
from zrs_core.storage.fs_sink import FileStorageSink, file_storage_sink
from zrs_core.storage.opening import open_storage
from zrs_core.storage.preparing import prepare_files

from ..databases import contents
from . import files

#: Of a history that the tests begin with, and of what a killed process was writing then.
LAST, NEXT = p64(3 << 40), p64(4 << 40)


def apply(sink, tid, size=100, records=3):
    sink.apply(Transaction(tid, " ", b"me"))
    for number in range(records):
        sink.apply(Store(p64(number), tid, b"x" * size))
    sink.apply(Commit())


def begin(path, transactions=3):
    """Make a database, closed; return its bytes."""
    storage = FileStorage(str(path))
    sink = file_storage_sink(storage, lambda tid, oids: None, "batch")
    for number in range(1, transactions + 1):
        apply(sink, p64(number << 40))
        sink.flush()
    storage.close()
    return path.read_bytes()


def beside(path):
    return sorted(each.name for each in path.parent.iterdir() if each.name.startswith("Data.fs."))


@pytest.fixture
def path(tmp_path):
    (tmp_path / "db").mkdir()
    return tmp_path / "db" / "Data.fs"


@pytest.mark.parametrize("index", ["saved", "older", "of another file", "broken", None])
@pytest.mark.parametrize("durability", ["batch", "none", "public"])
def test_every_state_of_a_batch_is_cut_off(path, tmp_path, monkeypatch, durability, index):
    """At every write: a large transaction, a batch of several, parts of which are whole."""
    begin(path, 2)
    older = path.with_suffix(".fs.index").read_bytes()
    path.unlink()
    before = begin(path)
    states, seen = [], []
    storage = FileStorage(str(path))
    if durability == "public":
        sink = FileStorageSink(storage, lambda tid, oids: None)
    else:
        limits = BatchLimits(batch=4000, held=500)
        sink = file_storage_sink(storage, lambda tid, oids: None, durability, limits)

    def snap():
        found = path.read_bytes()
        if found != before and found not in states:
            states.append(found)
            seen.append(storage.getSize())

    write = fs_writer.write_at
    for module in (fs_sink, fs_writer):
        monkeypatch.setattr(module, "write_at", lambda *args: (write(*args), snap()))
    for number, (size, records) in enumerate([(100, 3), (100, 9), (900, 9)]):
        sink.apply(Transaction(p64((4 + number) << 40)))
        for oid in range(records):
            sink.apply(Store(p64(oid), p64((4 + number) << 40), b"x" * size))
            snap()
        sink.apply(Commit())
        snap()
    sink.flush()
    monkeypatch.undo()
    storage.close()
    assert len(states) > 5
    for number, (left, size) in enumerate(zip(states, seen, strict=True)):
        again = tmp_path / str(number) / "Data.fs"
        again.parent.mkdir()
        again.write_bytes(left)
        own = path.with_suffix(".fs.index").read_bytes()
        saved = {"saved": own, "older": older, "broken": own[:3], None: None}
        if index == "of another file":
            saved[index] = pickle.dumps(len(left) - 100, 3) + own[own.index(b".") + 1 :]
        if saved[index] is not None:
            again.with_suffix(".fs.index").write_bytes(saved[index])
        if durability == "public" and left[size + 8 : size + 16] != b"\xff" * 8:
            # The header is FileStorage's own by now.
            continue
        storage, _ = open_storage(again, None)
        end = storage.getSize()
        storage.close()
        assert end >= size
        assert again.read_bytes() == left[:end]
        assert not [each for each in beside(again) if ".tr" in each]


@pytest.mark.parametrize("length", [1 << 62, 1 << 31])
def test_a_length_in_a_damaged_index_takes_no_memory(path, length):
    before = begin(path)
    path.write_bytes(before + guard(NEXT) + bytes(1000))
    path.with_suffix(".fs.index").write_bytes(b"\x8e" + struct.pack("<Q", length))
    tracemalloc.start()
    try:
        prepare_files(str(path), None)
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()
    assert path.read_bytes() == before


def test_it_is_on_disk_then_and_logged(path, monkeypatch, caplog):
    before = begin(path)
    path.write_bytes(before + guard(NEXT) + bytes(1000))
    synced = []
    monkeypatch.setattr(disk, "sync", lambda fd: synced.append(os.fstat(fd).st_size))
    with caplog.at_level("INFO", "zrs_core.storage"):
        prepare_files(str(path), None)
    assert synced == [len(before)]
    assert path.read_bytes() == before
    assert f"{path}: removed 1023 bytes of an unfinished batch from its end" in caplog.messages


def header(tid, length, status=b" "):
    return struct.pack(">8sQcHHH", tid, length, status, 0, 0, 0)


OTHERS = [
    pytest.param(header(NEXT, 100, b"c") + bytes(100), id="a vote of FileStorage"),
    pytest.param(bytes(4096), id="zeros"),
    pytest.param(b"\xff" * 4096, id="ones"),
    pytest.param(guard(NEXT)[:22], id="a part of a header"),
    pytest.param(guard(p64(1 << 40)) + bytes(100), id="a header from before the last transaction"),
    pytest.param(header(NEXT, 23) + guard(NEXT) * 9, id="something else before it"),
]


@pytest.mark.parametrize("tail", OTHERS)
def test_what_is_not_of_a_batch_is_left_to_file_storage(path, tail):
    before = begin(path)
    path.write_bytes(before + tail)
    prepare_files(str(path), None)
    assert path.read_bytes() == before + tail


def test_a_whole_file_is_left_as_it_is(path, monkeypatch):
    before = begin(path)
    # What looks like the end of another batch lies within a record.
    storage = FileStorage(str(path))
    sink = file_storage_sink(storage, lambda tid, oids: None, "batch")
    sink.apply(Transaction(NEXT))
    sink.apply(Store(p64(9), NEXT, before + guard(NEXT)))
    sink.apply(Commit())
    sink.flush()
    storage.close()
    before = path.read_bytes()
    for saved in (None, before.index(b"FS30", 4) + before.index(b"FS30", 4) - 42 - 23):
        index = path.with_suffix(".fs.index")
        index.unlink(missing_ok=True)
        if saved is not None:
            index.write_bytes(pickle.dumps(saved, 3))
        prepare_files(str(path), None)
        assert path.read_bytes() == before


def test_a_database_within_a_record_is_not_taken_for_the_end(path):
    """An index of another file may name the end of a transaction within a record."""
    inner = begin(path)
    path.unlink()
    storage = FileStorage(str(path))
    sink = file_storage_sink(storage, lambda tid, oids: None, "batch")
    sink.apply(Transaction(NEXT))
    sink.apply(Store(p64(9), NEXT, inner + guard(NEXT) + bytes(50)))
    sink.apply(Commit())
    sink.flush()
    storage.close()
    outer = path.read_bytes()
    end = outer.index(inner) + len(inner)
    path.with_suffix(".fs.index").write_bytes(pickle.dumps(end, 3))
    prepare_files(str(path), None)
    assert path.read_bytes() == outer


def test_another_process_that_writes_is_not_disturbed(path):
    before = begin(path)
    path.write_bytes(before + guard(NEXT))
    lock = zc.lockfile.LockFile(f"{path}.lock")
    prepare_files(str(path), None)
    with pytest.raises(UnsuitableStorage, match="is in use"):
        open_storage(path, None)
    assert path.read_bytes() == before + guard(NEXT)
    lock.close()


def test_what_was_finished_meanwhile_is_kept(path, monkeypatch):
    whole = begin(path)
    end = whole.index(LAST) if whole.count(LAST) == 4 else None
    assert end is not None
    path.write_bytes(whole[:end] + guard(LAST) + whole[end + 23 :])

    def lock(name):
        path.write_bytes(whole)
        return zc_lock(name)

    zc_lock = zc.lockfile.LockFile
    monkeypatch.setattr(unfinished.zc.lockfile, "LockFile", lock)
    prepare_files(str(path), None)
    assert path.read_bytes() == whole


def test_a_disk_that_fails_then(path, monkeypatch):
    path.write_bytes(begin(path) + guard(NEXT))

    def fail(fd):
        raise disk.NotWritten(OSError(5, "Input/output error"))

    monkeypatch.setattr(disk, "sync", fail)
    with pytest.raises(UnsuitableStorage, match="cannot be used"):
        prepare_files(str(path), None)


def test_a_primary_that_was_killed_leaves_what_file_storage_cuts_off(tmp_path):
    """What FileStorage writes is not removed without a copy: it may have been committed."""
    path = files.unfinished(tmp_path)
    storage, _ = open_storage(path, None)
    assert contents(storage) == []
    storage.close()
    assert (tmp_path / "Data.fs.tr0").exists()


def test_what_the_index_covers_is_not_read_again(path, monkeypatch):
    before = begin(path, 50)
    path.write_bytes(before + guard(p64(50 << 40)))
    read = []
    header = unfinished.CommittedFile.header
    monkeypatch.setattr(
        unfinished.CommittedFile, "header", lambda self, pos: read.append(pos) or header(self, pos)
    )
    prepare_files(str(path), None)
    assert path.read_bytes() == before
    assert len(read) < 10

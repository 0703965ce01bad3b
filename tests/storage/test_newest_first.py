"""The transactions of a storage from the last one to the first."""

from __future__ import annotations

import contextlib
import os
import threading

import pytest
import ZODB
from ZODB.Connection import TransactionMetaData
from ZODB.FileStorage import FileStorage
from ZODB.MappingStorage import MappingStorage
from ZODB.utils import p64, u64

from tests.databases import open_file_storage, traffic
from zrs_core.errors import UnsuitableStorage
from zrs_core.storage import newest_first as module
from zrs_core.storage.committed import DamagedFile
from zrs_core.storage.newest_first import newest_first, newest_first_in_file, open_latest

from .relstorages import open_on_sqlite

FIRST_TID = 0x0400000000000000


def commit_headers(path, texts, extension=b"", data=b"data", step=1 << 32):
    """Commit transactions with these users and descriptions, with a record each."""
    with contextlib.closing(FileStorage(str(path))) as storage:
        store_headers(storage, texts, extension, data, step)


def store_headers(storage, texts, extension=b"", data=b"data", step=1 << 32):
    for number, (user, description) in enumerate(texts):
        meta = TransactionMetaData(user, description, extension)
        tid = p64(FIRST_TID + number * step)
        storage.tpc_begin(meta, tid)
        if hasattr(storage, "restore"):
            storage.restore(p64(number), tid, data, "", None, meta)
        else:
            storage.store(p64(number), bytes(8), data, "", meta)
        storage.tpc_vote(meta)
        storage.tpc_finish(meta)


def summaries_of(path, **options):
    with contextlib.closing(open_latest(str(path), **options)) as file:
        return [*newest_first_in_file(file)]


def forwards(storage):
    found = []
    for each in storage.iterator():
        records = [(record.data or b"") for record in each if not record.data_txn]
        found.append((each.tid, each.status, each.user, each.description, sum(map(len, records))))
    return found


def without_counts(summaries):
    return [(*each[:4], each.size) for each in summaries]


@pytest.fixture
def path(tmp_path):
    with traffic(open_file_storage(tmp_path)) as commit:
        commit.commit(60)
    return tmp_path / "Data.fs"


def test_a_file(path):
    with contextlib.closing(FileStorage(str(path), read_only=True)) as storage:
        expected = forwards(storage)
        records = [len([*each]) for each in storage.iterator()]
    found = summaries_of(path)
    assert without_counts(found) == expected[::-1]
    assert [each.records for each in found] == records[::-1]


def test_the_end_of_a_file_alone_is_read(path, monkeypatch):
    """Not what lies before it."""
    with path.open("r+b") as file:
        file.seek(4)
        file.write(bytes(100))
    with contextlib.closing(open_latest(str(path))) as file:
        found = newest_first_in_file(file)
        assert [next(found).status for _ in range(30)] == [" "] * 30
        with pytest.raises(DamagedFile):
            list(found)


def test_each_byte_is_read_about_once(tmp_path, monkeypatch):
    commit_headers(tmp_path / "Data.fs", [(b"user", b"x" * 200)] * 5000)
    read = []
    pread = os.pread

    def counted(fd, size, pos):
        read.append(size)
        return pread(fd, size, pos)

    monkeypatch.setattr("zrs_core.storage.committed.os.pread", counted)
    assert len(summaries_of(tmp_path / "Data.fs")) == 5000
    assert sum(read) < 1.5 * (tmp_path / "Data.fs").stat().st_size


def test_an_empty_file(tmp_path):
    (tmp_path / "Data.fs").write_bytes(b"FS30")
    assert summaries_of(tmp_path / "Data.fs") == []
    (tmp_path / "Data.fs").write_bytes(b"")
    assert summaries_of(tmp_path / "Data.fs") == []


def unfinished(path, status):
    """Append a transaction that is being committed."""
    last = summaries_of(path)[0]
    data = path.read_bytes()
    with contextlib.closing(open_latest(str(path))) as file:
        pos = file.before(file.end)
    copy = p64(u64(last.tid) + 1) + data[pos + 8 : pos + 16] + status + data[pos + 17 :]
    return data, copy


@pytest.mark.parametrize("kept", [None, 3, 40, -1])
def test_a_transaction_that_is_being_committed(path, kept):
    """What is at the end is looked for again and again, then from the beginning."""
    expected = summaries_of(path)
    data, copy = unfinished(path, b"c")
    path.write_bytes(data + copy[:kept])
    assert summaries_of(path, timeout=0.05) == expected


def test_a_transaction_that_is_committed_meanwhile(path, monkeypatch):
    expected = len(summaries_of(path))
    data, copy = unfinished(path, b"c")
    path.write_bytes(data + copy[:50])
    looks = []

    def sleep(seconds):
        looks.append(seconds)
        path.write_bytes(data)

    monkeypatch.setattr(module, "open_snapshot", None)
    assert len(summaries_of(path, timeout=60, sleep=sleep)) == expected
    assert len(looks) == 1


def test_a_record_that_holds_a_file(tmp_path):
    """A file that ends within a record ends like that file."""
    inner = tmp_path / "inner.fs"
    commit_headers(inner, [(b"user", b"inner")] * 3)
    path = tmp_path / "Data.fs"
    commit_headers(path, [(b"user", b"outer")] * 2)
    end = path.stat().st_size
    with contextlib.closing(FileStorage(str(path))) as storage:
        meta = TransactionMetaData(b"", b"cut off")
        storage.tpc_begin(meta)
        storage.store(p64(9), bytes(8), inner.read_bytes(), "", meta)
        storage.tpc_vote(meta)
        storage.tpc_finish(meta)
    data = path.read_bytes()
    cut = data.index(inner.read_bytes()[-40:]) + 40
    assert cut > end
    path.write_bytes(data[:cut])
    assert [each.description for each in summaries_of(path, timeout=0.05)] == [b"outer"] * 2


def test_what_cannot_be_read(tmp_path):
    with pytest.raises(UnsuitableStorage, match="cannot be read: No such file"):
        open_latest(str(tmp_path / "nothing"))


@pytest.mark.parametrize("opened", [lambda path: MappingStorage(), open_on_sqlite])
@pytest.mark.parametrize("step", [1, 1 << 26, 1 << 32, 1 << 48])
def test_a_storage(tmp_path, opened, step):
    """However close together the transactions are."""
    texts = [(b"user", b"%d" % number) for number in range(70)]
    with contextlib.closing(opened(tmp_path / "it")) as storage:
        store_headers(storage, texts, step=step)
        found = [*newest_first(storage, max_held=10)]
    assert [each.description for each in found] == [text for _, text in reversed(texts)]
    assert [(each.records, each.size) for each in found] == [(1, 4)] * 70


def test_few_of_many_transactions_of_a_storage(monkeypatch):
    """No more are held at once, and those before them are not read."""
    db = ZODB.DB(MappingStorage())
    for number in range(200):
        with db.transaction() as connection:
            connection.root()[number] = number
    summary, read = module._summary, []
    monkeypatch.setattr(module, "_summary", lambda each: read.append(each.tid) or summary(each))
    with contextlib.closing(newest_first(db.storage, max_held=10)) as found:
        last = [next(found).tid for _ in range(3)]
    assert last == sorted({each.tid for each in db.storage.iterator()})[:-4:-1]
    assert len(set(read)) < 100
    db.close()


def test_an_empty_storage(tmp_path):
    assert [*newest_first(MappingStorage())] == []
    with contextlib.closing(open_on_sqlite(tmp_path / "it")) as storage:
        assert [*newest_first(storage)] == []


def test_a_storage_that_is_in_use(tmp_path):
    """A thread commits while another one lists."""
    with contextlib.closing(open_on_sqlite(tmp_path / "it")) as storage:
        db = ZODB.DB(storage)
        done = threading.Event()

        def commit():
            for number in range(20):
                with db.transaction() as connection:
                    connection.root()[number] = number
            done.set()

        thread = threading.Thread(target=commit)
        thread.start()
        while not done.is_set():
            tids = [each.tid for each in newest_first(storage)]
            assert tids == sorted(tids, reverse=True)
        thread.join()
        assert len([*newest_first(storage)]) >= 20
        db.close()


def test_a_file_whose_end_cannot_be_looked_at_is_closed(path, monkeypatch):
    def fail(file):
        raise DamagedFile("damaged")

    monkeypatch.setattr(module, "_ends_with_transaction", fail)
    with pytest.raises(DamagedFile):
        open_latest(str(path))

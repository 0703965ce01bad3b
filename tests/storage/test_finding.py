from __future__ import annotations

import random

import pytest
from ZODB.FileStorage import FileStorage
from ZODB.utils import p64, u64, z64

from zrs_core.messages import NO_TID, Commit, Store, Transaction
from zrs_core.storage.committed import CommittedFile
from zrs_core.storage.finding import find
from zrs_core.storage.fs_format import FIRST_OFFSET
from zrs_core.storage.fs_sink import file_storage_sink

from ..databases import open_file_storage, traffic

SECOND = (1 << 32) // 60


def fill(path, transactions):
    """A file of transactions, each a tid and the data of its records."""
    storage = FileStorage(str(path), create=True)
    sink = file_storage_sink(storage, lambda tid, oids: None, "none")
    for number, (tid, records) in enumerate(transactions):
        sink.apply(Transaction(p64(tid), " pu"[number % 3], b"user", b"text" * (number % 9)))
        for oid, data in enumerate(records):
            sink.apply(Store(p64(oid), p64(tid), data))
        sink.apply(Commit())
    sink.flush()
    storage.close()


@pytest.fixture
def open_committed():
    files = []

    def opened(path):
        file = CommittedFile(str(path))
        file.advance(file.stat().st_size)
        files.append(file)
        return file

    yield opened
    for file in files:
        file.close()


@pytest.fixture(params=[{}, {"near": 100, "stretch": 61}], ids=["as it is", "tiny steps"])
def steps(request):
    return request.param


def every_place(file):
    pos = FIRST_OFFSET
    while pos < file.end:
        header = file.header(pos)
        yield header.tid, pos, header.next
        pos = header.next


def check(file, steps, chance=None):
    places = list(every_place(file))
    for tid, pos, end in chance.sample(places, min(len(places), 12)) if chance else places:
        assert find(file, tid, **steps) == end
        assert find(file, p64(u64(tid) - 1), **steps) == pos
    assert find(file, NO_TID, **steps) == FIRST_OFFSET
    assert find(file, b"\xff" * 8, **steps) == file.end


@pytest.mark.long
def test_every_tid_is_found_and_what_lies_between(tmp_path, open_committed, steps):
    storage = open_file_storage(tmp_path / "db")
    with traffic(storage) as commits:
        commits.commit(60)
    check(open_committed(tmp_path / "db" / "Data.fs"), steps)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_in_the_file(seed, tmp_path, open_committed, steps):
    chance = random.Random(seed)
    start = chance.choice([1, 1 << 40, (1 << 62) + 12345])
    step = chance.choice([1, SECOND, SECOND << 20])
    tids = [start + number * step for number in range(120)]
    # A part of a file as a record of another: transactions, at other positions.
    fill(tmp_path / "inner.fs", [(tid, [b"x" * 50]) for tid in tids[:80]])
    inner = (tmp_path / "inner.fs").read_bytes()
    records = [b"x" * 30, b"", inner, inner[3:], b"\0" * 5_000, p64(tids[60]) * 30]
    fill(
        tmp_path / "Data.fs",
        [(tid, chance.choices(records, k=chance.randrange(3))) for tid in tids],
    )
    check(open_committed(tmp_path / "Data.fs"), steps, chance)


def test_an_empty_file_has_nothing_to_find(tmp_path, open_committed):
    path = tmp_path / "Data.fs"
    path.write_bytes(b"")
    file = open_committed(path)
    assert find(file, z64) == find(file, p64(5)) == FIRST_OFFSET


def test_transactions_without_records_are_gone_through(tmp_path, open_committed):
    tids = [(1 << 60) + number * SECOND for number in range(3000)]
    fill(tmp_path / "Data.fs", [(tid, []) for tid in tids])
    file = open_committed(tmp_path / "Data.fs")
    assert find(file, p64(tids[1500])) == list(every_place(file))[1501][1]


def test_little_of_a_large_file_is_read(tmp_path, open_committed, monkeypatch):
    tids = [(1 << 60) + number * SECOND for number in range(30_000)]
    fill(tmp_path / "Data.fs", [(tid, [b"x" * 200]) for tid in tids])
    file = open_committed(tmp_path / "Data.fs")
    read = []
    pread = CommittedFile._pread
    monkeypatch.setattr(
        CommittedFile,
        "_pread",
        lambda self, pos, size: (read.append(size), pread(self, pos, size))[1],
    )
    place = find(file, p64(tids[15_000]))
    assert sum(read) < file.end / 5
    assert len(read) < 2000
    assert file.tid_at(place) == p64(tids[15_001])

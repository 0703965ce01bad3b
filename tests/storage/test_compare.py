"""Comparing two databases."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
import transaction
import ZODB
from persistent.mapping import PersistentMapping
from ZODB.blob import Blob, BlobStorage, is_blob_record
from ZODB.Connection import TransactionMetaData
from ZODB.FileStorage import FileStorage
from ZODB.interfaces import IBlobStorage, IStorageIteration
from ZODB.MappingStorage import MappingStorage
from ZODB.serialize import referencesf
from ZODB.utils import p64
from zope.interface import directlyProvides

from tests.databases import blob_files, open_file_storage, stored, traffic
from zrs_core.errors import UnsuitableStorage
from zrs_core.messages import NO_TID
from zrs_core.storage import iteration
from zrs_core.storage.committed import CommittedFile, DamagedFile
from zrs_core.storage.compare import compare, side_of
from zrs_core.storage.comparison import Comparison, Kind
from zrs_core.storage.fs_format import FIRST_OFFSET
from zrs_core.storage.snapshot import open_snapshot


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A database with a bit of everything."""
    path = tmp_path_factory.mktemp("made") / "it"
    with traffic(open_file_storage(path)) as commit:
        commit.commit(80)
    return path


@pytest.fixture
def pair(made, tmp_path):
    """Two equal databases."""
    for name in ("ours", "theirs"):
        shutil.copytree(made, tmp_path / name)
    return tmp_path / "ours", tmp_path / "theirs"


def compared(pair, **options) -> Comparison:
    ours, theirs = pair
    return compare(
        ours / "Data.fs",
        theirs / "Data.fs",
        primary_blobs=ours / "blobs",
        secondary_blobs=theirs / "blobs",
        **options,
    )


def differences(pair, **options):
    return [(each.kind, str(each)) for each in compared(pair, **options).differences]


def header(path, number):
    """The header of a transaction: a negative number counts from the end."""
    file = open_snapshot(path / "Data.fs")
    headers, pos = [], FIRST_OFFSET
    while pos < file.end:
        headers.append(file.header(pos))
        pos = headers[-1].next
    file.close()
    return headers[number]


def overwrite(path, pos, data):
    with (path / "Data.fs").open("r+b") as file:
        file.seek(pos)
        file.write(data)


def test_equal_databases(pair):
    result = compared(pair)
    contents = stored(pair[0])
    records = [record for each in contents for record in each.records]
    blobs = [blob for *_, blob in records if blob is not None]
    assert result.equal
    assert result.complete
    assert result.transactions == len(contents)
    assert result.records == len(records)
    assert result.blobs == len(blobs)
    assert result.missing_blobs == 0
    assert result.bytes == sum(len(data or b"") for _, _, data, *_ in records) + sum(
        map(len, blobs)
    )


def test_nothing_is_written(pair):
    def state():
        return {each: each.stat().st_mtime_ns for path in pair for each in path.rglob("*")}

    before = state()
    compared(pair)
    assert state() == before


def test_open_storages_and_paths(pair):
    ours, theirs = pair
    storage = open_file_storage(ours)
    plain = open_file_storage(theirs, blobs=False)
    try:
        assert compare(storage, theirs / "Data.fs", secondary_blobs=theirs / "blobs").equal
        assert compare(storage, BlobStorage(str(theirs / "blobs"), plain)).equal
        # A file in use, by its path.
        assert compared(pair).equal
    finally:
        storage.close()
        plain.close()


def test_without_blobs_nobody_has_them(pair):
    ours, theirs = pair
    result = compare(ours / "Data.fs", theirs / "Data.fs")
    assert result.equal
    assert result.blobs == 0
    assert result.missing_blobs == compared(pair).blobs


def test_blobs_on_one_side_only(pair):
    ours, theirs = pair
    here = compare(ours / "Data.fs", theirs / "Data.fs", primary_blobs=ours / "blobs")
    assert {each.kind for each in here.differences} == {Kind.MISSING_BLOB}
    assert str(here.differences[0]).endswith(": the secondary has no blob")
    there = compare(ours / "Data.fs", theirs / "Data.fs", secondary_blobs=theirs / "blobs")
    assert {each.kind for each in there.differences} == {Kind.EXTRA_BLOB}
    assert str(there.differences[0]).endswith(": the primary has no blob")


def test_a_transaction_more(pair):
    ours, theirs = pair
    last = header(ours, -1)
    with (theirs / "Data.fs").open("r+b") as file:
        file.truncate(last.pos)
    tid = last.tid.hex()
    missing = (Kind.MISSING, f"transaction 0x{tid}: is not in the secondary")
    assert differences(pair) == [missing]
    assert differences(pair, subset=True) == [missing]
    extra = (Kind.EXTRA, f"transaction 0x{tid}: is not in the primary")
    assert differences((theirs, ours)) == [extra]
    assert differences((theirs, ours), subset=True) == []


def test_another_history(pair, tmp_path):
    with traffic(open_file_storage(tmp_path / "other"), seed=1) as commit:
        commit.commit(5)
    result = compared((pair[0], tmp_path / "other"), max_differences=10)
    assert len(result.differences) == 10
    assert not result.complete
    assert {each.kind for each in result.differences} == {Kind.MISSING}


def test_as_many_differences_as_are_asked_for(pair):
    ours, theirs = pair
    with (theirs / "Data.fs").open("r+b") as file:
        file.truncate(header(ours, -3).pos)
    assert compared(pair, max_differences=3).complete
    assert not compared(pair, max_differences=2).complete


def test_meta_data(pair):
    ours, theirs = pair
    with_extension = next(
        each for each in (header(ours, number) for number in range(10)) if each.extension
    )
    texts = with_extension.pos + 23
    overwrite(theirs, texts, b"X")
    overwrite(theirs, texts + len(with_extension.user), b"X")
    overwrite(theirs, with_extension.records - 1, b"X")
    overwrite(theirs, with_extension.pos + 16, b"p")
    found = differences(pair)
    assert {kind for kind, _ in found} == {Kind.TRANSACTION}
    texts = [text.partition(": ")[2] for _, text in found]
    assert [text.partition(" is ")[0] for text in texts] == [
        "status",
        "user",
        "description",
        "extension",
    ]
    assert texts[0] == "status is ' ' in the primary, 'p' in the secondary"
    assert "... in the primary, " in texts[3]


def test_the_data_of_a_record(pair):
    ours, theirs = pair
    last = header(ours, -1)
    overwrite(theirs, last.end - 1, b"X")
    file = CommittedFile(str(ours / "Data.fs"))
    file.end = last.next
    *_, record = file.records(last)
    file.close()
    expected = [
        (
            Kind.RECORD,
            f"transaction 0x{last.tid.hex()}, object 0x{record.oid.hex()}: the data differ",
        )
    ]
    assert differences(pair) == expected
    assert differences(pair, subset=True) == expected


def test_the_tid_of_a_record(pair):
    ours, theirs = pair
    last = header(ours, -1)
    overwrite(theirs, last.records + 8, b"\1" * 8)
    [(kind, text)] = differences(pair)
    assert kind is Kind.RECORD
    assert text.endswith(
        f"the record's tid is 0x{last.tid.hex()} in the primary, 0x{'01' * 8} in the secondary"
    )


def test_another_object_in_its_place(pair):
    ours, theirs = pair
    last = header(ours, -1)
    overwrite(theirs, last.records, b"\1" * 8)
    [(kind, text)] = differences(pair)
    assert kind is Kind.RECORD
    assert f"0x{'01' * 8} in the secondary" in text
    [(kind, text)] = differences(pair, subset=True)
    assert kind is Kind.MISSING
    assert text.endswith(": is not in the secondary")


def commit_records(path, *records):
    """A database of one transaction; each record is (oid, data)."""
    storage = FileStorage(str(path))
    transaction = TransactionMetaData()
    storage.tpc_begin(transaction, b"\3" * 8)
    for oid, data in records:
        storage.restore(oid, b"\3" * 8, data, "", None, transaction)
    storage.tpc_vote(transaction)
    storage.tpc_finish(transaction)
    storage.close()
    return path


def test_records_at_the_end_of_a_transaction(tmp_path):
    first, second = (b"\0" * 7 + b"\1", b"one"), (b"\0" * 7 + b"\2", b"two")
    short = commit_records(tmp_path / "short.fs", first)
    long = commit_records(tmp_path / "long.fs", first, second)
    [difference] = compare(long, short).differences
    assert (difference.kind, difference.oid) == (Kind.MISSING, second[0])
    [difference] = compare(short, long).differences
    assert (difference.kind, difference.oid) == (Kind.EXTRA, second[0])
    assert compare(short, long, subset=True).equal


def test_two_records_of_an_object_in_a_transaction(tmp_path):
    oid = b"\0" * 7 + b"\1"
    both = commit_records(tmp_path / "both.fs", (oid, b"one"), (oid, b"two"))
    for data in (b"one", b"two"):
        packed = commit_records(tmp_path / f"{data.decode()}.fs", (oid, data))
        assert compare(packed, both, subset=True).equal
    other = commit_records(tmp_path / "other.fs", (oid, b"three"))
    [difference] = compare(other, both, subset=True).differences
    assert difference.kind is Kind.RECORD


def test_data_txn(pair):
    """The same data, once as such and once by a back-pointer."""
    ours, theirs = pair
    contents = stored(ours)
    for path in pair:
        for name in ("Data.fs", "Data.fs.index"):
            (path / name).unlink()
    undone = False
    for path in pair:
        storage = open_file_storage(path)
        for each in contents:
            transaction = TransactionMetaData(each.user, each.description, each.extension)
            storage.tpc_begin(transaction, each.tid, each.status)
            for oid, tid, data, data_txn, _ in each.records:
                undone |= data_txn is not None
                hint = data_txn if path == ours else None
                storage.restore(oid, tid, data, "", hint, transaction)
            storage.tpc_vote(transaction)
            storage.tpc_finish(transaction)
        storage.close()
    assert undone
    found = differences(pair)
    assert {kind for kind, _ in found} == {Kind.RECORD}
    assert all("data_txn is 0x" in text and "None in the secondary" in text for _, text in found)
    # A pack of the primary turns back-pointers into data, and not the other way round.
    assert differences((theirs, ours), subset=True) == []
    assert differences(pair, subset=True) == found


def some_blob(path, size):
    return next(
        path / "blobs" / name
        for name, data in blob_files(path / "blobs").items()
        if len(data) > size
    )


def test_the_contents_of_a_blob(pair):
    blob = some_blob(pair[1], 60_000)
    blob.chmod(0o600)
    data = bytearray(blob.read_bytes())
    data[50_000] ^= 1
    blob.write_bytes(data)
    [(kind, text)] = differences(pair)
    assert kind is Kind.BLOB
    assert text.endswith(f"the blobs differ between byte 0 and byte {len(data)}")


def test_the_size_of_a_blob(pair):
    blob = some_blob(pair[1], 0)
    blob.chmod(0o600)
    size = blob.stat().st_size
    with blob.open("ab") as file:
        file.write(b"!")
    [(kind, text)] = differences(pair)
    assert kind is Kind.BLOB
    assert text.endswith(f"size is {size} in the primary, {size + 1} in the secondary")


def test_a_large_blob_is_compared_in_blocks(tmp_path):
    with traffic(open_file_storage(tmp_path / "ours")) as commit:
        commit._connection.root()["blob"] = Blob(b"x" * 3_000_000)
        commit.commit()
    shutil.copytree(tmp_path / "ours", tmp_path / "theirs")
    pair = tmp_path / "ours", tmp_path / "theirs"
    assert compared(pair).equal
    blob = some_blob(pair[1], 2_000_000)
    blob.chmod(0o600)
    blob.write_bytes(b"x" * 2_500_000 + b"y" + b"x" * 499_999)
    [(_, text)] = differences(pair)
    assert text.endswith("the blobs differ between byte 2097152 and byte 3000000")


def test_a_blob_missing_on_one_side(pair):
    some_blob(pair[1], 0).unlink()
    [(kind, text)] = differences(pair)
    assert kind is Kind.MISSING_BLOB
    assert text.endswith("the secondary has no blob")
    [(kind, text)] = differences(pair[::-1])
    assert kind is Kind.EXTRA_BLOB
    assert text.endswith("the primary has no blob")


def test_the_file_of_an_undone_creation_of_a_blob(tmp_path):
    """A BlobStorage keeps it; nothing refers to it but the undo of that undo."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    db = ZODB.DB(BlobStorage(str(ours / "blobs"), FileStorage(str(ours / "Data.fs"))))
    with db.transaction() as connection:
        connection.root()["blob"] = Blob(b"x")
    db.undo(db.undoLog(0, 1)[0]["id"])
    transaction.commit()
    file = db.storage.loadBlob(p64(1), db.storage.lastTransaction())
    db.close()
    shutil.copytree(ours, theirs)
    (theirs / os.path.relpath(file, ours)).unlink()
    [(kind, text)] = differences((ours, theirs))
    assert kind is Kind.MISSING_BLOB
    assert text.endswith("the secondary has no blob")
    assert differences((theirs, ours)) == []
    assert compared((theirs, theirs)).missing_blobs == 0


def test_a_packed_primary(pair):
    storage = open_file_storage(pair[0])
    storage.pack(time.time(), referencesf)
    storage.close()
    assert not compared(pair).equal
    result = compared(pair, subset=True)
    assert result.differences == []
    assert result.records == sum(len(each.records) for each in stored(pair[0]))
    assert result.blobs > 0


def test_undone_transactions_have_no_records(pair):
    """Status 'u' makes the records of a transaction void; a secondary holds none."""
    ours, theirs = pair
    last = header(ours, -1)
    for path in pair:
        overwrite(path, last.pos + 16, b"u")
    overwrite(theirs, last.end - 1, b"X")
    assert differences(pair) == []


def test_empty_databases(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).touch()
    result = compare(tmp_path / "one", tmp_path / "two")
    assert result.equal
    assert result.transactions == 0


def test_what_cannot_be_compared(pair, tmp_path):
    ours, _ = pair
    with pytest.raises(UnsuitableStorage, match="there is no FileStorage"):
        compare(ours / "Data.fs", tmp_path / "nowhere")
    with pytest.raises(UnsuitableStorage, match="there is no directory of blobs"):
        compare(ours / "Data.fs", ours / "Data.fs", primary_blobs=tmp_path / "nowhere")
    with pytest.raises(UnsuitableStorage, match="nor a storage that provides IStorageIteration"):
        compare(ours / "Data.fs", object())
    overwrite(ours, header(ours, 3).pos, NO_TID)
    with pytest.raises(DamagedFile):
        compared(pair)


class Kept:
    """A storage that keeps what RelStorage does: records by oid, no back-pointers.

    :param change: makes of the last transaction's records others.
    """

    def __init__(self, base, change=lambda records: records):
        self._base = base
        self._change = change
        directlyProvides(self, IStorageIteration, IBlobStorage)

    def __getattr__(self, name):
        return getattr(self._base, name)

    def iterator(self, start=None, stop=None):
        for each in self._base.iterator(start, stop):
            records = {record.oid: record for record in each}
            for record in records.values():
                record.data_txn = None
            found = [record for _, record in sorted(records.items(), reverse=True)]
            if each.tid == self._base.lastTransaction():
                found = self._change(found)
            yield KeptTransaction(each, found)


class KeptTransaction:
    def __init__(self, found, records):
        self._found = found
        self._records = records

    def __getattr__(self, name):
        return getattr(self._found, name)

    def __iter__(self):
        return iter(self._records)


def last_records(storage):
    (records,) = [[*each] for each in storage.iterator(storage.lastTransaction())]
    return records


class TestStoragesThatIterate:
    @pytest.fixture
    def base(self, pair):
        _, theirs = pair
        db = ZODB.DB(open_file_storage(theirs))
        with db.transaction() as connection:
            connection.root().clear()
            connection.root()["blob"] = Blob(b"a blob")
            connection.root()["other"] = PersistentMapping()
        db.close()
        shutil.copytree(theirs, theirs.parent / "ours", dirs_exist_ok=True)
        base = open_file_storage(theirs)
        yield base
        base.close()

    def compared(self, pair, *arguments):
        ours, _ = pair
        result = compare(ours / "Data.fs", Kept(*arguments), primary_blobs=ours / "blobs")
        return result, [(each.kind, each.oid, each.text) for each in result.differences]

    def test_equal(self, pair, base):
        result, found = self.compared(pair, base)
        assert found == []
        same = compared(pair)
        assert same.equal
        assert (result.transactions, result.records) == (same.transactions, same.records)
        assert (result.blobs, result.bytes) == (same.blobs, same.bytes)
        assert compare(Kept(base), Kept(base)).equal

    def test_what_is_more_and_what_is_less(self, pair, base):
        _, found = self.compared(pair, base, lambda records: records[1:])
        missing = max(record.oid for record in last_records(base))
        assert found == [(Kind.MISSING, missing, "is not in the secondary")]
        result = compare(Kept(base, lambda records: records[1:]), Kept(base))
        (difference,) = result.differences
        assert (difference.kind, difference.oid) == (Kind.EXTRA, missing)

    def test_what_differs(self, pair, base):
        def change(records):
            for record in records:
                record.data += b"."
            return records

        _, found = self.compared(pair, base, change)
        assert [(kind, text) for kind, _, text in found] == [(Kind.RECORD, "the data differ")] * 3

    def test_a_blob(self, pair, base):
        (blob,) = (record for record in last_records(base) if is_blob_record(record.data))
        path = Path(base.loadBlob(blob.oid, blob.tid))
        path.chmod(0o600)
        path.write_bytes(b"a blot")
        _, ((kind, oid, _),) = self.compared(pair, base)
        assert (kind, oid) == (Kind.BLOB, blob.oid)
        path.unlink()
        _, ((kind, oid, text),) = self.compared(pair, base)
        assert (kind, oid, text) == (Kind.MISSING_BLOB, blob.oid, "the secondary has no blob")


def test_a_side_that_is_closed_gives_up_its_instance(monkeypatch):
    """At once, and not when it is collected."""
    released = []
    monkeypatch.setattr(iteration, "release", lambda storage, instance: released.append(instance))
    storage = MappingStorage()
    db = ZODB.DB(storage)
    side = side_of(storage)
    assert side.next_header() is not None
    assert released == []
    side.close()
    assert released == [storage]
    db.close()

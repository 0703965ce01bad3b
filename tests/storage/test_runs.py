"""Runs of small transactions, against the reader of all transactions."""

from __future__ import annotations

import struct

import pytest
import ZODB
from ZODB.FileStorage import FileStorage

from zrs_core.messages import NO_TID, Commit, Store, Transaction
from zrs_core.storage import fs_source
from zrs_core.storage.committed import CommittedFile
from zrs_core.storage.fs_format import FIRST_OFFSET
from zrs_core.storage.fs_source import FileStorageSource
from zrs_core.storage.runs import Run, read_run

from ..databases import Traffic, open_file_storage

MOST = 1 << 20


@pytest.fixture
def history(tmp_path):
    """A storage with transactions of all kinds."""
    storage = open_file_storage(tmp_path / "db")
    db = ZODB.DB(storage)
    commits = Traffic(db)
    commits.commit(150)
    commits.close()
    yield storage
    db.close()


def messages_of(storage):
    reader = FileStorageSource(storage).open(NO_TID)
    found = []
    while batch := reader.read(10_000):
        found += batch
    reader.close()
    return found


def whole(path):
    file = CommittedFile(str(path))
    file.end = file.stat().st_size
    data = file.read(0, file.end)
    file.close()
    return data


def transactions(path, count):
    """The bytes of a file with so many transactions of two records each."""
    storage = FileStorage(str(path))
    db = ZODB.DB(storage)
    with db.transaction() as connection:
        connection.root()["a"] = "b"
    for number in range(count - 2):
        with db.transaction("note") as connection:
            connection.root()["a"] = str(number)
    db.close()
    return whole(path)


def test_what_comes_out_is_the_same_with_and_without(history, monkeypatch):
    found = messages_of(history)
    runs = []

    def none(window, window_pos, begin, most):
        runs.append(begin)
        return Run([], 0, begin, None, False)

    monkeypatch.setattr(fs_source, "read_run", none)
    assert messages_of(history) == found
    assert len(runs) == sum(isinstance(each, Commit) for each in found)


def test_most_transactions_are_read_in_runs(history, monkeypatch):
    slowly = []
    transaction = fs_source.FileStorageReader._transaction
    monkeypatch.setattr(
        fs_source.FileStorageReader,
        "_transaction",
        lambda reader: slowly.append(reader) or transaction(reader),
    )
    found = messages_of(history)
    assert 0 < len(slowly) < sum(isinstance(each, Commit) for each in found) / 2


def test_a_run_ends_where_the_bytes_do(tmp_path):
    data = transactions(tmp_path / "Data.fs", 8)
    everything = read_run(data, 0, FIRST_OFFSET, MOST)
    assert (everything.next, everything.incomplete) == (len(data), True)
    assert sum(isinstance(each, Transaction) for each in everything.messages) == 8
    for end in range(len(data)):
        part = read_run(data[:end], 0, FIRST_OFFSET, MOST)
        assert part.incomplete
        assert part.next <= max(end, FIRST_OFFSET)
        assert part.messages == everything.messages[: len(part.messages)]
        rest = read_run(data[part.next :], part.next, part.next, MOST)
        assert part.messages + rest.messages == everything.messages


@pytest.mark.parametrize("begin", [FIRST_OFFSET - 1, 10_000])
def test_what_begins_outside_of_the_bytes_is_incomplete(tmp_path, begin):
    data = transactions(tmp_path / "Data.fs", 3)
    assert read_run(data[FIRST_OFFSET:], FIRST_OFFSET, begin, MOST) == ([], 0, begin, None, True)


def test_a_run_stops_when_it_has_enough(tmp_path):
    data = transactions(tmp_path / "Data.fs", 8)
    run = read_run(data, 0, FIRST_OFFSET, 1)
    assert sum(isinstance(each, Transaction) for each in run.messages) == 1
    assert not run.incomplete
    assert read_run(data, 0, FIRST_OFFSET, 0) == ([], 0, FIRST_OFFSET, None, False)


def test_what_is_damaged_is_left_or_in_a_field(tmp_path):
    data = transactions(tmp_path / "Data.fs", 2)
    second = read_run(data, 0, FIRST_OFFSET, 1).next
    sound = read_run(data, 0, FIRST_OFFSET, MOST)
    for place in range(FIRST_OFFSET, len(data)):
        for byte in (0x00, 0x3F, 0xFF):
            run = read_run(data[:place] + bytes([byte]) + data[place + 1 :], 0, FIRST_OFFSET, MOST)
            if run.next == sound.next:
                kinds = [type(each) for each in run.messages]
                assert kinds == [Transaction, Store, Commit] * 2
                assert all(
                    store.serial == each.tid
                    for each, store in zip(run.messages[::3], run.messages[1::3], strict=True)
                )
            else:
                assert run.next in (FIRST_OFFSET, second)


TID, OID = b"\x03abcdefg", b"\0\0\0\0\0\0\0\1"
PICKLE = b"\x80\x03data"


def transaction(status=b" ", extension=b"", tid=TID, **changed):
    record = {
        "oid": OID,
        "serial": tid,
        "before": 0,
        "transaction": FIRST_OFFSET,
        "version": 0,
        "size": len(PICKLE),
        "data": PICKLE,
        **changed,
    }
    *numbers, body = record.values()
    records = struct.pack(">8s8sQQHQ", *numbers) + body
    length = 23 + len(extension) + len(records)
    return (
        bytes(FIRST_OFFSET)
        + struct.pack(">8sQcHHH", tid, length, status, 0, 0, len(extension))
        + extension
        + records
        + struct.pack(">Q", length)
    )


@pytest.mark.parametrize("status", [b" ", b"p"])
def test_an_ordinary_transaction_is_read(status):
    run = read_run(transaction(status), 0, FIRST_OFFSET, MOST)
    assert run.messages == [
        Transaction(TID, status.decode("ascii")),
        Store(OID, TID, PICKLE),
        Commit(),
    ]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(transaction(b"u"), id="undone"),
        pytest.param(transaction(b"c"), id="unfinished"),
        pytest.param(transaction(b"?"), id="unknown status"),
        pytest.param(transaction(extension=b"\x80\x03}."), id="extension"),
        pytest.param(transaction(tid=b"\xffabcdefg"), id="no time"),
        pytest.param(transaction(serial=b"\x03another"), id="another serial"),
        pytest.param(transaction(transaction=5), id="another's record"),
        pytest.param(transaction(version=1), id="version"),
        pytest.param(transaction(size=0, data=bytes(8)), id="back-pointer"),
        pytest.param(transaction(size=7), id="too long"),
        pytest.param(transaction(data=PICKLE + b"more"), id="too short"),
        pytest.param(transaction(data=b"cZODB.blob\nBlob\n.", size=17), id="blob"),
        pytest.param(transaction(data=b"?strange", size=8), id="transformed"),
    ],
)
def test_what_is_not_ordinary_is_left(data):
    assert read_run(data, 0, FIRST_OFFSET, MOST) == ([], 0, FIRST_OFFSET, None, False)

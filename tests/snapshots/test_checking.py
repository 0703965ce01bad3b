"""What a database holds, and its digest."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import pickle

import pytest
from ZODB.FileStorage import FileStorage

from tests.cli.conftest import make_database
from tests.storage.test_newest_first import commit_headers
from zrs_core.messages import BlobBlock, Commit, Store, StoreBlob, Transaction
from zrs_core.tools.snapshots import checking
from zrs_core.tools.snapshots.checking import ContentDigest, check
from zrs_core.tools.snapshots.copying import Damaged
from zrs_core.tools.snapshots.receiving import Received

from .helpers import names, report

OID, OTHER_OID = b"\0" * 7 + b"\1", b"\0" * 7 + b"\2"
TID, OTHER_TID = b"\3" + b"\0" * 7, b"\4" + b"\0" * 7

HEADER = Transaction(TID, " ", b"user", b"note", b"more")
RECORD = Store(OID, TID, b"data", None)
BLOB = StoreBlob(OID, TID, b"data", None, 1)


def digest_of(*messages):
    digest = ContentDigest()
    for each in messages:
        digest.add(each)
    return digest.hexdigest()


ALL = [
    [],
    [HEADER],
    *(
        [dataclasses.replace(HEADER, **{name: value})]
        for name, value in (
            ("tid", OTHER_TID),
            ("status", "p"),
            ("user", b"another"),
            ("description", b"another"),
            ("extension", b"another"),
        )
    ),
    # The same bytes, divided otherwise.
    [dataclasses.replace(HEADER, user=b"use", description=b"rnote")],
    [dataclasses.replace(HEADER, description=b"not", extension=b"emore")],
    [RECORD],
    *(
        [dataclasses.replace(RECORD, **{name: value})]
        for name, value in (("oid", OTHER_OID), ("serial", OTHER_TID), ("data", b"another"))
    ),
    [dataclasses.replace(RECORD, data=b"data" + b"S" + OID + TID + b"rest")],
    [RECORD, dataclasses.replace(RECORD, data=b"rest")],
    [RECORD, RECORD],
    [BLOB],
    [BLOB, BlobBlock(b"block")],
    [BLOB, BlobBlock(b"another")],
    [dataclasses.replace(BLOB, data=b"another"), BlobBlock(b"block")],
]


def test_whatever_differs_has_another_digest():
    for one, other in itertools.combinations(ALL, 2):
        assert digest_of(*one) != digest_of(*other), (one, other)


def test_what_is_left_out():
    """Where data come from, and how a blob is divided."""
    assert digest_of(dataclasses.replace(RECORD, data_txn=OTHER_TID)) == digest_of(RECORD)
    assert digest_of(HEADER, Commit()) == digest_of(HEADER)
    whole, halves = [BlobBlock(b"block")], [BlobBlock(b"bl"), BlobBlock(b"ock")]
    assert digest_of(BLOB, *whole) == digest_of(BLOB, *halves)


def test_a_copy_is_independent():
    digest = ContentDigest()
    digest.add(HEADER)
    before = digest.copy()
    digest.add(RECORD)
    assert before.hexdigest() == digest_of(HEADER)
    assert digest.hexdigest() == digest_of(HEADER, RECORD)
    received = Received()
    copy = received.copy()
    received.add(HEADER)
    assert copy.digest.hexdigest() == digest_of()
    assert (received.tid, received.status) == (TID, " ")


def test_the_digest_of_a_database_has_all_of_it(tmp_path):
    """A byte of a text, a record or a blob."""
    database = make_database(tmp_path / "database", 3)
    (database / "blobs").mkdir(exist_ok=True)

    def digest():
        found = ContentDigest()
        check(str(database), report, found)
        return found.hexdigest()

    expected = digest()
    assert digest() == expected
    data = (database / "Data.fs").read_bytes()
    place = data.index(b"initial database creation")
    (database / "Data.fs").write_bytes(data[:place] + b"I" + data[place + 1 :])
    assert digest() != expected
    (database / "Data.fs").write_bytes(data)
    assert digest() == expected


def test_the_digest_of_a_file_is_that_of_what_was_sent(tmp_path):
    texts = [(b"user", b"note"), (b"", b"another")]
    commit_headers(tmp_path / "Data.fs", texts, extension=pickle.dumps({"more": 1}))
    expected, found = ContentDigest(), ContentDigest()
    with contextlib.closing(FileStorage(str(tmp_path / "Data.fs"), read_only=True)) as storage:
        for each in storage.iterator():
            texts = each.user, each.description, each.extension_bytes
            expected.add(Transaction(each.tid, each.status, *texts))
            for record in each:
                expected.add(Store(record.oid, record.tid, record.data, record.data_txn))
    check(str(tmp_path), report, found)
    assert found.hexdigest() == expected.hexdigest()


def test_nothing_is_left_beside_it(tmp_path):
    database = make_database(tmp_path / "database", 3)
    check(str(database), report)
    assert names(database) == {"Data.fs", "Data.fs.index", "blobs"}


@pytest.mark.parametrize("shown", [b"\0" * 8, OTHER_TID])
def test_what_a_file_storage_shows_is_compared(tmp_path, monkeypatch, shown):
    database = make_database(tmp_path / "database", 3)
    monkeypatch.setattr(checking, "_last_shown", lambda path, blobs: shown)
    with pytest.raises(Damaged, match=f"shows 0x{shown.hex()} as its last transaction"):
        check(str(database), report)


def test_it_is_given_up_without_leaving_it_open(tmp_path):
    database = make_database(tmp_path / "database", 3)
    size = os.path.getsize(database / "Data.fs")
    with open(database / "Data.fs", "r+b") as file:
        file.truncate(size - 1)
    with pytest.raises(Damaged, match="goes on behind its last transaction"):
        check(str(database), report)

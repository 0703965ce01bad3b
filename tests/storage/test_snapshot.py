"""Reading files that nobody here has open."""

from __future__ import annotations

import os

import pytest
from ZODB.Connection import TransactionMetaData
from ZODB.FileStorage import FileStorage

from tests.databases import open_file_storage, stored, traffic
from zrs_core.errors import UnsuitableStorage
from zrs_core.messages import NO_TID
from zrs_core.storage.committed import CommittedFile, DamagedFile
from zrs_core.storage.fs_format import FIRST_OFFSET
from zrs_core.storage.snapshot import (
    check_existing_blobs,
    copy_database,
    new_transactions,
    open_snapshot,
)


@pytest.fixture
def data(tmp_path):
    with traffic(open_file_storage(tmp_path / "it")) as commit:
        commit.commit(12)
    return tmp_path / "it" / "Data.fs"


def end_of(path):
    file = open_snapshot(path)
    try:
        return file.end
    finally:
        file.close()


def last_begin(path):
    """Where the last transaction begins."""
    file = open_snapshot(path)
    try:
        return file.before(file.end)
    finally:
        file.close()


def test_all_of_a_file_at_rest_is_complete(data):
    assert end_of(data) == data.stat().st_size


@pytest.mark.parametrize("content", [b"", b"FS30"])
def test_a_file_without_transactions(tmp_path, content):
    path = tmp_path / "Data.fs"
    path.write_bytes(content)
    file = open_snapshot(path)
    assert (file.end, file.last_tid()) == (FIRST_OFFSET, NO_TID)
    file.close()


def test_a_transaction_that_is_only_voted_is_not_complete(data):
    size = data.stat().st_size
    storage = FileStorage(str(data))
    transaction = TransactionMetaData()
    storage.tpc_begin(transaction)
    storage.store(storage.new_oid(), NO_TID, b"x" * 100_000, "", transaction)
    storage.tpc_vote(transaction)
    try:
        assert data.stat().st_size > size
        assert end_of(data) == size
    finally:
        storage.tpc_abort(transaction)
        storage.close()


def test_a_transaction_that_is_cut_anywhere_is_not_complete(data):
    begin, whole = last_begin(data), data.read_bytes()
    for size in range(begin, len(whole), 7):
        data.write_bytes(whole[:size])
        assert end_of(data) == begin


def test_zeros_behind_the_end_are_no_transaction(data):
    size = data.stat().st_size
    with data.open("ab") as file:
        file.write(b"\0" * 5_000)
    assert end_of(data) == size


def test_an_end_that_is_cut_off_meanwhile(data):
    whole = data.stat().st_size

    class Shrinking(CommittedFile):
        def stat(self):
            # At first there is a voted transaction, of which nothing is there to be read.
            here, self.looked = super().stat(), getattr(self, "looked", 0) + 1
            return os.stat_result([*here[:6], whole + 100, *here[7:]]) if self.looked == 1 else here

    file = Shrinking(str(data))
    assert list(new_transactions(file))
    assert file.end == whole
    file.close()


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        pytest.param(0, b"\0" * 8, id="a tid that does not rise"),
        pytest.param(8, b"\0" * 8, id="a length that is too short"),
        pytest.param(8, (30).to_bytes(8, "big"), id="two lengths"),
        pytest.param(16, b"x", id="a status that there is not"),
    ],
)
def test_damage_is_told_from_an_unfinished_end(data, offset, value):
    file = open_snapshot(data)
    pos = file.header(file.header(FIRST_OFFSET).next).pos
    file.close()
    with data.open("r+b") as file:
        file.seek(pos + offset)
        file.write(value)
    with pytest.raises(DamagedFile, match=f"is damaged: there is no transaction at {pos}"):
        open_snapshot(data)


def test_transactions_are_seen_as_they_come(tmp_path):
    with traffic(open_file_storage(tmp_path)) as commit:
        file = CommittedFile(str(tmp_path / "Data.fs"))
        try:
            # The root object.
            assert len(list(new_transactions(file))) == 1
            assert list(new_transactions(file)) == []
            commit.commit(3)
            tids = list(new_transactions(file))
            assert len(tids) == 3
            assert tids == sorted(tids)
            assert file.last_tid() == tids[-1]
        finally:
            file.close()


def test_what_is_no_file_storage(tmp_path):
    with pytest.raises(UnsuitableStorage, match=r"there is no FileStorage at .*nowhere"):
        open_snapshot(tmp_path / "nowhere")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(UnsuitableStorage, match="is not a FileStorage"):
        open_snapshot(tmp_path / "text")
    with pytest.raises(UnsuitableStorage, match=r"there is no directory of blobs at .*text"):
        check_existing_blobs(tmp_path / "text")
    check_existing_blobs(None)


def test_a_copy_holds_what_is_complete(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    target.mkdir()
    with traffic(open_file_storage(source)) as commit:
        commit.commit(60)
        # While it is in use.
        copy_database(source / "Data.fs", source / "blobs", target / "Data.fs", target / "blobs")
    assert stored(target) == stored(source)


def test_a_copy_leaves_out_what_is_not_complete(tmp_path, data):
    begin = last_begin(data)
    data.write_bytes(data.read_bytes()[:-1])
    copy_database(data, data.parent / "blobs", tmp_path / "copy.fs", tmp_path / "copied")
    assert (tmp_path / "copy.fs").read_bytes() == data.read_bytes()[:begin]


def test_a_copy_without_blobs_makes_no_directory(tmp_path, data):
    copy_database(data, None, tmp_path / "copy.fs", tmp_path / "copied")
    assert (tmp_path / "copy.fs").read_bytes() == data.read_bytes()
    assert not (tmp_path / "copied").exists()


def test_a_copy_of_an_empty_file(tmp_path):
    (tmp_path / "empty.fs").touch()
    copy_database(tmp_path / "empty.fs", None, tmp_path / "copy.fs", tmp_path / "copied")
    assert (tmp_path / "copy.fs").read_bytes() == b""


def test_a_copy_goes_over_nothing(tmp_path, data):
    (tmp_path / "there.fs").write_text("something else")
    with pytest.raises(FileExistsError):
        copy_database(data, None, tmp_path / "there.fs", tmp_path / "copied")

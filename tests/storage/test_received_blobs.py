"""Blobs of transactions that are not published yet."""

from __future__ import annotations

import contextlib
import os
from contextlib import closing

import pytest
from ZODB.utils import p64

from zrs_core.messages import StoreBlob
from zrs_core.storage.received_blobs import ReceivedBlobs

from ..databases import blob_files, open_file_storage, temporary_files

TID = p64(1 << 40)


@pytest.fixture
def storage(tmp_path):
    with closing(open_file_storage(tmp_path / "db")) as storage:
        yield storage


@pytest.fixture
def received(storage):
    return ReceivedBlobs(storage, sync=True)


def receive(received, oid, content=b"content"):
    record = StoreBlob(p64(oid), TID, b"record", None, 2)
    received.begin(record)
    received.add_block(content)
    assert received.take_complete(keep=True) is None
    received.add_block(content)
    assert received.take_complete(keep=True) is record


def names(storage):
    return [name for name in blob_files(storage.blob_dir) if not name.startswith("tmp/")]


def test_files_get_their_places(received, storage):
    receive(received, 1)
    assert len(received) == 0
    received.commit()
    assert len(received) == 1
    received.settle()
    received.place(None)
    assert received.published() == 1
    with open(storage.fshelper.getBlobFilename(p64(1), TID), "rb") as file:
        assert file.read() == b"contentcontent"
    assert len(received) == 0
    received.abort(keep_placed=False)
    assert len(names(storage)) == 1


@pytest.mark.parametrize("keep", [True, False])
def test_an_abort_after_files_got_their_places(keep, received, storage):
    for oid in (1, 2):
        receive(received, oid)
    received.commit()
    received.place(None)
    os.remove(storage.fshelper.getBlobFilename(p64(2), TID))
    received.abort(keep_placed=keep)
    assert len(names(storage)) == keep
    assert temporary_files(storage.blob_dir) == []
    assert len(received) == 0


def test_an_abort_removes_files_of_all_kinds(received, storage):
    receive(received, 1)
    received.commit()
    receive(received, 2)
    received.begin(StoreBlob(p64(3), TID, b"record", None, 1))
    assert len(set(temporary_files(storage.blob_dir))) == 3
    received.abort(keep_placed=False)
    assert temporary_files(storage.blob_dir) == []
    with pytest.raises(ValueError, match=r"^a blob block outside of a blob$"):
        received.add_block(b"x")


def test_what_is_not_kept_leaves_no_file(received, storage):
    received.begin(StoreBlob(p64(3), TID, b"record", None, 1))
    received.add_block(b"x")
    assert received.take_complete(keep=False) is None
    received.commit()
    assert (len(received), temporary_files(storage.blob_dir)) == (0, [])


def test_the_lock_is_held_for_one_blob_at_a_time(received, storage):
    held = []

    @contextlib.contextmanager
    def lock():
        before = len(names(storage))
        yield
        held.append(len(names(storage)) - before)

    for oid in (1, 2, 3):
        receive(received, oid)
    received.commit()
    received.place(lock)
    assert held == [1, 1, 1]
    received.published()


def test_what_a_killed_process_left_is_removed(received, storage):
    receive(received, 1)
    received.commit()
    received.settle()
    assert len(set(temporary_files(storage.blob_dir))) == 1
    ReceivedBlobs(storage, sync=True)
    assert temporary_files(storage.blob_dir) == []

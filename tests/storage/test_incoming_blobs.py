"""Files of blobs that are being received: all of a blob, or nothing."""

from __future__ import annotations

import errno
import io
import os
from functools import partial

import pytest
from ZODB.utils import p64, z64

from zrs_core.messages import BlobBlock, StoreBlob, Transaction
from zrs_core.storage.fs_sink import FileStorageSink, file_storage_sink
from zrs_core.storage.generic_sink import GenericSink
from zrs_core.storage.incoming_blobs import IncomingBlob, place_blob

from ..databases import blob_files, open_file_storage, temporary_files


def test_a_blob_that_the_disk_does_not_take_leaves_no_file(tmp_path):
    blob = IncomingBlob(StoreBlob(z64, p64(1), b"x", None, 1), str(tmp_path))
    blob.write(b"held back")
    # What is still to be written cannot be any more, as on a full disk.
    os.close(blob._file.fileno())
    blob.discard()
    assert list(tmp_path.iterdir()) == []


class ShortWrites(io.FileIO):
    """A file that does not take the last byte, and says so to who does not listen."""

    def write(self, data):
        return super().write(data[:-1])


@pytest.mark.parametrize(
    "make", [GenericSink, FileStorageSink, partial(file_storage_sink, durability="batch")]
)
def test_a_blob_that_is_too_short_gets_no_name(tmp_path, monkeypatch, make):
    storage = open_file_storage(tmp_path)
    sink = make(storage, lambda tid, oids: None)
    monkeypatch.setattr(os, "fdopen", ShortWrites)
    sink.apply(Transaction(p64(1)))
    sink.apply(StoreBlob(p64(7), p64(1), b"record", None, 1))
    with pytest.raises(OSError, match="2 of 3 bytes were written"):
        sink.apply(BlobBlock(b"abc"))
    sink.abort()
    assert sink.last_tid() == z64
    assert blob_files(storage.blob_dir) == {}
    assert temporary_files(storage.blob_dir) == []
    storage.close()


def test_a_blob_takes_the_place_of_one_that_was_left_on_another_disk(tmp_path, monkeypatch):
    """Which is not writable; here it has another name too, under which it must not change."""

    def elsewhere(*paths):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    (tmp_path / "left").write_bytes(b"left")
    os.link(tmp_path / "left", tmp_path / "place")
    (tmp_path / "new").write_bytes(b"new")
    monkeypatch.setattr(os, "rename", elsewhere)
    place_blob(str(tmp_path / "new"), str(tmp_path / "place"))
    assert (tmp_path / "place").read_bytes() == b"new"
    assert (tmp_path / "left").read_bytes() == b"left"
    assert not (tmp_path / "new").exists()

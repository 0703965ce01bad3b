from __future__ import annotations

import os

import pytest
from ZODB.blob import BlobStorage
from ZODB.FileStorage import FileStorage
from ZODB.FileStorage.FileStorage import FileStorageError
from ZODB.FileStorage.format import CorruptedError
from ZODB.interfaces import IBlobStorage
from ZODB.MappingStorage import MappingStorage

from zrs_core.errors import UnsuitableStorage
from zrs_core.storage.opening import open_storage

from ..databases import open_file_storage


def listing(path):
    return sorted(os.path.join(where, name) for where, _, names in os.walk(path) for name in names)


def test_a_path_is_opened_here(tmp_path):
    storage, opened_here = open_storage(str(tmp_path / "Data.fs"), None)
    assert opened_here
    assert not IBlobStorage.providedBy(storage)
    storage.close()


def test_a_path_with_a_blob_dir_has_blobs(tmp_path):
    storage, opened_here = open_storage(tmp_path / "Data.fs", tmp_path / "blobs")
    assert opened_here
    assert IBlobStorage.providedBy(storage)
    storage.close()


def test_a_storage_is_taken_as_it_is(tmp_path):
    given = open_file_storage(tmp_path / "db")
    assert open_storage(given, None) == (given, False)
    given.close()


def test_a_blob_dir_is_put_around_a_plain_storage(tmp_path):
    given = open_file_storage(tmp_path / "db", blobs=False)
    storage, opened_here = open_storage(given, str(tmp_path / "blobs"))
    assert isinstance(storage, BlobStorage)
    assert not opened_here
    storage.close()


def refused(tmp_path, storage, blob_dir=None):
    before = listing(tmp_path)
    with pytest.raises(UnsuitableStorage) as caught:
        open_storage(storage, blob_dir)
    assert listing(tmp_path) == before
    return str(caught.value)


def test_a_blob_dir_for_a_storage_that_has_one_is_refused(tmp_path):
    given = open_file_storage(tmp_path / "db")
    assert "has blobs already" in refused(tmp_path, given, tmp_path / "more")
    given.close()


def test_a_blob_dir_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "blobs").write_text("")
    assert "is no directory" in refused(tmp_path, tmp_path / "Data.fs", tmp_path / "blobs")


def test_a_path_of_something_else_is_refused(tmp_path):
    path = tmp_path / "Data.fs"
    path.write_text("SQLite format 3")
    assert "is not a FileStorage: it begins with b'SQLi'" in refused(tmp_path, path)


def test_a_directory_is_refused(tmp_path):
    assert "is a directory" in refused(tmp_path, tmp_path)


def test_a_path_in_no_directory_is_refused(tmp_path):
    assert "there is no directory" in refused(tmp_path, tmp_path / "nowhere" / "Data.fs")


def test_a_path_that_cannot_be_read_is_refused(tmp_path):
    path = tmp_path / "Data.fs"
    path.symlink_to(path)
    assert "cannot be read: Too many levels" in refused(tmp_path, path)


def test_a_path_in_use_is_refused(tmp_path):
    storage = FileStorage(str(tmp_path / "Data.fs"))
    assert "is in use" in refused(tmp_path, tmp_path / "Data.fs")
    storage.close()


@pytest.mark.parametrize("error", [CorruptedError("bad"), FileStorageError("bad"), OSError("bad")])
def test_a_file_that_cannot_be_opened_is_refused(error, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr("zrs_core.storage.opening.FileStorage", fail)
    assert refused(tmp_path, tmp_path / "Data.fs").endswith("Data.fs cannot be opened: bad")


@pytest.mark.parametrize("storage", [None, 3, object()])
def test_what_is_no_storage_is_refused(storage, tmp_path):
    assert "is no storage" in refused(tmp_path, storage)


def test_a_storage_of_another_kind_is_refused(tmp_path):
    assert "(MappingStorage) is not a FileStorage" in refused(tmp_path, MappingStorage())

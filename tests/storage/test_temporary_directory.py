"""The directory for temporary files of blobs is removed while a storage is open."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import transaction
from ZODB.blob import Blob, BlobStorage
from ZODB.FileStorage import FileStorage
from ZODB.MappingStorage import MappingStorage
from ZODB.utils import p64

from zrs_core.messages import BlobBlock, Commit, StoreBlob, Transaction
from zrs_core.storage.blobs import temporary_directory
from zrs_core.storage.fs_sink import FileStorageSink, file_storage_sink
from zrs_core.storage.generic_sink import GenericSink

from ..databases import blob_files, open_file_storage

BLOB_RECORD = b"\x80\x03cZODB.blob\nBlob\nq\x01.\x80\x03N."


@pytest.fixture(params=["in it", "around it"])
def storage(request, tmp_path):
    if request.param == "in it":
        opened = open_file_storage(tmp_path)
    else:
        opened = BlobStorage(str(tmp_path / "blobs"), FileStorage(str(tmp_path / "Data.fs")))
    yield opened
    opened.close()


def nothing(tid, oids):
    pass


SINKS = {
    "batches": lambda storage: file_storage_sink(storage, nothing, "batch"),
    "public": lambda storage: FileStorageSink(storage, nothing),
    "generic": lambda storage: GenericSink(storage, nothing),
}


def messages(number):
    tid = p64(number << 40)
    return [
        Transaction(tid),
        StoreBlob(p64(number), tid, BLOB_RECORD, None, 2),
        BlobBlock(b"one"),
        BlobBlock(b"two"),
        Commit(),
    ]


@pytest.mark.parametrize("sink", SINKS)
def test_a_sink_makes_it_again(storage, tmp_path, sink):
    directory = Path(storage.temporaryDirectory())
    shutil.rmtree(directory)
    sink = SINKS[sink](storage)
    for number in (1, 2):
        for message in messages(number):
            sink.apply(message)
        sink.flush()
        # As a cleaner removes directories that are empty.
        shutil.rmtree(directory)
        if number == 1:
            shutil.rmtree(tmp_path / "blobs" / "0x00")
            (tmp_path / "blobs" / "0x00" / "0x00").mkdir(parents=True)
    assert [*blob_files(tmp_path / "blobs").values()] == [b"onetwo"]
    assert len(storage) == 2


@pytest.mark.parametrize("sink", SINKS)
def test_a_transaction_that_loses_its_files_comes_again(storage, tmp_path, sink):
    directory = Path(storage.temporaryDirectory())
    sink = SINKS[sink](storage)

    def apply(lost):
        for place, message in enumerate(messages(1)):
            if place == lost:
                shutil.rmtree(directory)
            sink.apply(message)
        sink.flush()

    with pytest.raises(FileNotFoundError):
        apply(lost=3)
    sink.abort()
    assert len(storage) == 0
    apply(lost=None)
    assert [*blob_files(tmp_path / "blobs").values()] == [b"onetwo"]


@pytest.mark.parametrize("sink", SINKS)
def test_a_blob_directory_is_not_made_again(storage, tmp_path, sink):
    sink = SINKS[sink](storage)
    (tmp_path / "blobs").rename(tmp_path / "unmounted")
    sink.apply(messages(1)[0])
    with pytest.raises(FileNotFoundError):
        sink.apply(messages(1)[1])
    sink.abort()
    assert not (tmp_path / "blobs").exists()
    (tmp_path / "unmounted").rename(tmp_path / "blobs")
    for message in messages(1):
        sink.apply(message)
    sink.flush()
    assert len(storage) == 1


def test_both_ends_make_it_again(network, open_primary, open_secondary, database, tmp_path):
    primary = open_primary()
    root = database(primary).open().root()
    secondary = open_secondary()
    network.run()
    for name in ("primary", "secondary"):
        shutil.rmtree(tmp_path / name / "blobs" / "tmp")
    root["blob"] = Blob(b"a blob")
    transaction.savepoint()
    transaction.commit()
    network.run()
    assert secondary.lastTransaction() == primary.lastTransaction()
    assert blob_files(tmp_path / "primary" / "blobs") == blob_files(
        tmp_path / "secondary" / "blobs"
    )
    assert secondary.temporaryDirectory() == str(tmp_path / "secondary" / "blobs" / "tmp")


def test_a_storage_without_blobs_has_none(open_primary, tmp_path):
    plain = open_primary(FileStorage(str(tmp_path / "plain.fs")))
    with pytest.raises(TypeError, match="Blobs are not supported"):
        plain.temporaryDirectory()
    with pytest.raises(AttributeError):
        temporary_directory(MappingStorage())


@pytest.mark.parametrize("sink", SINKS)
def test_only_what_a_killed_process_left_is_removed(storage, sink):
    directory = Path(storage.temporaryDirectory())
    for name in ("zrs-a.blob", "zrs-notes.txt", "BUC1", "a.blob"):
        (directory / name).touch()
    SINKS[sink](storage)
    assert sorted(each.name for each in directory.iterdir()) == ["BUC1", "a.blob", "zrs-notes.txt"]

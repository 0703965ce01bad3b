from __future__ import annotations

import os
from pathlib import Path

import pytest
from ZODB.blob import BlobStorage
from ZODB.FileStorage import FileStorage
from ZODB.FileStorage.FileStorage import FileStorageError
from ZODB.FileStorage.format import CorruptedError
from ZODB.interfaces import IBlobStorage
from ZODB.MappingStorage import MappingStorage
from ZODB.utils import z64

from zrs_core.errors import UnsuitableStorage
from zrs_core.storage import opening
from zrs_core.storage.opening import open_storage

from ..databases import open_file_storage, traffic
from .files import GARBAGE, unfinished


def listing(path):
    return sorted(os.path.join(where, name) for where, _, names in os.walk(path) for name in names)


def test_a_path_that_was_not_there_leaves_nothing_when_given_up(tmp_path):
    storage, give_up = open_storage(str(tmp_path / "Data.fs"), None)
    assert not IBlobStorage.providedBy(storage)
    assert storage.lastTransaction() == z64
    give_up()
    assert listing(tmp_path) == []


def test_a_database_that_was_there_stays_when_given_up(tmp_path):
    with traffic(open_file_storage(tmp_path)) as commits:
        commits.commit(3)
    there, data = listing(tmp_path), Path(tmp_path / "Data.fs").read_bytes()
    _, give_up = open_storage(tmp_path / "Data.fs", tmp_path / "blobs")
    give_up()
    assert listing(tmp_path) == there
    assert Path(tmp_path / "Data.fs").read_bytes() == data


def test_a_path_with_a_blob_dir_has_blobs(tmp_path):
    storage, give_up = open_storage(tmp_path / "Data.fs", tmp_path / "blobs")
    assert IBlobStorage.providedBy(storage)
    give_up()


def test_a_pack_that_was_killed_between_its_renames_is_undone(tmp_path, caplog):
    with traffic(open_file_storage(tmp_path)) as commits:
        commits.commit(3)
    data = (tmp_path / "Data.fs").read_bytes()
    (tmp_path / "Data.fs").rename(tmp_path / "Data.fs.old")
    (tmp_path / "Data.fs.pack").write_bytes(data[:100])
    open_storage(tmp_path / "Data.fs", None)[1]()
    assert (tmp_path / "Data.fs").read_bytes() == data
    assert "a pack of it was not finished" in caplog.text


@pytest.mark.parametrize(
    ("content", "layout"),
    [
        (b"", None),
        (bytes(4), ""),
        (bytes(4096), "bus"),
        (b"FS\0\0", "\0\0\0\0\0"),
        (b"F" + bytes(23), None),
        (b"FS30\x03\xff", None),
        (b"FS30\x03\xff" + bytes(4096), None),
    ],
)
def test_what_is_half_made_is_begun_anew(content, layout, tmp_path):
    """What a kill or a power loss leaves of a storage that was just being made."""
    (tmp_path / "Data.fs").write_bytes(content)
    blobs = tmp_path / "blobs"
    (blobs / "tmp").mkdir(parents=True)
    if layout is not None:
        (blobs / ".layout").write_text(layout)
    storage, give_up = open_storage(tmp_path / "Data.fs", blobs)
    assert storage.fshelper.layout_name == "bushy"
    assert len(storage) == 0
    give_up()


def test_blobs_that_are_there_keep_their_layout(tmp_path):
    (tmp_path / "Data.fs").write_bytes(b"FS30")
    (tmp_path / "blobs" / "0x01").mkdir(parents=True)
    storage, give_up = open_storage(tmp_path / "Data.fs", tmp_path / "blobs")
    assert storage.fshelper.layout_name == "lawn"
    give_up()


def test_what_a_pack_has_kept_is_no_storage_to_begin_with(tmp_path):
    (tmp_path / "Data.fs.old").write_bytes(b"FS30")
    storage, give_up = open_storage(tmp_path / "Data.fs", None)
    assert storage.lastTransaction() == z64
    give_up()
    assert (tmp_path / "Data.fs.old").exists()


def test_a_storage_is_taken_as_it_is(tmp_path):
    given = open_file_storage(tmp_path / "db")
    storage, give_up = open_storage(given, None)
    assert storage is given
    give_up()
    assert given.lastTransaction() == z64
    given.close()


def test_a_blob_dir_is_put_around_a_plain_storage(tmp_path):
    given = open_file_storage(tmp_path / "db", blobs=False)
    storage, give_up = open_storage(given, str(tmp_path / "blobs"))
    assert isinstance(storage, BlobStorage)
    give_up()
    assert given.lastTransaction() == z64
    storage.close()


def refused(tmp_path, storage, blob_dir=None):
    before = listing(tmp_path)
    with pytest.raises(UnsuitableStorage) as caught:
        open_storage(storage, blob_dir)
    assert listing(tmp_path) == before
    return str(caught.value)


def test_a_blob_dir_of_which_nothing_can_be_made_is_refused(tmp_path):
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    (blobs / ".layout").write_text("unheard-of")
    given = open_file_storage(tmp_path / "db", blobs=False)
    assert "its layout 'unheard-of' is not known" in refused(tmp_path, given, blobs)
    (blobs / ".layout").write_text("")
    storage, _ = open_storage(given, blobs)
    storage.close()


def test_a_blob_dir_for_a_storage_that_has_one_is_refused(tmp_path):
    given = open_file_storage(tmp_path / "db")
    assert "has blobs already" in refused(tmp_path, given, tmp_path / "more")
    given.close()


def test_a_blob_dir_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "blobs").write_text("")
    assert "is not a directory" in refused(tmp_path, tmp_path / "Data.fs", tmp_path / "blobs")


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

    monkeypatch.setattr("zrs_core.storage.opening.open_file_storage", fail)
    assert refused(tmp_path, tmp_path / "Data.fs").endswith("Data.fs cannot be opened: bad")


@pytest.mark.parametrize("storage", [None, 3, object()])
def test_what_is_no_storage_is_refused(storage, tmp_path):
    assert "is no storage" in refused(tmp_path, storage)


def test_a_blob_dir_is_for_file_storages_alone(tmp_path):
    why = refused(tmp_path, MappingStorage("name"), tmp_path / "blobs")
    assert why == (
        f"name (MappingStorage) is not a FileStorage: leave out blob_dir="
        f"{str(tmp_path / 'blobs')!r}, and give it blobs by its own means"
    )


@pytest.mark.parametrize("blob_dir", ["", [], 3, b"blobs"])
def test_a_blob_dir_that_is_no_path_is_refused(blob_dir, tmp_path):
    why = f"blob_dir must be the path of a directory, not {blob_dir!r}"
    assert refused(tmp_path, tmp_path / "Data.fs", blob_dir) == why


def test_an_empty_path_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refused(tmp_path, "") == "an empty path names no FileStorage"


def test_a_blob_dir_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    why = refused(tmp_path, tmp_path / "Data.fs", tmp_path / "file" / "much" / "deeper")
    assert why.endswith(f"deeper cannot be made: {tmp_path / 'file'} is no directory")


@pytest.mark.parametrize("is_there", [True, False])
def test_a_blob_dir_that_is_the_data_is_refused(is_there, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if is_there:
        (tmp_path / "Data.fs").write_bytes(b"FS30")
    why = refused(tmp_path, "Data.fs", tmp_path / "Data.fs")
    assert "is not a directory" in why if is_there else "the data and the blob_dir at once" in why


@pytest.mark.parametrize("begin", GARBAGE)
def test_what_only_begins_like_a_file_storage_is_refused(begin, tmp_path):
    path = tmp_path / "Data.fs"
    path.write_bytes(begin)
    assert refused(tmp_path, path).endswith(
        "is not a FileStorage: no transaction follows its magic"
    )
    assert path.read_bytes() == begin


@pytest.mark.parametrize("content", [b"", b"FS30", b"FS30" + bytes(4096)])
def test_an_empty_file_is_a_file_storage(content, tmp_path):
    (tmp_path / "Data.fs").write_bytes(content)
    storage, give_up = open_storage(tmp_path / "Data.fs", None)
    assert len(storage) == 0
    give_up()


def test_a_file_with_nothing_but_an_unfinished_transaction_is_one(tmp_path):
    path = unfinished(tmp_path)
    storage, give_up = open_storage(path, None)
    assert len(storage) == 0
    give_up()


def test_what_was_made_goes_when_it_is_given_up(tmp_path):
    _, give_up = open_storage(tmp_path / "Data.fs", tmp_path / "made" / "blobs")
    assert (tmp_path / "made" / "blobs" / "tmp").is_dir()
    give_up()
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    assert list((tmp_path / "made").iterdir()) == []


def test_a_blob_dir_around_a_given_storage_goes_too(tmp_path):
    given = open_file_storage(tmp_path / "db", blobs=False)
    _, give_up = open_storage(given, tmp_path / "blobs")
    give_up()
    assert not (tmp_path / "blobs").exists()
    given.close()


def test_a_blob_dir_that_was_there_stays(tmp_path):
    given = open_file_storage(tmp_path / "db", blobs=False)
    (tmp_path / "blobs").mkdir()
    for storage in (given, tmp_path / "Data.fs"):
        _, give_up = open_storage(storage, tmp_path / "blobs")
        give_up()
        assert (tmp_path / "blobs" / "tmp").is_dir()
    given.close()


class TestANewFileBesideBlobs:
    """FileStorage itself deletes what is in the blob directory of a file that it makes."""

    @pytest.fixture
    def blobs(self, tmp_path):
        path = tmp_path / "blobs"
        (path / "0x00" / "0x01").mkdir(parents=True)
        (path / "0x00" / "0x01" / "0x03d4dc0011111111.blob").touch()
        (path / ".layout").write_text("bushy")
        return path

    def test_it_is_refused(self, tmp_path, blobs):
        why = refused(tmp_path, tmp_path / "Data.fs", blobs)
        assert why == (
            f"{tmp_path / 'Data.fs'} does not exist, and the blob directory {blobs} is not empty: "
            f"if it belongs to a database, put the database's file at {tmp_path / 'Data.fs'} first "
            "(is its disk mounted?); for a new database, give a blob directory that is empty or "
            "does not exist"
        )

    def test_a_link_that_leads_nowhere_is_no_file(self, tmp_path, blobs):
        (tmp_path / "Data.fs").symlink_to(tmp_path / "unmounted" / "Data.fs")
        assert "does not exist" in refused(tmp_path, tmp_path / "Data.fs", blobs)

    @pytest.mark.parametrize("name", ["letter.txt", "0x01", "letters/a"])
    def test_whatever_is_in_the_directory(self, tmp_path, name):
        path = tmp_path / "mistyped" / name
        path.parent.mkdir(parents=True)
        path.touch()
        assert "is not empty" in refused(tmp_path, tmp_path / "Data.fs", tmp_path / "mistyped")

    @pytest.mark.parametrize("content", [b"", b"\0\0", b"FS30"])
    def test_an_empty_file_keeps_them(self, tmp_path, blobs, content):
        (tmp_path / "Data.fs").write_bytes(content)
        before = listing(blobs)
        _, give_up = open_storage(tmp_path / "Data.fs", blobs)
        give_up()
        assert listing(blobs) == before

    def test_a_pack_that_was_killed_has_its_file_still(self, tmp_path, blobs):
        (tmp_path / "Data.fs.old").write_bytes(b"FS30")
        (tmp_path / "Data.fs.pack").touch()
        before = listing(blobs)
        _, give_up = open_storage(tmp_path / "Data.fs", blobs)
        give_up()
        assert listing(blobs) == before

    @pytest.mark.parametrize("marked", [True, False])
    def test_what_a_file_system_or_a_commit_has_left_stays(self, tmp_path, marked):
        blobs = tmp_path / "blobs"
        for name in ("tmp/BUC-x", "lost+found/#12", ".snapshot/a"):
            (blobs / name).parent.mkdir(parents=True)
            (blobs / name).touch()
        if marked:
            (blobs / ".layout").write_text("bushy")
        inode, before = blobs.stat().st_ino, listing(blobs)
        storage, give_up = open_storage(tmp_path / "Data.fs", blobs)
        assert storage.fshelper.layout_name == "bushy"
        give_up()
        assert {*listing(blobs)} == {*before, str(blobs / ".layout")}
        assert blobs.stat().st_ino == inode
        assert not (tmp_path / "Data.fs").exists()

    def test_a_link_without_blobs_to_lose_is_kept(self, tmp_path):
        (tmp_path / "Data.fs").symlink_to(tmp_path / "data" / "Data.fs")
        (tmp_path / "data").mkdir()
        (tmp_path / "blobs").mkdir()
        _, give_up = open_storage(tmp_path / "Data.fs", tmp_path / "blobs")
        assert (tmp_path / "data" / "Data.fs").exists()
        give_up()
        assert (tmp_path / "Data.fs").is_symlink()
        assert listing(tmp_path / "data") == []

    def test_blobs_that_come_just_then_stay(self, tmp_path, monkeypatch):
        blobs = tmp_path / "blobs"
        blobs.mkdir()

        def mount_and_open(path, blob_dir):
            (blobs / "letter.txt").touch()
            return open_it(path, blob_dir)

        open_it = opening.open_file_storage
        monkeypatch.setattr(opening, "open_file_storage", mount_and_open)
        open_storage(tmp_path / "Data.fs", blobs)[1]()
        assert (blobs / "letter.txt").exists()

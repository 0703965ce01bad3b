"""Blobs that lie elsewhere than the marker of their directory says."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from ZODB.blob import LAYOUTS, BlobStorage
from ZODB.FileStorage import FileStorage
from ZODB.utils import p64

from zrs_core.errors import UnsuitableStorage
from zrs_core.storage.blob_layout import MisplacedBlobs, check_layout
from zrs_core.storage.opening import open_storage
from zrs_core.storage.preparing import prepare_files
from zrs_core.storage.snapshot import BlobFiles
from zrs_core.tools.snapshots.copying import Damaged
from zrs_core.tools.verify.files import VerifiedFile

from ..databases import open_file_storage, traffic
from ..snapshots.helpers import take


def begin(path: Path) -> None:
    FileStorage(str(path)).close()


def put(directory: Path, layout: str, number: int = 1) -> None:
    path = directory / LAYOUTS[layout].getBlobFilePath(p64(number), p64(1 << 58))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


@pytest.fixture
def blobs(tmp_path):
    path = tmp_path / "blobs"
    path.mkdir()
    return path


@pytest.mark.parametrize("number", [0, 1, 255, 256, 1 << 63])
@pytest.mark.parametrize(
    ("mark", "lies", "begin"),
    [
        (None, "bushy", "{} has no .layout"),
        ("lawn", "bushy", "{}/.layout names the layout lawn"),
        ("bushy", "lawn", "{}/.layout names the layout bushy"),
        ("bus", "bushy", "{} is no directory of blobs: its layout 'bus' is not known"),
        ("", "lawn", "{} is no directory of blobs: its layout '' is not known"),
    ],
)
def test_the_layout_in_which_blobs_lie_is_named(blobs, mark, lies, begin, number):
    put(blobs, lies, number)
    if mark is not None:
        (blobs / ".layout").write_text(mark)
    with pytest.raises(MisplacedBlobs) as caught:
        check_layout(str(blobs))
    assert str(caught.value) == (
        f"{begin.format(blobs)}, and its blobs lie in the layout {lies}: write {lies} into "
        f"{blobs / '.layout'}"
    )
    (blobs / ".layout").write_text(lies)
    check_layout(str(blobs))


@pytest.mark.parametrize("mark", [None, "bushy", "lawn", "unheard-of"])
def test_blobs_in_both_layouts(blobs, mark):
    put(blobs, "bushy")
    put(blobs, "lawn", 256)
    if mark is not None:
        (blobs / ".layout").write_text(mark)
    with pytest.raises(MisplacedBlobs, match="move them into one layout"):
        check_layout(str(blobs))


@pytest.mark.parametrize("mark", [None, "bushy", "lawn"])
def test_a_directory_without_blobs_may_have_either(blobs, mark):
    for name in ("tmp", "0x00/0x00/0x00/0x00/0x00/0x00/0x00/0x01", "0x0100", "0x02"):
        (blobs / name).mkdir(parents=True)
    (blobs / "0x03").touch()
    (blobs / "letter.blob").touch()
    if mark is not None:
        (blobs / ".layout").write_text(mark)
    check_layout(str(blobs))
    check_layout(str(blobs / "nowhere"))


@pytest.mark.parametrize("mark", ["unheard-of", "", "Bushy"])
def test_an_unknown_layout_is_refused_without_blobs_too(blobs, mark):
    (blobs / ".layout").write_text(mark)
    (blobs / "0x00").mkdir()
    with pytest.raises(UnsuitableStorage) as caught:
        open_storage(blobs.parent / "new.fs", blobs)
    assert "the blob directory" in str(caught.value)
    begin(blobs.parent / "old.fs")
    for use in (
        lambda: open_storage(blobs.parent / "old.fs", blobs),
        lambda: BlobFiles(blobs),
    ):
        with pytest.raises(UnsuitableStorage) as caught:
            use()
        assert str(caught.value) == (
            f"{blobs} is no directory of blobs: its layout {mark!r} is not known: if it is one, "
            f"write the layout of its blobs, bushy or lawn, into {blobs / '.layout'}"
        )


@pytest.mark.parametrize("what", ["a link to nothing", "a file"])
def test_what_is_not_a_directory_is_refused(blobs, what):
    blobs.rmdir()
    if what == "a file":
        blobs.touch()
    else:
        blobs.symlink_to("not mounted")
    path = str(blobs.parent / "Data.fs")
    for use in (
        lambda: open_storage(path, blobs),
        lambda: prepare_files(path, str(blobs)),
    ):
        with pytest.raises(UnsuitableStorage) as caught:
            use()
        assert str(caught.value) == f"{blobs} is not a directory: it cannot be a blob_dir"
    assert os.listdir(blobs.parent) == ["blobs"]


def test_the_cache_of_a_zeo_client_is_no_blob_directory(blobs):
    (blobs / ".layout").write_text("zeocache")
    for use in (
        lambda: BlobFiles(blobs),
        lambda: open_storage(blobs.parent / "new.fs", blobs),
        lambda: check_layout(str(blobs)),
    ):
        with pytest.raises(UnsuitableStorage, match="is the cache of a ZEO client"):
            use()
    assert not (blobs.parent / "new.fs").exists()


@pytest.fixture
def misplaced(tmp_path):
    """A database whose blobs have lost their mark, and with it their layout."""
    with traffic(open_file_storage(tmp_path / "db"), blobs=True) as commits:
        commits.commit(30)
    blobs = tmp_path / "db" / "blobs"
    (blobs / ".layout").unlink()
    return tmp_path / "db"


def test_every_way_to_open_them_refuses(misplaced, tmp_path):
    path, blobs = misplaced / "Data.fs", misplaced / "blobs"
    for use in (
        lambda: open_storage(path, blobs),
        lambda: BlobFiles(blobs),
        lambda: VerifiedFile(str(path), str(blobs)),
    ):
        with pytest.raises(UnsuitableStorage, match="write bushy into"):
            use()
        assert not (blobs / ".layout").exists()
    plain = FileStorage(str(tmp_path / "plain.fs"))
    with pytest.raises(UnsuitableStorage, match="write bushy into"):
        open_storage(plain, blobs)
    plain.close()


@pytest.mark.parametrize("around", [True, False])
def test_a_storage_that_was_opened_over_them_is_refused(misplaced, around):
    """ZODB has marked the directory with the layout that it guessed."""
    path, blobs = str(misplaced / "Data.fs"), str(misplaced / "blobs")
    storage = BlobStorage(blobs, FileStorage(path)) if around else FileStorage(path, blob_dir=blobs)
    with pytest.raises(UnsuitableStorage, match=r"names the layout lawn, .* write bushy into"):
        open_storage(storage, None)
    storage.close()
    (misplaced / "blobs" / ".layout").write_text("bushy")
    storage = open_file_storage(misplaced)
    assert open_storage(storage, None)[0] is storage
    storage.close()


def test_a_snapshot_is_not_taken_without_them(misplaced, tmp_path):
    with pytest.raises(Damaged, match="write bushy into"):
        take(misplaced, tmp_path / "snapshot")
    assert not (tmp_path / "snapshot").exists()
    (misplaced / "blobs" / ".layout").write_text("bushy")
    assert take(misplaced, tmp_path / "snapshot")["missing_blobs"] == 0


def test_a_whole_tree_of_another_layout(misplaced):
    """As after a copy that put the files of one directory into the other."""
    blobs = misplaced / "blobs"
    (blobs / ".layout").write_text("lawn")
    put(blobs, "lawn", 1 << 20)
    with pytest.raises(MisplacedBlobs, match="in the layouts bushy and lawn"):
        check_layout(str(blobs))
    shutil.rmtree(blobs / "0x00")
    check_layout(str(blobs))

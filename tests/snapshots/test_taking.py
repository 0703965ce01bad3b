"""Snapshots of files, whoever has them open."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import threading
import time

import pytest
import ZODB
from zc.zlibstorage import ZlibStorage
from ZODB.blob import Blob, BlobStorage
from ZODB.Connection import TransactionMetaData
from ZODB.FileStorage import FileStorage

from tests.cli.conftest import make_database, snapshot_of
from tests.databases import blob_files, open_file_storage, stored, traffic
from zrs_core.errors import ConfigurationError, UnsuitableStorage
from zrs_core.messages import NO_TID
from zrs_core.storage.committed import DamagedFile
from zrs_core.storage.fs_format import RECORD_HEADER, TRANSACTION_HEADER
from zrs_core.storage.snapshot import open_snapshot
from zrs_core.tools.snapshots import copying
from zrs_core.tools.snapshots.checking import check
from zrs_core.tools.snapshots.copying import Damaged, NoRoom

from .helpers import names, report, take


@pytest.fixture
def database(tmp_path):
    return make_database(tmp_path / "database", 40)


@pytest.fixture
def snapshot(tmp_path):
    """Where one is taken to; in the end there is nothing else."""
    place = tmp_path / "snapshots"
    place.mkdir()
    yield place / "it"
    assert names(place) <= {"it"}


class Acting:
    """A report that acts when a stage begins, the first time or so many times."""

    def __init__(self, stage, act, times=1):
        self._stage, self._act, self._left = stage, act, times
        self._last = None, 0

    def __call__(self, stage, done, total):
        report(stage, done, total)
        # It may begin again.
        begins = stage != self._last[0] or done < self._last[1]
        self._last = stage, done
        if stage == self._stage and begins and self._left:
            self._left -= 1
            self._act()


def blobs_with_history(path, storage=None):
    """A database open with a blob of many revisions, of which a pack leaves one."""
    db = ZODB.DB(storage or open_file_storage(path))
    for number in range(5):
        with db.transaction() as connection:
            connection.root()["blob"] = connection.root().get("blob") or Blob()
            with connection.root()["blob"].open("w") as file:
                file.write(b"revision %d" % number)
    return db


def no_links(monkeypatch, error=errno.EXDEV):
    def link(source, target):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr("zrs_core.tools.snapshots.copying.os.link", link)


def test_a_database_in_use(tmp_path, snapshot):
    path = tmp_path / "database"
    with traffic(open_file_storage(path)) as commit:
        commit.commit(40)
        before = snapshot_of(path)
        manifest = take(path, snapshot)
        assert snapshot_of(path) == before
        committed = (path / "Data.fs").read_bytes()
        commit.commit(3)
    assert (snapshot / "Data.fs").read_bytes() == committed
    assert names(snapshot) == {"Data.fs", "Data.fs.index", "blobs", "snapshot.json"}
    assert manifest["source"] == str(path / "Data.fs")
    assert manifest["blobs"] > 0
    assert manifest["taken"] > manifest["time"]
    taken = stored(snapshot)
    assert taken == stored(path)[: len(taken)]


def test_what_is_not_committed_yet(database, snapshot):
    storage = open_file_storage(database)
    committed = (database / "Data.fs").read_bytes()
    unfinished = TransactionMetaData()
    storage.tpc_begin(unfinished)
    storage.store(storage.new_oid(), NO_TID, b"x" * 100_000, "", unfinished)
    storage.tpc_vote(unfinished)
    try:
        take(database, snapshot)
    finally:
        storage.tpc_abort(unfinished)
        storage.close()
    assert (snapshot / "Data.fs").read_bytes() == committed


def test_blobs_are_linked(database, snapshot):
    manifest = take(database, snapshot)
    files = blob_files(database / "blobs")
    assert len(files) == manifest["blobs"] > 1
    for name in files:
        assert (database / "blobs" / name).samefile(snapshot / "blobs" / name)


@pytest.mark.parametrize("error", [errno.EXDEV, errno.EPERM, errno.EMLINK])
def test_blobs_that_cannot_be_linked_are_copied(database, snapshot, monkeypatch, error):
    no_links(monkeypatch, error)
    take(database, snapshot)
    files = blob_files(database / "blobs")
    assert blob_files(snapshot / "blobs") == files
    for name in files:
        own, copy = ((each / "blobs" / name).stat() for each in (database, snapshot))
        assert own.st_ino != copy.st_ino
        assert own.st_mode == copy.st_mode


def test_a_blob_elsewhere_that_a_link_leads_to_is_copied(database, snapshot, tmp_path):
    name = min(blob_files(database / "blobs"))
    path = database / "blobs" / name
    shutil.move(path, tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    take(database, snapshot)
    assert not (snapshot / "blobs" / name).is_symlink()
    assert blob_files(snapshot / "blobs") == blob_files(database / "blobs")


def test_no_other_error_of_a_link_is_passed_over(database, snapshot, monkeypatch):
    no_links(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        take(database, snapshot)


def test_blobs_of_an_older_layout(tmp_path, snapshot):
    blobs = tmp_path / "lawn"
    blobs.mkdir()
    (blobs / ".layout").write_text("lawn")
    db = ZODB.DB(BlobStorage(str(blobs), FileStorage(str(tmp_path / "Data.fs")), layout="lawn"))
    with db.transaction() as connection:
        connection.root()["blob"] = Blob(b"on the lawn")
    db.close()
    assert take(tmp_path, snapshot, blobs=str(blobs))["blobs"] == 1
    assert [*blob_files(snapshot / "blobs").values()] == [b"on the lawn"]


def test_blobs_whose_records_are_compressed(tmp_path, snapshot):
    (tmp_path / "database").mkdir()
    storage = ZlibStorage(open_file_storage(tmp_path / "database"), compress=True)
    db = ZODB.DB(storage)
    with db.transaction() as connection:
        for number in range(3):
            # Alone it would be too small to be compressed.
            connection.root()[str(number)] = Blob(b"%d" % number)
            connection.root()[str(number)].text = "x" * 5_000
    db.close()
    take(tmp_path / "database", snapshot)
    files = blob_files(tmp_path / "database" / "blobs")
    assert blob_files(snapshot / "blobs") == files
    assert len(files) == 3


def test_a_blob_that_the_source_lacks_too(database, snapshot):
    name = min(blob_files(database / "blobs"))
    (database / "blobs" / name).unlink()
    manifest = take(database, snapshot)
    assert manifest["missing_blobs"] == 1
    assert blob_files(snapshot / "blobs") == blob_files(database / "blobs")


def test_blobs_must_be_known(database, snapshot, tmp_path):
    (database / "blobs").rename(tmp_path / "elsewhere")
    with pytest.raises(
        UnsuitableStorage, match=r"has blobs, of which object 0x.* is the first: .*--blobs DIR"
    ):
        take(database, snapshot)
    take(database, snapshot, blobs=str(tmp_path / "elsewhere"))
    assert blob_files(snapshot / "blobs") == blob_files(tmp_path / "elsewhere")


def test_a_database_without_blobs(tmp_path, snapshot):
    make_database(tmp_path / "database", 10, blobs=False)
    take(tmp_path / "database", snapshot)
    assert names(snapshot) == {"Data.fs", "Data.fs.index", "snapshot.json"}


@pytest.mark.parametrize("content", [b"", b"FS30"])
def test_an_empty_database(tmp_path, snapshot, content):
    (tmp_path / "Data.fs").write_bytes(content)
    assert take(tmp_path, snapshot)["time"] is None
    assert (snapshot / "Data.fs").read_bytes() == b"FS30"


# -- packs


def test_a_pack_before_its_blobs_are_linked(tmp_path, snapshot):
    path = tmp_path / "database"
    db = blobs_with_history(path)
    try:
        acting = Acting("Looking for blobs", lambda: db.pack(time.time() + 1))
        manifest = take(path, snapshot, report=acting)
    finally:
        db.close()
    # Only the newest is left.
    assert manifest["blobs"] == 1
    assert manifest["missing_blobs"] == 0
    assert stored(snapshot) == stored(path)


@pytest.mark.parametrize("stage", ["Copying", "Comparing", "Checking", "Opening"])
def test_a_pack_after_its_blobs_are_linked(tmp_path, snapshot, stage):
    path = tmp_path / "database"
    db = blobs_with_history(path)
    try:
        before = (path / "Data.fs").read_bytes()
        manifest = take(path, snapshot, report=Acting(stage, lambda: db.pack(time.time() + 1)))
        assert (path / "Data.fs").read_bytes() != before
    finally:
        db.close()
    # It is the database as it was.
    assert (snapshot / "Data.fs").read_bytes() == before
    assert (manifest["blobs"], manifest["missing_blobs"]) == (5, 0)


def test_a_pack_before_its_blobs_are_copied(tmp_path, snapshot, monkeypatch):
    no_links(monkeypatch)
    path = tmp_path / "database"
    db = blobs_with_history(path)
    try:
        take(path, snapshot, report=Acting("Copying blobs", lambda: db.pack(time.time() + 1)))
    finally:
        db.close()
    assert stored(snapshot) == stored(path)


def test_a_blob_that_somebody_removes_before_it_is_copied(database, snapshot, monkeypatch):
    no_links(monkeypatch)
    with pytest.raises(FileNotFoundError):
        take(
            database,
            snapshot,
            report=Acting("Copying blobs", lambda: shutil.rmtree(database / "blobs")),
        )


def test_packs_without_end(database, snapshot, tmp_path):
    def as_if_packed():
        shutil.rmtree(database / "blobs")
        (database / "blobs").mkdir()
        shutil.copy(database / "Data.fs", tmp_path / "packed")
        os.rename(tmp_path / "packed", database / "Data.fs")

    with pytest.raises(Damaged, match="was packed 10 times while its blobs were looked for"):
        take(database, snapshot, report=Acting("Looking for blobs", as_if_packed, times=10))


def test_a_pack_that_has_just_taken_the_name(database, snapshot):
    path = database / "Data.fs"
    path.rename(path.with_suffix(".fs.old"))
    shutil.copy(path.with_suffix(".fs.old"), path.with_suffix(".fs.pack"))
    timer = threading.Timer(0.05, lambda: path.with_suffix(".fs.pack").rename(path))
    timer.start()
    take(database, snapshot)
    timer.join()


def test_a_pack_that_was_killed_in_between(database, snapshot, monkeypatch):
    monkeypatch.setattr("zrs_core.tools.snapshots.taking._PACK_TIMEOUT", 0.01)
    path = database / "Data.fs"
    path.rename(path.with_suffix(".fs.old"))
    path.with_suffix(".fs.pack").touch()
    with pytest.raises(UnsuitableStorage, match="there is no FileStorage at"):
        take(database, snapshot)


# -- what is found out before anything is named so


def huge(path, size):
    """A sparse file with a transaction of so many bytes."""
    length = size + RECORD_HEADER.size + TRANSACTION_HEADER.size
    with open(path, "wb") as file:
        file.write(b"FS30")
        file.write(TRANSACTION_HEADER.pack(b"\x03" + bytes(7), length, b" ", 0, 0, 0))
        file.write(RECORD_HEADER.pack(bytes(8), b"\x03" + bytes(7), 0, 4, 0, size))
        file.seek(4 + length)
        file.write(length.to_bytes(8, "big"))


def test_no_room_for_the_file(tmp_path, snapshot):
    # More than there ever is: others may remove something meanwhile.
    disk = os.statvfs(tmp_path)
    huge(tmp_path / "Data.fs", disk.f_blocks * disk.f_frsize)
    with pytest.raises(NoRoom, match=r"there is no room for it: [\d,]+ bytes are needed, [\d,]+ a"):
        take(tmp_path, snapshot)
    assert names(snapshot.parent) == set()


def test_no_room_for_the_blobs_that_are_copied(database, snapshot, monkeypatch):
    no_links(monkeypatch)
    size = (database / "Data.fs").stat().st_size

    class Room:
        f_frsize = 1
        f_bavail = size + sum(map(len, blob_files(database / "blobs").values()))

    monkeypatch.setattr("zrs_core.tools.snapshots.copying.os.statvfs", lambda path: Room)
    take(database, snapshot)
    Room.f_bavail -= 1
    with pytest.raises(NoRoom):
        take(database, snapshot, replace=True)


def spoil(directory, what):
    """Change something in what is being built."""
    path = directory / ".it.zrs" / "new"
    if what == "byte":
        with open(path / "Data.fs", "r+b") as file:
            file.seek(-50, os.SEEK_END)
            file.write(bytes(50))
    elif what == "end":
        os.truncate(path / "Data.fs", 1_000)
    elif what == "transaction":
        with contextlib.closing(open_snapshot(path / "Data.fs")) as file:
            os.truncate(path / "Data.fs", file.before(file.end))
    else:
        (path / "blobs" / min(blob_files(path / "blobs"))).unlink()


@pytest.mark.parametrize(
    ("stage", "what", "error"),
    [
        ("Comparing", "byte", "differs from it after byte 0"),
        ("Comparing", "end", "differs from it after byte 0"),
        ("Compared", "byte", "is damaged: there is no transaction at"),
        ("Compared", "end", "goes on behind its last transaction"),
        ("Compared", "transaction", "does not hold what"),
        ("Compared", "blob", "does not hold what"),
        ("Opening", "transaction", "a FileStorage shows 0x.* as its last transaction"),
    ],
)
def test_what_was_written_is_read_again(database, snapshot, monkeypatch, stage, what, error):
    acting = Acting(stage, lambda: spoil(snapshot.parent, what))

    def compared(directory, *arguments):
        acting("Compared", 0, 0)
        return check(directory, *arguments)

    monkeypatch.setattr("zrs_core.tools.snapshots.taking.check", compared)
    with pytest.raises((Damaged, DamagedFile), match=error):
        take(database, snapshot, report=acting)


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system lacks posix_fadvise")
def test_what_is_read_again_is_what_the_disk_holds(database, snapshot, monkeypatch):
    """The system gives up from its memory only what it has written."""
    calls = []
    sync, advise = copying.sync, os.posix_fadvise
    monkeypatch.setattr(copying, "sync", lambda fd: calls.append("sync") or sync(fd))
    monkeypatch.setattr(
        os, "posix_fadvise", lambda *arguments: calls.append("advise") or advise(*arguments)
    )
    take(database, snapshot)
    assert calls == ["sync", "advise"]


def test_a_blob_that_is_not_copied_well(tmp_path, snapshot, monkeypatch):
    no_links(monkeypatch)
    blobs_with_history(tmp_path / "database").close()
    copyfileobj = shutil.copyfileobj

    def half(source, target, length):
        copyfileobj(source, target, length)
        target.truncate(1)

    monkeypatch.setattr("zrs_core.tools.snapshots.copying.shutil.copyfileobj", half)
    with pytest.raises(Damaged, match=r"the copy of .*blob differs from it"):
        take(tmp_path / "database", snapshot)


# -- what is there already


def test_only_a_snapshot_is_replaced_and_only_if_asked(database, snapshot):
    first = take(database, snapshot)
    with pytest.raises(ConfigurationError, match="is there already: give --replace"):
        take(database, snapshot)
    with traffic(open_file_storage(database)) as commit:
        commit.commit(2)
    second = take(database, snapshot, replace=True)
    assert second["tid"] > first["tid"]
    (snapshot / "snapshot.json").unlink()
    with pytest.raises(ConfigurationError, match=r"is not replaced: .* is no snapshot"):
        take(database, snapshot, replace=True)


def test_never_among_the_blobs(database):
    with pytest.raises(ConfigurationError, match="lies within"):
        take(database, database / "blobs" / "it")


def test_what_is_no_database(tmp_path, snapshot):
    with pytest.raises(UnsuitableStorage, match="there is no FileStorage at"):
        take(tmp_path, snapshot)
    (tmp_path / "Data.fs").write_text("hello")
    with pytest.raises(UnsuitableStorage, match="is not a FileStorage"):
        take(tmp_path, snapshot)
    (tmp_path / "Data.fs").write_bytes(b"FS30")
    with pytest.raises(UnsuitableStorage, match="there is no directory of blobs"):
        take(tmp_path, snapshot, blobs=str(tmp_path / "nowhere"))

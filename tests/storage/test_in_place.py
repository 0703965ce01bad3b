"""Files that are removed or replaced while a storage has them open."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
import time
from pathlib import Path

import pytest
from persistent.mapping import PersistentMapping
from ZODB.DB import DB
from ZODB.MappingStorage import MappingStorage
from ZODB.POSException import StorageError
from ZODB.serialize import referencesf

from zrs_core import Primary, Secondary
from zrs_core.monitor import StatusServer
from zrs_core.progress import State
from zrs_core.sessions import SecondaryTimes
from zrs_core.storage.in_place import FilesInPlace
from zrs_core.storage.packer import _Packer

from ..conditions import wait_for
from ..databases import open_file_storage
from ..status.http import get


def remove(path):
    shutil.move(path, path + ".aside")


def replace(path):
    remove(path)
    copy = shutil.copytree if os.path.isdir(path + ".aside") else shutil.copy
    copy(path + ".aside", path)


def cut_off(path):
    os.truncate(path, 100)


def remove_new(path):
    os.remove(path + ".pack")


def put_back(path):
    if os.path.isdir(path):
        shutil.rmtree(path)
    os.replace(path + ".aside", path)


def faults(caplog):
    return [each for each in caplog.records if each.levelno >= logging.ERROR]


def commit(db, key="key"):
    with db.transaction() as connection:
        connection.root()[key] = PersistentMapping()


@pytest.fixture
def pair(open_primary, open_secondary, database, network):
    """A primary with a database, and a secondary that holds the same."""
    db = database(open_primary())
    secondary = open_secondary()
    network.run()
    assert secondary.lastTransaction() == db.storage.lastTransaction()
    return db, secondary


def data(storage):
    return os.path.abspath(storage.getName())


def blobs(storage):
    return os.path.join(os.path.dirname(data(storage)), "blobs")


@pytest.mark.parametrize("harm", [remove, replace])
@pytest.mark.parametrize("path", [data, blobs])
class TestSecondary:
    def test_it_fails_without_a_commit_and_recovers(self, pair, harm, path, network, caplog):
        caplog.set_level(logging.INFO, "zrs_core")
        _, secondary = pair
        harm(path(secondary))
        for _ in range(3):
            network.advance(SecondaryTimes().check)
        assert secondary.progress.state is State.FAILING
        [record] = faults(caplog)
        assert record.event == "files-lost"
        assert path(secondary) in record.getMessage()
        assert secondary.status().last_error.message in record.getMessage()
        put_back(path(secondary))
        network.advance(SecondaryTimes().check)
        assert secondary.progress.state is State.REPLICATING
        assert "the files at its paths are its own again" in caplog.text
        assert len(faults(caplog)) == 1

    def test_it_applies_nothing_meanwhile(self, pair, harm, path, network, caplog):
        db, secondary = pair
        before = secondary.lastTransaction()
        harm(path(secondary))
        commit(db)
        network.run()
        for _ in range(9):
            network.advance(10)
            network.run()
        assert secondary.lastTransaction() == before
        assert secondary.status().state is State.FAILING
        assert len(faults(caplog)) == 1
        put_back(path(secondary))
        network.advance(10)
        network.run()
        assert secondary.lastTransaction() == db.storage.lastTransaction() > before
        assert secondary.status().state is State.REPLICATING


class TestPrimary:
    @pytest.mark.parametrize("harm", [remove, replace])
    def test_it_notices_without_a_commit(self, pair, harm, network, caplog):
        db, _ = pair
        harm(data(db.storage))
        for _ in range(3):
            network.advance(SecondaryTimes().check)
        [record] = faults(caplog)
        assert data(db.storage) in record.getMessage()
        assert db.storage.status().last_error.message in record.getMessage()
        put_back(data(db.storage))
        assert db.storage.status().last_error is None

    def test_commits_are_refused_once_it_has_noticed(self, pair, caplog):
        """The first commit may be under way already, and is what notices."""
        db, _ = pair
        remove(data(db.storage))
        commit(db, "first")
        assert len(faults(caplog)) == 1
        with pytest.raises(StorageError, match=r"was removed while it is open"):
            commit(db, "second")
        with db.transaction() as connection:
            assert "first" in connection.root()
            assert "second" not in connection.root()
        put_back(data(db.storage))
        commit(db, "third")
        with db.transaction() as connection:
            assert {"first", "third"} <= connection.root().keys()

    def test_a_blob_directory_that_is_made_again(self, pair, caplog):
        """The new directory often has the inode of the one that was removed."""
        db, _ = pair
        shutil.rmtree(blobs(db.storage))
        os.mkdir(blobs(db.storage))
        assert blobs(db.storage) in db.storage.status().last_error.message

    def test_a_blob_directory_that_is_emptied(self, pair, caplog):
        db, secondary = pair
        for storage in db.storage, secondary:
            with os.scandir(blobs(storage)) as found:
                for each in found:
                    (shutil.rmtree if each.is_dir() else os.remove)(each.path)
            assert ".layout is missing" in storage.files.check()
            with pytest.raises(StorageError, match=r"was emptied or replaced"):
                storage.pack(time.time(), referencesf)

    def test_a_lost_blob_directory_refuses_no_commit(self, pair, caplog):
        db, _ = pair
        remove(blobs(db.storage))
        assert "blob directory" in db.storage.status().last_error.message
        commit(db)
        os.mkdir(blobs(db.storage))
        assert "another directory" in db.storage.status().last_error.message
        os.rmdir(blobs(db.storage))

    def test_a_file_that_is_shorter_than_what_was_committed(self, pair, caplog):
        db, _ = pair
        saved = Path(data(db.storage)).read_bytes()
        with open(data(db.storage), "r+b") as file:
            file.truncate(100)
        assert "was cut off or overwritten" in db.storage.status().last_error.message
        with pytest.raises(StorageError):
            commit(db)
        with open(data(db.storage), "r+b") as file:
            file.write(saved)
        commit(db)

    def test_with_a_secondary_below_it_is_logged_once(
        self, network, open_primary, open_secondary, pair, tmp_path, caplog
    ):
        below = open_secondary(open_file_storage(tmp_path / "below"))
        cascade = open_primary(below, ("", 8001))
        network.run()
        remove(data(below))
        network.advance(SecondaryTimes().check)
        assert cascade.status().last_error is not None
        assert below.status().state is State.FAILING
        assert len(faults(caplog)) == 1


class TestPacks:
    def test_a_pack_is_no_fault_in_the_midst_of_it(self, pair, network, monkeypatch, caplog):
        db, secondary = pair
        for key in "ab":
            commit(db, key)
            commit(db, key)
        network.run()
        found, rename = [], os.rename

        def renamed(*names):
            rename(*names)
            beside = threading.Thread(target=lambda: found.append(storage.files.check()))
            beside.start()
            beside.join()

        monkeypatch.setattr(os, "rename", renamed)
        for storage in db.storage, secondary:
            storage.pack(time.time(), referencesf)
            assert storage.files.check() is None
        assert len(found) >= 4
        assert set(found) == {None}
        assert not faults(caplog)

    @pytest.mark.parametrize(
        "harm",
        # A reader waits for some seconds for a file that a pack may be about to put there.
        [
            pytest.param(remove, marks=pytest.mark.long),
            replace,
            pytest.param(cut_off, marks=pytest.mark.long),
            remove_new,
        ],
    )
    def test_a_file_that_is_lost_during_a_pack(self, pair, network, harm, monkeypatch, caplog):
        """The storage keeps its open file, from which the data can be saved."""
        db, secondary = pair
        copy = _Packer.copyToPacktime
        for _ in range(2):
            commit(db)
        network.run()
        for storage in db.storage, secondary:
            path = data(storage)

            def harmed(self, path=path):
                try:
                    return copy(self)
                finally:
                    harm(path)

            monkeypatch.setattr(_Packer, "copyToPacktime", harmed)
            opened = storage.files._file.stat()
            with pytest.raises((StorageError, FileNotFoundError)):
                storage.pack(time.time(), referencesf)
            assert os.path.samestat(storage.files._file.stat(), opened)
            assert not os.path.exists(path + ".old")
        monkeypatch.undo()
        if harm is remove_new:
            db.storage.pack(time.time(), referencesf)
            # The lock for commits is free.
            commit(db)

    def test_a_file_that_is_lost_is_not_packed(self, pair):
        """Packing would put a file together from another one."""
        db, secondary = pair
        for storage in db.storage, secondary:
            replace(data(storage))
            with pytest.raises(StorageError, match="was replaced by another file"):
                storage.pack(time.time(), referencesf)


def test_other_storages_have_no_fault():
    assert FilesInPlace(MappingStorage()).check() is None


def test_a_closed_storage_has_no_fault(tmp_path):
    storage = open_file_storage(tmp_path)
    files = FilesInPlace(storage)
    storage.close()
    os.remove(tmp_path / "Data.fs")
    assert files.check() is None


@pytest.mark.parametrize("transport", ["socket-thread", "twisted-tcp"])
def test_probes_answer_503_with_the_reason(transport, tmp_path, caplog):
    with contextlib.ExitStack() as stack:
        primary = Primary(tmp_path / "p.fs", "127.0.0.1:0", transport=transport)
        db = stack.enter_context(contextlib.closing(DB(primary)))
        secondary = stack.enter_context(
            contextlib.closing(
                Secondary(
                    tmp_path / "s.fs",
                    primary.replication_address,
                    transport=transport,
                    reconnect_delay=0.05,
                )
            )
        )
        secondary._client.times = SecondaryTimes(lost=0.05)
        wait_for(lambda: secondary.progress.state is State.REPLICATING, "replication")
        for storage in primary, secondary:
            with StatusServer(storage, "127.0.0.1:0") as server:
                remove(data(storage))
                for path in "/readyz", "/healthz":
                    answer = get(server.address, path)
                    assert answer.status == 503
                    assert "was removed while it is open" in answer.json["reason"]
                put_back(data(storage))
                assert get(server.address, "/healthz").status == 200
        remove(data(secondary))
        commit(db)
        wait_for(lambda: not secondary.progress.connected, "the end of a session")
        put_back(data(secondary))
        last = primary.lastTransaction
        wait_for(lambda: secondary.lastTransaction() == last(), "replication to go on")
        assert {each.event for each in faults(caplog)} == {"files-lost"}

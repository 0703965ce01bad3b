"""Packs of replicated FileStorages: what stays of transactions and of objects."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import closing

import pytest
import transaction
from persistent.mapping import PersistentMapping
from ZODB.blob import Blob, BlobStorage
from ZODB.Connection import TransactionMetaData
from ZODB.DB import DB
from ZODB.FileStorage import FileStorage
from ZODB.POSException import POSKeyError
from ZODB.serialize import referencesf
from ZODB.utils import p64, u64

from zrs_core.errors import Diverged
from zrs_core.messages import Transaction
from zrs_core.progress import State

from ..databases import contents, open_file_storage

PLENTY = 1 << 40


def pack(storage, when, **options):
    storage.pack(when, referencesf, **options)


def in_file(storage):
    return [each.tid for each in contents(storage)]


def commit(db, change):
    with db.transaction() as connection:
        change(connection.root())
    return db.storage.lastTransaction()


def delete(db, *oids):
    """Commit a transaction that only deletes objects, as zc.zodbdgc does."""
    storage = db.storage
    serials = [storage.loadBefore(oid, b"\x7f" + 7 * b"\xff")[1] for oid in oids]
    note = TransactionMetaData(b"", b"gc")
    storage.tpc_begin(note)
    for oid, serial in zip(oids, serials, strict=True):
        storage.deleteObject(oid, serial, note)
    storage.tpc_vote(note)
    storage.tpc_finish(note)
    return storage.lastTransaction()


def moment():
    """A time between what was committed and what is committed next."""
    before = time.time()
    while time.time() - before < 0.002:
        pass
    now = time.time()
    while time.time() - now < 0.002:
        pass
    return now


@pytest.fixture
def collected(open_primary, database):
    """A database, the tids of its transactions up to the pack's time, and that time.

    The last of them only delete objects; one that is later follows.
    """
    db = database(open_primary())

    def add(root):
        root["x"], root["y"] = PersistentMapping(), PersistentMapping()

    commit(db, add)
    with db.transaction() as connection:
        oids = [connection.root()[name]._p_oid for name in "xy"]
    commit(db, lambda root: root.clear())
    for each in oids:
        delete(db, each)
    tids = in_file(db.storage)
    when = moment()
    commit(db, lambda root: root.update(after=1))
    return db, tids, when


def reopened(db, open_primary, database):
    path, blobs = db.storage.getName(), db.storage.fshelper.base_dir
    db.close()
    return database(open_primary(FileStorage(path, blob_dir=blobs)))


class TestTheLastTransactionThatAPackGoesOver:
    @pytest.mark.parametrize("restarted", [False, True])
    def test_every_secondary_goes_on(
        self, restarted, collected, open_primary, open_secondary, database, network, tmp_path
    ):
        db, tids, when = collected
        secondaries = []
        source = FileStorage(db.storage.getName(), read_only=True)
        for number, tid in enumerate(tids):
            target = FileStorage(str(tmp_path / f"{number}.fs"))
            target.copyTransactionsFrom(_UpTo(source, tid))
            assert target.lastTransaction() == tid
            secondaries.append(target)
        source.close()
        db.pack(when)
        if restarted:
            db = reopened(db, open_primary, database)
        for target in secondaries:
            shutil.rmtree(tmp_path / "b", ignore_errors=True)
            secondary = open_secondary(BlobStorage(str(tmp_path / "b"), target))
            network.run()
            assert in_file(secondary)[-1] == db.storage.lastTransaction()
            assert secondary.progress.state is State.REPLICATING
            secondary.close()

    def test_it_has_its_meta_data_and_no_records(self, collected):
        db, _, when = collected
        before = contents(db.storage)
        db.pack(when)
        [*_, kept, after] = contents(db.storage)
        assert kept == before[-2]._replace(status="p", records=[])
        assert after == before[-1]
        assert db.storage.getSize() == os.path.getsize(db.storage.getName())

    def test_a_tid_that_was_never_there_is_refused(self, collected, open_primary, database):
        db, tids, when = collected
        db.pack(when)
        db = reopened(db, open_primary, database)
        with pytest.raises(Diverged):
            db.storage._source.open(p64(u64(tids[-1]) + 1))

    def test_a_later_pack_removes_it(self, collected):
        db, tids, when = collected
        db.pack(when)
        size = db.storage.getSize()
        db.pack(when)
        assert db.storage.getSize() == size
        db.pack()
        assert tids[-1] not in in_file(db.storage)

    def test_a_packer_of_the_users_own_is_left_alone(self, tmp_path, open_primary):
        def own(storage, references, stop, gc):
            return None

        storage = FileStorage(str(tmp_path / "own.fs"), packer=own)
        assert open_primary(storage)._storage.packer is own

    def test_it_is_left_without_objects_at_that_time_too(self, open_primary, database):
        """A pack to a time before the first transaction."""
        db = database(open_primary())
        tids = in_file(db.storage)
        pack(db.storage, 1.0)
        assert in_file(db.storage) == tids


class _UpTo:
    """A storage up to one of its transactions."""

    def __init__(self, storage, tid):
        self._storage, self._tid = storage, tid

    def iterator(self):
        return self._storage.iterator(None, self._tid)


class TestAPackMadeElsewhere:
    """By a plain FileStorage, which leaves nothing of the last transactions but `.old`."""

    @pytest.fixture
    def packed(self, collected):
        db, tids, when = collected
        path, blobs = db.storage.getName(), db.storage.fshelper.base_dir
        db.close()
        with closing(FileStorage(path, blob_dir=blobs)) as storage:
            pack(storage, when)
            assert tids[-1] not in in_file(storage)
        return path, blobs, tids

    def test_what_it_removed_is_looked_up_in_the_old_file(self, packed, open_primary):
        path, blobs, tids = packed
        primary = open_primary(FileStorage(path, blob_dir=blobs))
        for start in tids:
            with closing(primary._source.open(start)) as reader:
                [*_, last] = [m.tid for m in reader.read(PLENTY) if isinstance(m, Transaction)]
            assert last == primary.lastTransaction()
        with pytest.raises(Diverged):
            primary._source.open(p64(u64(tids[-1]) + 1))

    @pytest.mark.parametrize("old", [None, b"", b"FS30", b"FS30" + bytes(100), b"x" * 100])
    def test_without_it_nothing_is_known(self, old, packed, open_primary):
        path, blobs, tids = packed
        os.remove(path + ".old")
        if old is not None:
            with open(path + ".old", "wb") as file:
                file.write(old)
        primary = open_primary(FileStorage(path, blob_dir=blobs))
        with pytest.raises(Diverged):
            primary._source.open(tids[-1])


def without_blobs(path):
    return open_file_storage(path, blobs=False)


def in_blob_storage(path):
    return BlobStorage(str(path / "blobs"), open_file_storage(path, blobs=False))


class TestAPackOfASecondaryKeepsWhatMayComeBack:
    @pytest.fixture(params=[open_file_storage, in_blob_storage])
    def both(self, request, open_primary, open_secondary, database, network, tmp_path):
        db = database(open_primary())

        def add(root):
            root["contract"] = PersistentMapping(text="kept", parts=PersistentMapping())
            root["contract"]["parts"]["scan"] = Blob(b"a scan")

        commit(db, add)
        secondary = open_secondary(request.param(tmp_path / "secondary"))
        network.run()
        return db, database(secondary)

    def read(self, db, key="contract"):
        with db.transaction() as connection:
            found = connection.root()[key]
            with found["parts"]["scan"].open() as file:
                return found["text"], file.read()

    def test_an_undone_deletion(self, both, network):
        db, copy = both
        commit(db, lambda root: root.pop("contract"))
        network.run()
        copy.pack()
        db.undo(db.undoLog(0, 1)[0]["id"])
        transaction.commit()
        network.run()
        assert self.read(db) == self.read(copy) == ("kept", b"a scan")
        copy.pack()
        assert self.read(copy) == ("kept", b"a scan")

    def test_an_object_that_is_removed_and_put_in_again(self, both, network):
        db, copy = both
        manager = transaction.TransactionManager()
        connection = db.open(manager)
        contract = connection.root().pop("contract")
        manager.commit()
        network.run()
        copy.pack()
        connection.root()["again"] = contract
        manager.commit()
        connection.close()
        network.run()
        assert self.read(db, "again") == self.read(copy, "again") == ("kept", b"a scan")

    def test_what_was_removed_by_its_oid_goes(self, both, network):
        db, copy = both
        with db.transaction() as connection:
            scan = connection.root()["contract"]["parts"]["scan"]
            oid = scan._p_oid
            path = copy.storage.fshelper.getPathForOID(oid)
        assert os.listdir(path)
        commit(db, lambda root: root.pop("contract"))
        delete(db, oid)
        network.run()
        copy.pack()
        with pytest.raises(POSKeyError):
            copy.storage.load(oid)
        assert not os.path.exists(path)


def test_a_pack_of_a_secondary_removes_garbage_if_it_is_asked_to(
    open_primary, open_secondary, database, network
):
    db = database(open_primary())
    commit(db, lambda root: root.update(x=PersistentMapping()))
    with db.transaction() as connection:
        oid = connection.root()["x"]._p_oid
    commit(db, lambda root: root.pop("x"))
    secondary = open_secondary()
    network.run()
    pack(secondary, time.time())
    assert secondary.load(oid)
    # ZODB does not pack again where nothing has changed.
    commit(db, lambda root: root.update(more=1))
    network.run()
    pack(secondary, time.time() + 1, gc=True)
    with pytest.raises(POSKeyError):
        secondary.load(oid)


def test_a_pack_without_garbage_collection_keeps_what_a_later_undo_points_to(tmp_path):
    """ZODB's own fails over it."""
    from zrs_core.storage.fs_setup import use_packer

    storage = open_file_storage(tmp_path / "db")
    use_packer(storage)
    db = DB(storage)
    for number in (1, 2):
        commit(db, lambda root, number=number: root.update(number=number))
    when = moment()
    db.undo(db.undoLog(0, 1)[0]["id"])
    transaction.commit()
    pack(storage, when, gc=False)
    with db.transaction() as connection:
        assert connection.root()["number"] == 1
    [*_, last] = contents(storage)
    assert last.records[0][3]
    db.close()

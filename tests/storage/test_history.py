"""The history that a primary or a secondary gives out: nothing of it is called or imported."""

from __future__ import annotations

import contextlib
import pickle
import sys
import time
import warnings

import pytest
import transaction
import zodbpickle.pickle
from ZODB.BaseStorage import copy
from ZODB.Connection import TransactionMetaData
from ZODB.DB import DB
from ZODB.FileStorage import FileStorage
from ZODB.interfaces import IMVCCStorage, IStorageTransactionInformation
from ZODB.mvccadapter import MVCCAdapter
from ZODB.POSException import POSKeyError, UndoError
from ZODB.serialize import referencesf
from ZODB.tests.hexstorage import HexStorage
from ZODB.utils import p64, z64
from zope.interface.verify import verifyObject

from zrs_core import Primary

from ..codec.test_opcodes import PLAIN_ITEMS as PLAIN
from ..databases import open_file_storage
from .relstorages import open_on_sqlite
from .test_hostile_data import HOSTILE, Call

OID = p64(1000)


def commit(storage, data=b"record", extension=b"", serial=z64, oid=OID):
    metadata = TransactionMetaData(b"user", b"description", extension)
    storage.tpc_begin(metadata)
    storage.store(oid, serial, data, "", metadata)
    storage.tpc_vote(metadata)
    return storage.tpc_finish(metadata)


@pytest.fixture(params=["file storage", "without blobs", "hex storage", "relstorage"])
def make_storage(request, tmp_path):
    """Makes the storages of either end."""

    def make(name):
        path = tmp_path / name
        if request.param == "relstorage":
            return open_on_sqlite(path)
        storage = open_file_storage(path, blobs=request.param != "without blobs")
        return HexStorage(storage) if request.param == "hex storage" else storage

    return make


@pytest.fixture
def ends(make_storage, open_primary, open_secondary, network):
    """A primary, and what makes a secondary have all of it."""
    primary = open_primary(make_storage("primary"))

    def replicate():
        secondary = open_secondary(make_storage("secondary"))
        network.run()
        assert secondary.lastTransaction() == primary.lastTransaction()
        return secondary

    return primary, replicate


def undo_log(storage):
    return storage.undoLog(0, 10)


def deprecated_extensions(storage):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return [each._extension for each in storage.iterator()]


LOOKS = {
    "undoLog": undo_log,
    "undoLog with a filter": lambda storage: storage.undoLog(0, -10, lambda each: each["id"]),
    "undoInfo": lambda storage: storage.undoInfo(0, 10),
    "undoInfo with a specification": lambda storage: storage.undoInfo(0, 10, {"user_name": b"u"}),
    "history": lambda storage: storage.history(OID, size=10),
    "history with a filter": lambda storage: storage.history(OID, size=10, filter=bool),
    "iterator": lambda storage: [[*each] for each in storage.iterator()],
    "extension": lambda storage: [each.extension for each in storage.iterator()],
    "_extension": lambda storage: deprecated_extensions(storage),
    "lastInvalidations": lambda storage: storage.lastInvalidations(10),
    "record_iternext": lambda storage: storage.record_iternext(),
    "load": lambda storage: storage.load(OID),
    "loadBefore": lambda storage: storage.loadBefore(OID, b"\x7f" + b"\xff" * 7),
    "loadSerial": lambda storage: storage.loadSerial(OID, storage.load(OID)[1]),
    "getTid": lambda storage: storage.getTid(OID),
    "getExtensionMethods": lambda storage: storage.getExtensionMethods(),
    "pack": lambda storage: storage.pack(time.time(), referencesf),
}


class TestNothingIsCalled:
    @pytest.mark.parametrize("protocol", [1, 3])
    def test_by_either_end(self, protocol, ends, tmp_path):
        canary = tmp_path / "canary"
        primary, replicate = ends
        hostile = pickle.dumps(HOSTILE["a canary"](canary), protocol)
        extension = pickle.dumps({"a": HOSTILE["a canary"](canary), "b": 1}, protocol)
        first = commit(primary, hostile * 2, extension)
        # What can be reached from the root is gone through by a pack.
        commit(primary, hostile * 2, extension, oid=z64)
        commit(primary, hostile, extension, serial=first)
        secondary = replicate()
        for storage in (primary, secondary):
            instances = [storage, MVCCAdapter(storage).new_instance()]
            if IMVCCStorage.providedBy(storage):
                instances[1] = storage.new_instance()
            for instance in instances:
                for name, look in LOOKS.items():
                    # Not all have all of them, and some are not meant for records like these.
                    with contextlib.suppress(Exception):
                        look(instance)
                    assert not canary.exists(), name
            instances[1].release()

    def test_by_databases_and_copies(self, ends, tmp_path):
        canary = tmp_path / "canary"
        primary, replicate = ends
        db = DB(primary)
        extension = pickle.dumps({"a": HOSTILE["a canary"](canary)}, 3)
        commit(primary, extension=extension)
        secondary = replicate()
        copied = DB(secondary)
        try:
            for each in (db, copied):
                assert len(each.undoLog(0, 10)) == 2
                assert len(each.undoInfo(0, 10)) == 2
            assert len(copied.history(OID)) == 1
            target = FileStorage(str(tmp_path / "copy.fs"))
            copy(secondary, target)
            assert [each.extension_bytes for each in target.iterator()][-1] == extension
            target.close()
        finally:
            copied.close()
            db.close()
        assert not canary.exists()

    def test_by_an_exit(self, ends):
        primary, replicate = ends
        commit(primary, extension=pickle.dumps({"a": Call(sys.exit, 1)}, 3))
        secondary = replicate()
        assert "a" not in undo_log(secondary)[0]
        assert secondary.history(OID)[0]["description"] == b"description"


class TestTheSameAsTheStorage:
    """For extensions of plain values."""

    @pytest.fixture
    def committed(self, ends):
        primary, replicate = ends
        serial = z64
        for number, extension in enumerate((PLAIN, {}, {"time": 1, "id": "x", "a": 1}, {"a": 2})):
            dumped = zodbpickle.pickle.dumps(extension, 3) if extension else b""
            serial = commit(primary, b"%d" % number, dumped, serial)
        return primary, replicate()

    @staticmethod
    def comparable(found):
        return [{**each, "size": 0} for each in found]

    def test_undo_log(self, committed):
        for storage in committed:
            below = storage._storage
            for arguments in ((), (0, 2), (1, 3), (2, -2), (0, -1), (5, 9), (0, 0)):
                assert storage.undoLog(*arguments) == below.undoLog(*arguments), arguments
            assert storage.undoLog(0, 9, lambda each: each.get("a")) == below.undoLog(
                0, 9, lambda each: each.get("a")
            )
            for specification in (None, {"a": 2}, {"user_name": b"user", "a": 1}, {"b": 1}):
                found = storage.undoInfo(0, -20, specification)
                assert found == below.undoInfo(0, -20, specification)
            assert storage.undoLog()[0]["a"] == 2

    def test_history(self, committed):
        for storage in committed:
            below = storage._storage
            for size in (1, 2, 10):
                assert storage.history(OID, size=size) == below.history(OID, size=size)
            assert len(storage.history(OID, size=10)) == 4
            assert storage.history(OID, size=9, filter=lambda each: "text" in each) == (
                below.history(OID, size=9, filter=lambda each: "text" in each)
            )
            with pytest.raises(POSKeyError):
                storage.history(p64(77))

    def test_iterator(self, committed):
        for storage in committed:
            found, expected = [*storage.iterator()], [*storage._storage.iterator()]
            for each, other in zip(found, expected, strict=True):
                assert verifyObject(IStorageTransactionInformation, each)
                for name in ("tid", "status", "user", "description", "extension"):
                    assert getattr(each, name) == getattr(other, name)
                assert each.extension_bytes == other.extension_bytes
            assert found[0].extension == PLAIN
            tid = found[1].tid
            assert [each.tid for each in storage.iterator(tid, tid)] == [tid]

    def test_undo_by_what_is_listed(self, open_primary, database):
        db = database(open_primary())
        with db.transaction() as connection:
            connection.root()["a"] = 1
        with db.transaction() as connection:
            connection.root()["a"] = 2
        (last,) = db.undoLog(0, 1)
        db.undo(last["id"])
        transaction.commit()
        with db.transaction() as connection:
            assert connection.root()["a"] == 1

    def test_a_pack_ends_the_undo_log(self, open_primary, database):
        db = database(open_primary())
        for number in range(3):
            with db.transaction() as connection:
                connection.root()["a"] = number
        db.pack()
        with db.transaction() as connection:
            connection.root()["a"] = "after"
        assert len(db.storage.undoLog(0, 10)) == 1
        assert db.storage.undoLog(0, 10) == db.storage._storage.undoLog(0, 10)

    def test_a_pack_that_is_running_refuses_it(self, open_primary, monkeypatch):
        primary = open_primary()
        monkeypatch.setattr(primary._storage, "_pack_is_in_progress", True)
        with pytest.raises(UndoError, match="disabled for database maintenance"):
            primary.undoLog()

    def test_what_the_storage_does_not_have(self, tmp_path):
        from ZODB.MappingStorage import MappingStorage

        primary = Primary(MappingStorage(), "127.0.0.1:0", transport="socket-thread")
        assert not hasattr(primary, "undoLog")
        assert not hasattr(primary, "undoInfo")
        commit(primary)
        assert [each.extension for each in primary.iterator()] == [{}]
        assert len(primary.history(OID)) == 1
        primary.close()

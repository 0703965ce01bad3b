"""A pack that removes the very last transaction."""

from __future__ import annotations

import logging
import os
import time

import pytest
import transaction
import ZODB
from persistent.mapping import PersistentMapping
from persistent.TimeStamp import TimeStamp
from ZODB.blob import Blob
from ZODB.Connection import TransactionMetaData
from ZODB.FileStorage import FileStorage
from ZODB.FileStorage.FileStorage import FileStorageError
from ZODB.serialize import referencesf
from ZODB.utils import z64

from zrs_core.messages import NO_TID, Transaction
from zrs_core.storage import fs_access, fs_tail, last_packed
from zrs_core.storage.opening import source_of

from ..databases import contents, open_file_storage, stored


@pytest.fixture(autouse=True)
def _log_level(caplog):
    caplog.set_level(logging.INFO, "zrs_core")


def set_ahead(storage):
    """Let the next tids lie an hour ahead, as those before a clock is set back."""
    later = time.time() + 3600
    ahead = TimeStamp(*time.gmtime(later)[:5], later % 60)
    fs_access.file_storage_of(storage)._ts = ahead


def commit_garbage(storage):
    """A transaction of which nothing can be reached."""
    metadata = TransactionMetaData(b"somebody", b"garbage", {"a": 1})
    storage.tpc_begin(metadata)
    storage.store(storage.new_oid(), z64, b"nobody refers to this", "", metadata)
    storage.tpc_vote(metadata)
    storage.tpc_finish(metadata)
    return storage.lastTransaction()


def pack(storage, when=None):
    storage.pack(when or time.time(), referencesf)


def errors(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]


def in_file(storage):
    return [each.tid for each in contents(storage)]


@pytest.fixture
def packed(open_primary, open_secondary, database, network):
    """A primary that has packed away what its secondary has as its last one."""
    primary = open_primary()
    with database(primary).transaction() as connection:
        connection.root()["blob"] = Blob(b"a blob")
    secondary = open_secondary()
    last = commit_garbage(primary)
    network.run()
    assert secondary.lastTransaction() == last
    pack(primary)
    return primary, secondary, last


class TestWhatStays:
    def test_an_empty_transaction_with_its_meta_data(self, packed):
        primary, _, last = packed
        [*_, kept] = contents(primary)
        assert kept[:4] == (last, "p", b"somebody", b"garbage")
        assert kept.extension
        assert kept.records == []

    @pytest.mark.parametrize("index", [True, False])
    def test_after_opening_again_it_is_the_last(self, index, packed, open_primary, database):
        primary, _, last = packed
        primary.close()
        path = primary.getName()
        if not index:
            os.remove(path + ".index")
        again = FileStorage(path, blob_dir=primary.fshelper.base_dir)
        assert again.lastTransaction() == last
        db = database(again)
        with db.transaction() as connection:
            connection.root()["more"] = 1
        assert again.lastTransaction() > last
        assert list(db.undoLog(0, 10))
        db.pack()
        assert last not in in_file(again)

    def test_another_pack_keeps_it_too(self, packed):
        primary, _, last = packed
        pack(primary)
        assert in_file(primary)[-1] == last
        commit_garbage(primary)
        pack(primary)
        assert in_file(primary)[-1] == primary.lastTransaction() > last

    def test_only_if_it_was_removed(self, packed, database):
        primary, *_ = packed
        with database(primary).transaction() as connection:
            connection.root()["more"] = 1
        pack(primary)
        assert all(each.records for each in contents(primary))

    def test_an_empty_storage_stays_empty(self, open_primary):
        primary = open_primary()
        pack(primary)
        assert primary.lastTransaction() == NO_TID

    def test_not_behind_another_commit(self, open_primary, monkeypatch):
        """One that comes when a pack by the user's own packer is done."""
        primary = open_primary()
        primary._storage.packer = FileStorage.packer
        ZODB.DB(primary)
        garbage = commit_garbage(primary)
        put_back = last_packed.put_back

        def commit_and_put_back(storage, header):
            commit_garbage(storage)
            put_back(storage, header)

        monkeypatch.setattr(last_packed, "put_back", commit_and_put_back)
        pack(primary)
        tids = in_file(primary)
        assert garbage not in tids
        assert tids == sorted(tids)
        assert tids[-1] == primary.lastTransaction()

    @pytest.mark.parametrize("side", ["primary", "secondary"])
    def test_also_if_the_pack_fails_when_it_has_replaced_the_file(self, side, packing, monkeypatch):
        """As with a blob directory on a disk that is full."""
        storage, last = packing(side)

        def pack_and_fail(self, *arguments):
            original(self, *arguments)
            raise OSError("No space left on device")

        original = FileStorage.pack
        monkeypatch.setattr(FileStorage, "pack", pack_and_fail)
        with pytest.raises(OSError, match="No space left on device"):
            pack(storage)
        assert in_file(storage)[-1] == last

    @pytest.fixture
    def packing(self, open_primary, open_secondary, database, network):
        """Either side, before its last transaction is packed away; and its tid."""

        def opened(side):
            primary = open_primary()
            database(primary)
            secondary = open_secondary()
            last = commit_garbage(primary)
            network.run()
            return {"primary": primary, "secondary": secondary}[side], last

        return opened

    def test_what_cannot_be_noted_is_told(self, open_primary, monkeypatch, caplog):
        primary = open_primary()
        ZODB.DB(primary)
        commit_garbage(primary)

        def fail(storage, header):
            raise OSError("No space left on device")

        monkeypatch.setattr(last_packed, "put_back", fail)
        pack(primary)
        assert "was packed away, which cannot be noted in the file" in errors(caplog)[0]


class TestReplication:
    @pytest.mark.parametrize("compared", [0, 1 << 20])
    @pytest.mark.parametrize("reopened", [True, False])
    @pytest.mark.parametrize("committed_before", [True, False])
    def test_a_secondary_goes_on(
        self,
        compared,
        reopened,
        committed_before,
        packed,
        open_primary,
        open_secondary,
        database,
        network,
        tmp_path,
        caplog,
    ):
        primary, secondary, last = packed
        secondary.close()
        if reopened:
            primary.close()
            primary = open_primary()
        assert primary.lastTransaction() == last
        db = database(primary)

        def commit():
            with db.transaction() as connection:
                connection.root()["after"] = PersistentMapping()

        if committed_before:
            commit()
        secondary = open_secondary(max_compared_size=compared)
        network.run()
        commit()
        network.run()
        assert secondary.lastTransaction() == primary.lastTransaction()
        assert not errors(caplog)

    def test_one_that_has_packed_itself(self, packed, open_secondary, database, network, caplog):
        primary, secondary, last = packed
        pack(secondary)
        assert in_file(secondary)[-1] == last
        secondary.close()
        secondary = open_secondary()
        network.run()
        assert secondary.lastTransaction() == last
        with database(primary).transaction() as connection:
            connection.root()["more"] = 1
        network.run()
        assert in_file(secondary)[-2:] == in_file(primary)[-2:]
        assert not errors(caplog)

    def test_one_behind_a_secondary_that_has_packed(
        self, packed, open_primary, open_secondary, database, network, tmp_path, caplog
    ):
        primary, secondary, _ = packed
        middle = open_primary(secondary, ("", 8001))
        end = open_secondary(open_file_storage(tmp_path / "end"), ("", 8001))
        network.run()
        pack(middle)
        end.close()
        end = open_secondary(open_file_storage(tmp_path / "end"), ("", 8001))
        network.run()
        with database(primary).transaction() as connection:
            connection.root()["more"] = 1
        network.run()
        assert in_file(end)[-2:] == in_file(primary)[-2:]
        assert not errors(caplog)

    def test_a_new_secondary_gets_it(self, packed, open_secondary, database, network, tmp_path):
        primary, *_ = packed
        new = open_secondary(open_file_storage(tmp_path / "new"))
        network.run()
        assert contents(new) == contents(primary)

    @pytest.mark.parametrize("committed_since", [False, True])
    def test_who_has_followed_the_pack_already_does_not_get_it_again(
        self, committed_since, packed, database, tmp_path, monkeypatch
    ):
        primary, *_ = packed
        source = source_of(primary)
        last = commit_garbage(primary)
        reader = source.open(NO_TID)
        while reader.read(1 << 20):
            pass
        put_back = last_packed.put_back

        def read_and_put_back(storage, header):
            assert reader.read(1 << 20) == []
            put_back(storage, header)

        monkeypatch.setattr(last_packed, "put_back", read_and_put_back)
        pack(primary)
        assert in_file(primary)[-1] == last
        newer = [commit_garbage(primary)] if committed_since else []
        begun = [each.tid for each in reader.read(1 << 20) if isinstance(each, Transaction)]
        assert begun == newer
        reader.close()

    def test_a_clock_that_was_set_back_gives_no_tid_again(self, packed, open_primary, database):
        primary, *_ = packed
        set_ahead(primary)
        last = commit_garbage(primary)
        pack(primary, time.time() + 7200)
        assert in_file(primary)[-1] == last
        primary.close()
        primary = open_primary()
        with database(primary).transaction() as connection:
            connection.root()["more"] = 1
        assert primary.lastTransaction() > last


@pytest.mark.parametrize("packed_before", [False, True])
@pytest.mark.parametrize("tail", ["unfinished", "zeros"])
def test_a_primary_establishes_its_last_transaction(tail, packed_before, tmp_path, open_primary):
    """FileStorage names one that it has cut off, or none if there are zeros at its end."""
    storage = open_file_storage(tmp_path / "primary")
    set_ahead(storage)
    ZODB.DB(storage)
    if packed_before:
        commit_garbage(storage)
        db = ZODB.DB(storage)
        with db.transaction() as connection:
            connection.root()["more"] = 1
        pack(storage, time.time() + 7200)
        assert fs_tail.last_header(storage).status == "p"
    last = storage.lastTransaction()
    metadata = TransactionMetaData()
    storage.tpc_begin(metadata)
    storage.store(storage.new_oid(), z64, b"record", "", metadata)
    storage.tpc_vote(metadata)
    unfinished = (tmp_path / "primary" / "Data.fs").read_bytes()
    storage.tpc_abort(metadata)
    whole = (tmp_path / "primary" / "Data.fs").read_bytes()
    transaction.abort()
    storage.close()
    os.remove(tmp_path / "primary" / "Data.fs.index")
    data = unfinished if tail == "unfinished" else whole + bytes(100)
    (tmp_path / "primary" / "Data.fs").write_bytes(data)
    # Of a storage that is open already, nobody knows what a pack has removed of it.
    path = str(tmp_path / "primary" / "Data.fs") if packed_before else None
    primary = open_primary(path)
    assert primary.lastTransaction() == last
    assert commit_garbage(primary) > last
    primary.close()
    tids = [each.tid for each in stored(tmp_path / "primary")]
    assert tids == sorted(tids)


def test_a_second_pack_meanwhile_changes_nothing(open_primary, database, monkeypatch, caplog):
    """It is refused while the first one may be replacing the file."""
    primary = open_primary()
    database(primary)
    commit_garbage(primary)
    storage = fs_access.file_storage_of(primary)
    monkeypatch.setattr(storage, "_pack_is_in_progress", True)
    monkeypatch.setattr(last_packed, "_note_last", lambda *args: pytest.fail("was looked at"))
    with pytest.raises(FileStorageError, match="Already packing"):
        pack(primary)

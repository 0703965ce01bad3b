"""A secondary that receives what a pack of its primary has left shows no state that never was."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import pytest
import transaction
from persistent.mapping import PersistentMapping
from ZODB.blob import BlobStorage
from ZODB.FileStorage import FileStorage
from ZODB.POSException import POSKeyError
from ZODB.serialize import referencesf
from ZODB.utils import p64, u64

from zrs_core import Primary, Secondary
from zrs_core.errors import ReplicationError
from zrs_core.messages import NO_TID
from zrs_core.monitor.node import Node
from zrs_core.sessions import SecondaryTimes
from zrs_core.storage.run_note import RunNote
from zrs_core.storage.snapshot import open_snapshot
from zrs_core.tools.snapshots import taking
from zrs_core.visibility import Visibility

from ..conditions import wait_for
from ..databases import contents, open_file_storage
from ..snapshots.helpers import take

ACCOUNTS = "abcd"


@pytest.fixture(autouse=True)
def _log_level(caplog):
    caplog.set_level(logging.INFO, "zrs_core")


@pytest.fixture
def network(network):
    # So that there are many moments between two messages.
    network.chunk_size = 100
    return network


SETTLE = SecondaryTimes().settle


class Bank:
    """Accounts on the primary, and a secondary that has their first state."""

    def __init__(self, database, primary):
        self.db = database(primary)
        self.connection = self.db.open()
        self.accounts = self.connection.root()["accounts"] = PersistentMapping()
        for name in ACCOUNTS:
            self.accounts[name] = PersistentMapping(money=100)
        transaction.commit()

    def move(self, one, other):
        self.accounts[one]["money"] -= 10
        self.accounts[other]["money"] += 10
        transaction.commit()

    def go_on(self):
        """Leave changes of which a pack keeps only a part."""
        self.move("a", "b")
        self.accounts["e"] = PersistentMapping(money=0)
        transaction.commit()
        self.move("a", "e")
        self.move("a", "c")
        self.move("e", "d")


def total(db):
    """The money in a database; None if an object is missing."""
    connection = db.open(transaction.TransactionManager())
    try:
        return sum(each["money"] for each in connection.root()["accounts"].values())
    except POSKeyError:
        return None
    finally:
        connection.close()


WHOLE = 100 * len(ACCOUNTS)


def readiness(secondary):
    status = Node(secondary, 60.0).status()
    return status.ready, status.ready_reason


def steps(network, condition):
    """Let one thing happen after the other until a condition holds; yield before each."""
    for _ in range(400):
        if condition():
            return
        yield
        if not network.step():
            network.advance(0.5)
    raise AssertionError("it never came to that")


def within_run(secondary):
    """Whether some of what the pack has left is in the file, and readers do not see it."""
    held = secondary._visibility.held
    return held is not None and secondary._storage.lastTransaction() > held


def step_into_run(network, secondary):
    for _ in steps(network, lambda: within_run(secondary)):
        pass


@pytest.fixture
def bank(open_primary, database):
    return Bank(database, open_primary())


@pytest.fixture
def behind(bank, open_secondary, network, tmp_path):
    """A secondary that was away while the bank went on and was packed; `:8000` is its primary."""
    secondary = open_secondary()
    network.run()
    assert secondary.lastTransaction() == bank.db.storage.lastTransaction()
    secondary.setReplicationAddress(":8999")
    network.run()
    bank.go_on()
    bank.db.pack()
    return secondary


def in_blob_storage(path):
    return BlobStorage(str(path / "blobs"), open_file_storage(path, blobs=False))


class TestBehind:
    @pytest.mark.parametrize("one_by_one", [False, True])
    @pytest.mark.parametrize("target", [open_file_storage, in_blob_storage])
    def test_readers_see_the_state_before_and_then_the_one_after(
        self, one_by_one, target, bank, open_secondary, database, network, tmp_path, request
    ):
        if one_by_one:
            request.getfixturevalue("sinks_one_by_one")
        secondary = open_secondary(target(tmp_path / "target"))
        network.run()
        copy = database(secondary)
        kept = copy.open(transaction.TransactionManager())
        assert {each["money"] for each in kept.root()["accounts"].values()} == {100}
        secondary.setReplicationAddress(":8999")
        network.run()
        bank.go_on()
        bank.db.pack()
        bank.move("c", "d")
        before, last = secondary.lastTransaction(), bank.db.storage.lastTransaction()
        secondary.setReplicationAddress(":8000")
        seen, was_held = set(), False
        for _ in steps(network, lambda: secondary.lastTransaction() == last):
            assert total(copy) == WHOLE
            seen.add(secondary.lastTransaction())
            if within_run(secondary):
                was_held = True
                assert secondary.progress.tid == before
                assert not readiness(secondary)[0]
                assert "what a pack of its primary has left" in readiness(secondary)[1]
                oid = bank.accounts["c"]._p_oid
                assert secondary.load(oid)[1] <= before
                assert all(tid <= before for tid, _ in secondary.lastInvalidations(100))
        assert seen == {before}
        assert was_held
        assert not secondary.progress.incomplete
        # A connection that has objects in its cache is told of all changes.
        kept.sync()
        assert {key: each["money"] for key, each in kept.root()["accounts"].items()} == {
            key: each["money"] for key, each in bank.accounts.items()
        }
        kept.close()

    def test_a_primary_that_has_nothing_more_ends_it(self, behind, bank, database, network):
        copy = database(behind)
        before = behind.lastTransaction()
        behind.setReplicationAddress(":8000")
        network.run()
        network.advance(SETTLE - 1)
        assert behind._storage.lastTransaction() == bank.db.storage.lastTransaction()
        assert behind.lastTransaction() == before
        network.advance(1)
        assert behind.lastTransaction() == bank.db.storage.lastTransaction()
        assert total(copy) == WHOLE
        assert not behind.progress.incomplete
        assert behind.progress.unapplied == 0

    def test_a_lost_connection_does_not_end_it(self, behind, bank, database, network):
        before = behind.lastTransaction()
        behind.setReplicationAddress(":8000")
        step_into_run(network, behind)
        behind.setReplicationAddress(":8999")
        network.advance(100)
        assert behind.lastTransaction() == before
        assert not readiness(behind)[0]

    def test_what_came_before_a_restart_stays_and_is_held_back(
        self, behind, bank, open_secondary, database, network, tmp_path
    ):
        bank.move("c", "d")
        before, last = behind.lastTransaction(), bank.db.storage.lastTransaction()
        behind.setReplicationAddress(":8000")
        step_into_run(network, behind)
        had = behind._storage.lastTransaction()
        path, blobs = behind.getName(), behind.fshelper.base_dir
        behind.close()
        again = open_secondary(FileStorage(path, blob_dir=blobs))
        assert again._storage.lastTransaction() == had > before
        assert again.lastTransaction() == again.progress.tid == before
        assert again.progress.incomplete
        copy = database(again)
        kept = copy.open(transaction.TransactionManager())
        assert {each["money"] for each in kept.root()["accounts"].values()} == {100}
        for _ in steps(network, lambda: again.lastTransaction() == last):
            assert total(copy) == WHOLE
            assert not readiness(again)[0]
        assert total(copy) == WHOLE
        kept.sync()
        assert {key: each["money"] for key, each in kept.root()["accounts"].items()} == {
            key: each["money"] for key, each in bank.accounts.items()
        }
        kept.close()
        assert contents(again)[-5:] == contents(bank.db.storage)[-5:]
        assert not os.path.exists(path + ".incomplete")

    @pytest.mark.parametrize("own_packer", [False, True])
    def test_a_pack_in_it_leaves_the_state_that_readers_see(
        self, own_packer, behind, bank, open_secondary, database, network
    ):
        if own_packer:
            path, blobs = behind.getName(), behind.fshelper.base_dir
            behind.close()
            storage = FileStorage(
                path, blob_dir=blobs, packer=lambda *args: FileStorage.packer(*args)
            )
            behind = open_secondary(storage, ("", 8999))
        copy = database(behind)
        bank.move("c", "d")
        behind.setReplicationAddress(":8000")
        # A pack waits for the end of a transaction.
        for _ in steps(network, lambda: within_run(behind) and not behind.progress.unfinished):
            pass
        copy.pack()
        assert total(copy) == WHOLE
        with copy.transaction() as connection:
            assert {each["money"] for each in connection.root()["accounts"].values()} == {100}
        last = bank.db.storage.lastTransaction()
        for _ in steps(network, lambda: behind.lastTransaction() == last):
            assert total(copy) == WHOLE
        copy.pack()
        assert total(copy) == WHOLE

    def test_two_packs_one_after_the_other(self, behind, bank, database, network):
        copy = database(behind)
        behind.setReplicationAddress(":8000")
        step_into_run(network, behind)
        bank.go_on()
        bank.db.pack()
        bank.move("c", "d")
        last = bank.db.storage.lastTransaction()
        for _ in steps(network, lambda: behind.lastTransaction() == last):
            assert total(copy) == WHOLE

    def test_taking_over_within_it_is_an_error_in_the_log(
        self, behind, bank, open_primary, network, caplog
    ):
        before = behind.lastTransaction()
        behind.setReplicationAddress(":8000")
        step_into_run(network, behind)
        path, blobs = behind.getName(), behind.fshelper.base_dir
        behind.close()
        open_primary(FileStorage(path, blob_dir=blobs), ("", 8001))
        [error] = [each for each in caplog.records if each.levelno >= logging.ERROR]
        assert f"after 0x{before.hex()}" in error.getMessage()
        assert error.event == "taken-over-incomplete"

    def test_taking_over_after_it_is_none(self, behind, bank, open_primary, network, caplog):
        behind.setReplicationAddress(":8000")
        network.run()
        network.advance(10)
        path, blobs = behind.getName(), behind.fshelper.base_dir
        assert behind.lastTransaction() == bank.db.storage.lastTransaction()
        behind.close()
        open_primary(FileStorage(path, blob_dir=blobs), ("", 8001))
        assert not [each for each in caplog.records if each.levelno >= logging.ERROR]

    def test_a_note_that_cannot_be_written_lets_nothing_in(
        self, behind, bank, network, monkeypatch, caplog
    ):
        def fail(self, tid):
            raise OSError("No space left on device")

        before = behind.lastTransaction()
        bank.move("c", "d")
        with monkeypatch.context() as patched:
            patched.setattr(RunNote, "write", fail)
            behind.setReplicationAddress(":8000")
            network.run()
            assert behind._storage.lastTransaction() == before
            assert "No space left on device" in behind.progress.failure
        network.advance(100)
        network.run()
        assert behind.lastTransaction() == bank.db.storage.lastTransaction()


@pytest.mark.parametrize("transport", ["socket-thread", "twisted-tcp"])
def test_over_a_network(transport, database, tmp_path):
    primary = Primary(open_file_storage(tmp_path / "primary"), "127.0.0.1:0", transport=transport)
    bank = Bank(database, primary)
    secondary = Secondary(
        open_file_storage(tmp_path / "secondary"),
        primary.replication_address,
        transport=transport,
        reconnect_delay=0.05,
    )
    wait_for(lambda: secondary.lastTransaction() == primary.lastTransaction(), "the first state")
    secondary._client.times = SecondaryTimes(settle=0.5)
    copy = database(secondary)
    secondary.setReplicationAddress(str(tmp_path / "nobody"))
    wait_for(lambda: not secondary.progress.connected, "the end of the connection")
    bank.go_on()
    bank.db.pack()
    seen = {secondary.lastTransaction(), primary.lastTransaction()}
    secondary.setReplicationAddress(primary.replication_address)

    def has_all():
        assert total(copy) == WHOLE
        assert secondary.lastTransaction() in seen
        return secondary.lastTransaction() == primary.lastTransaction()

    wait_for(has_all, "what the pack has left")
    assert total(copy) == WHOLE
    bank.connection.close()


class TestSnapshots:
    def test_it_holds_what_readers_see(self, behind, bank, database, network, tmp_path):
        before = behind.lastTransaction()
        behind.setReplicationAddress(":8000")
        step_into_run(network, behind)
        take(Path(behind.getName()).parent, tmp_path / "within")
        bank.move("c", "d")
        network.run()
        assert not behind.progress.incomplete
        take(Path(behind.getName()).parent, tmp_path / "after")
        for name, last in (("within", before), ("after", bank.db.storage.lastTransaction())):
            copy = database(open_file_storage(tmp_path / name))
            assert copy.lastTransaction() == last
            assert total(copy) == WHOLE

    def test_a_run_that_ends_while_the_file_is_read(
        self, behind, bank, database, network, tmp_path, monkeypatch
    ):
        behind.setReplicationAddress(":8000")
        step_into_run(network, behind)

        def open_and_go_on(path):
            file = open_snapshot(path)
            bank.move("c", "d")
            network.run()
            assert not behind.progress.incomplete
            return file

        monkeypatch.setattr(taking, "open_snapshot", open_and_go_on)
        take(Path(behind.getName()).parent, tmp_path / "snapshot")
        copy = database(open_file_storage(tmp_path / "snapshot"))
        assert copy.lastTransaction() == bank.db.storage.lastTransaction()
        assert total(copy) == WHOLE

    def test_a_pack_replaces_the_file_too(
        self, behind, bank, database, network, tmp_path, monkeypatch
    ):
        behind.setReplicationAddress(":8000")
        # While a batch is under way, a pack waits for its end.
        progress = behind.progress
        for _ in steps(network, lambda: within_run(behind) and not progress.unfinished):
            pass
        opened = []

        def open_and_go_on(path):
            opened.append(open_snapshot(path))
            if len(opened) == 1:
                behind.pack(time.time(), referencesf)
                bank.move("c", "d")
                network.run()
            return opened[-1]

        monkeypatch.setattr(taking, "open_snapshot", open_and_go_on)
        take(Path(behind.getName()).parent, tmp_path / "snapshot")
        assert len(opened) == 2
        assert total(database(open_file_storage(tmp_path / "snapshot"))) == WHOLE


class TestFresh:
    """A storage that was empty has no state before."""

    @pytest.fixture
    def fresh(self, bank, open_secondary, network):
        bank.go_on()
        bank.db.pack()
        secondary = open_secondary()
        progress = secondary.progress
        for _ in steps(network, lambda: progress.transactions and not progress.unfinished):
            pass
        return secondary

    def test_it_is_not_ready_before_it_has_all(self, fresh, bank, database, network):
        bank.move("c", "d")
        last = bank.db.storage.lastTransaction()
        for _ in steps(network, lambda: fresh.lastTransaction() == last):
            assert not readiness(fresh)[0]
            assert "what a pack of its primary has left" in readiness(fresh)[1]
        assert readiness(fresh)[0]
        assert total(database(fresh)) == WHOLE

    def test_no_snapshot_is_taken_of_it(self, fresh, tmp_path):
        with pytest.raises(ReplicationError, match="has received only a part of what a pack"):
            take(Path(fresh.getName()).parent, tmp_path / "snapshot")
        assert not (tmp_path / "snapshot").exists()

    def test_nor_after_a_restart(self, fresh, bank, open_secondary, network, caplog, open_primary):
        path, blobs = fresh.getName(), fresh.fshelper.base_dir
        fresh.close()
        again = open_secondary(FileStorage(path, blob_dir=blobs))
        assert again.lastTransaction() == again._storage.lastTransaction() != NO_TID
        assert again.progress.incomplete
        again.close()
        open_primary(FileStorage(path, blob_dir=blobs), ("", 8001))
        assert "taken-over-incomplete" in [each.event for each in caplog.records]

    def test_a_primary_that_has_nothing_more_makes_it_ready(self, fresh, bank, network):
        network.run()
        network.advance(10)
        assert fresh.lastTransaction() == bank.db.storage.lastTransaction()
        assert not fresh.progress.incomplete

    def test_a_pack_in_it_removes_nothing(self, fresh, bank, database, network):
        before = contents(fresh)
        fresh.pack(time.time(), referencesf)
        assert contents(fresh) == before
        bank.move("c", "d")
        network.run()
        assert total(database(fresh)) == WHOLE


class TestAChain:
    def test_what_is_held_back_is_not_passed_on(
        self, behind, bank, open_primary, open_secondary, database, network, tmp_path
    ):
        middle = open_primary(behind, ("", 8001))
        end = open_secondary(open_file_storage(tmp_path / "end"), ("", 8001))
        network.run()
        bank.move("c", "d")
        before, last = behind.lastTransaction(), bank.db.storage.lastTransaction()
        assert end.lastTransaction() == before
        databases = database(middle), database(end)
        behind.setReplicationAddress(":8000")
        step_into_run(network, behind)
        behind.setReplicationAddress(":8999")
        network.advance(10)
        network.run()
        assert end._storage.lastTransaction() == middle.lastTransaction() == before
        assert [total(each) for each in databases] == [WHOLE, WHOLE]
        # Also to one that comes now.
        new = open_secondary(open_file_storage(tmp_path / "new"), ("", 8001))
        network.run()
        assert new._storage.lastTransaction() == before
        behind.setReplicationAddress(":8000")
        for _ in steps(network, lambda: end.lastTransaction() == last):
            assert [total(each) for each in databases] == [WHOLE, WHOLE]
        network.run()
        assert new.lastTransaction() == last


class TestVisibility:
    """Without a storage."""

    @pytest.fixture
    def delivered(self):
        return []

    def make(self, delivered, last=b"\0\0\0\0\0\0\0\1", holds=True):
        return Visibility(last, lambda tid, oids: delivered.append((tid, oids)), holds=holds)

    def put(self, visibility, number, *oids, packed=False):
        if packed:
            visibility.packed_begins(p64(number))
        visibility.committed(p64(number), list(oids))

    def test_changes_of_a_run_are_delivered_together(self, delivered):
        visibility = self.make(delivered)
        self.put(visibility, 2, b"a" * 8)
        self.put(visibility, 3, b"b" * 8, b"c" * 8, packed=True)
        self.put(visibility, 4, b"b" * 8, packed=True)
        assert visibility.held == visibility.limit() == p64(2)
        self.put(visibility, 5, b"d" * 8)
        assert delivered == [(p64(2), [b"a" * 8]), (p64(5), [c * 8 for c in (b"b", b"c", b"d")])]
        assert (visibility.held, visibility.limit(), visibility.incomplete) == (None, None, False)

    def test_a_batch_of_several_runs(self, delivered):
        visibility = self.make(delivered)
        for number in (3, 5):
            visibility.packed_begins(p64(number))
        for number in (2, 3, 4, 5):
            visibility.committed(p64(number), [])
        assert visibility.held == p64(4)
        assert [tid for tid, _ in delivered] == [p64(2), p64(4)]

    def test_one_that_was_given_up_does_not_count(self, delivered):
        visibility = self.make(delivered)
        visibility.packed_begins(p64(2))
        visibility.packed_begins(p64(3))
        visibility.packed_begins(p64(2))
        self.put(visibility, 2)
        assert visibility.held == p64(1)
        self.put(visibility, 3)
        assert visibility.held is None

    @pytest.mark.parametrize(("last", "holds"), [(NO_TID, True), (p64(1), False)])
    def test_without_a_state_before_all_is_delivered(self, last, holds, delivered):
        visibility = self.make(delivered, last, holds)
        self.put(visibility, 2, packed=True)
        assert (visibility.held, visibility.limit()) == (None, NO_TID)
        assert visibility.incomplete
        self.put(visibility, 3, packed=True)
        self.put(visibility, 4)
        assert not visibility.incomplete
        assert [tid for tid, _ in delivered] == [p64(2), p64(3), p64(4)]

    def test_it_settles_only_when_it_may(self, delivered):
        visibility = self.make(delivered)
        assert not visibility.settle()
        self.put(visibility, 2, b"a" * 8, packed=True)
        assert visibility.settle()
        assert delivered == [(p64(2), [b"a" * 8])]
        assert not visibility.incomplete


class TestTheNote:
    @pytest.fixture
    def left(self, behind, network):
        """The file of a secondary that was closed within a run, and its position before."""
        before = behind.lastTransaction()
        behind.setReplicationAddress(":8000")
        step_into_run(network, behind)
        path, blobs = behind.getName(), behind.fshelper.base_dir
        behind.close()
        assert RunNote(path).read() == before
        return path, blobs, before

    def incomplete(self, left, open_secondary):
        path, blobs, _ = left
        secondary = open_secondary(FileStorage(path, blob_dir=blobs), ("", 8999))
        return secondary.progress.incomplete, secondary.lastTransaction()

    @pytest.mark.parametrize("text", ["", "0x12", "nothing", "\xff" * 200])
    def test_a_damaged_one_leaves_it_not_ready(self, text, left, open_secondary):
        path, *_ = left
        with open(path + ".incomplete", "w", encoding="latin-1") as file:
            file.write(text)
        incomplete, last = self.incomplete(left, open_secondary)
        assert incomplete
        assert last > left[2]

    def test_one_of_another_file_does_not_count(self, left, open_secondary):
        path, _, before = left
        RunNote(path).write(p64(u64(before) - 1))
        assert not self.incomplete(left, open_secondary)[0]
        assert not os.path.exists(path + ".incomplete")

    def test_one_that_is_late_does_not_count(self, left, open_secondary, database):
        path, blobs, _ = left
        storage = FileStorage(path, blob_dir=blobs)
        with database(storage).transaction() as connection:
            connection.root()["more"] = 1
        storage.close()
        assert not self.incomplete(left, open_secondary)[0]

    def test_it_does_not_count_for_an_empty_file(self, left, open_secondary):
        path, *_ = left
        os.remove(path)
        os.remove(path + ".index")
        assert self.incomplete(left, open_secondary) == (False, NO_TID)

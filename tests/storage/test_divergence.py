"""A secondary that compares its last transaction with what its primary sends of it.

The primaries are ours, but most do not look whether they hold a start, as those of zc.zrs: they
send whatever is later.
"""

from __future__ import annotations

import logging
import os
import random
import shutil
import time

import pytest
import transaction
import ZODB
from persistent.mapping import PersistentMapping
from ZODB.blob import Blob
from ZODB.Connection import TransactionMetaData
from ZODB.serialize import referencesf
from ZODB.utils import p64

from zrs_core.errors import StartError
from zrs_core.messages import NO_TID
from zrs_core.progress import Divergence, State
from zrs_core.sessions import ANSWER_TIME, SecondaryTimes
from zrs_core.storage import fs_sink, fs_source
from zrs_core.storage.generic_sink import GenericSink

from ..databases import blob_files, contents, open_file_storage, temporary_files

#: How a secondary restores: all at once, a transaction at a time, as into any storage.
SINKS = ["appending", "restoring", "generic"]


@pytest.fixture(params=SINKS)
def sink(request, monkeypatch):
    if request.param == "restoring":
        monkeypatch.setattr(
            fs_sink,
            "file_storage_sink",
            lambda storage, invalidate, durability: fs_sink.FileStorageSink(storage, invalidate),
        )
        monkeypatch.setattr("zrs_core.storage.opening.file_storage_sink", fs_sink.file_storage_sink)
    elif request.param == "generic":
        monkeypatch.setattr(
            "zrs_core.storage.opening.file_storage_sink",
            lambda storage, invalidate, durability: GenericSink(storage, invalidate),
        )
    return request.param


@pytest.fixture
def old_primaries(monkeypatch):
    """Primaries that serve every start that is not too high."""

    def check(self):
        if self._tid > self._source.last_tid():
            raise StartError("transaction id too high")

    monkeypatch.setattr(fs_source.FileStorageReader, "_check_start", check)


@pytest.fixture(autouse=True)
def _log_level(caplog):
    caplog.set_level(logging.INFO, "zrs_core")


def commit(path, count=1, blob=None, **values):
    """Commit to the database in a directory, which nobody has open."""
    db = ZODB.DB(open_file_storage(path))
    for number in range(count):
        with db.transaction() as connection:
            connection.root().update(number=number, **values)
            if blob is not None:
                connection.root()["blob"] = Blob(blob)
    db.close()


def copy(path, other):
    """Two databases with the same history."""
    shutil.copytree(path, other)


def errors(caplog, logger="zrs_core.secondary"):
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.ERROR and record.name == logger
    ]


def held(path):
    storage = open_file_storage(path)
    try:
        return contents(storage)
    finally:
        storage.close()


@pytest.fixture
def both(tmp_path):
    """The directories of a primary and of a secondary with the same history."""
    primary, secondary = tmp_path / "primary", tmp_path / "secondary"
    commit(primary, 3, blob=b"a blob" * 20_000)
    copy(primary, secondary)
    return primary, secondary


@pytest.fixture
def join(network, open_primary, open_secondary, both):
    """Both opened, and all that there is to send sent."""

    def join_them(primary_options=None, **options):
        primary = open_primary(open_file_storage(both[0]), **(primary_options or {}))
        secondary = open_secondary(open_file_storage(both[1]), **options)
        network.run()
        return primary, secondary

    return join_them


class TestEqual:
    def test_the_last_one_is_asked_for_again_and_not_applied_again(
        self, sink, old_primaries, join, both, database, network, caplog
    ):
        files = blob_files(both[1])
        primary, secondary = join()
        [_, _, before, last] = contents(secondary)
        [asked] = [m for m in caplog.messages if m.startswith(":8000: start") and "one" in m]
        assert before.tid.hex() in asked.split(",")[0]
        assert last.tid.hex() in asked.split(",")[1]
        assert secondary.progress.state is State.REPLICATING
        assert secondary.progress.bytes > len(b"a blob" * 20_000)
        assert secondary.progress.transactions == 0
        with database(primary).transaction() as connection:
            connection.root()["more"] = 1
        network.run()
        assert secondary.progress.transactions == 1
        assert contents(secondary) == contents(primary)
        assert blob_files(both[1]) == files
        assert temporary_files(both[1] / "blobs") == []
        assert not errors(caplog)

    def test_what_follows_comes_at_once(self, sink, old_primaries, both, join, caplog):
        commit(both[0], 5, blob=b"another")
        primary, secondary = join()
        assert contents(secondary) == contents(primary)
        assert secondary.progress.transactions == 5
        assert not errors(caplog)

    def test_a_single_transaction_is_asked_for_from_the_beginning(
        self, sink, old_primaries, open_primary, open_secondary, network, tmp_path, caplog
    ):
        commit(tmp_path / "primary", 0)
        copy(tmp_path / "primary", tmp_path / "secondary")
        commit(tmp_path / "primary", 4)
        primary, secondary = open_primary(), open_secondary()
        network.run()
        assert contents(secondary) == contents(primary)
        assert secondary.progress.transactions == 4
        assert any(f"start 0x{NO_TID.hex()}" in message for message in caplog.messages)

    def test_with_primaries_that_look(self, sink, join, both):
        commit(both[0])
        primary, secondary = join()
        assert contents(secondary) == contents(primary)

    def test_pickles_of_protocol_1(self, sink, old_primaries, join, both):
        commit(both[0])
        primary, secondary = join({"pickle_protocol": 1})
        assert contents(secondary) == contents(primary)

    def test_undo_and_undone_creations(
        self, sink, old_primaries, open_primary, open_secondary, network, tmp_path, caplog
    ):
        path = tmp_path / "primary"
        commit(path, a=PersistentMapping())
        db = ZODB.DB(open_file_storage(path))
        for _ in range(2):
            db.undo(db.undoLog(0, 1)[0]["id"])
            transaction.commit()
        db.close()
        copy(path, tmp_path / "secondary")
        commit(path)
        primary, secondary = open_primary(), open_secondary()
        network.run()
        assert contents(secondary) == contents(primary)
        assert not errors(caplog)

    def test_a_missing_blob_does_not_count(self, old_primaries, join, both, caplog):
        for path in (both[1] / "blobs").rglob("*.blob"):
            path.chmod(0o644)
            os.remove(path)
        commit(both[0])
        primary, secondary = join()
        assert secondary.lastTransaction() == primary.lastTransaction()
        assert "is missing here" in caplog.text

    def test_a_cut_at_every_place(self, sink, old_primaries, join, both, database, network):
        """Nothing of what is compared comes in, wherever the comparison ends."""
        primary, secondary = join()
        before = contents(secondary)
        chance = random.Random(0)
        for _ in range(20):
            network.cut()
            network.advance(100)
            network.chunk_size = chance.randrange(1, 500)
            for _ in range(chance.randrange(400)):
                network.step()
        network.chunk_size = 65_536
        assert contents(secondary) == before
        with database(primary).transaction() as connection:
            connection.root()["more"] = 1
        network.cut()
        network.advance(100)
        network.run()
        assert contents(secondary) == contents(primary)
        assert temporary_files(both[1] / "blobs") == []

    def test_a_cascade(self, sink, old_primaries, both, open_primary, open_secondary, network):
        copy(both[0], both[0].with_name("last"))
        commit(both[0], 2)
        primary = open_primary()
        middle = open_primary(open_secondary(), ("", 8001))
        last = open_secondary(open_file_storage(both[0].with_name("last")), ("", 8001))
        network.run()
        assert contents(last) == contents(middle) == contents(primary)


class TestDiverged:
    def refused(self, secondary, both, network, caplog, *tids):
        """The secondary says so once, with these tids, and stays as it was."""
        before = held_by(secondary)
        search(network, secondary)
        [error] = errors(caplog)
        assert ": the histories have diverged: the " in error
        for tid in tids:
            assert f"0x{tid.hex()}" in error
        assert "replicate into an empty storage" in error
        assert secondary.progress.state is State.DIVERGED
        assert secondary.progress.failure in error
        for _ in range(2):
            network.advance(100)
            network.run()
        assert errors(caplog) == [error]
        assert secondary.progress.failures == 3
        assert held_by(secondary) == before
        assert temporary_files(both[1] / "blobs") == []

    def test_both_have_gone_on(self, sink, old_primaries, join, both, network, caplog):
        commit(both[1], mistake=True)
        commit(both[0], truth=True)
        primary, secondary = join()
        *_, before, last = contents(secondary)
        newest = contents(primary)[-1].tid
        self.refused(secondary, both, network, caplog, before.tid, last.tid, newest)

    def test_the_primary_has_one_in_between(self, old_primaries, join, both, network, caplog):
        commit(both[0])
        commit(both[1])
        primary, secondary = join()
        *_, before, last = contents(secondary)
        between = contents(primary)[-1].tid
        assert before.tid < between < last.tid
        network.run()
        with ZODB.DB(primary).transaction() as connection:
            connection.root()["more"] = 1
        search(network, secondary)
        [error] = errors(caplog)
        assert before.tid.hex() in error
        assert f"the primary sends 0x{between.hex()}" in error
        assert "which comes before that" in error
        assert contents(secondary)[-1] == last

    def test_the_same_tid_with_another_record(
        self, sink, old_primaries, tmp_path, open_primary, open_secondary, network, caplog
    ):
        both = tmp_path / "primary", tmp_path / "secondary"
        for path, data in zip(both, (b"one", b"two"), strict=True):
            store(path, [(1, {bytes(8): b"root"}), (2, {bytes(8): data})])
        secondary = start(open_primary, open_secondary, network, both)
        self.refused(secondary, both, network, caplog, tid(1), tid(2))
        assert "with another record of object 0x0000000000000000" in errors(caplog)[0]

    def test_the_same_tid_with_another_blob(self, sink, old_primaries, join, both, network, caplog):
        [*_, path] = sorted((both[1] / "blobs").rglob("*.blob"))
        path.chmod(0o644)
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        _, secondary = join()
        self.refused(secondary, both, network, caplog)
        assert "with another blob of object" in errors(caplog)[0]

    def test_a_hole_in_the_last_transaction(
        self, sink, old_primaries, tmp_path, open_primary, open_secondary, network, caplog
    ):
        """What a power loss may leave of a transaction that was not synced."""
        both = tmp_path / "primary", tmp_path / "secondary"
        for path in both:
            store(path, [(1, {bytes(8): b"root"}), (2, {bytes(8): b"x" * 20_000})])
        with (both[1] / "Data.fs").open("r+b") as file:
            file.seek(8192)
            file.write(bytes(4096))
        secondary = start(open_primary, open_secondary, network, both)
        self.refused(secondary, both, network, caplog, tid(1), tid(2))
        assert "with another record of object 0x0000000000000000" in errors(caplog)[0]

    def test_another_database(
        self, sink, old_primaries, tmp_path, open_primary, open_secondary, network, caplog
    ):
        both = tmp_path / "primary", tmp_path / "secondary"
        for path in reversed(both):
            commit(path, 3)
        secondary = start(open_primary, open_secondary, network, both)
        self.refused(secondary, both, network, caplog, secondary.lastTransaction())

    def test_one_that_holds_a_single_transaction(
        self, sink, old_primaries, tmp_path, open_primary, open_secondary, network, caplog
    ):
        both = tmp_path / "primary", tmp_path / "secondary"
        for path in reversed(both):
            commit(path, 0)
        secondary = start(open_primary, open_secondary, network, both)
        self.refused(secondary, both, network, caplog, secondary.lastTransaction())
        assert "the two have no transaction in common" in errors(caplog)[0]

    def test_the_middle_of_a_cascade_and_who_follows_it_stay(
        self, old_primaries, both, open_primary, open_secondary, network, caplog
    ):
        commit(both[1], mistake=True)
        commit(both[0], truth=True)
        copy(both[1], both[0].with_name("last"))
        open_primary()
        middle = open_primary(open_secondary(), ("", 8001))
        last = open_secondary(open_file_storage(both[0].with_name("last")), ("", 8001))
        before = contents(last)
        search(network, middle)
        assert contents(last) == contents(middle) == before
        assert middle.progress.state is State.DIVERGED
        assert last.progress.state is State.REPLICATING

    def test_it_goes_on_once_the_primary_is_right(
        self, old_primaries, join, both, network, open_primary, caplog
    ):
        copy(both[0], both[0].with_name("right"))
        commit(both[0].with_name("right"), 2)
        commit(both[0])
        shutil.rmtree(both[1])
        copy(both[0].with_name("right"), both[1])
        primary, secondary = join()
        network.run()
        with ZODB.DB(primary).transaction() as connection:
            connection.root()["more"] = 1
        search(network, secondary)
        assert secondary.progress.state is State.DIVERGED
        primary.close()
        right = open_primary(open_file_storage(both[0].with_name("right")))
        network.advance(100)
        network.run()
        assert secondary.progress.state is State.REPLICATING
        assert secondary.progress.failure is None
        assert contents(secondary) == contents(right)
        assert any("replicating again after 1 failed" in message for message in caplog.messages)

    def test_without_comparing_the_histories_are_merged(self, old_primaries, join, both, caplog):
        """Which is why it is compared; a primary of this package refuses, see below."""
        commit(both[1], mistake=True)
        commit(both[0], truth=True)
        primary, secondary = join(max_compared_size=0)
        assert len(contents(secondary)) == len(contents(primary)) + 1
        assert not errors(caplog)


def search(network, secondary):
    """Let the search for the last common transaction come to its end."""
    for _ in range(80):
        network.run()
        if secondary.progress.failure is not None:
            break
        network.advance(2)


def held_by(secondary):
    return contents(secondary), secondary.lastTransaction()


def tid(number):
    return p64(0x03C0000000000000 + (number << 32))


def store(path, transactions):
    """A database of transactions with these tids and records."""
    storage = open_file_storage(path)
    for number, records in transactions:
        metadata = TransactionMetaData()
        storage.tpc_begin(metadata, tid(number))
        for oid, data in records.items():
            storage.restore(oid, tid(number), data, "", None, metadata)
        storage.tpc_vote(metadata)
        storage.tpc_finish(metadata)
    storage.close()


def start(open_primary, open_secondary, network, both):
    open_primary(open_file_storage(both[0]))
    secondary = open_secondary(open_file_storage(both[1]))
    network.run()
    return secondary


class TestLargeTransactions:
    def test_they_are_not_sent_again(self, sink, old_primaries, join, both, caplog):
        commit(both[0])
        primary, secondary = join(max_compared_size=100_000)
        assert contents(secondary) == contents(primary)
        assert "not compared: it has at least 120" in caplog.text

    def test_large_records(self, sink, tmp_path, open_primary, open_secondary, network, caplog):
        both = tmp_path / "primary", tmp_path / "secondary"
        for path in both:
            store(path, [(1, {bytes(8): b"root"}), (2, {bytes(8): b"x" * 5000})])
        open_primary(open_file_storage(both[0]))
        open_secondary(open_file_storage(both[1]), max_compared_size=5000 - 1)
        network.run()
        assert "not compared: it has at least 5" in caplog.text


class TestPacked:
    """A pack explains some differences; others it does not."""

    def pack(self, path, days_ago=0):
        storage = open_file_storage(path)
        storage.pack(time.time() - days_ago, referencesf)
        storage.close()

    def test_the_primary(self, sink, old_primaries, join, both, caplog):
        self.pack(both[0])
        commit(both[0], 2)
        primary, secondary = join()
        assert contents(secondary)[-2:] == contents(primary)[-2:]
        assert not errors(caplog)

    def test_the_primary_past_the_last_one_of_the_secondary(
        self, sink, old_primaries, join, both, caplog
    ):
        commit(both[0], 2, blob=b"another")
        self.pack(both[0])
        commit(both[0])
        last = held(both[1])[-1].tid
        primary, secondary = join()
        assert last not in [each.tid for each in contents(primary)]
        assert secondary.lastTransaction() == primary.lastTransaction()
        assert "compared: a pack of the primary may have removed it" in caplog.text
        assert not errors(caplog)

    def test_the_secondary(self, sink, old_primaries, join, both, database, network, caplog):
        self.pack(both[1])
        commit(both[0], 2)
        primary, secondary = join()
        assert contents(secondary)[-2:] == contents(primary)[-2:]
        assert "not compared: a pack here has gone over it" in caplog.text
        network.cut()
        network.advance(1)
        with database(primary).transaction() as connection:
            connection.root()["more"] = 1
        network.run()
        assert contents(secondary)[-3:] == contents(primary)[-3:]
        assert not errors(caplog)

    def test_both(self, sink, old_primaries, join, both, caplog):
        for path in both:
            self.pack(path)
        commit(both[0])
        primary, secondary = join()
        assert contents(secondary) == contents(primary)
        assert not errors(caplog)

    def test_the_secondary_while_it_compares(
        self, old_primaries, join, both, network, database, caplog
    ):
        primary, secondary = join()
        network.cut()
        network.advance(1)
        network.chunk_size = 1000
        for _ in range(50):
            network.step()
        network.chunk_size = 65_536
        assert secondary.progress.state is State.COMPARING
        secondary.pack(time.time(), referencesf)
        with database(primary).transaction() as connection:
            connection.root()["more"] = 1
        network.run()
        assert secondary.lastTransaction() == primary.lastTransaction()
        assert not errors(caplog)


class TestAPrimaryThatLooks:
    """One of this package refuses by itself what it does not hold."""

    @pytest.mark.parametrize("compared", [0, 1 << 20])
    def test_it_refuses_one_that_has_gone_on(self, compared, join, both, network, caplog):
        commit(both[1], 3)
        commit(both[0])
        _, secondary = join(max_compared_size=compared)
        common = contents(secondary)[-4].tid
        search(network, secondary)
        assert any(
            "the histories have diverged" in each for each in errors(caplog, "zrs_core.primary")
        )
        [error] = errors(caplog)
        assert f"the last transaction that both hold is 0x{common.hex()}" in error
        assert "this secondary holds 3 transactions" in error
        assert secondary.lastTransaction().hex() in error
        assert "replicate into an empty storage" in error
        assert secondary.progress.state is State.DIVERGED
        assert secondary.progress.divergence == Divergence(common, 3)
        assert secondary.progress.transactions == 0

    def test_it_lacks_the_very_last_one_alone(self, join, both, network, caplog):
        """Then it serves the one before, and has nothing to send."""
        commit(both[1])
        _, secondary = join()
        assert secondary.progress.state is State.COMPARING
        network.advance(ANSWER_TIME)
        network.run()
        assert "has sent nothing after" in caplog.text
        search(network, secondary)
        assert "is later than this primary's last one" in errors(caplog, "zrs_core.primary")[0]
        [*_, before, last] = contents(secondary)
        [error] = errors(caplog)
        assert f"the last transaction that both hold is 0x{before.tid.hex()}" in error
        assert "and the primary has nothing after it" in error
        assert secondary.lastTransaction() == last.tid
        assert secondary.progress.state is State.DIVERGED

    def test_it_goes_on_while_nobody_has_looked(self, join, both, network, database, caplog):
        commit(both[1])
        primary, secondary = join({"pickle_protocol": 1})
        before = contents(secondary)
        network.advance(ANSWER_TIME)
        network.run()
        with database(primary).transaction() as connection:
            connection.root()["more"] = 1
        for _ in range(4):
            network.advance(100)
            network.run()
            assert contents(secondary) == before
        assert secondary.progress.state is not State.REPLICATING
        assert errors(caplog)

    def test_one_that_was_silent_and_goes_on_is_compared_first(
        self, sink, both, join, network, database, monkeypatch, caplog
    ):
        """Nobody has refused anything, so that nobody needs to have looked."""
        monkeypatch.setattr(fs_source.FileStorageReader, "_check_start", lambda self: None)
        commit(both[1])
        primary, secondary = join()
        before = contents(secondary)
        network.advance(ANSWER_TIME)
        network.run()
        network.advance(1)
        network.run()
        assert "not compared: the primary has sent nothing after" in caplog.text
        with database(primary).transaction() as connection:
            connection.root()["truth"] = True
        for _ in range(4):
            network.run()
            assert contents(secondary) == before
            network.advance(60)
        assert "the primary has something to send; will compare first" in caplog.text
        assert secondary.progress.state is State.DIVERGED

    @pytest.mark.parametrize("takes_its_time", [False, True])
    def test_it_refuses_the_one_before_since_that_was_packed_away(
        self, takes_its_time, sink, both, join, network, monkeypatch, caplog
    ):
        """Then the last one itself is asked for, which it has looked for."""
        commit(both[0])
        before = held(both[1])[-2].tid
        check = fs_source.FileStorageReader._check_start

        def check_start(self):
            if takes_its_time:
                network.now += SecondaryTimes().refusal + 1
            if self._tid == before:
                raise StartError("it was packed away")
            check(self)

        monkeypatch.setattr(fs_source.FileStorageReader, "_check_start", check_start)
        primary, secondary = join()
        assert contents(secondary) != contents(primary)
        network.advance(1)
        network.run()
        assert contents(secondary) == contents(primary)
        assert "not compared: the primary does not serve" in caplog.text
        assert not errors(caplog)

    def test_but_one_that_may_not_look_is_not_believed(
        self, old_primaries, both, join, network, database, monkeypatch, caplog
    ):
        """zc.zrs refuses what is too late, and may have gone on a moment after."""
        commit(both[1], 2)
        primary, secondary = join({"pickle_protocol": 1})
        before = contents(secondary)
        assert secondary.progress.refusals == 1
        with database(primary).transaction() as connection:
            connection.root()["truth"] = True
        search(network, secondary)
        [error] = errors(caplog)
        assert f"the last transaction that both hold is 0x{before[-3].tid.hex()}" in error
        assert contents(secondary) == before
        assert secondary.progress.state is State.DIVERGED


class TestCleanUpThatFails:
    def test_it_connects_again(
        self, sink, open_primary, open_secondary, network, database, monkeypatch, caplog
    ):
        """Whatever giving up a transaction raises, and wherever the connection ended in it."""
        primary, secondary = open_primary(), open_secondary()
        replicating = secondary._client.sink
        abort = replicating.abort

        def abort_and_fail():
            abort()
            raise OSError("Input/output error")

        monkeypatch.setattr(replicating, "abort", abort_and_fail)
        with database(primary).transaction() as connection:
            connection.root()["blob"] = Blob(b"a blob" * 20_000)
        network.chunk_size = 1000
        for steps in range(1, 40, 4):
            for _ in range(steps):
                network.step()
            network.cut()
            network.advance(100)
        network.run()
        assert contents(secondary) == contents(primary)
        assert "cannot clean up after an unfinished transaction" in caplog.text
        monkeypatch.undo()

"""Databases that were packed up to different transactions."""

from __future__ import annotations

import contextlib
import random
import shutil

import pytest
import transaction
import ZODB
from ZODB.blob import Blob

from tests.databases import open_file_storage, traffic
from tests.storage.relstorages import open_on_sqlite
from tests.verify.conftest import Database, pack, verified
from tests.verify.test_stream import primary_of
from zrs_core.errors import Unverifiable
from zrs_core.messages import NO_TID
from zrs_core.tools.verify import stream
from zrs_core.tools.verify.sources import Source

WAIT = 0.2


def commit_to_both(a, b, change, shared=True):
    """Commit to A and replicate that to B; if not `shared`, with copies of shared data."""
    before = {header.tid for header in a.headers}
    db = ZODB.DB(open_file_storage(a.directory))
    change(db)
    target = open_file_storage(b.directory)
    for each in db.storage.iterator():
        if each.tid in before:
            continue
        target.tpc_begin(each, each.tid, each.status)
        for record in each:
            arguments = record.oid, record.tid, record.data
            data_txn = record.data_txn if shared else None
            with contextlib.suppress(Exception):
                blob = db.storage.loadBlob(record.oid, record.tid)
                copy = b.directory / "copy"
                shutil.copy(blob, copy)
                target.restoreBlob(*arguments, str(copy), data_txn, each)
                continue
            target.restore(*arguments, "", data_txn, each)
        target.tpc_vote(each)
        target.tpc_finish(each)
    target.close()
    db.close()


def some_commits(db):
    for number in range(5):
        with db.transaction() as connection:
            connection.root()["after"] = Blob(b"%d" % number)


def in_both_orders(a, b, **options):
    for one, other in ((a, b), (b, a)):
        yield verified(one, other, **{"wait": WAIT, **options})


def test_one_is_packed(packed):
    a, b = packed
    last = b.headers[-1].tid
    commit_to_both(a, b, some_commits)
    for report in in_both_orders(a, b):
        assert report.equal
        assert report.differences == []
        assert sorted(report.packs) == [NO_TID, last]
        assert report.transactions == 5
        assert report.records > 50
        assert report.garbage > 0
        assert report.blobs_compared
        assert report.blobs > 5
        assert report.last == b.headers[-1].tid


def undo(db):
    with db.transaction() as connection:
        connection.root()["undone"] = 1
    db.undo(db.undoInfo(0, 1)[0]["id"])
    transaction.commit()


def test_data_that_were_copied_during_a_pack(packed):
    """One has a copy of the data, and the other one points to them."""
    a, b = packed
    commit_to_both(a, b, undo, shared=False)
    for report in in_both_orders(a, b):
        assert report.equal
        assert report.transactions == 2
    b.flip(b.headers[-1].end - 1)
    for report in in_both_orders(a, b):
        assert report.counts == {"record": 1}


def test_both_are_packed(packed):
    a, b = packed
    commit_to_both(a, b, some_commits)
    pack(b)
    commit_to_both(a, b, some_commits)
    for report in in_both_orders(a, b):
        assert report.equal
        assert NO_TID not in report.packs
        assert report.transactions == 5


def test_both_hold_what_one_pack_has_left(packed):
    """A secondary of a packed primary: all is compared, transaction by transaction."""
    a, b = packed
    shutil.rmtree(b.directory)
    shutil.copytree(a.directory, b.directory)
    for report in in_both_orders(a, b):
        assert report.equal
        assert report.packs is None
        assert report.transactions == len(a.headers)


@pytest.mark.parametrize("where", ["before", "after", "meta data", "blob before", "blob after"])
def test_what_differs_is_found(packed, where):
    a, b = packed
    commit_to_both(a, b, some_commits)
    kind = {"meta data": "meta data", "before": "record", "after": "record"}.get(where, "blob")
    if where == "before":
        # What a pack has left is current.
        a.flip(a.headers[3].end - 1)
    elif where == "after":
        b.flip(b.headers[-1].end - 1)
    elif where == "meta data":
        commit_to_both(a, b, lambda db: commit_with_note(db, b"some note"))
        b.write(b.headers[-1].pos + 23, b"X")
    else:
        blobs = {each.relative_to(a.blobs) for each in a.all_blobs()}
        newest = a.headers[-1].tid.hex()
        after = [each for each in blobs if newest in each.name]
        old = sorted(blobs - {e for h in a.headers[-5:] for e in blobs if h.tid.hex() in e.name})
        path = b.blobs / (after if where == "blob after" else old)[0]
        path.chmod(0o600)
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    for report in in_both_orders(a, b):
        assert report.counts == {kind: 1}
        assert report.packs is not None


def commit_with_note(db, note):
    with db.transaction(note.decode()) as connection:
        connection.root()["noted"] = 1


def test_one_that_is_behind(packed):
    """A pack went over what B does not hold yet."""
    a, b = packed
    with b.path.open("r+b") as file:
        file.truncate(b.headers[-2].pos)
    for report in in_both_orders(a, b):
        assert "record" in report.counts
        assert report.packs is not None
    for one, other in ((a, b), (b, a)):
        with pytest.raises(Unverifiable, match=r"was packed up to 0x.* which . does not hold"):
            verified(one, other, common=True)


def test_common(packed):
    a, b = packed
    before = len(b.headers)
    commit_to_both(a, b, some_commits)
    with b.path.open("r+b") as file:
        file.truncate(b.headers[before + 2].pos)
    report = verified(a, b, common=True)
    assert report.equal
    assert (report.transactions, report.beyond) == (2, [3, 0])


@pytest.mark.parametrize("packed_side", ["primary", pytest.param("file", marks=pytest.mark.long)])
def test_the_address_of_a_primary(packed, packed_side):
    a, b = packed
    commit_to_both(a, b, some_commits)
    served, file = (a, b) if packed_side == "primary" else (b, a)
    with primary_of(served) as (_, source):
        for report in in_both_orders(source, file):
            assert report.equal
            assert report.packs is not None
            assert report.transactions == 5
            assert report.garbage > 0
            assert report.blobs > 5
        path = file.all_blobs()[-1]
        path.unlink()
        assert sum(report.counts.total() for report in in_both_orders(source, file)) == 2


def test_one_connection_at_a_time(packed, monkeypatch):
    """A primary may be allowed few."""
    a, b = packed
    connect, close, opened, most = stream.PrimaryStream._connect, stream.PrimaryStream.close, [], []

    def counted(self, *arguments):
        opened.append(self)
        most.append(len(opened))
        return connect(self, *arguments)

    def closed(self):
        if self in opened:
            opened.remove(self)
        close(self)

    monkeypatch.setattr(stream.PrimaryStream, "_connect", counted)
    monkeypatch.setattr(stream.PrimaryStream, "close", closed)
    with primary_of(a) as (_, source):
        report = verified(source, b, wait=WAIT)
    assert report.packs is not None
    assert most == [1, 1]
    assert opened == []


def test_a_storage(packed, tmp_path):
    a, b = packed
    commit_to_both(a, b, some_commits)
    storage = open_on_sqlite(tmp_path / "rel")
    source = open_file_storage(b.directory)
    storage.copyTransactionsFrom(source)
    source.close()
    storage.close()
    opened = Source("rel", open=lambda: open_on_sqlite(tmp_path / "rel"))
    for report in in_both_orders(a, opened, deep=True):
        assert report.equal
        assert report.packs is not None
        assert report.transactions == 5


def test_a_file_that_is_damaged_within(packed):
    """What can be found is reported."""
    a, b = packed
    commit_to_both(a, b, some_commits)
    b.write(b.headers[10].pos + 8, bytes(8))
    report = verified(a, b)
    assert report.counts["damaged"] == 1
    assert report.packed
    assert report.packs is None


def test_a_run_that_goes_on(packed, tmp_path):
    """An interrupted run compares from the beginning once it has found that one was packed."""
    a, b = packed
    state = tmp_path / "state"

    class Stop(Exception):
        pass

    def watch(what, done, total):
        if what == "Objects" and done > 10:
            raise Stop

    with pytest.raises(Stop):
        verified(a, b, state=state, watch=watch)
    report = verified(a, b, state=state)
    assert report.equal
    assert report.packs is not None
    assert not state.exists()


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
def test_traffic_with_packs(tmp_path, seed):
    """Nothing that replication and packs of either side bring about is a difference."""
    chance = random.Random(seed)
    a, b = Database(tmp_path / "a"), Database(tmp_path / "b")
    with traffic(open_file_storage(a.directory), seed) as commit:
        commit.commit(20)
    shutil.copytree(a.directory, b.directory)
    for _ in range(4):
        commit_to_both(a, b, some_commits)
        if chance.random() < 0.7:
            pack(chance.choice((a, b)))
        for report in in_both_orders(a, b, deep=True):
            assert report.equal, report

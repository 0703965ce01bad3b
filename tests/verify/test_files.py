"""Files in use, runs that are interrupted and gone on with, databases of which one is packed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import threading
import time

import pytest
import transaction
import ZODB
from persistent.mapping import PersistentMapping
from ZODB.blob import Blob

from tests.cli.conftest import snapshot_of
from tests.databases import open_file_storage
from tests.verify.conftest import Database, verified
from zrs_core.errors import ConfigurationError, UnsuitableStorage, Unverifiable
from zrs_core.tools.verify import files, saved
from zrs_core.tools.verify.files import VerifiedFile


def append(database, data):
    with database.path.open("ab") as file:
        file.write(data)


def test_nothing_is_written(pair):
    a, b = pair
    before = [snapshot_of(each.directory) for each in pair]
    verified(a, b, deep=True)
    verified(a, b, deep=True, current=True)
    assert [snapshot_of(each.directory) for each in pair] == before


def test_what_comes_while_it_compares(pair):
    """B gets its last transactions late; what A gets after it was opened does not count."""
    a, b = pair
    last = a.headers[-1]
    rest = a.read(a.headers[-3].pos, last.next)
    with b.path.open("r+b") as file:
        file.truncate(a.headers[-3].pos)

    def watch(what, done, total):
        if b.path.stat().st_size < a.path.stat().st_size:
            append(b, rest)
            shutil.copy(a.path, a.directory / "copy")
            later = (int.from_bytes(last.tid, "big") + 1).to_bytes(8, "big")
            whole = a.read(last.pos, last.next - last.pos)
            append(a, later + whole[8:])

    report = verified(a, b, watch=watch)
    assert report.equal
    assert report.transactions == 61


def test_what_is_waited_for(pair):
    a, b = pair
    begin = a.headers[-2].pos
    rest = a.read(begin, a.headers[-1].next)
    with b.path.open("r+b") as file:
        file.truncate(begin)
    thread = threading.Timer(0.2, lambda: append(b, rest))
    thread.start()
    assert verified(a, b, wait=60).equal
    thread.join()


def test_what_is_finished_while_it_is_looked_at(pair, monkeypatch):
    """What was read ahead of it is not what it has become."""
    a, b = pair
    status = a.headers[-1].pos + 16
    b.write(status, b"c")
    complete_at = files.complete_at

    def finish(file, pos, last):
        if file.path == str(b.path) and pos == a.headers[-1].pos:
            b.write(status, b" ")
        return complete_at(file, pos, last)

    monkeypatch.setattr(files, "complete_at", finish)
    report = verified(a, b)
    assert report.equal
    assert report.transactions == 61


def test_databases_in_use(pair):
    a, b = pair
    storages = [open_file_storage(each.directory) for each in pair]
    try:
        assert verified(a, b, deep=True).equal
    finally:
        for each in storages:
            each.close()


@pytest.mark.parametrize("kind", ["common", "all"])
def test_a_database_that_grows(pair, kind):
    """One who commits, and one who compares with what it was."""
    a, b = pair
    db = ZODB.DB(open_file_storage(a.directory))
    done = threading.Event()

    def commit():
        manager = transaction.TransactionManager()
        connection = db.open(manager)
        while not done.is_set():
            connection.root()["blob"] = Blob(b"x" * 1000)
            manager.commit()
        connection.close()

    thread = threading.Thread(target=commit)
    thread.start()
    try:
        for _ in range(3):
            report = verified(a, b, common=kind == "common")
            assert report.counts.keys() <= {"missing transaction", "missing blob"}
            assert report.complete
            if kind == "common":
                assert report.equal
    finally:
        done.set()
        thread.join()
        db.close()


class Stopped(Exception):
    pass


def stopping(what, part=0.5):
    """Stops in the midst of a phase."""

    def watch(phase, done, total):
        if phase == what and done > total * part:
            raise Stopped

    return watch


@pytest.fixture
def always_due(monkeypatch):
    monkeypatch.setattr(saved, "_INTERVAL", 0)


@pytest.mark.usefixtures("always_due")
@pytest.mark.parametrize("phase", ["Transactions", "Blobs"])
def test_going_on(pair, tmp_path, phase, monkeypatch):
    monkeypatch.setattr("zrs_core.tools.verify.same_bytes.CHUNK_SIZE", 5000)
    monkeypatch.setattr("zrs_core.tools.verify.pairs.CHUNK_SIZE", 5000)
    a, b = pair
    for number in (5, 30, 55):
        b.flip(a.headers[number].end - 1)
    b.all_blobs()[0].unlink()
    b.all_blobs()[-1].unlink()
    expected = verified(a, b)
    state = tmp_path / "state"
    with pytest.raises(Stopped):
        verified(a, b, state=state, watch=stopping(phase))
    held = json.loads(state.read_text())["state"]
    assert 10 < held["report"]["transactions"] <= 61
    seen = []
    report = verified(a, b, state=state, watch=lambda *told: seen.append(told))
    assert report == expected
    assert not state.exists()
    if phase == "Transactions":
        assert seen[0][1] > seen[-1][2] / 4
    else:
        assert {what for what, *_ in seen} == {"Blobs"}


@pytest.mark.usefixtures("always_due")
def test_what_was_changed_since_is_begun_anew(pair, tmp_path):
    a, b = pair
    state = tmp_path / "state"

    def stop():
        with pytest.raises(Stopped):
            verified(a, b, state=state, watch=stopping("Blobs", -1))

    stop()
    # A byte that was compared already; a file system may count time in milliseconds.
    time.sleep(0.02)
    b.flip(a.headers[5].end - 1)
    assert verified(a, b, state=state).counts == {"record": 1}
    b.flip(a.headers[5].end - 1)
    stop()
    # The whole file is another one.
    shutil.copy(b.path, b.directory / "new")
    os.replace(b.directory / "new", b.path)
    seen = []
    assert verified(a, b, state=state, watch=lambda *told: seen.append(told)).equal
    assert {what for what, *_ in seen} == {"Transactions", "Blobs"}
    # One that has grown is the same.
    stop()
    append(b, b"\0" * 100)
    seen.clear()
    assert verified(a, b, state=state, watch=lambda *told: seen.append(told)).equal
    assert {what for what, *_ in seen} == {"Blobs"}
    # A blob that was changed since is compared again.
    stop()
    blob = b.all_blobs()[-1]
    blob.chmod(0o600)
    blob.write_bytes(b"another")
    assert verified(a, b, state=state).counts == {"blob": 1}


def test_a_file_that_is_no_state(pair, tmp_path):
    a, b = pair
    for content in ("", "[]", "{}", "x", '{"format": "another"}'):
        (tmp_path / "it").write_text(content)
        with pytest.raises(ConfigurationError, match="is not what zrs verify has saved"):
            verified(a, b, state=tmp_path / "it")
        assert (tmp_path / "it").read_text() == content
    with pytest.raises(ConfigurationError, match="is not what zrs verify has saved"):
        verified(a, b, state=a.path)
    with pytest.raises(ConfigurationError, match="is no directory for that"):
        verified(a, b, state=tmp_path / "nowhere" / "it")
    with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
        verified(a, b, state=tmp_path)
    with pytest.raises(ConfigurationError, match="leave out --state"):
        verified(a, b, state=tmp_path / "new", current=True)


@pytest.mark.parametrize("what", ["write", "rename"])
def test_a_state_that_cannot_be_written(tmp_path, monkeypatch, what):
    """What was saved before stays, and nothing else is left."""
    bound = {"A": {}, "B": {}, "options": {}}
    state = saved.Saved(str(tmp_path / "state"), bound)
    state.save({"number": 1})

    def fail(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(*((json, "dump") if what == "write" else (os, "replace")), fail)
        with pytest.raises(OSError, match="No space left"):
            state.save({"number": 2})
    assert os.listdir(tmp_path) == ["state"]
    assert saved.Saved(str(tmp_path / "state"), bound).state == {"number": 1}
    state.remove()
    state.remove()
    assert os.listdir(tmp_path) == []


def test_when_a_state_is_due(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(saved.time, "monotonic", lambda: clock[0])
    state = saved.Saved(str(tmp_path / "state"), {"A": {}, "B": {}, "options": {}})
    assert state.due()
    state.save({})
    assert not state.due()
    clock[0] += 1.9
    assert not state.due()
    clock[0] += 0.2
    assert state.due()


@pytest.mark.parametrize("side", ["A", "B"])
@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"size": 101, "changed": 6}, True),
        ({"size": 99}, False),
        ({"changed": 6}, False),
        ({"path": "another"}, False),
        ({"file": [1, 3]}, False),
        ({"blobs": None}, False),
    ],
)
def test_of_which_files_a_state_is(tmp_path, side, change, same):
    file = {"path": "a", "file": [1, 2], "size": 100, "changed": 5, "blobs": "b"}
    bound = {"A": file, "B": file, "options": {"common": True}}
    saved.Saved(str(tmp_path / "state"), bound).save({"number": 1})
    found = saved.Saved(str(tmp_path / "state"), {**bound, side: {**file, **change}})
    assert (found.state, found.is_of_others) == (({"number": 1}, False) if same else (None, True))


@pytest.mark.usefixtures("always_due")
@pytest.mark.parametrize("option", [{"common": True}, {"listed": 7}])
def test_with_which_options_a_state_is(pair, tmp_path, option):
    with pytest.raises(Stopped):
        verified(*pair, state=tmp_path / "state", watch=stopping("Blobs", -1))
    saved_state = (tmp_path / "state").read_text()
    for options, first in (({}, "Blobs"), (option, "Transactions")):
        (tmp_path / "state").write_text(saved_state)
        seen = []
        verified(
            *pair,
            state=tmp_path / "state",
            watch=lambda *told, seen=seen: seen.append(told[0]),
            **options,
        )
        assert seen[0] == first


def test_what_tells_a_file_from_another(pair):
    one, other = (VerifiedFile(str(each.path), str(each.blobs)) for each in pair)
    with contextlib.closing(one), contextlib.closing(other):
        found, its = one.identity(), other.identity()
        assert found.keys() == its.keys() == {"path", "file", "size", "changed", "blobs"}
        assert found["path"] == str(pair[0].path)
        assert found["blobs"] == str(pair[0].blobs)
        assert found["size"] == pair[0].path.stat().st_size
        assert found["changed"] == pair[0].path.stat().st_mtime_ns
        assert found["file"] != its["file"]


def test_what_is_no_file_storage(pair, tmp_path):
    a, b = pair
    with pytest.raises(UnsuitableStorage, match="there is no FileStorage at"):
        verified(Database(tmp_path), b)
    (tmp_path / "Data.fs").write_text("something else")
    with pytest.raises(UnsuitableStorage, match=r"is not a FileStorage: it begins with b'some'"):
        verified(a, Database(tmp_path))


def test_what_is_no_directory_of_blobs(pair):
    a, b = pair
    (b.blobs / ".layout").write_text("another")
    with pytest.raises(UnsuitableStorage, match="no directory of blobs: its layout 'another' is"):
        verified(a, b)


def test_current_records(packed):
    a, b = packed
    db = ZODB.DB(open_file_storage(b.directory))
    with db.transaction() as connection:
        connection.root()["new"] = PersistentMapping()
    db.close()
    assert verified(a, b, current=True, common=True).equal
    report = verified(a, b, current=True)
    assert report.counts == {"extra record": 1, "record": 1}
    assert verified(b, a, current=True).counts == {"missing record": 1, "record": 1}
    (changed,) = (each for each in report.differences if each.name == "record")
    assert changed.text.startswith("its current record is of 0x")


def test_the_data_and_the_blobs_of_current_records(pair):
    a, b = pair
    b.flip(a.headers[-1].end - 1)
    assert verified(a, b, current=True).counts == {"record": 1}
    b.flip(a.headers[-1].end - 1)
    found = 0
    for blob in b.all_blobs():
        data = blob.read_bytes()
        blob.unlink()
        found += not verified(a, b, current=True).equal
        blob.write_bytes(data)
    assert 0 < found <= len(b.all_blobs())


def test_current_records_of_files_in_use(pair):
    """A was opened before a transaction was committed, and B after that; A gets it meanwhile."""
    a, b = pair
    begin = a.headers[-2].pos
    rest = a.read(begin, a.headers[-1].next)
    for one, other in ((a, b), (b, a)):
        with one.path.open("r+b") as file:
            file.truncate(begin)

        waited = []

        def watch(what, done, total, one=one, waited=waited):
            if done == total == begin:
                waited.append(done)
            # The first time it has just read the last transaction.
            if len(waited) == 2 and one.path.stat().st_size == begin:
                append(one, rest)

        report = verified(one, other, current=True, wait=60, watch=watch)
        assert report.equal
        assert report.last == a.headers[-1].tid


def test_current_records_of_a_file_that_does_not_follow(pair):
    a, b = pair
    with b.path.open("r+b") as file:
        file.truncate(a.headers[-2].pos)
    assert not verified(a, b, current=True, wait=0.1).equal
    report = verified(a, b, current=True, common=True)
    assert report.equal
    assert report.last == a.headers[-3].tid


def test_current_records_of_a_file_that_was_replaced_since(pair, monkeypatch):
    """It does not get what the other one has: they are compared as of what both have."""
    a, b = pair
    begin = a.headers[-2].pos
    with a.path.open("r+b") as file:
        file.truncate(begin)
    monkeypatch.setattr("zrs_core.storage.committed.CommittedFile.was_replaced", lambda self: True)
    report = verified(a, b, current=True, wait=60)
    assert report.equal
    assert report.last == a.headers[-1].tid


def test_current_records_as_of_a_time_before_a_pack(packed):
    a, b = packed
    with b.path.open("r+b") as file:
        file.truncate(b.headers[-2].pos)
    with pytest.raises(Unverifiable, match=r"A was packed beyond 0x.*, where the other one ends"):
        verified(a, b, current=True, common=True)
    with pytest.raises(Unverifiable, match="B was packed beyond 0x"):
        verified(b, a, current=True, common=True)

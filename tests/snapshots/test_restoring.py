"""Databases restored from snapshots, as of any transaction."""

from __future__ import annotations

import contextlib
import json
import os
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import ZODB

from tests.cli.conftest import make_database, snapshot_of
from tests.databases import blob_files, open_file_storage, stored, traffic
from zrs_core.errors import ConfigurationError
from zrs_core.storage.fs_format import FIRST_OFFSET
from zrs_core.storage.snapshot import open_snapshot
from zrs_core.tids import describe_tid, time_of
from zrs_core.tools.snapshots import restoring
from zrs_core.tools.snapshots.copying import Damaged
from zrs_core.tools.snapshots.restoring import parse_until, restore

from .helpers import names, read, report, take


@pytest.fixture
def snapshot(tmp_path):
    make_database(tmp_path / "database", 30)
    take(tmp_path / "database", tmp_path / "snapshot")
    return tmp_path / "snapshot"


@pytest.fixture
def place(tmp_path):
    """Where a database is restored to; in the end there is nothing else."""
    place = tmp_path / "place"
    place.mkdir()
    yield place / "it"
    assert names(place) <= {"it"}


def run(snapshot, place, until=None):
    return restore(str(snapshot), str(place), until, report)


def tids(path):
    return [each.tid for each in stored(path)]


def test_all_of_it(snapshot, place):
    before = snapshot_of(snapshot)
    contents = run(snapshot, place)
    assert names(place) == {"Data.fs", "Data.fs.index", "blobs"}
    assert stored(place) == stored(snapshot)
    assert contents.transactions == 31
    assert blob_files(place / "blobs").keys() == blob_files(snapshot / "blobs").keys()
    # It can be written to, and the snapshot stays what it is.
    with traffic(open_file_storage(place), seed=1) as commit:
        commit.commit(10)
        commit.pack()
    assert snapshot_of(snapshot) == before
    read(snapshot)


def as_tid(tid):
    return f"0x{tid.hex()}"


def as_shown(tid):
    # As `describe_tid` has it.
    return describe_tid(tid).partition("(")[2][:-1]


def as_in_a_manifest(tid):
    return time_of(tid).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def elsewhere(tid):
    return time_of(tid).astimezone(timezone(timedelta(hours=-3, minutes=-30))).isoformat()


@pytest.mark.parametrize("spelling", [as_tid, as_shown, as_in_a_manifest, elsewhere])
def test_as_of_a_transaction(snapshot, tmp_path, spelling):
    whole = stored(snapshot)
    for count in (1, 17, len(whole)):
        tid, place = whole[count - 1].tid, tmp_path / f"restored-{count}"
        contents = run(snapshot, place, spelling(tid))
        assert (contents.tid, contents.transactions) == (tid, count)
        assert stored(place) == whole[:count]
        needed = {name for name in blob_files(snapshot / "blobs") if name[-23:-5] <= as_tid(tid)}
        assert blob_files(place / "blobs").keys() == needed


def test_between_two_transactions(snapshot, place):
    third, fourth = tids(snapshot)[2:4]
    between = (int.from_bytes(third, "big") + int.from_bytes(fourth, "big")) // 2
    run(snapshot, place, as_tid(between.to_bytes(8, "big")))
    assert tids(place)[-1] == third


def test_up_to_when_it_was_taken(snapshot, place):
    run(snapshot, place, read(snapshot)["taken"])
    assert stored(place) == stored(snapshot)


def test_times_that_it_knows_nothing_of(snapshot, place):
    first = tids(snapshot)[0]
    with pytest.raises(ConfigurationError, match="its first transaction is " + as_tid(first)):
        run(snapshot, place, "2001-01-01")
    later = datetime.now(timezone.utc) + timedelta(seconds=60)
    with pytest.raises(ConfigurationError, match=r"it was taken at .*its last transaction is"):
        run(snapshot, place, later.isoformat())
    with pytest.raises(ConfigurationError, match="it was taken at"):
        run(snapshot, place, "0x7fffffffffffffff")


def test_an_empty_one(tmp_path, place):
    (tmp_path / "Data.fs").write_bytes(b"FS30")
    take(tmp_path, tmp_path / "snapshot")
    with pytest.raises(ConfigurationError, match="it is empty"):
        run(tmp_path / "snapshot", place, "2026-01-31")
    assert run(tmp_path / "snapshot", place).transactions == 0


def test_what_a_pack_has_gone_over_is_not_known(tmp_path, place):
    db = ZODB.DB(open_file_storage(tmp_path / "database"))
    for number in range(6):
        if number == 4:
            time.sleep(0.01)
            packed_to = time.time()
        with db.transaction() as connection:
            # What is there but in an older revision too is not all garbage.
            connection.root()[str(number)] = connection.root().__class__()
    db.pack(packed_to)
    db.close()
    take(tmp_path / "database", tmp_path / "snapshot")
    left = stored(tmp_path / "snapshot")
    packed = [each.tid for each in left if each.status == "p"]
    assert len(packed) > 1
    for tid in packed[:-1]:
        with pytest.raises(ConfigurationError, match=f"was packed: .* to is {as_tid(packed[-1])}"):
            run(tmp_path / "snapshot", place, as_tid(tid))
    run(tmp_path / "snapshot", place, as_tid(packed[-1]))
    assert tids(place) == packed


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("0x03f9000000000001", "03f9000000000001"),
        ("0X03F9000000000001", "03f9000000000001"),
        # All with the same whole minute.
        ("2026-01-31", "1d40"),
        ("2026-01-31 00:00", "1d40"),
        ("2026-01-31T00:00:00Z", "1d40"),
        ("2026-01-31T01:00:00+01:00", "1d40"),
        ("2026-01-30T23:00:00-01:00", "1d40"),
    ],
)
def test_times_and_tids(text, last):
    tid = parse_until(text)
    if len(last) == 16:
        assert tid.hex() == last
    else:
        assert time_of(tid) == datetime(2026, 1, 31, tzinfo=timezone.utc) + timedelta(
            microseconds=1
        )
        assert tid < parse_until("2026-01-31T00:00:00.000001")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "12:00",
        "0x12",
        "0xg000000000000000",
        "2026-02-30",
        "10000-01-01",
    ],
)
def test_what_is_neither(snapshot, place, text):
    with pytest.raises(ConfigurationError, match=r"is neither a time, such as .* nor a tid"):
        run(snapshot, place, text)


@pytest.mark.parametrize(
    "text", ["5000-01-01", "9999-12-31", "9999-12-31T23:59:59.999999-01:00", "0x7fffffffffffffff"]
)
def test_times_after_the_snapshot(snapshot, place, text):
    """Also those for which there are no tids: they are not taken for others."""
    with pytest.raises(ConfigurationError, match="holds nothing of then: it was taken at"):
        run(snapshot, place, text)


@pytest.mark.parametrize(
    "text", ["1950-01-01", "1812-01-01", "0001-01-01T00:00:00+01:00", "0x0000000000000000"]
)
def test_times_before_the_snapshot(snapshot, place, text):
    with pytest.raises(ConfigurationError, match="holds nothing of then: its first transaction"):
        run(snapshot, place, text)


def test_nothing_is_replaced(snapshot, place):
    place.mkdir()
    (place / "file").write_text("text")
    with pytest.raises(ConfigurationError, match="is there already, and is never replaced"):
        run(snapshot, place)
    (place / "file").unlink()
    run(snapshot, place)


def test_never_within_the_snapshot(snapshot):
    with pytest.raises(ConfigurationError, match="lies within"):
        run(snapshot, snapshot / "it")


# -- damage


def test_a_byte_that_has_changed(snapshot, place):
    with open(snapshot / "Data.fs", "r+b") as file:
        file.seek(-300, os.SEEK_END)
        file.write(b"!")
    with pytest.raises(Damaged, match=r"Data.fs is damaged: its sha256 is not that in snapshot"):
        run(snapshot, place)


def test_blobs_that_are_gone(snapshot, place):
    name = min(blob_files(snapshot / "blobs"))
    (snapshot / "blobs" / name).unlink()
    with pytest.raises(Damaged, match="is damaged: "):
        run(snapshot, place)
    with pytest.raises(Damaged, match="is damaged: 1 of its blobs are missing"):
        run(snapshot, place, as_tid(tids(snapshot)[-2]))
    (snapshot / "blobs").rename(snapshot / "elsewhere")
    with pytest.raises(Damaged, match="its blobs are not there"):
        run(snapshot, place)


def test_a_blob_of_another_size(snapshot, place):
    blobs = blob_files(snapshot / "blobs")
    name = max(blobs, key=lambda each: len(blobs[each]))
    path = snapshot / "blobs" / name
    # Not the source's, with which it is linked.
    path.unlink()
    path.write_bytes(b"short")
    with pytest.raises(Damaged, match="is damaged: its transactions, records, blobs and bytes"):
        run(snapshot, place)


def test_a_blob_that_is_lost_on_the_way(snapshot, place, monkeypatch):
    """The copies are looked at, and not the sources alone."""
    check = restoring.check

    def without_one(directory, *arguments):
        blobs = blob_files(Path(directory, "blobs"))
        Path(directory, "blobs", min(blobs)).unlink()
        return check(directory, *arguments)

    monkeypatch.setattr(restoring, "check", without_one)
    with pytest.raises(Damaged, match="is damaged: 0 of its blobs are missing"):
        run(snapshot, place, as_tid(tids(snapshot)[-2]))


@pytest.mark.parametrize("name", ["transactions", "records", "blobs", "blobs_size"])
def test_what_it_says_of_itself_is_compared(snapshot, place, name):
    path = snapshot / "snapshot.json"
    manifest = json.loads(path.read_text())
    if name == "blobs_size":
        manifest["sizes"]["blobs"] += 1
    else:
        manifest[name] += 1
    path.write_text(json.dumps(manifest))
    with pytest.raises(Damaged, match="is damaged: its transactions, records, blobs and bytes"):
        run(snapshot, place)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (None, "is no snapshot: there is no snapshot.json in it"),
        (b"{", "is damaged: "),
        (b"\xff", "is damaged: "),
        (b"[]", "is not of format 1"),
        ({"format": 2}, "is not of format 1"),
        ({"sizes": 3}, "is damaged: "),
        ({"tid": 3}, "is damaged: tid is 3"),
        ({"blobs": None}, "is damaged: blobs is None"),
        ({"more": 1}, "is damaged: .*more"),
    ],
)
def test_what_says_nothing_of_itself(snapshot, place, change, error):
    path = snapshot / "snapshot.json"
    if isinstance(change, dict):
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    elif change:
        path.write_bytes(change)
    else:
        path.unlink()
    with pytest.raises(ConfigurationError, match=error):
        run(snapshot, place)


def test_what_cannot_be_read(tmp_path, place):
    (tmp_path / "snapshot.json").mkdir()
    with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
        run(tmp_path, place)
    with pytest.raises(ConfigurationError, match="is no snapshot"):
        run(tmp_path / "nowhere", place)


def test_the_file_may_end_where_it_was_cut(snapshot, place):
    """What is restored is the beginning of the file, byte by byte."""
    with contextlib.closing(open_snapshot(snapshot / "Data.fs")) as file:
        end = file.header(file.header(FIRST_OFFSET).next).next
        second = file.tid_at(file.header(FIRST_OFFSET).next)
    run(snapshot, place, as_tid(second))
    assert (place / "Data.fs").read_bytes() == (snapshot / "Data.fs").read_bytes()[:end]

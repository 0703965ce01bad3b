"""Whatever is planted in one of two equal databases is found, and named as what it is."""

from __future__ import annotations

import contextlib
import random
import shutil
import threading

import pytest
from ZODB.utils import p64

from tests.databases import blob_files, open_file_storage, traffic
from tests.storage.test_compare import commit_records
from tests.verify.conftest import Database, verified
from zrs_core.storage.committed import DamagedFile
from zrs_core.tools.verify import blobs, same_bytes
from zrs_core.tools.verify.files import VerifiedFile


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    """So that there are many in a small file."""
    set_chunk_size(monkeypatch, 5000)


def set_chunk_size(monkeypatch, size):
    monkeypatch.setattr(same_bytes, "CHUNK_SIZE", size)
    monkeypatch.setattr("zrs_core.tools.verify.pairs.CHUNK_SIZE", size)


def counts(a, b, **options):
    report = verified(a, b, **options)
    assert report.equal == (not report.counts)
    assert sum(report.counts.values()) == len(report.differences)
    return dict(report.counts)


def test_equal_databases(pair):
    a, b = pair
    report = verified(a, b)
    assert report.equal
    assert report.complete
    assert report.transactions == len(a.headers) == 61
    assert report.blobs == len(a.all_blobs()) > 3
    assert report.size == a.path.stat().st_size - 4 + sum(map(len, blob_files(a.blobs).values()))
    assert report.last == a.headers[-1].tid
    assert report.first is None


@pytest.mark.parametrize("size", [100, 1000, same_bytes.CHUNK_SIZE])
def test_the_size_of_chunks(small_pair, monkeypatch, size):
    set_chunk_size(monkeypatch, size)
    a, b = small_pair
    report = verified(a, b)
    assert report.equal
    assert report.transactions == len(a.headers)
    assert report.size == a.path.stat().st_size - 4
    b.flip(a.headers[5].end - 1)
    report = verified(a, b)
    assert dict(report.counts) == {"record": 1}
    assert report.transactions == len(a.headers)


def assert_found(a, b, place):
    """A changed byte is told, it alone, and nothing ends there."""
    b.flip(place)
    for one, other in ((a, b), (b, a)):
        report = verified(one, other)
        assert report.counts, place
        assert report.complete, place
        assert report.transactions == len(a.headers), place
        assert {each.tid for each in report.differences} <= {each.tid for each in a.headers}
    b.flip(place)


def test_a_byte_of_each_field(small_pair):
    """Of a transaction's header and a record's, the first of its data, and the length again."""
    a, b = small_pair
    middle = a.headers[5]
    fields = (0, 7, 8, 15, 16, 17, 19, 21, 22, 23)
    record = (0, 8, 16, 24, 32, 34, 41, 42, 45)
    for place in [middle.pos + each for each in fields] + [
        middle.records + each for each in record
    ]:
        assert_found(a, b, place)
    assert_found(a, b, middle.end)
    assert_found(a, b, middle.next - 1)
    assert verified(a, b).equal


@pytest.mark.long
def test_any_byte(small_pair):
    """But for those of the last transaction: damaged there, a file ends before it."""
    a, b = small_pair
    chance = random.Random(7)
    for place in chance.sample(range(4, a.headers[-1].pos), 1000):
        assert_found(a, b, place)


def test_the_data_of_a_record(pair):
    a, b = pair
    b.flip(a.headers[20].end - 1)
    report = verified(a, b)
    (difference,) = report.differences
    assert dict(report.counts) == {"record": 1}
    assert difference.tid == a.headers[20].tid
    assert difference.text == "the data differ"
    assert report.first == difference


def test_the_position_of_a_previous_record(pair):
    a, b = pair
    b.flip(a.headers[20].records + 23)
    (difference,) = verified(a, b).differences
    assert difference.name == "record"
    assert difference.text.startswith("the position of the previous record is ")


def test_meta_data(pair):
    a, b = pair
    header = next(each for each in a.headers if each.extension)
    for place in (header.pos + 23, header.pos + 23 + len(header.user), header.records - 1):
        b.flip(place)
    report = verified(a, b)
    assert dict(report.counts) == {"meta data": 3}
    assert [each.text.partition(" is ")[0] for each in report.differences] == [
        "user",
        "description",
        "extension",
    ]


def test_the_tid_of_a_transaction(pair):
    a, b = pair
    header = a.headers[20]
    b.flip(header.pos + 1)
    report = verified(a, b)
    assert dict(report.counts) == {"meta data": 1}
    assert report.differences[0].tid == header.tid
    assert report.differences[0].text.startswith(f"the tid is 0x{header.tid.hex()} in A")


def test_a_missing_and_an_extra_transaction(pair):
    a, b = pair
    header = a.headers[20]
    b.cut_out(header)
    for one, other, name in ((a, b, "missing"), (b, a, "extra")):
        report = verified(one, other)
        transactions = [each for each in report.differences if each.oid is None]
        assert [(each.name, each.tid) for each in transactions] == [
            (f"{name} transaction", header.tid)
        ]


def test_the_last_transaction_missing(pair):
    a, b = pair
    last = a.headers[-1]
    with b.path.open("r+b") as file:
        file.truncate(last.pos)
    assert counts(a, b) == {"missing transaction": 1}
    assert counts(b, a) == {"extra transaction": 1}
    report = verified(a, b, common=True)
    assert report.equal
    assert report.beyond == [1, 0]
    assert report.transactions == 60
    assert report.last == a.headers[-2].tid
    assert verified(b, a, common=True).beyond == [0, 1]


def test_blobs(pair, monkeypatch):
    monkeypatch.setattr(blobs, "_BLOCK_SIZE", 10_000)
    a, b = pair
    one, other, third = b.all_blobs()[:3]
    for each in (one, other, third):
        each.chmod(0o600)
    large = max(b.all_blobs(), key=lambda each: each.stat().st_size)
    large.chmod(0o600)
    data = bytearray(large.read_bytes())
    assert len(data) > 50_000
    data[-1] ^= 1
    large.write_bytes(data)
    assert counts(a, b) == {"blob": 1}
    assert f"and byte {len(data)}" in verified(a, b).differences[0].text
    data[-1] ^= 1
    large.write_bytes(data + b"!")
    (difference,) = verified(a, b).differences
    assert difference.text == f"the blob's size is {len(data)} in A, {len(data) + 1} in B"
    large.write_bytes(data)
    one.unlink()
    assert counts(a, b) == {"missing blob": 1}
    assert counts(b, a) == {"extra blob": 1}
    (difference,) = verified(a, b).differences
    assert difference.text == "B has no blob"


@pytest.mark.parametrize("name", ["0x0000000000000001.blob", "0x7000000000000000.blob"])
def test_a_blob_that_belongs_to_no_record(pair, name):
    a, b = pair
    shutil.copy(b.all_blobs()[0], b.all_blobs()[0].with_name(name))
    (difference,) = verified(a, b).differences
    assert difference.name == "extra blob"
    assert difference.text == "A has no blob, and that of B belongs to no record"
    assert counts(b, a) == {"missing blob": 1}


def test_what_else_lies_among_blobs(pair):
    a, b = pair
    (b.blobs / "tmp").mkdir(exist_ok=True)
    (b.blobs / "tmp" / "x.blob").touch()
    (b.all_blobs()[0].parent / "no-tid.blob").touch()
    (b.all_blobs()[0].parent / "notes").touch()
    assert verified(a, b).equal


def test_blobs_that_are_not_given(pair):
    a, b = pair
    b.all_blobs()[0].unlink()
    report = verified(a, b.source(blobs=False))
    assert report.equal
    assert not report.blobs_compared


def test_all_at_once(pair):
    a, b = pair
    headers = a.headers
    b.all_blobs()[1].unlink()
    b.flip(headers[10].end - 1)
    b.flip(headers[15].pos + 23)
    b.flip(headers[25].pos + 9)
    with b.path.open("r+b") as file:
        file.truncate(headers[-2].pos)
    report = verified(a, b, listed=2)
    assert report.counts == {
        "record": 1,
        "meta data": 1,
        "damaged": 1,
        "missing transaction": 2,
        "missing blob": 1,
    }
    assert len(report.differences) == 2
    assert report.first.tid == headers[10].tid


def test_damage_where_nothing_else_tells_how_to_go_on(pair):
    a, b = pair
    b.cut_out(a.headers[20])
    b.flip(b.headers[40].pos + 9)
    report = verified(a, b)
    assert report.counts["damaged"] == 1
    assert report.counts["missing transaction"] == 2
    assert report.transactions == 61
    assert report.complete
    (damage,) = (each for each in report.differences if each.name == "damaged")
    assert "is damaged: there is no transaction at " in damage.text


def test_the_same_damage_in_both(pair):
    a, b = pair
    place = a.headers[20].pos + 12
    for each in pair:
        each.flip(place)
    with pytest.raises(DamagedFile, match=f"there is no transaction at {place - 12}"):
        verified(a, b)


def test_unfinished_transactions(pair):
    """At the end of a file that is in use, there may be anything of one."""
    a, b = pair
    last = a.headers[-1]
    whole = a.read(last.pos, last.next - last.pos)
    later = p64(int.from_bytes(last.tid, "big") + 1)
    voted = later + whole[8:16] + b"c" + whole[17:]
    for rest in (b"\0", voted[:30], voted[:-8], voted, bytes(5000)):
        for each in (a, b):
            each.write(last.next, rest)
        assert verified(a, b).equal
        with b.path.open("r+b") as file:
            file.truncate(last.next)
        report = verified(a, b)
        assert report.equal
        assert report.transactions == 61
        assert verified(b, a).equal
        with a.path.open("r+b") as file:
            file.truncate(last.next)


def test_empty_databases(tmp_path, pair):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        open_file_storage(tmp_path / name).close()
    one, two = Database(tmp_path / "one"), Database(tmp_path / "two")
    assert verified(one, two).transactions == 0
    assert counts(pair[0], two)["missing transaction"] == 61
    (tmp_path / "two" / "Data.fs").write_bytes(b"")
    assert verified(one, two).equal


def test_another_history(pair, tmp_path):
    with traffic(open_file_storage(tmp_path / "other"), seed=1) as commit:
        commit.commit(5)
    found = counts(pair[0], Database(tmp_path / "other"), listed=1000)
    assert found["missing transaction"] == 61
    assert found["extra transaction"] == 6


def test_two_records_of_an_object(tmp_path):
    oid = p64(1)
    commit_records(tmp_path / "a.fs", (oid, b"one"), (oid, b"two"))
    commit_records(tmp_path / "b.fs", (oid, b"one"), (oid, b"new"))
    a, b = Database(tmp_path), Database(tmp_path)
    a.path, b.path = tmp_path / "a.fs", tmp_path / "b.fs"
    assert counts(a, b) == {"record": 1}


def test_a_comparison_of_blobs_that_is_given_up(pair, monkeypatch):
    """What waits for its turn is not compared any more."""
    a, b = (VerifiedFile(str(each.path), str(each.blobs)) for each in pair)
    trees = blobs.BlobTrees(a, b, last=b"\x7f" * 8, wait=0)
    compared, closing = [], threading.Event()

    def compare(key):
        compared.append(key)
        if len(compared) > 1:
            closing.wait(0.2)
        return blobs.Compared(key, 0, None)

    monkeypatch.setattr(trees, "_compare", compare)
    keys = [(bytes(8), bytes([number] * 8)) for number in range(200)]
    found = trees.compare(keys, 2)
    assert next(found).key == keys[0]
    found.close()
    assert len(compared) < 20
    for each in (a, b):
        each.close()


def test_bytes_that_are_not_compared_any_more(pair, monkeypatch):
    """What waits for its turn is not read, and the threads end."""
    monkeypatch.setattr(same_bytes, "CHUNK_SIZE", 5000)
    compared, closing = [], threading.Event()

    def equal(self, pos, size, buffers):
        compared.append(pos)
        if len(compared) > 1:
            closing.wait(0.3)
        return True

    monkeypatch.setattr(same_bytes.SameBytes, "_equal", equal)
    a, b = (VerifiedFile(str(each.path), str(each.blobs)) for each in pair)
    with contextlib.closing(a), contextlib.closing(b):
        with same_bytes.SameBytes(a.file, b.file, 1) as same:
            chunks = same._same_chunks(4, a.end)
            next(chunks)
            chunks.close()
            # The second one had begun at most.
            assert len(compared) <= 2
        with pytest.raises(RuntimeError, match="after shutdown"):
            same._pool.submit(print)

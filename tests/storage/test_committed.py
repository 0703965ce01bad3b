from __future__ import annotations

import struct
from pathlib import Path

import pytest
import ZODB
from ZODB.FileStorage import FileStorage
from ZODB.utils import p64

from zrs_core.messages import NO_TID
from zrs_core.storage.committed import CommittedFile, DamagedFile
from zrs_core.storage.fs_format import FIRST_OFFSET

from ..databases import Traffic, open_file_storage


@pytest.fixture
def path(tmp_path):
    storage = open_file_storage(tmp_path / "db")
    db = ZODB.DB(storage)
    commits = Traffic(db)
    commits.commit(20)
    commits.close()
    db.close()
    return storage.getName()


@pytest.fixture
def open_committed():
    files = []

    def opened(path):
        file = CommittedFile(path)
        file.end = file.stat().st_size
        files.append(file)
        return file

    yield opened
    for file in files:
        file.close()
        file.close()


def positions(path):
    storage = FileStorage(path, read_only=True)
    found = [(each.tid, each._tpos) for each in storage.iterator()]
    storage.close()
    return found


def test_transactions_follow_each_other(path, open_committed):
    file = open_committed(path)
    places = positions(path)
    ends = [pos for _, pos in places[1:]] + [file.end]
    for (tid, pos), end in zip(places, ends, strict=True):
        assert file.tid_at(pos) == tid
        assert file.before(end) == pos
        assert file.header(pos).next == end
    assert file.last_tid() == places[-1][0]


def test_an_empty_file_has_no_tid(tmp_path, open_committed):
    path = tmp_path / "Data.fs"
    path.write_bytes(b"")
    file = open_committed(str(path))
    assert file.last_tid() == NO_TID


def test_nothing_is_read_beyond_the_end(path, open_committed):
    file = open_committed(path)
    file.end -= 100
    with pytest.raises(DamagedFile, match="lie beyond the end"):
        file.read(file.end - 10, 11)
    with pytest.raises(DamagedFile, match="lie beyond the end"):
        file.peek(file.end, 1)
    assert file.read(file.end - 10, 10) == Path(path).read_bytes()[-110:-100]


def test_a_file_that_is_shorter_than_its_committed_end_is_damaged(path, open_committed):
    file = open_committed(path)
    file.end += 10
    with pytest.raises(DamagedFile, match="before its committed end"):
        file.peek(file.end - 10, 10)


def test_records_longer_than_the_window_are_read(tmp_path, open_committed):
    storage = open_file_storage(tmp_path / "db")
    db = ZODB.DB(storage)
    with db.transaction() as connection:
        connection.root()["x"] = bytes(range(256)) * 4000
    db.close()
    file = open_committed(storage.getName())
    (first, second) = (pos for _, pos in positions(storage.getName()))
    assert len(list(file.records(file.header(first)))) == 1
    (record,) = file.records(file.header(second))
    assert bytes(range(256)) * 4000 in record.data


def test_a_replaced_file_is_noticed(path, open_committed, tmp_path):
    file = open_committed(path)
    assert not file.was_replaced()
    Path(path).rename(tmp_path / "old")
    assert file.was_replaced()
    Path(path).write_bytes(b"FS30")
    assert file.was_replaced()


DAMAGE = [
    pytest.param(16, b"x", "there is no transaction at", id="a status that is none"),
    pytest.param(16, b"c", "there is no transaction at", id="not finished"),
    pytest.param(8, p64(1 << 40), "there is no transaction at", id="longer than the file"),
    pytest.param(8, p64(23), "there is no transaction at", id="shorter than its header"),
    pytest.param(8, p64(9999), "two different lengths", id="a length that is not the other one"),
]


@pytest.mark.parametrize(("offset", "content", "what"), DAMAGE)
def test_a_damaged_header_is_noticed(offset, content, what, path, open_committed):
    _, pos = positions(path)[4]
    with open(path, "r+b") as data:
        data.seek(pos + offset)
        data.write(content)
    file = open_committed(path)
    with pytest.raises(DamagedFile, match=what):
        file.header(pos)


def test_a_damaged_trailing_length_is_noticed(path, open_committed):
    with open(path, "r+b") as data:
        data.seek(-8, 2)
        data.write(p64(3))
    file = open_committed(path)
    with pytest.raises(DamagedFile, match="no transaction ends at"):
        file.last_tid()


@pytest.mark.parametrize("offset", [24, 32, 34])
def test_a_damaged_record_is_noticed(offset, path, open_committed):
    file = open_committed(path)
    header = file.header(positions(path)[4][1])
    with open(path, "r+b") as data:
        data.seek(header.records + offset)
        data.write(b"\x7f")
    again = open_committed(path)
    with pytest.raises(DamagedFile, match="there is no record of transaction"):
        list(again.records(again.header(header.pos)))


def back_pointer_file(tmp_path, back, there_oid, there_back):
    """A file of one transaction whose second record points back to its first one."""
    pos = FIRST_OFFSET
    records = pos + 23
    first = struct.pack(">8s8sQQHQQ", there_oid, p64(9), 0, pos, 0, 0, there_back)
    second = struct.pack(">8s8sQQHQQ", p64(1), p64(9), 0, pos, 0, 0, back or records)
    length = 23 + len(first) + len(second)
    path = tmp_path / "Back.fs"
    header = struct.pack(">8sQcHHH", p64(9), length, b" ", 0, 0, 0)
    path.write_bytes(b"FS30" + header + first + second + p64(length))
    return str(path)


def test_a_back_pointer_to_another_object_is_damage(tmp_path, open_committed):
    file = open_committed(back_pointer_file(tmp_path, 0, p64(2), 0))
    with pytest.raises(DamagedFile, match="is not one of object"):
        list(file.records(file.header(FIRST_OFFSET)))


def test_a_back_pointer_that_goes_forward_is_damage(tmp_path, open_committed):
    file = open_committed(back_pointer_file(tmp_path, 0, p64(1), FIRST_OFFSET + 23))
    with pytest.raises(DamagedFile, match="points forward"):
        list(file.records(file.header(FIRST_OFFSET)))


def test_a_chain_of_back_pointers_may_end_without_data(tmp_path, open_committed):
    file = open_committed(back_pointer_file(tmp_path, 0, p64(1), 0))
    first, second = file.records(file.header(FIRST_OFFSET))
    assert (first.data, first.data_txn) == (b"", None)
    assert (second.data, second.data_txn) == (b"", p64(9))


@pytest.mark.long
def test_the_end_moves_only_to_where_a_transaction_ends(path, open_committed):
    file = open_committed(path)
    ends = {FIRST_OFFSET, *(pos for _, pos in positions(path)), file.end}
    whole = file.end
    assert {end for end in range(FIRST_OFFSET, whole) if file.advance(end)} == ends - {whole}
    assert not file.advance(whole + 1)
    assert file.advance(whole)
    assert file.end == whole


def test_what_does_not_end_there_is_not_read_ahead(path, open_committed):
    """It may be written to until it is committed."""
    file = open_committed(path)
    end, file.end = file.end, file.before(file.end)
    with open(path, "r+b") as written:
        written.seek(end - 8)
        length = written.read(8)
        written.seek(end - 8)
        written.write(bytes(8))
        written.flush()
        assert not file.advance(end)
        written.seek(end - 8)
        written.write(length)
    file.end = end
    assert file.header(file.before(end)).next == end
    assert file.read(end - 8, 8) == length

"""From which clock a primary takes its tids, whatever stands at the end of its file."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import pytest
import ZODB
from persistent.timestamp import TimeStamp
from ZODB.FileStorage import FileStorage
from ZODB.utils import p64

from zrs_core import Primary
from zrs_core.tools.cli.targets import Target

from ..databases import traffic
from .conftest import ADDRESS

#: Of 2100 and of 9999.
FUTURE, NEVER = TimeStamp(2100, 1, 1).raw(), b"\xff" * 8


def header(tid, length, status):
    return struct.pack(">8sQcHHH", tid, length, status, 0, 0, 0)


TAILS = [
    pytest.param(header(FUTURE, 100, b"c") + bytes(77), id="an unfinished transaction"),
    pytest.param(header(FUTURE, 1 << 40, b" ") + bytes(77), id="a length beyond the end"),
    pytest.param(header(NEVER, 1 << 40, b"x") + b"\xff" * 77, id="ones"),
    pytest.param(header(FUTURE, 0, b"\0") + bytes(77), id="a tid and zeros"),
    pytest.param(bytes(4096), id="zeros"),
]


def by_path(path, network):
    return Primary(str(path), ADDRESS, network, transport="memory")


def over_a_storage(path, network):
    return Primary(FileStorage(str(path)), ADDRESS, network, transport="memory")


def by_a_section(path, network):
    (path.parent / "it.conf").write_text(
        f"%import zrs_core\n<zrs>\n replicate-to 127.0.0.1:0\n transport socket-thread\n"
        f"<filestorage>\n path {path}\n</filestorage>\n</zrs>\n"
    )
    return Target(str(path.parent / "it.conf")).open()


def commit(primary):
    db = ZODB.DB(primary)
    with db.transaction() as connection:
        connection.root()["more"] = 1
    tid = primary.lastTransaction()
    db.close()
    return tid


def now():
    moment = time.time()
    return TimeStamp(*time.gmtime(moment)[:5], moment % 60).raw()


@pytest.mark.parametrize(
    ("packed", "index"), [(False, "saved"), (False, "older"), (True, "saved"), (True, "none")]
)
@pytest.mark.parametrize("open_it", [by_path, over_a_storage, by_a_section])
@pytest.mark.parametrize("tail", TAILS)
def test_what_stands_behind_the_last_transaction_is_no_clock(
    tail, open_it, packed, index, tmp_path, network
):
    path = tmp_path / "Data.fs"
    saved = Path(f"{path}.index")
    storage = FileStorage(str(path))
    with traffic(storage, blobs=False) as commits:
        commits.commit(1)
        storage._save_index()
        older = saved.read_bytes()
        commits.commit(1)
        if packed:
            commits.pack()
        last = storage.lastTransaction()
    if index == "older":
        saved.write_bytes(older)
    elif index == "none":
        saved.unlink()
    data = path.read_bytes()
    path.write_bytes(data + tail)
    primary = open_it(path, network)
    assert primary.lastTransaction() == last
    assert last < commit(primary) <= now()


def test_a_last_transaction_in_the_future_is_a_clock(tmp_path, network):
    """It is replicated already, so that what comes next must be later."""
    path = tmp_path / "Data.fs"
    storage = FileStorage(str(path))
    storage._ts = TimeStamp(FUTURE)
    with traffic(storage, blobs=False) as commits:
        commits.commit(1)
        last = storage.lastTransaction()
    assert last > FUTURE
    path.write_bytes(path.read_bytes() + header(NEVER, 1 << 40, b" ") + bytes(77))
    primary = by_path(path, network)
    assert primary.lastTransaction() == last
    assert last < commit(primary) < p64(int.from_bytes(last, "big") + 100)


def test_a_section_knows_that_nothing_was_packed_since_it_opened_the_file(tmp_path, network):
    """Elsewhere, a pack may have removed the transaction that FileStorage names."""
    path = tmp_path / "Data.fs"
    storage = FileStorage(str(path))
    with traffic(storage, blobs=False) as commits:
        commits.commit(2)
        commits.pack()
        last = storage.lastTransaction()
    tid = p64(int.from_bytes(last, "big") + 1)
    path.write_bytes(path.read_bytes() + header(tid, 100, b"c") + bytes(77))
    primary = by_a_section(path, network)
    assert primary.lastTransaction() == last
    primary.close()

"""What the whole must show between two processes, over TCP."""

from __future__ import annotations

import contextlib
import logging
import random
import time
from pathlib import Path

import pytest
from ZODB.Connection import TransactionMetaData
from ZODB.utils import p64, z64

from zrs_core import Primary

from ..conditions import wait_for
from ..databases import (
    assert_holds_what_a_pack_left,
    blob_files,
    open_file_storage,
    stored,
    temporary_files,
    traffic,
)
from . import secondaries
from .proxy import CuttingProxy, random_cuts

LOOPBACK = ("127.0.0.1", 0)


@pytest.fixture
def directories(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "primary", tmp_path / "secondary"


@pytest.mark.long
def test_the_line_may_break_at_any_byte(directories: tuple[Path, Path]) -> None:
    ours, theirs = directories
    cuts = random_cuts(random.Random(), 50)
    print("cuts:", cuts)
    primary = Primary(open_file_storage(ours), LOOPBACK)
    with traffic(primary) as commits, CuttingProxy(primary.replication_address, cuts) as proxy:
        commits.commit(1200)
        with secondaries(proxy.address, theirs) as process:
            commits.commit(800)
            process.wait_for(primary.lastTransaction())
        assert proxy.cut == 50
    assert stored(theirs) == stored(ours)
    assert (theirs / "Data.fs").read_bytes() == (ours / "Data.fs").read_bytes()
    assert blob_files(theirs / "blobs") == blob_files(ours / "blobs")
    assert temporary_files(theirs / "blobs") == []


@pytest.mark.long
def test_a_pack_while_streaming_loses_nothing_that_it_left(directories: tuple[Path, Path]) -> None:
    ours, theirs = directories
    primary = Primary(open_file_storage(ours), LOOPBACK)
    cuts = [random.randrange(1, 200_000) for _ in range(50)]
    print("cuts:", cuts)
    with (
        traffic(primary) as commits,
        # Much less than there is to be sent.
        CuttingProxy(primary.replication_address, cuts, hold_after=2_000_000) as proxy,
    ):
        commits.commit(1000)
        packed_at = primary.lastTransaction()
        with secondaries(proxy.address, theirs) as process:
            wait_for(lambda: proxy.held.is_set() and process.seen()[0], "a part of the stream")
            primary.pack(time.time(), lambda data: [])
            assert process.seen()[0] < 1000
            proxy.go_on.set()
            commits.commit(1000)
            process.wait_for(primary.lastTransaction())
        assert proxy.cut == 50
    left = stored(ours)
    assert len([each for each in left if each.tid > packed_at]) == 1000
    assert len([each for each in left if each.tid <= packed_at]) < 900
    assert_holds_what_a_pack_left(stored(theirs), left)
    assert blob_files(ours / "blobs").items() <= blob_files(theirs / "blobs").items()
    assert temporary_files(theirs / "blobs") == []


def burst(storage: Primary, count: int) -> None:
    """Commits as fast as the storage takes them: one record in each, and no database on top."""
    serials: dict[bytes, bytes] = {}
    for number in range(count):
        metadata = TransactionMetaData("", f"commit {number}")
        oid = p64(number % 50)
        storage.tpc_begin(metadata)
        record = b"\x80\x03N." + b"x" * (number % 200)
        storage.store(oid, serials.get(oid, z64), record, "", metadata)
        storage.tpc_vote(metadata)
        serials[oid] = storage.tpc_finish(metadata)


@pytest.mark.parametrize("commits", [1000, pytest.param(5000, marks=pytest.mark.long)])
def test_eight_secondaries_follow_a_burst(
    commits: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "zrs_core.primary")
    ours = tmp_path / "primary"
    theirs = [tmp_path / f"secondary{number}" for number in range(8)]
    primary = Primary(open_file_storage(ours), LOOPBACK)
    with contextlib.closing(primary):
        with secondaries(primary.replication_address, *theirs) as process:
            burst(primary, commits)
            process.wait_for(primary.lastTransaction())
            connected = [each for each in caplog.messages if each.endswith(": Connected")]
            lost = [each for each in caplog.messages if "Disconnected" in each or "Closed" in each]
            assert (len(connected), lost) == (8, [])
    for each in theirs:
        assert (each / "Data.fs").read_bytes() == (ours / "Data.fs").read_bytes()

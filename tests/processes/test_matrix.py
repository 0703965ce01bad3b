"""Every transport with every other, plain, over Unix sockets and encrypted."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from zrs_core import Primary, Secondary

from ..certificates import both_ends
from ..conditions import wait_for
from ..databases import blob_files, open_file_storage, temporary_files, traffic

TRANSPORTS = ("socket-thread", "twisted-tcp")


@pytest.fixture(autouse=True)
def _no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    # The package has a class of the same name.
    module = sys.modules["ZODB.FileStorage.FileStorage"]
    monkeypatch.setattr(module, "fsync", lambda file: None)


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A directory whose paths are short enough for Unix sockets."""
    with tempfile.TemporaryDirectory(prefix="zrs") as directory:
        yield Path(directory)


def have_all(primary: Any, *secondaries: Secondary) -> bool:
    return all(each.progress.tid == primary.lastTransaction() for each in secondaries)


def assert_equal(here: Path, there: Path) -> None:
    assert (there / "Data.fs").read_bytes() == (here / "Data.fs").read_bytes()
    assert blob_files(there / "blobs") == blob_files(here / "blobs")
    assert temporary_files(there / "blobs") == []


@pytest.mark.parametrize(
    "way",
    [
        "plain",
        pytest.param("unix", marks=pytest.mark.long),
        pytest.param("tls", marks=pytest.mark.long),
        pytest.param("unix+tls", marks=pytest.mark.long),
    ],
)
def test_all_are_equal_after_500_transactions(way: str, tmp_path: Path, sockets: Path) -> None:
    tls = both_ends() if "tls" in way else None
    for ours in TRANSPORTS:
        here = tmp_path / ours
        address = str(sockets / f"{ours}.sock") if "unix" in way else "127.0.0.1:0"
        primary = Primary(open_file_storage(here), address, transport=ours, tls=tls)
        with traffic(primary) as commits, contextlib.ExitStack() as stack:
            commits.commit(250)
            secondaries = []
            for theirs in TRANSPORTS:
                storage = open_file_storage(tmp_path / f"{ours}-{theirs}")
                secondaries.append(
                    Secondary(storage, primary.replication_address, transport=theirs, tls=tls)
                )
                stack.enter_context(contextlib.closing(secondaries[-1]))
            commits.commit(250)
            wait_for(lambda: have_all(primary, *secondaries), "all to be equal")  # noqa: B023
        for theirs in TRANSPORTS:
            assert_equal(here, tmp_path / f"{ours}-{theirs}")


@pytest.mark.long
@pytest.mark.parametrize("first", TRANSPORTS)
def test_a_cascade_survives_the_restart_of_its_middle(
    first: str, tmp_path: Path, sockets: Path
) -> None:
    second = TRANSPORTS[1 - TRANSPORTS.index(first)]
    paths = [tmp_path / name for name in ("first", "middle", "last")]
    between = str(sockets / "middle.sock")

    def open_middle(address: Any) -> Primary:
        followed = Secondary(open_file_storage(paths[1]), address, transport=first, tls=both_ends())
        return Primary(followed, between, transport=second)

    primary = Primary(open_file_storage(paths[0]), "127.0.0.1:0", transport=first, tls=both_ends())
    with traffic(primary) as commits:
        middle = open_middle(primary.replication_address)
        last = Secondary(
            open_file_storage(paths[2]), between, transport=second, reconnect_delay=(0.01, 0.1)
        )
        with contextlib.closing(last):
            for _ in range(3):
                commits.commit(100)
                wait_for(lambda: last.progress.connected, "the last to be connected")
                middle.close()
                middle = open_middle(primary.replication_address)
            with contextlib.closing(middle):
                commits.commit(100)
                wait_for(lambda: have_all(primary, last), "the last to be equal")
    for path in paths[1:]:
        assert_equal(paths[0], path)


@pytest.mark.long
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_64_secondaries_catch_up_and_stay_live(transport: str, tmp_path: Path) -> None:
    here = tmp_path / "primary"
    files = len(os.listdir("/proc/self/fd"))
    primary = Primary(open_file_storage(here), "127.0.0.1:0", transport=transport)
    paths = [tmp_path / str(number) for number in range(64)]
    with traffic(primary) as commits, contextlib.ExitStack() as stack:
        commits.commit(10)
        secondaries = []
        for path in paths:
            storage = open_file_storage(path)
            secondaries.append(Secondary(storage, primary.replication_address, transport=transport))
            stack.enter_context(contextlib.closing(secondaries[-1]))
        wait_for(lambda: have_all(primary, *secondaries), "all to catch up")
        for _ in range(5):
            commits.commit()
            wait_for(lambda: have_all(primary, *secondaries), "all to follow")
        assert all(each.progress.connections == 1 for each in secondaries)
    for path in paths:
        assert_equal(here, path)
    assert len(os.listdir("/proc/self/fd")) <= files + 2

"""What a ZEO server does with a storage that it opens, in its own order."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ZEO.StorageServer import StorageServer
from ZODB.FileStorage import FileStorage

from zrs_core import Primary, Secondary
from zrs_core.transports.memory import MemoryNetwork

from ..databases import traffic


@pytest.fixture
def network() -> MemoryNetwork:
    return MemoryNetwork()


@pytest.fixture
def pair(tmp_path: Path, network: MemoryNetwork) -> Iterator[tuple[Primary, Secondary]]:
    primary = Primary(str(tmp_path / "1.fs"), ("", 1), network, transport="memory")
    with contextlib.closing(primary):
        secondary = Secondary(str(tmp_path / "2.fs"), ("", 1), network, transport="memory")
        with contextlib.closing(secondary):
            yield primary, secondary


def test_it_misses_nothing_that_arrives_while_it_registers(
    pair: tuple[Primary, Secondary], network: MemoryNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    primary, secondary = pair
    with traffic(primary, blobs=False) as commits:
        commits.commit(3)
        network.run()
        ask = StorageServer._setup_invq

        def ask_and_be_interrupted(self: Any, name: str, storage: Any) -> None:
            ask(self, name, storage)
            commits.commit(2)
            network.run()

        monkeypatch.setattr(StorageServer, "_setup_invq", ask_and_be_interrupted)
        server = StorageServer(None, {"1": secondary})
        commits.commit()
        network.run()
        known = [tid for tid, _ in server.invq["1"]]
        assert known == [each.tid for each in primary.iterator()][::-1]


def test_who_resolves_conflicts_is_said_to_the_storage_that_asks(
    pair: tuple[Primary, Secondary],
) -> None:
    primary, _ = pair
    StorageServer(None, {"1": primary}, client_conflict_resolution=True)
    underneath: FileStorage = primary._storage
    assert "never" in underneath.tryToResolveConflict.__name__
    assert primary.tryToResolveConflict is underneath.tryToResolveConflict

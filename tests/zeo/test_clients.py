"""A ZEO client as a primary's storage and as a secondary's."""

from __future__ import annotations

import pytest
import ZEO

from zrs_core import Primary, Secondary
from zrs_core.transports.memory import MemoryNetwork

from ..conditions import wait_for
from ..databases import contents, open_file_storage, stored, traffic


@pytest.fixture
def serve(tmp_path):
    """Serves a database; what makes clients of it, and what stops the server."""
    stops = []

    def serve_it(blobs=True):
        path = tmp_path / "server"
        path.mkdir()
        blob_dir = str(path / "blobs") if blobs else None
        address, stop = ZEO.server(str(path / "Data.fs"), blob_dir=blob_dir)
        stops.append(stop)

        def client(name):
            return ZEO.client(address, blob_dir=str(tmp_path / name) if blobs else None)

        return client, lambda: stops.pop()()

    yield serve_it
    for stop in stops:
        stop()


def test_what_all_clients_commit_is_replicated(serve, tmp_path):
    client, stop = serve()
    network = MemoryNetwork()
    storage = open_file_storage(tmp_path / "copy")
    secondary = Secondary(storage, ":1", network, transport="memory")
    with traffic(client("application")) as commits:
        primary = Primary(client("primary"), ":1", network, transport="memory", poll_interval=0.05)
        network.advance(1)
        for _ in range(5):
            commits.commit(8)
            last = commits._db.storage.lastTransaction()
            wait_for(
                lambda last=last: network.run() or secondary.lastTransaction() == last,
                "the transactions",
            )
        found = contents(secondary)
        secondary.close()
        primary.close()
    assert len(found) == 41
    assert any(record[4] for each in found for record in each.records)
    stop()
    assert found == stored(tmp_path / "server")


def test_it_takes_what_has_no_blobs(serve, tmp_path):
    client, _ = serve(blobs=False)
    network = MemoryNetwork()
    primary = Primary(
        open_file_storage(tmp_path / "primary", blobs=False), ":1", network, transport="memory"
    )
    secondary = Secondary(client("secondary"), ":1", network, transport="memory")
    with traffic(primary, blobs=False) as commits:
        commits.commit(30)
        network.run()
        commits.commit(3)
        network.run()
        assert contents(secondary) == contents(primary)
        assert secondary.lastTransaction() == primary.lastTransaction()
        secondary.close()

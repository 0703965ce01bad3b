"""Primaries, secondaries and databases that are closed in the end."""

from __future__ import annotations

import pytest
import transaction
import ZODB

from zrs_core import Primary, Secondary
from zrs_core.transports.memory import MemoryNetwork

from ..databases import open_file_storage

ADDRESS = ("", 8000)


@pytest.fixture
def network():
    return MemoryNetwork()


@pytest.fixture
def open_primary(network, tmp_path):
    opened = []

    def open_it(storage=None, address=ADDRESS, **options):
        storage = open_file_storage(tmp_path / "primary") if storage is None else storage
        opened.append(Primary(storage, address, network, transport="memory", **options))
        return opened[-1]

    yield open_it
    while opened:
        opened.pop(0).close()


@pytest.fixture
def open_secondary(network, tmp_path):
    opened = []

    def open_it(storage=None, address=ADDRESS, **options):
        storage = open_file_storage(tmp_path / "secondary") if storage is None else storage
        opened.append(Secondary(storage, address, network, transport="memory", **options))
        return opened[-1]

    yield open_it
    while opened:
        opened.pop(0).close()


@pytest.fixture
def database():
    opened = []

    def open_it(storage):
        opened.append(ZODB.DB(storage))
        return opened[-1]

    yield open_it
    transaction.abort()
    while opened:
        opened.pop(0).close()

"""Primaries, secondaries and databases that are closed in the end."""

from __future__ import annotations

import pytest
import transaction
import ZODB
from ZODB.FileStorage import FileStorage
from zope.component import getGlobalSiteManager
from zope.interface import implementedBy

from zrs_core import Primary, Secondary
from zrs_core.interfaces import ITransactionSink
from zrs_core.storage.fs_sink import FileStorageSink
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


@pytest.fixture
def sinks_one_by_one():
    """Let secondaries store transactions one by one, as with an unknown version of ZODB."""

    def make(storage, invalidate, durability):
        return FileStorageSink(storage, invalidate)

    registry, place = getGlobalSiteManager(), ((implementedBy(FileStorage),), ITransactionSink)
    before = registry.adapters.registered(*place)
    registry.registerAdapter(make, *place)
    yield
    registry.unregisterAdapter(make, *place)
    if before is not None:
        registry.registerAdapter(before, *place)

"""Primaries and secondaries in memory, and status servers, closed in the end."""

from __future__ import annotations

import pytest

from zrs_core import Primary, Secondary
from zrs_core.monitor import StatusServer
from zrs_core.transports.memory import MemoryNetwork

ADDRESS = ("", 8000)


@pytest.fixture
def closing():
    """Closes what it is given, the last one first."""
    opened = []

    def keep(something):
        opened.append(something)
        return something

    yield keep
    while opened:
        opened.pop().close()


@pytest.fixture
def network():
    return MemoryNetwork()


@pytest.fixture
def primary(network, closing, tmp_path):
    path = tmp_path / "primary.fs"
    return closing(Primary(path, ADDRESS, network, transport="memory"))


@pytest.fixture
def secondary(primary, network, closing, tmp_path):
    path = tmp_path / "secondary.fs"
    return closing(Secondary(path, ADDRESS, network, transport="memory"))


@pytest.fixture
def serve(closing):
    def start(storage, address="127.0.0.1:0", **options):
        return closing(StatusServer(storage, address, **options))

    return start

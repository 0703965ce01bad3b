"""What a service manager learns of a ZEO server."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import ZEO.StorageServer
import ZODB.event
from zope.event import subscribers

from zrs_core.monitor.zeo_ready import report_serving

SERVING = ZEO.StorageServer.Serving(None, address=None)
CLOSED = ZEO.StorageServer.Closed(None)


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    before = [*subscribers]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as it:
        it.bind(str(tmp_path / "notify"))
        it.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield it
    subscribers[:] = before


def heard(manager: socket.socket) -> list[bytes]:
    found = []
    while True:
        try:
            found.append(manager.recv(100))
        except BlockingIOError:
            return found


def test_it_is_ready_when_it_serves(manager: socket.socket) -> None:
    report_serving()
    report_serving()
    assert heard(manager) == []
    ZODB.event.notify(SERVING)
    assert heard(manager) == [b"READY=1"]
    ZODB.event.notify(CLOSED)
    ZODB.event.notify("something else")
    assert heard(manager) == []


def test_without_a_manager_nothing_is_subscribed(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [*subscribers]
    monkeypatch.delenv("NOTIFY_SOCKET")
    report_serving()
    assert subscribers == before


def test_a_section_reports_it(manager: socket.socket, tmp_path: Path) -> None:
    from ZODB.config import storageFromString

    text = f"""
        %import zrs_core
        <zrs>
          replicate-to {tmp_path}/zrs.sock
          transport socket-thread
          <filestorage>
            path {tmp_path}/Data.fs
          </filestorage>
        </zrs>
    """
    storageFromString(text).close()
    ZODB.event.notify(SERVING)
    assert heard(manager) == [b"READY=1"]

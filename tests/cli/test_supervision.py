"""What a service manager is told."""

from __future__ import annotations

import socket

import pytest

from zrs_core.monitor.supervision import notify


@pytest.fixture
def manager(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as it:
        it.settimeout(60)
        yield it


def test_a_socket_in_the_file_system(manager, tmp_path, monkeypatch):
    manager.bind(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    notify("READY=1")
    assert manager.recv(100) == b"READY=1"


def test_an_abstract_socket(manager, tmp_path, monkeypatch):
    manager.bind(f"\0{tmp_path}")
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{tmp_path}")
    notify("STOPPING=1")
    assert manager.recv(100) == b"STOPPING=1"


@pytest.mark.parametrize("address", ["", "/nowhere/notify", "x" * 1000])
def test_nobody_who_listens(monkeypatch, address):
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify("READY=1")


def test_nobody_who_asks(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")


@pytest.mark.long
def test_the_commands_tell_when_they_are_ready_and_when_they_stop(
    zrs, manager, tmp_path, database, monkeypatch
):
    manager.bind(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    primary = zrs("primary", database / "Data.fs", "--listen", "127.0.0.1:0")
    assert manager.recv(100) == b"READY=1"
    address = primary.wait_for("Serving ").rpartition(" ")[2]
    secondary = zrs("secondary", address, tmp_path / "Copy.fs")
    assert manager.recv(100) == b"READY=1"
    assert secondary.stop() == 0
    assert manager.recv(100) == b"STOPPING=1"
    assert primary.stop() == 0
    assert manager.recv(100) == b"STOPPING=1"

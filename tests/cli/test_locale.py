"""Paths that are not ASCII, in the locale C without any of Python's remedies."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from pathlib import Path

import pytest

from tests.conditions import DEADLINE
from tests.databases import open_file_storage, traffic

C = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


@pytest.fixture
def directory(tmp_path, monkeypatch):
    # As bytes, since these tests may run in such a locale themselves.
    path = Path(os.fsdecode(os.fsencode(tmp_path) + "/dätä".encode()))
    path.mkdir()
    # The path of a socket must be short.
    monkeypatch.chdir(path)
    for name, value in C.items():
        monkeypatch.setenv(name, value)
    with traffic(open_file_storage(path, blobs=False), blobs=False) as commits:
        commits.commit(3)
    return path


def ask(path):
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as connection:
        connection.settimeout(DEADLINE)
        connection.connect("status.sock")
        connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        answer = b""
        while data := connection.recv(65_536):
            answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b" 200 " in head.splitlines()[0], answer
    return body.decode("utf-8")


@pytest.mark.long
def test_commands_log_lines_and_the_status_have_them(zrs, directory):
    data = directory / "Data.fs"
    listen, status = directory / "p.sock", directory / "status.sock"
    if len(os.fsencode(status)) > 100:
        pytest.skip("the directory for temporary files has too long a path for sockets")
    (directory / "copy.conf").write_text(
        "%import zrs_core\n<zrs>\nreplicate-from ./dätä/p.sock\ntransport socket-thread\n"
        "<filestorage>\npath copy.fs\n</filestorage>\n</zrs>",
        "utf-8",
    )
    primary = zrs("primary", data, "--listen", listen, "--status", status)
    primary.wait_for("Serving ")
    assert json.loads(ask("/status"))["name"].endswith("/dätä/Data.fs")
    assert "/dätä/Data.fs" in ask("/metrics")
    for arguments, expected in (
        (["secondary", listen, directory / "mine.fs", "--until-caught-up", "--quiet", "0.2"], 0),
        (["status", status], 0),
        (["verify", data, directory / "mine.fs"], 0),
        (["verify", directory.parent / "nö" / "copy.conf", data], 2),
        (["snapshot", data, directory / "snäp"], 0),
    ):
        process = zrs(*arguments)
        assert process.finish() == expected, (arguments, process.out, process.err)
        assert "Traceback" not in process.out + process.err
        if expected:
            assert process.err.count("\n") == 1
    # A path in a file is in UTF-8.
    os.chdir(directory.parent)
    follower = zrs("primary", directory / "copy.conf", "--listen", "127.0.0.1:0")
    follower.wait_for("Serving ")
    assert (follower.stop(), primary.stop()) == (0, 0)
    assert "Traceback" not in primary.out + primary.err + follower.out + follower.err

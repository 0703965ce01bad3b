"""The proxy that cuts connections, and following a secondary in another process."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading

import pytest

from tests.conditions import wait_for
from tests.databases import open_file_storage, traffic
from zrs_core.messages import NO_TID
from zrs_core.tools.cli import cutting
from zrs_core.tools.cli.cutting import CuttingProxy
from zrs_core.tools.cli.following import FileFollower, SecondaryProcess, transactions_in
from zrs_core.tools.cli.output import Failed

DATA = bytes(range(256)) * 4_000


@pytest.fixture
def server():
    """Answers each connection's first line with `DATA`; the address, and the lines that came."""
    listening = socket.create_server(("127.0.0.1", 0))
    lines = []

    def answer(connection):
        with connection, contextlib.suppress(OSError):
            lines.append(connection.recv(100))
            connection.sendall(DATA)

    def run():
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            answer(connection)

    thread = threading.Thread(target=run)
    thread.start()
    yield listening.getsockname(), lines
    listening.shutdown(socket.SHUT_RDWR)
    thread.join()
    listening.close()


def read_all(address, line=b"hello\n"):
    with socket.create_connection(address, 60) as connection:
        connection.sendall(line)
        data = b""
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(65_536):
                data += part
        return data


def test_it_forwards_and_cuts_where_it_was_told(server):
    address, lines = server
    cuts = []
    before = threading.active_count()
    with CuttingProxy(address, [100_000, len(DATA)], cuts.append) as proxy:
        assert read_all(proxy.address) == DATA[:100_000]
        assert read_all(proxy.address) == DATA[: len(DATA) - 100_000]
        assert read_all(proxy.address, b"again\n") == DATA
        wait_for(lambda: len(cuts) == 2, "two cuts")
        assert {cut.forwarded for cut in cuts} == {100_000, len(DATA)}
        assert all(cut.withheld > 0 for cut in cuts)
        assert proxy.forwarded == 2 * len(DATA)
    assert lines == [b"hello\n", b"hello\n", b"again\n"]
    wait_for(lambda: threading.active_count() == before, "its threads to end")


def test_a_cut_tells_what_had_been_forwarded_then(server, monkeypatch):
    shut, cuts, again = cutting._shut, [], []

    def shut_and_connect_again(each):
        shut(each)
        # In the thread that cuts: the one for the other direction shuts as well, when it notices.
        if not again and threading.current_thread().name == "zrs demo proxy":
            again.append(True)
            read_all(proxy.address)

    monkeypatch.setattr(cutting, "_shut", shut_and_connect_again)
    with CuttingProxy(server[0], [100_000], cuts.append) as proxy:
        read_all(proxy.address)
        wait_for(lambda: cuts, "the cut")
        assert [cut.forwarded for cut in cuts] == [100_000]
        assert proxy.forwarded == 100_000 + len(DATA)


def test_a_place_that_is_passed_within_one_read(server):
    """Two cuts close to each other are two cuts of two connections."""
    address, _ = server
    cuts = []
    with CuttingProxy(address, [10, 11], cuts.append) as proxy:
        assert read_all(proxy.address) == DATA[:10]
        assert read_all(proxy.address) == DATA[:1]
        assert read_all(proxy.address) == DATA
        wait_for(lambda: len(cuts) == 2, "two cuts")


def test_a_target_that_is_not_there():
    with socket.create_server(("127.0.0.1", 0)) as unused:
        address = unused.getsockname()
    with CuttingProxy(address, [], lambda cut: None) as proxy:
        assert read_all(proxy.address) == b""


def test_it_closes_what_is_open(server):
    address, _ = server
    with CuttingProxy(address, [], lambda cut: None) as proxy:
        connection = socket.create_connection(proxy.address, 60)
        connection.sendall(b"hello\n")
        assert connection.recv(1) == DATA[:1]
    with connection, contextlib.suppress(ConnectionResetError):
        while connection.recv(65_536):
            pass


def test_following_a_file(tmp_path):
    follower = FileFollower(tmp_path / "Data.fs")
    follower.update()
    assert (follower.transactions, follower.tid) == (0, NO_TID)
    follower.close()
    with traffic(open_file_storage(tmp_path)) as commit, contextlib.closing(follower):
        for number in range(1, 4):
            follower.update()
            assert follower.transactions == transactions_in(tmp_path / "Data.fs") == number
            commit.commit()


def test_a_secondary_that_stops_by_itself(tmp_path):
    with SecondaryProcess("nowhere", tmp_path) as secondary:
        wait_for(lambda: secondary._process.poll() is not None, "the end of the process")
        expected = "the secondary has stopped with exit status 2; its last line: zrs: invalid addr"
        with pytest.raises(Failed, match=expected):
            secondary.check()
        with pytest.raises(Failed, match=expected):
            secondary.stop()


def test_a_secondary_is_killed_in_the_end(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        with SecondaryProcess(f"{host}:{port}", tmp_path) as secondary:
            secondary.check()
        assert secondary._process.returncode == -signal.SIGKILL


def test_a_secondary_that_does_not_stop(tmp_path, monkeypatch):
    monkeypatch.setattr("zrs_core.tools.cli.following._STOP_TIMEOUT", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        with SecondaryProcess(f"{host}:{port}", tmp_path) as secondary:
            secondary._process.send_signal(signal.SIGSTOP)
            with pytest.raises(Failed, match="does not stop; its last line: "):
                secondary.stop()

"""The status server: what it answers, and what hostile peers can do to it."""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
import sys
import threading
import time
from importlib.resources import files

import pytest
from ZODB.FileStorage import FileStorage

from tests.conditions import wait_for
from tests.leaks import belongings
from zrs_core import Primary, Secondary
from zrs_core.addresses import TCPAddress
from zrs_core.errors import ConfigurationError, InvalidAddress, ListenError, UnsuitableStorage
from zrs_core.monitor import StatusServer, nodes, server
from zrs_core.progress import State
from zrs_core.refusals import TOLD

from .conftest import ADDRESS
from .http import connect, exchange, get, parse, receive

PATHS = {
    "/": "text/html; charset=utf-8",
    "/index.html": "text/html; charset=utf-8",
    "/status": "application/json",
    "/history": "application/json",
    "/nodes": "application/json",
    "/healthz": "application/json",
    "/readyz": "application/json",
    "/metrics": "text/plain; version=",
}


class TestAnswers:
    @pytest.mark.parametrize("path", PATHS)
    def test_each_path_has_its_kind_of_answer(self, primary, serve, path):
        answer = get(serve(primary).address, path)
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith(PATHS[path])
        assert int(answer.headers["Content-Length"]) == len(answer.body) > 0
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'; script-src 'self'" in answer.headers["Content-Security-Policy"]
        again = get(serve(primary).address, path, "HEAD")
        assert (again.status, again.body) == (200, b"")

    def test_all_files_of_the_page_are_there(self, primary, serve):
        served = serve(primary)
        for file in files("zrs_core.monitor").joinpath("page").iterdir():
            answer = get(served.address, f"/{file.name}?version=1")
            assert answer.body == file.read_bytes()
            assert answer.headers["Content-Type"] != "application/octet-stream"

    def test_ready_and_healthy(self, primary, secondary, network, serve):
        here, there = serve(primary), serve(secondary)
        assert get(here.address, "/readyz").json == {"ready": True, "reason": "it is the primary"}
        answer = get(there.address, "/readyz")
        assert answer.status == 503
        assert answer.json == {"ready": False, "reason": "it has no transaction yet"}
        assert get(there.address, "/healthz").json == {"healthy": True, "reason": "it runs"}
        secondary.progress.stopped = OSError("the disk is gone")
        secondary.progress.state = State.STOPPED
        answer = get(there.address, "/healthz")
        assert (answer.status, answer.json["healthy"]) == (503, False)
        assert answer.json["reason"] == "stopped for good: the disk is gone"

    def test_what_cannot_be_told(self, primary, serve, monkeypatch, caplog):
        served = serve(primary)
        monkeypatch.setattr(primary._source, "position", lambda: 1 / 0)
        for path in ("/status", "/metrics", "/readyz"):
            answer = get(served.address, path)
            assert (answer.status, answer.body) == (500, b"the status cannot be told\n")
        assert "/status cannot be told: division by zero" in caplog.text

    def test_without_prometheus_it_says_what_to_install(self, primary, serve, monkeypatch):
        monkeypatch.delitem(sys.modules, "zrs_core.monitor.metrics", raising=False)
        monkeypatch.setitem(sys.modules, "prometheus_client", None)
        answer = get(serve(primary).address, "/metrics")
        assert answer.status == 501
        assert answer.body == b'prometheus-client is missing: pip install "zrs-core[status]"\n'

    def test_samples_are_kept(self, primary, serve, monkeypatch):
        monkeypatch.setattr(server, "INTERVAL", 0.01)
        monkeypatch.setattr(server, "_TICK", 0.01)
        served = serve(primary)
        wait_for(lambda: len(get(served.address, "/history").json["samples"]) > 2, "samples")
        history = get(served.address, "/history").json
        times = [sample[0] for sample in history["samples"]]
        assert times == sorted(times)
        assert history["interval"] == 5
        assert {len(sample) for sample in history["samples"]} == {4}
        assert history["now"] >= times[-1]

    def test_other_nodes_are_shown_beside_this_one(
        self, primary, secondary, serve, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(nodes, "_TIMEOUT", 0.1)
        other = serve(primary, tmp_path / "status.sock")
        with socket.create_server(("127.0.0.1", 0)) as nobody:
            silent = f"127.0.0.1:{nobody.getsockname()[1]}"
            served = serve(secondary, nodes=[str(other.address), silent])

            def asked():
                shown[:] = get(served.address, "/nodes").json["nodes"]
                return shown[1]["error"] is None and "within" in shown[2]["error"]

            shown: list[dict] = []
            wait_for(asked, "the answers")
            own, first, second = shown
        assert own["url"] == f"http://{served.address}"
        assert own["status"]["role"] == "secondary"
        assert (first["url"], second["url"]) == (str(other.address), f"http://{silent}")
        assert first["status"]["role"] == "primary"
        assert second["status"] is None
        # Who follows whom.
        peer = first["status"]["primary"]["peers"][0]["address"]
        assert own["status"]["secondary"]["local_address"] == peer


class TestRequests:
    @pytest.mark.parametrize(
        "path",
        ["/nothing", "/status/", "/../server.py", "/%2e%2e/server.py", "/page", "*"],
    )
    def test_what_is_not_there(self, primary, serve, path):
        answer = get(serve(primary).address, path)
        assert (answer.status, answer.body) == (404, b"there is nothing here\n")

    @pytest.mark.parametrize(
        ("request_line", "status"),
        [
            (b"POST /status HTTP/1.0", 405),
            (b"DELETE / HTTP/1.1", 405),
            (b"<script>alert(1)</script> / HTTP/1.0", 405),
            (b"GET /status HTTP/3.0", 505),
            (b"GET /status HTTP/one", 400),
            (b"GET", 400),
            (b"GET / / /", 400),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01", 400),
            (b"GET /" + b"x" * 70_000 + b" HTTP/1.0", 414),
        ],
    )
    def test_bad_requests_have_an_answer(self, primary, serve, request_line, status):
        answer = exchange(serve(primary).address, request_line + b"\r\n\r\n")
        # Without a version there are no headers either.
        assert f" {status} ".encode() in answer or not answer.startswith(b"HTTP/")
        assert b"script>" not in answer.partition(b"\r\n\r\n")[2]

    @pytest.mark.parametrize(
        "headers",
        [
            b"X: y\r\n" * 200,
            b"X: " + b"y" * 70_000 + b"\r\n",
            (b"X: " + b"y" * 60_000 + b"\r\n") * 3,
        ],
    )
    def test_headers_are_bounded(self, primary, serve, headers):
        served = serve(primary)
        with connect(served.address) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n" + headers[:100_000])
            # What it does not read may reset the connection.
            try:
                connection.sendall(headers[100_000:] + b"\r\n")
                assert parse(receive(connection)).status == 431
            except ConnectionError:
                pass
        assert get(served.address, "/status").status == 200

    def test_one_that_says_nothing_is_left(self, primary, serve, monkeypatch):
        monkeypatch.setattr(server, "CONNECTION_TIME", 0.05)
        monkeypatch.setattr(server, "_TICK", 0.01)
        served = serve(primary)
        with connect(served.address) as connection:
            connection.sendall(b"GET /status HT")
            assert receive(connection) == b""

    def test_connections_are_bounded(self, primary, serve, monkeypatch, caplog):
        monkeypatch.setattr(server, "MAX_CONNECTIONS", 2)
        served = serve(primary)
        with connect(served.address) as first, connect(served.address):
            wait_for(lambda: len(served._connections) == 2, "both")
            with connect(served.address) as third:
                assert receive(third) == b""
            assert "there are 2 connections already" in caplog.text
            for _ in range(3 * TOLD):
                with connect(served.address) as another:
                    assert receive(another) == b""
            assert caplog.text.count("there are 2 connections already") == TOLD
            first.sendall(b"GET /status HTTP/1.0\r\n\r\n")
            assert parse(receive(first)).status == 200
            wait_for(lambda: len(served._connections) == 1, "room")
            assert get(served.address, "/status").status == 200

    def test_one_that_leaves_at_once_harms_nobody(self, primary, serve):
        served = serve(primary)
        for _ in range(20):
            with connect(served.address) as connection:
                connection.sendall(b"GET /status HTTP/1.0\r\n\r\n")
        assert get(served.address, "/status").status == 200

    def test_what_came_whole_is_answered_to_one_that_says_no_more(self, primary, serve):
        served = serve(primary)
        with connect(served.address) as connection:
            connection.sendall(b"GET /status HTTP/1.0\r\n\r\n")
            connection.shutdown(socket.SHUT_WR)
            assert parse(receive(connection)).status == 200

    def test_without_threads_it_goes_on_later(self, primary, serve, monkeypatch, caplog):
        served = serve(primary)
        start = threading.Thread.start

        def fail(thread):
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", fail)
        assert exchange(served.address, b"") == b""
        monkeypatch.setattr(threading.Thread, "start", start)
        assert "cannot serve a connection: can't start new thread" in caplog.text
        assert get(served.address, "/status").status == 200


class TestListening:
    def test_closing_ends_connections(self, primary):
        served = StatusServer(primary, "127.0.0.1:0")
        with connect(served.address) as connection:
            wait_for(lambda: served._connections, "the connection")
            begin = time.monotonic()
            served.close()
            assert receive(connection) == b""
            # Long before it would be over by itself.
            assert time.monotonic() - begin < server.CONNECTION_TIME
        served.close()

    def test_it_is_closed_with_the_storage(self, network, tmp_path):
        storage = Primary(tmp_path / "p.fs", ADDRESS, network, transport="memory")
        served = StatusServer(storage, "127.0.0.1:0")
        storage.on_close(served.close)
        storage.close()
        with pytest.raises(ConnectionRefusedError):
            connect(served.address)

    def test_a_unix_socket(self, primary, serve, tmp_path):
        path = tmp_path / "status.sock"
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(path))
        with StatusServer(primary, path) as served:
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
            assert get(served.address, "/status").json["role"] == "primary"
            with pytest.raises(ListenError, match="somebody listens there"):
                StatusServer(primary, path)
        assert not path.exists()
        path.write_text("mine")
        with pytest.raises(ListenError, match="a file that is no socket"):
            StatusServer(primary, path)
        assert path.read_text() == "mine"

    @pytest.mark.parametrize("missing", ["epoll", "its thread", "a thread that asks"])
    def test_what_cannot_start_leaves_nothing(
        self, primary, monkeypatch, caplog, tmp_path, missing
    ):
        caplog.set_level(logging.INFO, "zrs_core.status")
        start = threading.Thread.start

        def no_descriptor():
            raise OSError(errno.EMFILE, "Too many open files")

        def no_thread(thread):
            asks = thread.name.startswith("zrs_core asking")
            if asks == (missing == "a thread that asks"):
                raise RuntimeError("can't start new thread")
            start(thread)

        if missing == "epoll":
            monkeypatch.setattr(server.selectors, "DefaultSelector", no_descriptor)
        else:
            monkeypatch.setattr(threading.Thread, "start", no_thread)
        path = tmp_path / "status.sock"
        before = belongings()
        with pytest.raises((OSError, RuntimeError), match=r"Too many open files|new thread"):
            StatusServer(primary, path, nodes=[str(tmp_path / "other.sock")])
        assert belongings() == before
        assert not path.exists()
        assert "Serving" not in caplog.text
        monkeypatch.undo()
        with StatusServer(primary, path) as served:
            assert get(served.address, "/status").status == 200

    def test_a_port_that_is_taken(self, primary, serve):
        taken = serve(primary).address
        with pytest.raises(ListenError, match=f"cannot serve the status at {taken}: .*in use"):
            StatusServer(primary, taken)

    @pytest.mark.parametrize("address", [0, ":0", "0"])
    def test_without_a_host_it_is_on_this_machine_alone(self, primary, serve, address, caplog):
        served = serve(primary, address)
        assert served.address == TCPAddress("127.0.0.1", served.address.port)
        assert "other machines" not in caplog.text

    def test_it_warns_where_others_can_connect(self, primary, serve, caplog):
        caplog.set_level(logging.INFO, "zrs_core.status")
        served = serve(primary, "0.0.0.0:0")
        assert f"{served.address} can be reached from other machines" in caplog.text
        assert f"Serving the status of {primary.getName()} at http://0.0.0.0:" in caplog.text

    @pytest.mark.parametrize(
        ("options", "error"),
        [
            ({"address": "here"}, "an address is"),
            ({"max_lag": -1}, "max_lag must be 0 or more seconds, not -1"),
            ({"max_lag": "1"}, "max_lag must be"),
            ({"nodes": "127.0.0.1:80"}, "nodes must be several addresses"),
            ({"nodes": ["127.0.0.1:0"]}, "nobody listens at port 0"),
            ({"nodes": ["there"]}, "an address is"),
        ],
    )
    def test_wrong_settings_are_named(self, primary, options, error):
        with pytest.raises(ConfigurationError, match=error):
            StatusServer(primary, options.pop("address", "127.0.0.1:0"), **options)

    def test_others_have_no_status(self, tmp_path):
        storage = FileStorage(str(tmp_path / "Data.fs"))
        with pytest.raises(UnsuitableStorage, match="neither a Primary nor a Secondary"):
            StatusServer(storage, 0)
        storage.close()


def test_a_cascade_is_one_node(primary, network, closing, serve, tmp_path):
    middle = Secondary(tmp_path / "middle.fs", ADDRESS, network, transport="memory")
    cascade = closing(Primary(middle, ("", 8001), network, transport="memory"))
    status = get(serve(cascade).address, "/status").json
    assert status["role"] == "cascade"
    assert status["primary"]["address"] == ":8001"
    assert status["secondary"]["primary_address"] == ":8000"
    assert not status["ready"]


def test_a_mistake_in_an_address_is_an_error_of_its_own(primary):
    with pytest.raises(InvalidAddress):
        StatusServer(primary, "127.0.0.1:x")

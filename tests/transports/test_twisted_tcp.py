from __future__ import annotations

import logging
import os
import socket
import threading

import pytest
from ZODB.blob import Blob
from zope.interface.verify import verifyObject

from zrs_core import Primary, Secondary
from zrs_core.addresses import TCPAddress
from zrs_core.errors import ListenError
from zrs_core.interfaces import IConnector, IListener
from zrs_core.options import ClientOptions
from zrs_core.sessions import BATCH_SIZE, ReplicationClient, ReplicationService
from zrs_core.transports.twisted_tcp import Connector, Listener

from ..conditions import wait_for
from ..databases import contents, open_file_storage, traffic
from ..test_sessions import WHOLE, Sink, Source, greeting, stream
from .test_reactors import reactor  # noqa: F401

LOOPBACK = TCPAddress("127.0.0.1", 0)
TIMEOUT = 60


@pytest.fixture(autouse=True, scope="module")
def _listened_once():
    """Once it has listened, Twisted keeps one file open, for the day when there are no others."""
    listener = Listener(ReplicationService(Source(), LOOPBACK))
    listener.start()
    listener.stop(0)


@pytest.fixture(autouse=True)
def _nothing_stays(caplog):
    """Threads and files are as many after each test as before it."""
    caplog.set_level(logging.DEBUG, "zrs_core")
    threads, files = set(threading.enumerate()), len(os.listdir("/proc/self/fd"))
    yield
    wait_for(lambda: set(threading.enumerate()) <= threads, "threads to end")
    assert len(os.listdir("/proc/self/fd")) <= files


@pytest.fixture
def listen():
    listeners = []

    def start(source, address=LOOPBACK, reactor=None):  # noqa: F811
        listener = Listener(ReplicationService(source, address, reactor))
        listener.start()
        listeners.append(listener)
        return listener

    yield start
    for listener in listeners:
        listener.stop(0)


@pytest.fixture
def dial():
    """A peer by hand: a plain socket."""
    sockets = []

    def connect(listener):
        sockets.append(socket.create_connection(listener.address, TIMEOUT))
        return sockets[-1]

    yield connect
    for each in sockets:
        each.close()


@pytest.fixture
def server():
    """A primary by hand: a plain listening socket."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(TIMEOUT)
        yield listening


@pytest.fixture
def connect(server):
    connectors = []

    def start(sink, **options):
        address = TCPAddress(*server.getsockname())
        options = ClientOptions(**{"reconnect_delay": 0.01, **options})
        connector = Connector(ReplicationClient(sink, address, None, options))
        connector.start()
        connectors.append(connector)
        return connector

    yield start
    for connector in connectors:
        connector.stop()


def accept(server):
    connection, _ = server.accept()
    connection.settimeout(TIMEOUT)
    return connection


def receive(connection, size):
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        assert piece
        data += piece
    return data


class TestListener:
    def test_the_interface_is_provided(self, listen):
        assert verifyObject(IListener, listen(Source()))

    def test_a_secondary_is_served(self, listen, dial):
        peer = dial(listen(Source(WHOLE[:1], WHOLE[1:])))
        peer.sendall(greeting())
        assert receive(peer, len(stream(WHOLE))) == stream(WHOLE)

    def test_it_serves_ipv6_too(self, listen, dial):
        peer = dial(listen(Source(WHOLE), TCPAddress("::1", 0)))
        peer.sendall(greeting())
        assert receive(peer, len(stream(WHOLE))) == stream(WHOLE)

    def test_what_is_committed_later_follows_when_it_wakes(self, listen, dial):
        source = Source()
        peer = dial(listen(source))
        peer.sendall(greeting())
        wait_for(lambda: source.waiting, "the session to wait")
        source.batches.append(WHOLE)
        source.waiting.pop()()
        assert receive(peer, len(stream(WHOLE))) == stream(WHOLE)

    def test_a_refused_peer_is_closed_and_the_others_go_on(self, listen, dial, caplog):
        source = Source()
        listener = listen(source)
        other, refused = dial(listener), dial(listener)
        other.sendall(greeting())
        refused.sendall(b"\0\0\0\x06zrs9.9")
        assert refused.recv(1) == b""
        name = str(TCPAddress(*refused.getsockname()))
        assert f"{name}: Invalid protocol 'zrs9.9'" in caplog.messages
        wait_for(lambda: source.waiting, "the session to wait")
        source.batches.append(WHOLE)
        source.waiting.pop()()
        assert receive(other, len(stream(WHOLE))) == stream(WHOLE)

    def test_a_source_that_fails_closes_the_connection(self, listen, dial):
        peer = dial(listen(Source(error=OSError("disk"))))
        peer.sendall(greeting())
        assert peer.recv(1) == b""

    def test_a_session_that_raises_closes_the_connection(self, listen, dial, caplog, monkeypatch):
        def raising(self):
            raise RuntimeError("a mistake")

        monkeypatch.setattr("zrs_core.sessions.PrimarySession.produce", raising)
        peer = dial(listen(Source()))
        peer.sendall(greeting())
        with pytest.raises(ConnectionResetError):
            peer.recv(1)
        assert "a mistake" in caplog.text

    def test_a_peer_that_leaves_frees_its_session(self, listen, dial):
        source = Source()
        peer = dial(listen(source))
        peer.sendall(greeting())
        wait_for(lambda: source.waiting, "the session to wait")
        peer.close()
        wait_for(lambda: source.closed, "the reader to be closed")

    def test_a_peer_that_does_not_read_is_held_back_and_holds_back_nobody(self, tmp_path, dial):
        primary = Primary(open_file_storage(tmp_path / "db"), LOOPBACK, close_timeout=0.1)
        with traffic(primary) as commits:
            with commits._db.transaction() as connection:
                connection.root()["blob"] = Blob(b"x" * 50_000_000)
            lazy = dial(Primary_address(primary))
            lazy.sendall(greeting())
            (held,) = wait_for_connections(primary, 1)
            with Secondary_(tmp_path / "secondary", primary) as secondary:
                wait_for(
                    lambda: secondary.progress.tid == primary.lastTransaction(), "the other one"
                )
            buffered = len(held.transport.dataBuffer) + held.transport._tempDataLen
            assert buffered < BATCH_SIZE + 100_000

    def test_stopping_lets_them_catch_up(self, listen, dial):
        source = Source()
        listener = listen(source)
        silent, peer = dial(listener), dial(listener)
        peer.sendall(greeting())
        wait_for(lambda: source.waiting, "the session to wait")
        source.batches += [[WHOLE[0]], WHOLE[1:]]
        stopping = threading.Thread(target=listener.stop, args=(TIMEOUT,))
        stopping.start()
        assert receive(peer, len(stream(WHOLE))) == stream(WHOLE)
        assert peer.recv(1) == b""
        assert silent.recv(1) == b""
        peer.close()
        stopping.join()
        with pytest.raises(ConnectionRefusedError):
            dial(listener)

    def test_stopping_waits_for_no_peer_longer_than_it_may(self, listen, dial, caplog):
        source = Source([WHOLE[0]] + [WHOLE[1]] * 100_000)
        listener = listen(source)
        peer = dial(listener)
        peer.sendall(greeting())
        wait_for(lambda: source.started, "the session to start")
        listener.stop(0.01)
        assert "Disconnected" in caplog.messages[-1]

    def test_a_port_in_use_is_an_error(self, listen):
        listener = listen(Source())
        with pytest.raises(ListenError) as caught:
            listen(Source(), listener.address)
        assert str(caught.value).startswith(f"cannot listen on {listener.address}: ")
        assert "in use" in str(caught.value)

    def test_an_address_of_another_machine_is_an_error(self, listen):
        with pytest.raises(ListenError, match=r"cannot listen on 192\.0\.2\.1:1: "):
            listen(Source(), TCPAddress("192.0.2.1", 1))


def Primary_address(primary):
    class Where:
        address = primary.replication_address

    return Where


def wait_for_connections(primary, count):
    connections = primary._listener._connections
    wait_for(lambda: len(connections) == count, "connections")
    return tuple(connections)


class Secondary_:
    """A secondary of a primary, closed in the end."""

    def __init__(self, path, primary):
        self._secondary = Secondary(open_file_storage(path), primary.replication_address)

    def __enter__(self):
        return self._secondary

    def __exit__(self, *exc_info):
        self._secondary.close()


class TestConnector:
    def test_the_interface_is_provided(self, connect):
        assert verifyObject(IConnector, connect(Sink()))

    def test_it_greets_and_applies(self, connect, server):
        sink = Sink()
        connect(sink)
        with accept(server) as peer:
            assert receive(peer, 22) == greeting()
            peer.sendall(stream(WHOLE))
            wait_for(lambda: sink.applied == WHOLE, "what was sent to be applied")

    @pytest.mark.parametrize("sent", [b"", stream(WHOLE), stream(WHOLE)[:100], b"\0\0\0\1x"])
    def test_it_comes_again_when_the_connection_ends(self, sent, connect, server):
        sink = Sink()
        connect(sink)
        for _ in range(3):
            with accept(server) as peer:
                assert receive(peer, 10) == b"\0\0\0\x06zrs2.1"
                peer.sendall(sent)
            sink.applied.clear()

    def test_it_comes_again_when_nobody_listens(self, connect, caplog):
        with socket.create_server(("127.0.0.1", 0)) as listening:
            address = TCPAddress(*listening.getsockname())
        connector = Connector(
            ReplicationClient(Sink(), address, None, ClientOptions(reconnect_delay=0.01))
        )
        connector.start()
        wait_for(lambda: caplog.text.count("cannot connect") > 2, "attempts")
        with socket.create_server(address) as listening, accept(listening) as peer:
            assert receive(peer, 22) == greeting()
        connector.stop()
        levels = [r.levelname for r in caplog.records if "cannot connect" in r.getMessage()]
        assert levels[0] == "WARNING"
        assert set(levels[1:]) == {"DEBUG"}

    def test_it_says_that_it_is_there(self, connect, server):
        connect(Sink(), keep_alive_delay=0.01)
        with accept(server) as peer:
            assert receive(peer, 30) == greeting() + b"\0" * 8

    def test_it_reads_no_more_while_it_applies(self, connect, server):
        gate = threading.Event()
        sink = Sink()
        sink.apply = lambda message: gate.wait()
        connect(sink)
        with accept(server) as peer:
            receive(peer, 22)
            peer.settimeout(0.2)
            # More than all buffers on the way could hold.
            with pytest.raises(TimeoutError):
                peer.sendall(stream(WHOLE) + b"\0" * 50_000_000)
            gate.set()

    def test_a_session_that_raises_loses_its_connection(self, connect, server, caplog, monkeypatch):
        def raising(self, data):
            raise RuntimeError("a mistake")

        monkeypatch.setattr("zrs_core.sessions.SecondarySession.receive_data", raising)
        connect(Sink())
        with accept(server) as peer:
            receive(peer, 22)
            peer.sendall(b"x")
            accept(server).close()
        assert "a mistake" in caplog.text

    def test_stopping_aborts_what_is_unfinished(self, connect, server, caplog):
        sink = Sink()
        connector = connect(sink)
        with accept(server) as peer:
            receive(peer, 22)
            peer.sendall(stream(WHOLE)[:-1])
            wait_for(lambda: len(sink.applied) == 2, "the first messages")
            connector.stop()
            assert sink.aborts == 1
            assert peer.recv(1) == b""
        assert not [r for r in caplog.records if r.levelno >= logging.ERROR]

    def test_stopping_while_nobody_listens(self, server):
        address = TCPAddress(*server.getsockname())
        server.close()
        options = ClientOptions(reconnect_delay=60)
        connector = Connector(ReplicationClient(Sink(), address, None, options))
        connector.start()
        connector.stop()


class TestStorages:
    def test_they_replicate(self, tmp_path):
        primary = Primary(open_file_storage(tmp_path / "db"), LOOPBACK)
        with traffic(primary) as commits, Secondary_(tmp_path / "other", primary) as secondary:
            commits.commit(50)
            wait_for(lambda: secondary.progress.tid == primary.lastTransaction(), "catching up")
            assert contents(secondary) == contents(primary)

    def test_on_a_reactor_that_the_application_runs(self, tmp_path, reactor):  # noqa: F811
        primary = Primary(open_file_storage(tmp_path / "db"), LOOPBACK, reactor)
        secondary = Secondary(
            open_file_storage(tmp_path / "other"), primary.replication_address, reactor
        )
        with traffic(primary) as commits:
            commits.commit(20)
            wait_for(lambda: secondary.progress.tid == primary.lastTransaction(), "catching up")
            assert contents(secondary) == contents(primary)
            secondary.close()

    def test_opened_and_closed_in_the_reactors_thread(self, tmp_path, reactor):  # noqa: F811
        results = []
        done = threading.Event()

        def in_reactor():
            primary = Primary(open_file_storage(tmp_path / "db"), LOOPBACK, reactor)
            secondary = Secondary(
                open_file_storage(tmp_path / "other"), primary.replication_address, reactor
            )
            secondary.close()
            primary.close()
            results.append(primary.replication_address.port)
            done.set()

        reactor.callFromThread(in_reactor)
        assert done.wait(TIMEOUT)
        assert results[0] != 0

    def test_a_thousand_connections_leave_nothing(self, tmp_path, dial):
        primary = Primary(open_file_storage(tmp_path / "db"), LOOPBACK)
        with traffic(primary):
            files = len(os.listdir("/proc/self/fd"))
            for number in range(1000):
                with socket.create_connection(primary.replication_address, TIMEOUT) as peer:
                    if number % 2:
                        peer.sendall(greeting())
                        receive(peer, 10)
            wait_for(lambda: not primary._listener._connections, "the connections to be closed")
            wait_for(lambda: len(os.listdir("/proc/self/fd")) <= files, "files to be closed")

from __future__ import annotations

import contextlib
import threading
from types import SimpleNamespace

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.pollreactor import PollReactor
from twisted.python.failure import Failure

from zrs_core import Primary, Secondary
from zrs_core.addresses import TCPAddress
from zrs_core.options import ClientOptions, ServiceOptions
from zrs_core.sessions import ReplicationClient, ReplicationService
from zrs_core.testing import Sink, Source, greeting
from zrs_core.testing.conformance import Copy
from zrs_core.testing.environments import DEADLINE, SocketEnvironment
from zrs_core.transports import twisted_tcp
from zrs_core.transports.reactors import Loop, acquire
from zrs_core.transports.twisted_tcp import (
    Connector,
    Listener,
    _PrimaryConnection,
    _SecondaryConnection,
)

from ..certificates import both_ends
from ..conditions import wait_for
from ..databases import contents, open_file_storage, traffic
from .network import (
    OftenOverTCP,
    OftenOverTLS,
    OverTCP,
    OverTLS,
    OverTLSAndUnixSockets,
    OverUnixSockets,
)
from .test_reactors import reactor  # noqa: F401

LOOPBACK = TCPAddress("127.0.0.1", 0)
TIMEOUT = 60


class TestTCP(OverTCP):
    transport = "twisted-tcp"


@pytest.mark.long
class TestUnixSockets(OverUnixSockets):
    transport = "twisted-tcp"


@pytest.mark.long
class TestTLS(OverTLS):
    transport = "twisted-tcp"


@pytest.mark.long
class TestTLSAndUnixSockets(OverTLSAndUnixSockets):
    transport = "twisted-tcp"


class TestOftenOverTCP(OftenOverTCP):
    transport = "twisted-tcp"


class TestOftenOverTLS(OftenOverTLS):
    transport = "twisted-tcp"


@pytest.mark.parametrize("tls", [both_ends(), None], ids=["in the handshake", "with a session"])
def test_a_connection_that_fails_in_between_does_not_end_the_wait_for_the_one_before(
    tls, monkeypatch, caplog
):
    """The greeting names the last transaction: nobody may still be applying."""
    gate, waiting = threading.Event(), threading.Event()
    copy = Copy()

    def abort():
        waiting.set()
        assert gate.wait(DEADLINE)

    monkeypatch.setattr(copy, "abort", abort)
    with contextlib.closing(SocketEnvironment(tls)) as env:
        server = env.listen()
        client = ReplicationClient(
            copy, server.address, None, ClientOptions(tls=env.tls, reconnect_delay=0.01)
        )
        connector = Connector(client)
        connector.start()
        first = server.accept()
        assert first.receive(len(greeting())) == greeting()
        first.cut()
        assert waiting.wait(DEADLINE)
        # With TLS it gets no session, and so there is nothing to close.
        server.socket.accept()[0].close()
        third = server.accept()
        third.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            third.receive(1)
        gate.set()
        third.socket.settimeout(DEADLINE)
        assert third.receive(len(greeting())) == greeting()
        connector.stop()
    assert "not closed yet" not in caplog.text


def test_many_connections_that_wait_one_for_the_other_end_in_turn():
    """They are lost one after the other while the first one's disk is stuck."""
    loop = acquire(None)
    client = SimpleNamespace(peer_timeout=60.0, connection_failed=lambda reason: None)

    def lose_many():
        first = before = Deferred()
        for _ in range(2000):
            connection = _SecondaryConnection(loop, None, client, before)
            connection.connectionLost(Failure(ConnectionDone()))
            before = connection.closed
        first.callback(None)
        return before

    loop.call(lose_many)
    loop.close()


def test_nobody_waits_for_a_connection_that_could_not_be_set_up():
    """Twisted tells its protocol nothing of it."""
    service = ReplicationService(Source(), LOOPBACK)
    listener = Listener(service)
    listener.start()
    listener._loop.call(listener._accept, None)
    listener.stop(0)
    client = ReplicationClient(Sink(), TCPAddress("127.0.0.1", 1))
    connector = Connector(client)
    connector.start()
    connector._loop.call(connector._connect, None)
    connector.stop()


def test_the_reactor_is_given_up_though_stopping_fails(monkeypatch):
    listener = Listener(ReplicationService(Source(), LOOPBACK))
    connector = Connector(ReplicationClient(Sink(), TCPAddress("127.0.0.1", 1)))
    for each, name, stop in (
        (listener, "_stop", lambda: listener.stop(0)),
        (connector, "_leave", connector.stop),
    ):
        each.start()
        end = getattr(each, name)

        def failing(*args, end=end):
            end(*args)
            raise RuntimeError("a mistake")

        monkeypatch.setattr(each, name, failing)
        with pytest.raises(RuntimeError, match="a mistake"):
            stop()
        assert not each._loop.reactor.running


def test_a_reactor_serves_who_reconnects_while_the_last_other_user_leaves(monkeypatch):
    connector = Connector(ReplicationClient(Sink(), TCPAddress("127.0.0.1", 1)))
    connector.start()
    begun, gate, call, errors = threading.Event(), threading.Event(), Loop.call, []

    def late(loop, function, *args):
        if function == connector._reconnect:
            begun.set()
            assert gate.wait(DEADLINE)
        return call(loop, function, *args)

    def reconnect():
        try:
            connector.reconnect()
        except BaseException as error:
            errors.append(error)

    monkeypatch.setattr(Loop, "call", late)
    thread = threading.Thread(target=reconnect)
    thread.start()
    assert begun.wait(DEADLINE)
    connector.stop()
    gate.set()
    thread.join()
    assert errors == []


def test_a_wake_begins_nothing_while_a_batch_is_produced_or_when_the_connection_is_lost():
    """One batch at a time is held for each secondary, and what wakes it comes from any thread."""
    loop = acquire(None)
    connection = _PrimaryConnection(
        loop, None, SimpleNamespace(peer_timeout=60.0, handshake_timeout=10.0)
    )
    gate, produced = threading.Event(), []

    def produce():
        produced.append(gate.wait(DEADLINE))
        return []

    connection.session = SimpleNamespace(produce=produce)
    for _ in range(3):
        connection._produce()
    connection.lost = True
    gate.set()
    # Their results are looked at before that of this one, which comes after all of them.
    loop.call(connection.turns.deferred, lambda: None)
    connection._produce()
    loop.call(connection.turns.deferred, lambda: None)
    loop.close()
    assert produced == [True]


def test_nothing_is_sent_or_half_closed_again_after_the_last_bytes():
    """What wakes it may have been there before, and a rest; the peer has not read the end yet."""
    loop = acquire(None)
    connection = _PrimaryConnection(
        loop, None, SimpleNamespace(peer_timeout=60.0, handshake_timeout=10.0)
    )
    happened = []
    connection.session = SimpleNamespace(produce=lambda: happened.append("produced"))
    connection.transport = SimpleNamespace(
        unregisterProducer=lambda: None, loseWriteConnection=lambda: happened.append("half-closed")
    )
    loop.call(connection._close_when_read)
    connection._produce()
    loop.call(connection.turns.deferred, lambda: None)
    # This was on its way.
    loop.call(connection._produced, True, [])
    loop.close()
    assert happened == ["half-closed"]


def test_a_rest_ends_with_the_connection():
    loop = acquire(None)
    service = SimpleNamespace(peer_timeout=60.0, handshake_timeout=10.0)
    connection = _PrimaryConnection(loop, None, service)
    connection.session = SimpleNamespace(
        rest=DEADLINE, finished=False, close=lambda reason: None, wait=None
    )
    connection.transport = SimpleNamespace(writeSequence=lambda chunks: None)

    def send_and_go():
        connection._produced(False, [b"all there is"])
        connection.connectionLost(Failure(ConnectionDone()))
        return connection.closed

    loop.call(send_and_go)
    assert loop.call(loop.reactor.getDelayedCalls) == []
    loop.close()


def test_a_wake_begins_nothing_when_the_reactor_ends():
    """It is called by commits, which would have to do the work of the reactor and its threads."""
    ending, produced = PollReactor(), []
    connection = _PrimaryConnection(
        acquire(ending), None, SimpleNamespace(peer_timeout=60.0, handshake_timeout=10.0)
    )
    connection.session = SimpleNamespace(produce=lambda: produced.append(1))
    ending.addSystemEventTrigger("during", "shutdown", connection._produce)
    ending.callWhenRunning(ending.stop)
    thread = threading.Thread(target=ending.run, args=(False,))
    thread.start()
    thread.join(DEADLINE)
    ending.waker.connectionLost(None)
    assert not ending.running
    assert produced == []


@pytest.mark.parametrize("tls", [both_ends(), None], ids=["tls", "plain"])
def test_stopping_closes_the_others_while_the_session_of_a_lost_connection_closes(tls):
    closing, gate = threading.Event(), threading.Event()

    class Slow(Source):
        def close(self):
            closing.set()
            assert gate.wait(DEADLINE)

    source = Slow()
    service = ReplicationService(source, LOOPBACK, None, ServiceOptions(tls=tls))
    listener = Listener(service)
    listener.start()
    with contextlib.closing(SocketEnvironment(tls)) as env:

        def dial():
            started = len(source.waiting)
            peer = env.dial(listener.address)
            peer.send(greeting())
            env.wait_for(lambda: len(source.waiting) > started, "the session to start")
            return peer

        other, lost = dial(), dial()
        lost.cut()
        assert closing.wait(DEADLINE)
        stopped = env.beside(lambda: listener.stop(0))
        try:
            assert other.receive(1) == b""
        finally:
            gate.set()
    stopped()


def test_behind_tls_the_last_bytes_have_as_long_as_whoever_stops_it_gives_them():
    loop = acquire(None)
    service = SimpleNamespace(peer_timeout=60.0, handshake_timeout=60.0)
    connection = _PrimaryConnection(loop, object(), service)
    called = []
    connection.transport = SimpleNamespace(
        unregisterProducer=lambda: called.append("unregistered"),
        loseConnection=lambda: called.append("goodbye"),
    )
    loop.call(connection._close_when_read)
    assert called == ["unregistered", "goodbye"]
    assert not connection.deadline_set()
    loop.close()


def test_nothing_more_is_read_until_all_pieces_of_a_read_are_applied():
    """Behind TLS it comes in several."""
    loop = acquire(None)
    client = SimpleNamespace(peer_timeout=60.0)
    connection = _SecondaryConnection(loop, object(), client, succeed(None))
    gate, applied, happened = threading.Event(), [], []

    def receive_data(data, more):
        assert gate.wait(DEADLINE)
        applied.append(data)

    connection.session = SimpleNamespace(receive_data=receive_data, finished=False)
    connection.transport = SimpleNamespace(
        pauseProducing=lambda: happened.append("paused"),
        resumeProducing=lambda: happened.append(len(applied)),
    )

    def come(*pieces):
        for each in pieces:
            connection.dataReceived(each)
        gate.set()
        # What is told of them comes before what is told of this.
        return connection.turns.deferred(lambda: None)

    loop.call(come, b"one", b"two", b"three")
    loop.call(come, b"four")
    loop.close()
    assert applied == [b"one", b"two", b"three", b"four"]
    assert happened == ["paused", 3, "paused", 4]


def test_what_is_applied_when_the_connection_is_lost_leaves_no_call_to_the_reactor(monkeypatch):
    """It may be an application's, whose tests look for what is left behind."""
    monkeypatch.setattr(twisted_tcp, "LONGEST_HOLD", DEADLINE)
    loop = acquire(None)
    client = SimpleNamespace(peer_timeout=60.0)
    connection = _SecondaryConnection(loop, object(), client, succeed(None))
    connection.session = SimpleNamespace(receive_data=lambda data, more: None, finished=False)
    nothing = lambda: None  # noqa: E731
    connection.transport = SimpleNamespace(pauseProducing=nothing, resumeProducing=nothing)

    def come_and_go(gone):
        connection.dataReceived(b"the last")
        connection.lost = gone
        return connection.turns.deferred(nothing)

    for gone in (False, True):
        loop.call(come_and_go, gone)
        assert loop.call(connection.deadline_set) is not gone
    loop.close()


class TestReactor:
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

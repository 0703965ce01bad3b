from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from zrs_core.addresses import TCPAddress, UnixAddress
from zrs_core.options import ServiceOptions
from zrs_core.sessions import ReplicationClient, ReplicationService
from zrs_core.testing import WHOLE, Sink, Source, greeting, stream
from zrs_core.testing.conformance import Flood, open_files
from zrs_core.testing.conformance.suite import closed_at_once
from zrs_core.testing.environments import DEADLINE, SocketEnvironment
from zrs_core.transports.socket_thread import Connector, Listener

from ..certificates import both_ends
from .network import (
    OftenOverTCP,
    OftenOverTLS,
    OverTCP,
    OverTLS,
    OverTLSAndUnixSockets,
    OverUnixSockets,
)

LOOPBACK = TCPAddress("127.0.0.1", 0)
# Nobody listens there.
NOWHERE = UnixAddress("/nowhere/zrs.sock")


class TestTCP(OverTCP):
    transport = "socket-thread"

    def test_each_end_of_a_connection_has_a_thread(self, env, listen, connect):
        source = Source()
        before = set(threading.enumerate())
        listener = listen(source)
        peers = [env.dial(listener.address) for _ in range(3)]
        for peer in peers:
            peer.send(greeting())
        env.wait_for(lambda: len(source.waiting) == 3, "sessions")
        assert len(set(threading.enumerate()) - before) == 4
        listener.stop(0)
        assert set(threading.enumerate()) == before

    def test_without_descriptors_it_waits_and_accepts_later(self, env, listen, monkeypatch, caplog):
        tries = []

        class Poor(socket.socket):
            def accept(self):
                tries.append(1)
                if len(tries) < 3:
                    raise OSError(errno.EMFILE, "Too many open files")
                return super().accept()

        monkeypatch.setattr(socket, "socket", Poor)
        listener = listen(Source(WHOLE))
        before = time.monotonic()
        peer = env.dial(listener.address)
        peer.send(greeting())
        assert peer.receive(len(stream(WHOLE))) == stream(WHOLE)
        assert len(tries) == 3
        # It does not spin meanwhile.
        assert time.monotonic() - before > 0.15
        assert "cannot accept a connection: [Errno 24] Too many open files" in caplog.text

    def test_without_threads_a_connection_is_closed(self, env, listen, monkeypatch, caplog):
        listener = listen(Source(WHOLE))
        start = threading.Thread.start

        def cannot(self):
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", cannot)
        closed_at_once(env, listener.address)
        env.wait_for(lambda: "Disconnected" in caplog.text, "the end of the session")
        monkeypatch.setattr(threading.Thread, "start", start)
        assert "cannot serve a connection: can't start new thread" in caplog.text
        peer = env.dial(listener.address)
        peer.send(greeting())
        assert peer.receive(len(stream(WHOLE))) == stream(WHOLE)


@pytest.mark.long
class TestUnixSockets(OverUnixSockets):
    transport = "socket-thread"


class TestTLS(OverTLS):
    transport = "socket-thread"


@pytest.mark.long
class TestTLSAndUnixSockets(OverTLSAndUnixSockets):
    transport = "socket-thread"


class TestOftenOverTCP(OftenOverTCP):
    transport = "socket-thread"


class TestOftenOverTLS(OftenOverTLS):
    transport = "socket-thread"


@pytest.mark.parametrize("tls", [both_ends(), None], ids=["tls", "plain"])
def test_stopping_closes_the_others_while_the_session_of_a_lost_connection_closes(tls):
    closing, gate = [], threading.Event()

    def close():
        closing.append(None)
        assert gate.wait(DEADLINE)

    class Slow(Flood):
        def open(self, start):
            reader = super().open(start)
            reader.close = close
            return reader

    source = Slow(limit=4096)
    service = ReplicationService(source, LOOPBACK, None, ServiceOptions(tls=tls))
    listener = Listener(service)
    listener.start()
    with contextlib.closing(SocketEnvironment(tls)) as env:
        peers = [env.dial(listener.address) for _ in range(4)]
        for peer in peers:
            peer.send(greeting())
        env.wait_for(lambda: len(source.readers) == len(peers), "the sessions to start")
        lost, *others = peers
        lost.cut()
        env.wait_for(lambda: closing, "the session of the lost one to close")
        stopped = env.beside(lambda: listener.stop(0))
        try:
            env.wait_for(lambda: len(closing) == len(peers), "those of the others")
            for other in others:
                # Until the connection ends: what was sent before is there still.
                other.receive(1 << 40)
        finally:
            gate.set()
            stopped()


class TestWithoutAThreadToStart:
    @pytest.fixture(autouse=True)
    def no_thread(self, monkeypatch):
        def cannot(self):
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patches:
            patches.setattr(threading.Thread, "start", cannot)
            yield patches

    def test_a_listener_leaves_nothing(self, no_thread):
        with contextlib.closing(SocketEnvironment(unix=True)) as env:
            address, files = env.address(), open_files()
            first = Listener(ReplicationService(Source(), address))
            with pytest.raises(RuntimeError, match="can't start new thread"):
                first.start()
            assert open_files() == files
            assert not os.path.exists(address.path)
            no_thread.undo()
            second = Listener(ReplicationService(Source(WHOLE), address))
            second.start()
            first.stop(0)
            peer = env.dial(address)
            peer.send(greeting())
            assert peer.receive(len(stream(WHOLE))) == stream(WHOLE)
            second.stop(0)

    def test_a_connector_leaves_nothing(self):
        files = open_files()
        connector = Connector(ReplicationClient(Sink(), NOWHERE))
        with pytest.raises(RuntimeError, match="can't start new thread"):
            connector.start()
        assert open_files() == files
        connector.stop()


def test_without_descriptors_to_be_woken_a_listener_leaves_nothing(monkeypatch):
    def cannot():
        raise OSError(errno.EMFILE, "Too many open files")

    with contextlib.closing(SocketEnvironment(unix=True)) as env:
        address, files = env.address(), open_files()
        listener = Listener(ReplicationService(Source(), address))
        monkeypatch.setattr(socket, "socketpair", cannot)
        with pytest.raises(OSError, match="Too many open files"):
            listener.start()
        assert open_files() == files
        assert not os.path.exists(address.path)
        listener.stop(0)


class TestTwoThatStopIt:
    """At once: either may be anywhere in it when the other is through."""

    @staticmethod
    def overtake(stopped, stop):
        """Stop it while another thread is about to wake it, and then let that go on."""
        about, gate = threading.Event(), threading.Event()
        wake = stopped._waiter.wake

        def held():
            about.set()
            assert gate.wait(DEADLINE)
            wake()

        stopped._waiter.wake = held
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(stop)
            try:
                assert about.wait(DEADLINE)
                stopped._waiter.wake = wake
                stop()
            finally:
                gate.set()
            other.result()
        stop()

    def test_a_listener(self):
        listener = Listener(ReplicationService(Source(), LOOPBACK))
        listener.start()
        self.overtake(listener, lambda: listener.stop(0))

    def test_a_connector(self):
        connector = Connector(ReplicationClient(Sink(), NOWHERE))
        connector.start()
        self.overtake(connector, connector.stop)

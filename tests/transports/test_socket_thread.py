from __future__ import annotations

import errno
import threading
import time

import pytest

from zrs_core.testing import WHOLE, Source, greeting, stream
from zrs_core.testing.environments import SocketEnvironment
from zrs_core.transports import socket_thread

from .network import (
    OftenOverTCP,
    OftenOverTLS,
    OverTCP,
    OverTLS,
    OverTLSAndUnixSockets,
    OverUnixSockets,
)


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

        class Poor(socket_thread.socket.socket):
            def accept(self):
                tries.append(1)
                if len(tries) < 3:
                    raise OSError(errno.EMFILE, "Too many open files")
                return super().accept()

        monkeypatch.setattr(socket_thread.socket, "socket", Poor)
        listener = listen(Source(WHOLE))
        peer = env.dial(listener.address)
        peer.send(greeting())
        assert peer.receive(len(stream(WHOLE))) == stream(WHOLE)
        assert len(tries) == 3
        assert "cannot accept a connection: [Errno 24] Too many open files" in caplog.text

    def test_without_threads_a_connection_is_closed(self, env, listen, monkeypatch, caplog):
        listener = listen(Source(WHOLE))
        start = threading.Thread.start

        def cannot(self):
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", cannot)
        assert env.dial(listener.address).receive(1) == b""
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

    def test_a_connection_that_is_lost_before_its_handshake_is_closed(self, env):
        plain = SocketEnvironment()
        server = plain.listen()
        lost = plain.dial(server.address).socket
        server.accept().cut()
        waiter = socket_thread._Waiter()
        channel = socket_thread._Channel(lost, waiter)
        context = env.tls.client_context()
        with pytest.raises(OSError):
            channel.start_tls(
                env.tls, context, time.monotonic() + 60, lambda: False, server_hostname="localhost"
            )
        channel.close()
        waiter.close()
        plain.close()


@pytest.mark.long
class TestTLSAndUnixSockets(OverTLSAndUnixSockets):
    transport = "socket-thread"


class TestOftenOverTCP(OftenOverTCP):
    transport = "socket-thread"


class TestOftenOverTLS(OftenOverTLS):
    transport = "socket-thread"

"""A TLS record of which a part has come, which is no data yet."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading

import pytest

from zrs_core import transports
from zrs_core.addresses import TCPAddress
from zrs_core.options import ClientOptions
from zrs_core.sessions import ReplicationClient
from zrs_core.testing import WHOLE, Sink, stream

from ..certificates import both_ends
from ..conditions import DEADLINE


class TLSPeer:
    """The primary's end, which chooses what of its records goes over the line, and when."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = both_ends().server_context()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
                self.send(self._outgoing.read())
                return
            except ssl.SSLWantReadError:
                self.send(self._outgoing.read())
                self._receive()

    def read(self) -> bytes:
        while True:
            try:
                return self._tls.read(1000)
            except ssl.SSLWantReadError:
                self._receive()

    def _receive(self) -> None:
        data = self._connection.recv(65_536)
        assert data
        self._incoming.write(data)

    def record(self, data: bytes) -> bytes:
        self._tls.write(data)
        return self._outgoing.read()

    def send(self, data: bytes) -> None:
        self._connection.sendall(data)


@pytest.mark.parametrize("transport", ["socket-thread", "twisted-tcp"])
def test_what_came_before_it_becomes_visible(transport):
    began, go_on, shown = threading.Event(), threading.Event(), threading.Event()

    class Slow(Sink):
        def apply(self, message):
            began.set()
            assert go_on.wait(DEADLINE)
            super().apply(message)

        def flush(self):
            if self.applied:
                shown.set()

    sink = Slow()
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listening.settimeout(DEADLINE)
        address = TCPAddress("127.0.0.1", listening.getsockname()[1])
        client = ReplicationClient(sink, address, None, ClientOptions(tls=both_ends()))
        connector = transports.connector_factory(transport)(client)
        connector.start()
        stack.callback(connector.stop)
        connection, _ = listening.accept()
        stack.enter_context(connection)
        connection.settimeout(DEADLINE)
        peer = TLSPeer(connection)
        peer.shake_hands()
        # The word and the start.
        greeting = b""
        while len(greeting) < 20:
            greeting += peer.read()
        whole, part = peer.record(stream(WHOLE)), peer.record(bytes(1000))[:500]
        peer.send(whole)
        assert began.wait(DEADLINE)
        # It is there when the session asks whether there is more.
        peer.send(part)
        go_on.set()
        assert shown.wait(DEADLINE)

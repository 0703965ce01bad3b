"""A transport in less than 100 lines: TCP sockets, and a thread for each connection."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Sequence

from zrs_core.addresses import TCPAddress
from zrs_core.errors import ConfigurationError
from zrs_core.interfaces import IReplicationService, ISession
from zrs_core.transports.listening import BACKLOG, open_tcp_listener
from zrs_core.transports.thread_driver import ThreadDriver
from zrs_core.transports.threaded import ThreadedConnector, ThreadedListener
from zrs_core.transports.waiter import READ, WRITE, Waiter

READ_SIZE = PIECE = 128 * 1024


class Connection(ThreadDriver):
    def __init__(self, session: ISession, connected: socket.socket, waiter: Waiter) -> None:
        super().__init__(session, connected, waiter)
        self._outgoing = bytearray()
        self._at_eof = self._lost = False

    def wait(self, timeout: float | None) -> int:
        reads = self.session.wants_data and not (self._at_eof or self._lost)
        events = (READ if reads else 0) | (WRITE if self._outgoing else 0)
        return self.waiter.wait(self.socket, events, timeout)

    def receive(self, now: float) -> None:
        try:
            data = self.socket.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            self.close(str(error))
            return
        if data:
            self.session.receive_data(data, now)
        else:
            self._at_eof = True
            self.session.receive_eof(now)

    def send(self, chunks: Sequence[bytes]) -> None:
        self._outgoing += b"".join(chunks)

    def flush(self) -> bool:
        if not self._outgoing:
            return False
        try:
            sent = self.socket.send(self._outgoing[:PIECE])
        except BlockingIOError:
            return False
        except OSError as error:
            self.close(str(error))
        else:
            del self._outgoing[:sent]
            self.session.sent(sent, time.monotonic())
        return True

    def half_close(self) -> None:
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            self.close(str(error))

    def close(self, reason: str) -> None:
        if not self._lost:
            self._lost = True
            self._outgoing.clear()
            self.socket.close()
            self.session.lost(reason, time.monotonic())

    def abort(self, reason: str) -> None:
        with contextlib.suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close(reason)


class Listener(ThreadedListener):
    driver_class = Connection

    def __init__(self, service: IReplicationService) -> None:
        if not isinstance(service.address, TCPAddress):
            raise ConfigurationError(f"the address must be of TCP, got {service.address}")
        super().__init__(service)

    def listen(self) -> socket.socket:
        assert isinstance(self.address, TCPAddress)
        listening = open_tcp_listener(self.address)
        try:
            listening.listen(BACKLOG)
        except OSError:
            listening.close()
            raise
        self.address = TCPAddress(self.address.host, listening.getsockname()[1])
        return listening


class Connector(ThreadedConnector):
    driver_class = Connection

"""A client of a running primary that gives away what it receives, and applies nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable

from zope.interface import implementer

from ...addresses import Address
from ...codec import SecondaryConnection
from ...interfaces import IReplicationClient, ISecondarySession
from ...messages import Hello, Start
from ...tls import TLSOptions

# Seconds between two attempts to connect: there is only one.
_NEVER = 3600.0


@implementer(IReplicationClient)
class Listener:
    """What a connector connects once for.

    :param start: what is asked for is all after this transaction.
    :param sent: called with what it sends, in a thread of the transport.
    :param receive: likewise with what comes; whether to go on. What one of them raises is kept in
        `error`.
    """

    def __init__(
        self,
        address: Address,
        tls: TLSOptions | None,
        peer_timeout: float,
        start: bytes,
        sent: Callable[[bytes], object],
        receive: Callable[[bytes], bool],
    ) -> None:
        self.address = address
        self.reactor: object = None
        self.tls = tls
        self.peer_timeout = peer_timeout
        self.keep_alive_delay = 0.0
        connection = SecondaryConnection()
        #: What it says to the primary.
        self.greeting = connection.send(Hello("zrs2.1")) + connection.send(Start(start))
        self.sent = sent
        self.receive = receive
        #: Bytes that have come.
        self.received = 0
        #: Why there is no connection, None if there was one.
        self.failure: str | None = None
        #: Why the connection has ended.
        self.end: str | None = None
        #: What `receive` has raised.
        self.error: BaseException | None = None
        #: Set when nothing more will come.
        self.over = threading.Event()

    def session(self, peer: str, local_address: str | None = None) -> _Session:
        return _Session(self)

    def connection_failed(self, reason: str) -> None:
        if self.end is None or not self.received:
            self.failure = self.failure or reason
        self.over.set()

    def retry_delay(self) -> float:
        return _NEVER


@implementer(ISecondarySession)
class _Session:
    def __init__(self, listener: Listener) -> None:
        self.finished = listener.over.is_set()
        self._listener = listener

    def greeting(self) -> bytes:
        if self.finished:
            return b""
        self._guarded(self._listener.sent, self._listener.greeting)
        return self._listener.greeting

    def refused(self, reason: str) -> None:
        self._listener.connection_failed(reason)

    def keep_alive(self) -> bytes:
        return b""

    def receive_data(self, data: bytes, more: Callable[[], bool] = lambda: False) -> None:
        if self.finished:
            return
        self._listener.received += len(data)
        if self._guarded(self._listener.receive, data) is False:
            self.finished = True

    def _guarded(self, function: Callable[[bytes], object], data: bytes) -> object:
        try:
            return function(data)
        except BaseException as error:  # noqa: BLE001
            # For the thread that waits; this one is the transport's.
            self._listener.error = error
            self.finished = True
            return None

    def receive_eof(self) -> None:
        self.finished = True

    def close(self, reason: str) -> None:
        if self._listener.end is None:
            self._listener.end = reason
        self._listener.over.set()

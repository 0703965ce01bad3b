"""A client of a running primary that gives away what it receives, and applies nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

from zope.interface import implementer

from ...addresses import Address
from ...codec import SecondaryConnection
from ...interfaces import IReplicationClient, ISession
from ...messages import Hello, Start
from ...sessions import SecondaryTimes
from ...sessions.machine import CLOSED_THERE, Machine
from ...sessions.tls import ClientLayer
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
        self.times = SecondaryTimes()
        self.connect_timeout = self.times.connect
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

    def session(
        self,
        now: float,
        notify: Callable[[], None],
        local_address: str | None = None,
        readable: Callable[[], bool] = lambda: False,
    ) -> ISession:
        make = partial(_Session, self)
        return make(now) if self.tls is None else ClientLayer(self, now, make)

    def connection_failed(self, reason: str) -> None:
        if self.end is None or not self.received:
            self.failure = self.failure or reason
        self.over.set()

    def retry_delay(self) -> float:
        return _NEVER


@implementer(ISession)
class _Session(Machine):
    def __init__(self, listener: Listener, now: float) -> None:
        super().__init__(str(listener.address), {}, listener.times.close)
        self._listener = listener
        if listener.over.is_set() or not self._goes_on(listener.sent, listener.greeting):
            self._close(now)
        else:
            self._send([listener.greeting])

    def refused(self, reason: str, now: float) -> None:
        """The primary has refused this end by TLS."""
        self._listener.connection_failed(reason)
        self._abort(reason)

    def _on_data(self, data: bytes, now: float) -> None:
        self._listener.received += len(data)
        self._do(
            lambda: self._goes_on(self._listener.receive, data),
            lambda goes_on, now: None if goes_on else self._close(now),
        )

    @property
    def wants_data(self) -> bool:
        return super().wants_data and not self._working

    def _goes_on(self, function: Callable[[bytes], object], data: bytes) -> bool:
        try:
            return function(data) is not False
        except BaseException as error:  # noqa: BLE001
            # For the thread that waits; this one is the transport's.
            self._listener.error = error
            return False

    def _on_eof(self, now: float) -> None:
        self._close(now, CLOSED_THERE)

    def _on_lost(self, reason: str, now: float) -> None:
        if self._listener.end is None:
            self._listener.end = reason
        self._listener.over.set()
        self._finish()

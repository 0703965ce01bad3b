"""TCP by Twisted: endpoints listen and connect, ClientService connects again.

Sessions wait for the disk, so they are called in the reactor's thread pool: one batch, or what one
read brought, at a time.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Generator
from typing import Any, cast

from twisted.application.internet import ClientService
from twisted.internet import address as twisted_address
from twisted.internet.defer import (
    Deferred,
    DeferredList,
    DeferredLock,
    inlineCallbacks,
    maybeDeferred,
)
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    TCP6ClientEndpoint,
    TCP6ServerEndpoint,
)
from twisted.internet.error import CannotListenError, ConnectError
from twisted.internet.interfaces import IPullProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from ..addresses import Address
from ..errors import ListenError
from ..interfaces import (
    IConnector,
    IListener,
    IPrimarySession,
    IReplicationClient,
    IReplicationService,
    ISecondarySession,
)
from .reactors import Loop, acquire

log = logging.getLogger(__name__)

#: Bytes that one read takes from the network at most; applied in one go.
READ_SIZE = 256 * 1024


def _peer_name(transport: Any) -> str:
    peer = transport.getPeer()
    if isinstance(peer, (twisted_address.IPv4Address, twisted_address.IPv6Address)):
        return str(Address(peer.host, peer.port))
    return str(peer)


class _Connection(Protocol):
    """What both ends share: the calls of a session, one after the other, in a thread."""

    transport: Any

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        #: Fires, with None, when the session is closed.
        self.closed: Deferred[None] = Deferred()
        self._turns = DeferredLock()

    def connectionMade(self) -> None:
        self.transport.bufferSize = READ_SIZE
        self.transport.setTcpNoDelay(True)
        self.transport.setTcpKeepAlive(True)

    def in_turn(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """Call in a thread, when all calls before have returned."""
        result: Deferred[Any] = self._turns.run(self.loop.in_thread, function, *args)
        return result

    def unexpected(self, failure: Failure) -> None:
        """Something raised that never should: all goes on without this connection."""
        log.error("%s: closing", _peer_name(self.transport), exc_info=failure.value)
        self.transport.abortConnection()

    def close_session(self, session: Any, reason: Failure) -> None:
        closing = self.in_turn(session.close, reason.getErrorMessage())
        closing.addBoth(lambda _: self.closed.callback(None))


@implementer(IPullProducer)
class _PrimaryConnection(_Connection):
    """Writes a batch whenever the transport has sent the one before."""

    def __init__(self, loop: Loop, service: IReplicationService) -> None:
        super().__init__(loop)
        self._service = service
        self._session: IPrimarySession
        self._producing = False
        self._finishing = False
        self._lost = False

    def connectionMade(self) -> None:
        super().connectionMade()
        self._session = self._service.session(_peer_name(self.transport))

    def dataReceived(self, data: bytes) -> None:
        started = self._session.started
        self._session.receive_data(data)
        if self._session.finished:
            self._close()
        elif self._session.started and not started:
            self.transport.registerProducer(self, False)

    def resumeProducing(self) -> None:
        """The transport has sent all that it had (IPullProducer), or there is something new."""
        if not (self._producing or self._lost):
            self._producing = True
            producing = self.in_turn(self._session.produce).addCallback(self._produced)
            producing.addErrback(self.unexpected)

    def stopProducing(self) -> None:
        """The connection is lost (IPullProducer); `connectionLost` follows."""

    def _produced(self, chunks: list[bytes]) -> None:
        self._producing = False
        if self._lost:
            return
        if self._session.finished:
            self._close()
        elif chunks:
            self.transport.writeSequence(chunks)
        elif self._finishing:
            self._close_when_read()
        else:
            self._session.wait(self._wake)

    def _wake(self) -> None:
        self.loop.wake(self.resumeProducing)

    def finish(self) -> None:
        """Close once the secondary has caught up."""
        self._finishing = True
        if not self._session.started:
            self._close()
        else:
            self.resumeProducing()

    def _close_when_read(self) -> None:
        # Closing at once while something of the secondary's is unread would reset the connection,
        # and the secondary might lose what is on its way. It closes when it has read the end.
        self.transport.unregisterProducer()
        self.transport.loseWriteConnection()

    def _close(self) -> None:
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def abort(self) -> None:
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._lost = True
        self.close_session(self._session, reason)


@implementer(IListener)
class Listener:
    """Accepts TCP connections for a service, on its reactor or on the background one."""

    def __init__(self, service: IReplicationService) -> None:
        self.address: Address = service.address
        self._service = service
        self._connections: set[_PrimaryConnection] = set()
        self._loop: Loop
        self._port: Any = None
        self._stopped = False

    def start(self) -> None:
        self._loop = acquire(self._service.reactor)
        try:
            self._loop.call(self._listen)
        except (CannotListenError, OSError) as error:
            self._loop.close()
            cause = getattr(error, "socketError", error)
            raise ListenError(f"cannot listen on {self.address}: {cause}") from error

    def _listen(self) -> Deferred[None]:
        host, port = self.address
        kind: Any = TCP6ServerEndpoint if ":" in host else TCP4ServerEndpoint
        endpoint = kind(self._loop.reactor, port, interface=host)
        listening: Deferred[Any] = endpoint.listen(_Factory(self._accept))
        return listening.addCallback(self._listening)

    def _listening(self, port: Any) -> None:
        self._port = port
        self.address = Address(self.address.host, port.getHost().port)

    def _accept(self) -> _PrimaryConnection:
        connection = _PrimaryConnection(self._loop, self._service)
        self._connections.add(connection)
        connection.closed.addCallback(lambda _: self._connections.discard(connection))
        return connection

    def stop(self, timeout: float) -> None:
        if not self._stopped:
            self._stopped = True
            self._loop.call(self._stop, timeout)
            self._loop.close()

    def _stop(self, timeout: float) -> Deferred[Any]:
        waits: list[Deferred[Any]] = [maybeDeferred(self._port.stopListening)]
        for connection in list(self._connections):
            waits.append(connection.closed)
            connection.finish()
        deadline = self._loop.reactor.callLater(timeout, self._abort)
        return DeferredList(waits).addCallback(lambda _: deadline.active() and deadline.cancel())

    def _abort(self) -> None:
        for connection in list(self._connections):
            connection.abort()


class _SecondaryConnection(_Connection):
    """Applies what comes in; while it does so, nothing more is read."""

    def __init__(self, loop: Loop, client: IReplicationClient) -> None:
        super().__init__(loop)
        self._client = client
        self._session: ISecondarySession
        self._keep_alive: Any = None
        self._lost = False
        self._leaving = False

    def connectionMade(self) -> None:
        super().connectionMade()
        self._session = self._client.session(_peer_name(self.transport))
        self.in_turn(self._session.greeting).addCallbacks(self._greet, self.unexpected)

    def _greet(self, greeting: bytes) -> None:
        self.transport.write(greeting)
        self._keep_alive_later()

    def _keep_alive_later(self) -> None:
        delay = self._client.keep_alive_delay
        if delay and not self._lost:
            self._keep_alive = self.loop.reactor.callLater(delay, self._send_keep_alive)

    def _send_keep_alive(self) -> None:
        self.transport.write(self._session.keep_alive())
        self._keep_alive_later()

    def dataReceived(self, data: bytes) -> None:
        self.transport.pauseProducing()
        applying = self.in_turn(self._session.receive_data, data)
        applying.addCallbacks(self._applied, self.unexpected)

    def _applied(self, _: None) -> None:
        if self._session.finished:
            self.transport.loseConnection()
        else:
            self.transport.resumeProducing()

    def leave(self) -> None:
        """The connection will be closed from here: its end is no news."""
        self._leaving = True

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._lost = True
        if self._keep_alive is not None and self._keep_alive.active():
            self._keep_alive.cancel()
        if not self._leaving:
            self.in_turn(self._session.receive_eof).addErrback(self.unexpected)
        self.close_session(self._session, reason)


@implementer(IConnector)
class Connector:
    """Keeps a client connected by TCP, on its reactor or on the background one."""

    def __init__(self, client: IReplicationClient) -> None:
        self._client = client
        self._loop: Loop
        self._service: ClientService
        self._connection: _SecondaryConnection | None = None
        self._stopped = False

    def start(self) -> None:
        self._loop = acquire(self._client.reactor)
        self._loop.call(self._start)

    def _start(self) -> None:
        self._service = ClientService(
            cast(Any, _ClientEndpoint(self._loop, self._client)),
            _Factory(self._connect),
            # The client counts failures itself: a connection that was refused at once is one too.
            retryPolicy=lambda _: self._client.retry_delay(),
            clock=self._loop.reactor,
        )
        self._service.startService()

    def _connect(self) -> _SecondaryConnection:
        self._connection = _SecondaryConnection(self._loop, self._client)
        return self._connection

    def stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            self._loop.call(self._stop)
            self._loop.close()

    def _stop(self) -> Deferred[Any]:
        waits: list[Deferred[Any]] = []
        if self._connection is not None:
            self._connection.leave()
            waits.append(self._connection.closed)
        waits.append(maybeDeferred(self._service.stopService))
        return DeferredList(waits)


class _ClientEndpoint:
    """Where a client connects to: its name is looked up anew each time, and it hears of failures.

    Twisted's HostnameEndpoint would do, but it imports the global reactor, which an application
    may want to choose itself.
    """

    def __init__(self, loop: Loop, client: IReplicationClient) -> None:
        self._loop = loop
        self._client = client

    @inlineCallbacks
    def connect(self, factory: Factory) -> Generator[Deferred[Any], Any, Any]:
        try:
            for endpoint in (yield self._loop.in_thread(self._look_up)):
                try:
                    return (yield endpoint.connect(factory))
                except ConnectError as error:
                    failure = error
            raise failure
        except (ConnectError, OSError) as error:
            self._client.connection_failed(str(error))
            raise

    def _look_up(self) -> list[Any]:
        host, port = self._client.address
        kinds: dict[int, Any] = {
            socket.AF_INET: TCP4ClientEndpoint,
            socket.AF_INET6: TCP6ClientEndpoint,
        }
        found = socket.getaddrinfo(host or "localhost", port, type=socket.SOCK_STREAM)
        return [
            kinds[family](self._loop.reactor, where[0], port)
            for family, _, _, _, where in found
            if family in kinds
        ]


class _Factory(Factory):
    noisy = False

    def __init__(self, make: Callable[[], Protocol]) -> None:
        self._make = make

    def buildProtocol(self, addr: object) -> Protocol:
        return self._make()

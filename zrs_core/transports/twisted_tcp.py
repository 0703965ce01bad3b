"""TCP and Unix sockets by Twisted: its endpoints listen and connect.

Sessions are called in the reactor's thread, and what may wait for the disk in its thread pool.
"""

from __future__ import annotations

import itertools
import logging
import socket
import time
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList, maybeDeferred
from twisted.internet.endpoints import UNIXServerEndpoint
from twisted.internet.error import CannotListenError, ConnectError, ConnectingCancelledError
from twisted.internet.task import deferLater
from twisted.internet.tcp import Port
from twisted.python.failure import Failure
from zope.interface import implementer

from ..addresses import Address, TCPAddress, UnixAddress
from ..errors import ConfigurationError, ListenError
from ..interfaces import IConnector, IListener, IReplicationClient, IReplicationService
from ..logs import event
from .listening import (
    BACKLOG,
    check_exposure,
    is_wildcard,
    open_tcp_listener,
    remove_stale_socket,
    try_binding,
)
from .lookups import needs_look_up
from .reactors import Loop, Timer, acquire
from .sockets import look_up, own_name, tcp_name
from .twisted_connecting import connect
from .twisted_driver import Connection, ConnectionFactory

log = logging.getLogger("zrs_core.transport")

# Seconds after which a listener asks its service again for a deadline.
_LISTENER_WAIT = 2.0


@implementer(IListener)
class Listener:
    """Accepts connections for a service, on its reactor or on the background one."""

    def __init__(self, service: IReplicationService) -> None:
        self.address: Address = service.address
        self._service = service
        self._connections: set[Connection] = set()
        self._numbers = itertools.count(1)
        self._loop: Loop
        self._port: Any = None
        self._timer: Timer
        self._stopped = False

    def start(self) -> None:
        service = self._service
        check_exposure(self.address, tls=service.tls, require_tls=service.require_tls)
        if isinstance(self.address, UnixAddress):
            remove_stale_socket(self.address)
            # When Twisted itself finds that it cannot bind a socket, it leaves it open.
            try_binding(self.address)
        try:
            if isinstance(self.address, UnixAddress):
                self._run(self._listen_at_path, self.address.path)
            else:
                with open_tcp_listener(_place_of(self.address)) as opened:
                    opened.listen(BACKLOG)
                    opened.setblocking(False)
                    self._run(self._adopt, opened)
        except (CannotListenError, OSError) as error:
            cause = getattr(error, "socketError", error)
            raise ListenError(f"cannot listen on {self.address}: {cause}") from error

    def stop(self, timeout: float) -> None:
        if not self._stopped:
            self._stopped = True
            try:
                self._loop.call(self._stop, timeout)
            finally:
                self._loop.close()
                self._service.stop(time.monotonic())

    def abandon(self) -> None:
        """Do nothing more in the child of a fork; `reactors` closes the descriptors there."""
        self._stopped = True

    def _run(self, listen: Any, where: Any) -> None:
        self._loop = acquire(self._service.reactor)
        try:
            self._loop.call(listen, where)
        except BaseException:
            self._loop.close()
            raise

    def _listen_at_path(self, path: str) -> Deferred[None]:
        unix: Any = UNIXServerEndpoint
        mode = self._service.socket_mode
        endpoint = unix(self._loop.reactor, path, backlog=BACKLOG, mode=mode)
        listening: Deferred[Any] = endpoint.listen(ConnectionFactory(self._accept))
        return listening.addCallback(self._listening)

    def _adopt(self, opened: socket.socket) -> None:
        # It duplicates the descriptor.
        fileno = opened.fileno()
        self._listening(
            self._loop.reactor.adoptStreamPort(
                fileno, opened.family, ConnectionFactory(self._accept)
            )
        )

    def _listening(self, port: Any) -> None:
        self._port = port
        if isinstance(self.address, TCPAddress):
            self.address = TCPAddress(self.address.host, port.getHost().port)
        self._service.start(time.monotonic())
        self._timer = self._loop.callLater(0.0, self._pass_time)

    def _pass_time(self) -> None:
        service, now = self._service, time.monotonic()
        deadline = service.next_deadline()
        if deadline is not None and deadline <= now:
            service.handle_timeout(now)
            deadline = service.next_deadline()
        left = _LISTENER_WAIT if deadline is None else deadline - now
        left = min(max(left, 0.0), _LISTENER_WAIT)
        self._timer = self._loop.callLater(left, self._pass_time)

    def _accept(self, addr: Any) -> Connection | None:
        """Return a connection; None has Twisted close it at once, before there is a transport."""
        service, peer = self._service, self._peer_name(addr)
        connection = Connection(self._loop, service.peer_timeout)
        try:
            session = service.accept(peer, time.monotonic(), connection.notify)
        except Exception as error:
            # Twisted would leave the connection open.
            fields = event("unexpected", peer=peer)
            log.error("%s: closing", peer, exc_info=error, extra=fields)
            return None
        if session is None:
            return None
        connection.accepted = session
        self._connections.add(connection)
        connection.over.addCallback(lambda _: self._connections.discard(connection))
        self._loop.soon(connection.check_made)
        return connection

    def _peer_name(self, addr: Any) -> str:
        if isinstance(self.address, UnixAddress):
            # The other end has no name of its own.
            return f"unix:{self.address}#{next(self._numbers)}"
        return tcp_name(addr.host, addr.port)

    def _stop(self, timeout: float) -> Deferred[Any]:
        if self._timer.active():
            self._timer.cancel()
        waits = [maybeDeferred(self._port.stopListening).addErrback(self._unlinked)]
        for connection in list(self._connections):
            waits.append(connection.over)
            connection.stop(timeout)
        return DeferredList(waits)

    def _unlinked(self, failure: Failure) -> None:
        """The socket's file was removed meanwhile; Twisted leaves the socket open then."""
        failure.trap(FileNotFoundError)  # type: ignore[no-untyped-call]
        Port.connectionLost(self._port, failure)  # type: ignore[no-untyped-call]


def _place_of(address: TCPAddress) -> TCPAddress:
    """Return an address with the IP address of its host, an IPv4 address if it has one.

    To be called outside the reactor's thread, which would wait for the look-up.

    :raises OSError: the host has no address.
    """
    if is_wildcard(address) or not needs_look_up(address):
        return address
    places = look_up(address)
    _, place = next((each for each in places if each[0] == socket.AF_INET), places[0])
    return TCPAddress(place[0], address.port)


@implementer(IConnector)
class Connector:
    """Keeps a client connected, on its reactor or on the background one.

    One coroutine connects, has the session driven, and waits. It is not Twisted's ClientService,
    which follows the system's clock and cannot be told to connect at once.
    """

    def __init__(self, client: IReplicationClient) -> None:
        self._client = client
        self._loop: Loop
        self._running: Deferred[None]
        # What can be cancelled: an attempt to connect, or the wait for the next one.
        self._waiting: Deferred[Any] | None = None
        self._connection: Connection | None = None
        self._leaving = self._stopped = False

    def start(self) -> None:
        self._loop = acquire(self._client.reactor)
        self._loop.call(self._start)

    def _start(self) -> None:
        self._running = Deferred.fromCoroutine(self._run())

    def reconnect(self) -> None:
        # Whoever stops this meanwhile may be the last but this to need the reactor.
        loop = acquire(self._client.reactor)
        try:
            if not self._stopped:
                loop.call(self._leave)
        finally:
            loop.close()

    def stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            try:
                self._loop.call(self._stop)
            finally:
                self._loop.close()

    def abandon(self) -> None:
        """Do nothing more in the child of a fork; `reactors` closes the descriptors there."""
        self._stopped = True

    def _stop(self) -> Deferred[None]:
        self._leave()
        return self._running

    def _leave(self) -> None:
        self._leaving = True
        if self._connection is not None:
            self._connection.stop(0.0)
        elif self._waiting is not None:
            self._waiting.cancel()

    async def _run(self) -> None:
        while not self._stopped:
            self._leaving = False
            try:
                await self._attempt(self._client.address)
                if not self._leaving:
                    clock: Any = self._loop
                    await self._cancellable(deferLater(clock, self._client.retry_delay()))
            except (CancelledError, ConnectingCancelledError):
                pass

    async def _attempt(self, address: Address) -> None:
        client = self._client
        try:
            connecting = connect(address, client, self._loop)
            connection = await self._cancellable(connecting)
            await self._drive(connection)
        except (CancelledError, ConnectingCancelledError):
            raise
        except (ConnectError, OSError, ConfigurationError) as error:
            client.connection_failed(str(error))
        except Exception as error:
            # A bug, of the client or here; the next attempt may fare better.
            log.exception("%s: trying again", address, extra=event("unexpected", peer=address))
            client.connection_failed(repr(error))

    async def _cancellable(self, waiting: Deferred[Any]) -> Any:
        self._waiting = waiting
        try:
            return await waiting
        finally:
            self._waiting = None

    async def _drive(self, connection: Connection) -> None:
        try:
            session = self._client.session(
                time.monotonic(),
                connection.notify,
                own_name(connection.handle),
                connection.readable,
            )
        except BaseException:
            connection.transport.loseConnection()
            raise
        self._connection = connection
        try:
            connection.begin(session)
            await connection.over
        finally:
            self._connection = None

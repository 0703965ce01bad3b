"""TCP and Unix sockets by Twisted, with or without TLS.

Its endpoints listen and connect, its ClientService connects again.

Sessions wait for the disk, so they are called in the reactor's thread pool: one batch, or what one
read brought, at a time.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from functools import partial
from importlib.util import find_spec
from typing import Any, cast

from twisted.application.internet import ClientService
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredList,
    inlineCallbacks,
    maybeDeferred,
    succeed,
)
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
    UNIXServerEndpoint,
)
from twisted.internet.error import CannotListenError, ConnectError, ConnectingCancelledError
from twisted.internet.interfaces import IHandshakeListener, IPushProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.tcp import Port
from twisted.python.failure import Failure
from zope.interface import implementer

from ..addresses import Address, TCPAddress, UnixAddress
from ..errors import ConfigurationError, ListenError
from ..interfaces import (
    IConnector,
    IListener,
    IPrimarySession,
    IReplicationClient,
    IReplicationService,
    ISecondarySession,
)
from ..logs import event
from ..tls import PeerRefused, TLSOptions, describe_error
from .limits import does_not_take, too_late, too_many
from .lookups import LookUp, Places, needs_look_up
from .reactors import Loop, acquire
from .sockets import (
    BACKLOG,
    CLOSE_TIMEOUT,
    CONNECT_TIMEOUT,
    LONGEST_HOLD,
    READ_SIZE,
    check_exposure,
    is_readable,
    is_wildcard,
    look_up,
    next_read_size,
    open_tcp_listener,
    own_name,
    peer_name,
    remove_stale_socket,
    tcp_name,
    try_binding,
    tune,
)
from .turns import Turns

log = logging.getLogger("zrs_core.transport")


@implementer(IHandshakeListener)
class _Connection(Protocol, ABC):
    """What both ends share: TLS, and the calls of a session, one after the other, in a thread.

    There is no session, and nothing is read or sent, before the peer has proved who it is.
    """

    transport: Any
    #: Bytes that one read takes from the network at most.
    read_size: int

    def __init__(
        self,
        loop: Loop,
        tls: Any,
        peer_timeout: float,
        handshake_timeout: float,
        before: Deferred[None] | None = None,
    ) -> None:
        self.loop = loop
        #: Fires, with None, when the connections before this one are closed, if they matter.
        self.before = before or succeed(None)
        #: Fires, with None, when there is a transport, which Twisted may fail to set up.
        self.made: Deferred[None] = Deferred()
        #: Fires, with None, when the session is closed, and `before` has fired.
        self.closed: Deferred[None] = Deferred()
        self.peer = ""
        #: The socket itself.
        self.handle: Any = None
        self.session: Any = None
        self.lost = False
        self._tls = tls
        self._peer_timeout = peer_timeout
        self._handshake_timeout = handshake_timeout
        #: What the session does in threads.
        self.turns = Turns(loop)
        self._refusal: str | None = None
        self._deadline: Any = None
        self._closing = False

    @abstractmethod
    def open_session(self) -> None:
        """The peer is who it should be."""

    @abstractmethod
    def refuse(self, reason: str) -> None:
        """The peer is not who it should be, or speaks no TLS."""

    def below(self) -> Any:
        """The transport that has the socket."""
        return self.transport if self._tls is None else self.transport.transport

    def connectionMade(self) -> None:
        self.made.callback(None)
        below = self.below()
        below.bufferSize = self.read_size
        self.handle = below.getHandle()
        self.peer = peer_name(self.handle)
        # A peer that has left already has no settings any more; its end follows.
        with contextlib.suppress(OSError):
            tune(self.handle, self._peer_timeout)
        self.set_deadline(self._handshake_timeout, self.too_late)
        if self._tls is None:
            self._begin()

    def _begin(self) -> None:
        # Twisted would not report to its client that this raises, and would not connect again.
        try:
            self.open_session()
        except Exception as error:  # noqa: BLE001
            self._refusal = repr(error)
            self.unexpected(Failure())  # type: ignore[no-untyped-call]

    def too_late(self) -> None:
        """The handshake is not over in time."""
        self._refusal = "TLS: the handshake took too long"
        self.abort()

    def handshakeCompleted(self) -> None:
        try:
            self._tls.check_peer(self.transport)
        except PeerRefused as error:
            self._refusal = f"TLS: {error}"
            self.abort()
        else:
            self._begin()

    def unexpected(self, failure: Failure) -> None:
        """Something raised that never should: all goes on without this connection."""
        fields = event("unexpected", peer=self.peer)
        log.error("%s: closing", self.peer, exc_info=failure.value, extra=fields)
        self.abort()

    def close(self) -> None:
        """Close when all that was written has been sent, or after `CLOSE_TIMEOUT`."""
        self.transport.loseConnection()
        # A peer that does not read what was sent before, or in TLS does not say goodbye, would keep
        # the connection for ever.
        self.abort_later()

    def abort_later(self) -> None:
        """Close the connection in `CLOSE_TIMEOUT` seconds, if it is still there."""
        if not self._closing:
            self._closing = True
            self.set_deadline(CLOSE_TIMEOUT, self.abort)

    def abort(self) -> None:
        """Close at once."""
        # A lost connection is still here while its session closes, and its TLS is gone.
        if not self.lost:
            self.transport.abortConnection()

    def set_deadline(self, seconds: float, function: Callable[[], object]) -> None:
        """Call `function` in so many seconds, in the place of what was to be called.

        Nothing is called of a connection that is lost: its reactor may be an application's, which
        is left with no calls behind it.
        """
        self.cancel_deadline()
        if not self.lost:
            self._deadline = self.loop.reactor.callLater(seconds, function)

    def cancel_deadline(self) -> None:
        """What was waited for has come."""
        if self.deadline_set():
            self._deadline.cancel()

    def deadline_set(self) -> bool:
        """Whether anything is waited for."""
        return self._deadline is not None and bool(self._deadline.active())

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.lost = True
        self.cancel_deadline()
        if self.session is None:
            self.refuse(self._refusal or self.describe(reason))
            closing: Deferred[Any] = self.before
        else:
            closing = self.turns.deferred(self.session.close, self.describe(reason))
            # It may never have had its turn.
            closing.addBoth(lambda _: self.before)
        # Not within this: of many that wait, one for the other, each would be called by the one
        # before.
        closing.addBoth(lambda _: self.loop.soon(self.closed.callback, None))

    def describe(self, reason: Failure) -> str:
        """Why the connection was lost, for the log."""
        if self._tls is not None and reason.type.__module__.startswith("OpenSSL"):
            text: str = self._tls.describe(reason.value)
            return text
        message = reason.getErrorMessage()
        if self._tls is not None and self.session is None:
            return describe_error(EOFError(f"EOF: {message}"))
        return message


@implementer(IPushProducer)
class _PrimaryConnection(_Connection):
    """Writes a batch whenever the transport has sent the one before."""

    # What a secondary says is parsed in the reactor's thread: none of them may keep it long.
    read_size = 4096
    session: IPrimarySession | None

    def __init__(self, loop: Loop, tls: Any, service: IReplicationService) -> None:
        super().__init__(loop, tls, service.peer_timeout, service.handshake_timeout)
        self._service = service
        # Guards the beginning, which may be a commit's, in its own thread. The end needs no guard:
        # while something is produced, no commit has been asked to wake this.
        self._lock = threading.Lock()
        self._producing = False
        self._paused = False
        # What ends the rest, while it rests.
        self._rest: Any = None
        self._finishing = False
        self._half_closed = False
        # When, by the reactor's clock, the system last took some of what is to be sent.
        self._progress = 0.0
        self._stalled = False
        # Bytes that came after the end of the session.
        self._ignored = 0

    def connectionMade(self) -> None:
        super().connectionMade()
        below = self.below()
        self._send_some = below.writeSomeData
        # Only this knows how far a single large record has come.
        below.writeSomeData = self._write_some_data

    def _write_some_data(self, data: bytes) -> Any:
        sent = self._send_some(data)
        if sent:
            self._progress = self.loop.reactor.seconds()
        return sent

    def open_session(self) -> None:
        certificate = None if self._tls is None else self._tls.peer_name(self.transport)
        self.session = self._service.session(self.peer, certificate)
        if self._finishing:
            self.close()

    def refuse(self, reason: str) -> None:
        self._service.refused(self.peer, reason)

    def too_late(self) -> None:
        if self.session is None:
            super().too_late()
        else:
            self._service.refused(self.peer, too_late(self._service))
            self.abort()

    def describe(self, reason: Failure) -> str:
        return does_not_take(self._service) if self._stalled else super().describe(reason)

    def dataReceived(self, data: bytes) -> None:
        session = self.session
        if session is None:
            return
        started, finished = session.started, session.finished
        if finished:
            # To read until the peer has taken what was sent would keep the reactor busy.
            self._ignored += len(data)
            if self._ignored > self.read_size:
                self.abort()
            return
        session.receive_data(data)
        if session.finished:
            self.close()
        elif session.started and not started:
            self.cancel_deadline()
            self.transport.registerProducer(self, True)
            self._produce()

    def pauseProducing(self) -> None:
        """The transport has enough to send for now (IPushProducer)."""
        self._paused = True
        self._progress = self.loop.reactor.seconds()
        if not self.deadline_set():
            self.set_deadline(self._service.write_timeout, self._check_progress)

    def _check_progress(self) -> None:
        if not self._paused:
            return
        left = self._progress + self._service.write_timeout - self.loop.reactor.seconds()
        if left > 0:
            self.set_deadline(left, self._check_progress)
        else:
            self._stalled = True
            self.abort()

    def resumeProducing(self) -> None:
        """The transport has sent all that it had (IPushProducer)."""
        self._paused = False
        if self.below().disconnecting:
            # TLS is over, the peer having said goodbye. Twisted closes nothing that has a producer.
            self.transport.unregisterProducer()
        elif self._rest is None:
            self._produce()

    def _produce(self) -> None:
        """Have the session produce what is next. From any thread."""
        with self._lock:
            session = self.session
            if self._producing or self._paused or self._is_over() or session is None:
                return
            if not self.loop.reactor.running:
                # It is ending, and this connection with it: a commit must not do the work of both.
                return
            self._producing = True
        produced = partial(self._produced, self._finishing)
        self.turns.call(session.produce, produced, self.unexpected)

    def _is_over(self) -> bool:
        """Whether nothing can be sent any more."""
        return self.lost or self._half_closed

    def stopProducing(self) -> None:
        """The connection is lost (IPushProducer); `connectionLost` follows."""

    def _produced(self, finishing: bool, chunks: list[bytes]) -> None:
        self._producing = False
        if self._is_over() or self.session is None:
            return
        if self.session.finished:
            self.close()
            return
        # One batch at a time: this pauses unless little of it is left to send.
        self.transport.writeSequence(chunks)
        if not chunks and finishing:
            self._close_when_read()
        elif chunks and self.session.rest and not self._finishing:
            self._rest = self.loop.reactor.callLater(self.session.rest, self._rested)
        elif chunks or self._finishing:
            # An empty batch that was asked for before it is to finish: something may have come.
            self._produce()
        else:
            self._wait(self.session)

    def _rested(self) -> None:
        self._rest = None
        if self._paused or self._finishing:
            self._produce()
        elif self.session is not None:
            self._wait(self.session)

    def _wait(self, session: IPrimarySession) -> None:
        try:
            session.wait(self._produce)
        except Exception:  # noqa: BLE001
            self.unexpected(Failure())  # type: ignore[no-untyped-call]

    def finish(self) -> None:
        """Close once the secondary has caught up."""
        self._finishing = True
        if self.session is None or not self.session.started:
            self.close()
        else:
            self._produce()

    def _close_when_read(self) -> None:
        # Closing at once while something of the secondary's is unread would reset the connection,
        # and the secondary might lose what is on its way. It closes when it has read the end.
        # Who stops this listener waits for that, and for no longer than it may take.
        self._half_closed = True
        self.transport.unregisterProducer()
        if self._tls is None:
            self.transport.loseWriteConnection()
        else:
            # TLS says goodbye, and waits for the other's, by itself.
            self.transport.loseConnection()

    def close(self) -> None:
        self.transport.unregisterProducer()
        super().close()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        if self._rest is not None:
            self._rest.cancel()
        super().connectionLost(reason)


@implementer(IListener)
class Listener:
    """Accepts connections for a service, on its reactor or on the background one."""

    def __init__(self, service: IReplicationService) -> None:
        self.address: Address = service.address
        self._service = service
        self._connections: set[_PrimaryConnection] = set()
        self._loop: Loop
        self._port: Any = None
        self._next_check: Any = None
        self._stopped = False

    def start(self) -> None:
        tls = self._service.tls
        _check_tls_packages(tls)
        check_exposure(self.address, tls=tls, require_tls=self._service.require_tls)
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

    def _run(self, listen: Callable[[Any], Deferred[None]], where: Any) -> None:
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
        listening: Deferred[Any] = endpoint.listen(_Factory(self._accept))
        return listening.addCallback(self._listening)

    def _adopt(self, opened: socket.socket) -> Deferred[None]:
        factory = _Factory(self._accept)
        # It duplicates the descriptor.
        port = self._loop.reactor.adoptStreamPort(opened.fileno(), opened.family, factory)
        self._listening(port)
        return succeed(None)

    def _listening(self, port: Any) -> None:
        self._port = port
        self._check_later()
        if isinstance(self.address, TCPAddress):
            self.address = TCPAddress(self.address.host, port.getHost().port)

    def abandon(self) -> None:
        """Do nothing more in the child of a fork; `reactors` closes the descriptors there."""
        self._stopped = True

    def _check_later(self) -> None:
        # Not by a LoopingCall, which would import the global reactor.
        self._next_check = self._loop.reactor.callLater(self._service.check_delay, self._check)

    def _check(self) -> None:
        self._service.check()
        self._check_later()

    def _accept(self, addr: Any) -> Any:
        if len(self._connections) >= self._service.max_peers:
            self._service.refused(self._describe_address(addr), too_many(self._service))
            return None
        tls = self._service.tls
        if tls is None:
            return self._connection(None)
        try:
            connections = _tls_connections(tls, None)
        except ConfigurationError as error:
            self._service.refused(self._describe_address(addr), f"TLS: {error}")
            return None
        factory = _Factory(lambda _: self._connection(connections))
        return _behind_tls(connections, False, factory, self._loop).buildProtocol(addr)

    def _describe_address(self, addr: Any) -> str:
        if isinstance(self.address, UnixAddress):
            return f"unix:{self.address}"
        return tcp_name(addr.host, addr.port)

    def _connection(self, tls: Any) -> _PrimaryConnection:
        connection = _PrimaryConnection(self._loop, tls, self._service)
        connection.made.addCallback(lambda _: self._connections.add(connection))
        connection.closed.addCallback(lambda _: self._connections.discard(connection))
        return connection

    def stop(self, timeout: float) -> None:
        if not self._stopped:
            self._stopped = True
            try:
                self._loop.call(self._stop, timeout)
            finally:
                self._loop.close()
                self._service.stopped()

    def _stop(self, timeout: float) -> Deferred[Any]:
        self._next_check.cancel()
        stopped = maybeDeferred(self._port.stopListening).addErrback(self._unlinked)
        waits: list[Deferred[Any]] = [stopped]
        for connection in list(self._connections):
            waits.append(connection.closed)
            connection.finish()
        deadline = self._loop.reactor.callLater(timeout, self._abort)
        return DeferredList(waits).addCallback(lambda _: deadline.active() and deadline.cancel())

    def _unlinked(self, failure: Failure) -> None:
        """Somebody has removed the socket's file, at which Twisted leaves the socket open."""
        failure.trap(FileNotFoundError)  # type: ignore[no-untyped-call]
        Port.connectionLost(self._port, failure)  # type: ignore[no-untyped-call]

    def _abort(self) -> None:
        for connection in list(self._connections):
            connection.abort()


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


class _SecondaryConnection(_Connection):
    """Applies what comes in; while it does so, nothing more is read."""

    read_size = READ_SIZE
    session: ISecondarySession | None

    def __init__(
        self, loop: Loop, tls: Any, client: IReplicationClient, before: Deferred[None]
    ) -> None:
        super().__init__(loop, tls, client.peer_timeout, CONNECT_TIMEOUT, before)
        self._client = client
        self._keep_alive: Any = None
        self._leaving = False
        # Pieces of one read, which are several behind TLS.
        self._unapplied = 0

    def open_session(self) -> None:
        self.cancel_deadline()
        local_address = own_name(self.handle)
        self.session = self._client.session(str(self._client.address), local_address)
        # Not in a thread that would wait: enough of them would leave none for what they wait for.
        self.before.addCallback(self._ask_for_greeting)

    def _ask_for_greeting(self, _: None) -> None:
        if self.session is not None:
            greeting = self.turns.deferred(self.session.greeting)
            greeting.addCallbacks(self._greet, self.unexpected)

    def refuse(self, reason: str) -> None:
        if not self._leaving:
            self._client.connection_failed(reason)

    def _greet(self, greeting: bytes) -> None:
        if self.session is not None and self.session.finished:
            self.close()
            return
        self.transport.write(greeting)
        self._keep_alive_later()

    def _keep_alive_later(self) -> None:
        delay = self._client.keep_alive_delay
        if delay and not self.lost:
            self._keep_alive = self.loop.reactor.callLater(delay, self._send_keep_alive)

    def _send_keep_alive(self) -> None:
        if self.session is not None:
            self.transport.write(self.session.keep_alive())
            if self.session.finished:
                self.close()
            else:
                self._keep_alive_later()

    def dataReceived(self, data: bytes) -> None:
        session = self.session
        if session is None:
            return
        if self._tls is None:
            # Of TLS it comes in pieces, which do not tell how much was read.
            self.transport.bufferSize = next_read_size(len(data))
        self._unapplied += 1
        if self._unapplied == 1:
            self.transport.pauseProducing()
        apply = partial(session.receive_data, data, self._has_more)
        self.turns.call(apply, self._applied, self.unexpected)

    def _has_more(self) -> bool:
        return is_readable(self.handle)

    def _applied(self, _: None) -> None:
        self._unapplied -= 1
        if self.session is not None and self.session.finished:
            self.close()
        elif not self._unapplied:
            self.transport.resumeProducing()
            if self._tls is not None and not self._closing:
                self.set_deadline(LONGEST_HOLD, self._wait_no_longer)

    def _wait_no_longer(self) -> None:
        """What `_has_more` has seen may be a part of a TLS record, and the rest does not come."""
        if self.session is not None and not self._unapplied:
            show = partial(self.session.receive_data, b"")
            self.turns.call(show, self._shown, self.unexpected)

    def _shown(self, _: None) -> None:
        if self.session is not None and self.session.finished:
            self.close()

    def close(self) -> None:
        super().close()
        if self._tls is not None:
            # Nothing that is on its way matters any more, nor does the primary's goodbye.
            self.transport.transport.loseConnection()

    def leave(self) -> None:
        """The connection is closed from here: its end is no news."""
        self._leaving = True
        if self.lost:
            return
        if self.session is None:
            self.abort()
        else:
            self.close()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        if self._keep_alive is not None and self._keep_alive.active():
            self._keep_alive.cancel()
        if self.session is not None and not self._leaving:
            if self._tls is not None and reason.type.__module__.startswith("OpenSSL"):
                # In TLS 1.3 a primary refuses a certificate when the handshake is over here.
                self.session.refused(self.describe(reason))
            else:
                self.turns.deferred(self.session.receive_eof).addErrback(self.unexpected)
        super().connectionLost(reason)


@implementer(IConnector)
class Connector:
    """Keeps a client connected, on its reactor or on the background one."""

    def __init__(self, client: IReplicationClient) -> None:
        self._client = client
        self._loop: Loop
        self._service: ClientService | None = None
        self._connection: _SecondaryConnection | None = None
        self._stopped = False

    def start(self) -> None:
        _check_tls_packages(self._client.tls)
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

    def _connect(self, addr: Any) -> _SecondaryConnection:
        tls = addr.connections if isinstance(addr, _TLSAddress) else None
        before = succeed(None) if self._connection is None else self._connection.closed
        connection = _SecondaryConnection(self._loop, tls, self._client, before)
        connection.made.addCallback(lambda _: setattr(self, "_connection", connection))
        return connection

    def reconnect(self) -> None:
        # Whoever stops this meanwhile may be the last but this to need the reactor.
        loop = acquire(self._client.reactor)
        try:
            if not self._stopped:
                loop.call(self._reconnect)
        finally:
            loop.close()

    def _reconnect(self) -> Deferred[Any]:
        # Another service, since this one may be waiting for its next attempt.
        return self._leave().addCallback(self._start_again)

    def _start_again(self, _: Any) -> None:
        if not self._stopped and self._service is None:
            self._start()

    def stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            try:
                self._loop.call(self._leave)
            finally:
                self._loop.close()

    def abandon(self) -> None:
        """Do nothing more in the child of a fork; `reactors` closes the descriptors there."""
        self._stopped = True

    def _leave(self) -> Deferred[Any]:
        waits: list[Deferred[Any]] = []
        if self._connection is not None:
            self._connection.leave()
            waits.append(self._connection.closed)
        service, self._service = self._service, None
        if service is not None:
            waits.append(maybeDeferred(service.stopService))
        return DeferredList(waits)


class _TLSAddress:
    """What a connection is built for: an address, and the TLS that stands before it."""

    def __init__(self, connections: Any) -> None:
        self.connections = connections


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
        address = self._client.address
        failure: Exception = OSError(f"{address} has no address that can be used")
        try:
            for endpoint in self._endpoints((yield self._look_up(address))):
                try:
                    return (yield self._with_tls(endpoint, address, factory))
                except ConnectError as error:
                    failure = error
            raise failure
        except (CancelledError, ConnectingCancelledError):
            raise
        except (ConnectError, OSError, ConfigurationError) as error:
            self._client.connection_failed(str(error))
            raise
        except Exception as error:
            # Something raised that never should; the next attempt may fare better.
            log.exception("%s: trying again", address, extra=event("unexpected", peer=address))
            self._client.connection_failed(repr(error))
            raise

    def _look_up(self, address: Address) -> Deferred[Places]:
        if not needs_look_up(address):
            return maybeDeferred(look_up, address)
        reactor = self._loop.reactor
        result: Deferred[Places] = Deferred(lambda _: found.cancel())

        def end() -> None:
            # It may have been cancelled meanwhile.
            if not result.called:
                maybeDeferred(found.result).chainDeferred(result)

        found = LookUp(address, lambda: reactor.callFromThread(end))
        return result

    def _endpoints(self, places: Places) -> list[Any]:
        reactor = self._loop.reactor
        kinds: dict[int, Any] = {
            socket.AF_UNIX: UNIXClientEndpoint,
            socket.AF_INET: TCP4ClientEndpoint,
            socket.AF_INET6: TCP6ClientEndpoint,
        }
        return [
            kinds[family](reactor, *where[:2], timeout=CONNECT_TIMEOUT)
            for family, where in places
            if family in kinds
        ]

    def _with_tls(self, endpoint: Any, address: Address, factory: Factory) -> Deferred[Any]:
        tls = self._client.tls
        connecting: Deferred[Any]
        if tls is None:
            connecting = endpoint.connect(factory)
            return connecting
        connections = _tls_connections(tls, tls.host_of(address))
        relay = _Relay(factory, _TLSAddress(connections))
        connecting = endpoint.connect(_behind_tls(connections, True, relay, self._loop))
        return connecting.addCallback(lambda protocol: protocol.wrappedProtocol)


def _check_tls_packages(tls: TLSOptions | None) -> None:
    if tls is not None and find_spec("OpenSSL") is None:
        raise ConfigurationError(
            "TLS over twisted-tcp needs more packages: install zrs-core[tls], "
            "or choose the transport socket-thread"
        )


def _tls_connections(tls: TLSOptions, host: str | None) -> Any:
    # Only those who use TLS need its packages.
    from .twisted_tls import TLSConnections

    return TLSConnections(tls, host)


def _behind_tls(connections: Any, is_client: bool, factory: Factory, loop: Loop) -> Any:
    from twisted.protocols.tls import TLSMemoryBIOFactory

    # Without a clock of its own it would wait for the global reactor to send anything.
    return TLSMemoryBIOFactory(connections, is_client, factory, loop.reactor)


class _Factory(Factory):
    noisy = False

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._make = make

    def buildProtocol(self, addr: Any) -> Any:
        return self._make(addr)


class _Relay(Factory):
    """Has another factory build protocols, for an address that is put in the place of the real."""

    noisy = False

    def __init__(self, factory: Any, address: Any) -> None:
        self._factory = factory
        self._address = address

    def buildProtocol(self, addr: Any) -> Any:
        return self._factory.buildProtocol(self._address)

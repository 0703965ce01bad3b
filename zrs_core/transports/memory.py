"""A network in memory: one thread, a clock that stands still, every step by hand.

What tests and demonstrations drive. Nothing moves by itself: `MemoryNetwork.step` does one thing,
`run` goes on until nothing is left to do, `advance` moves the clock on. A transaction that is
committed in another thread is noticed at the next step.
"""

from __future__ import annotations

import heapq
import itertools
import logging
from collections.abc import Callable
from typing import Protocol

from zope.interface import implementer

from ..addresses import Address, TCPAddress, parse_address
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
from .limits import does_not_take, too_late, too_many

log = logging.getLogger("zrs_core.transport")

#: Bytes that a receiver takes before it has read them, as a socket's buffer does.
CAPACITY = 256 * 1024


class _Acceptor(Protocol):
    def accepted(self, end: MemoryEnd) -> None:
        """A connection has come in."""


class _Driver(Protocol):
    """What owns an end that is not driven by hand."""

    def received(self, data: bytes) -> None: ...
    def ended(self) -> None: ...
    def lost(self, reason: str) -> None: ...
    def turn(self) -> bool:
        """Do what is to be done now; whether there was anything."""


class MemoryNetwork:
    """Where listeners and connectors meet. Single-threaded.

    :param chunk_size: the most bytes that one step delivers.
    """

    def __init__(self, *, chunk_size: int = 65_536) -> None:
        self.chunk_size = chunk_size
        #: Seconds on the clock.
        self.now = 0.0
        self._acceptors: dict[Address, _Acceptor] = {}
        self._ends: list[MemoryEnd] = []
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._connections = itertools.count(1)
        self._timer_order = itertools.count()
        self._ports = itertools.count(49_152)

    # -- driving it

    def run(self) -> None:
        """Go on until nothing is left to do but to wait."""
        while self.step():
            pass

    def step(self) -> bool:
        """Give each end its turn and deliver one chunk each way; whether anything happened."""
        happened = False
        for end in list(self._ends):
            happened |= end.step()
        return happened

    def advance(self, seconds: float) -> None:
        """Move the clock on and do what falls due on the way; nothing is delivered meanwhile."""
        until = self.now + seconds
        while self._timers and self._timers[0][0] <= until:
            self.now, _, due = heapq.heappop(self._timers)
            due()
        self.now = until

    def cut(self) -> None:
        """Lose every connection at once, with what is on its way."""
        for end in list(self._ends):
            end.cut()

    # -- taking part by hand

    def listen(self, address: object) -> MemoryListener:
        """Listen by hand: connections wait in `MemoryListener.accept`.

        :raises ListenError: something listens there already.
        """
        listener = MemoryListener(self, parse_address(address))
        self.add_acceptor(listener.address, listener)
        return listener

    def connect(self, address: object) -> MemoryEnd:
        """Connect by hand.

        :raises ConnectionRefusedError: nothing listens at `address`.
        """
        ours, theirs, accept = self._link(parse_address(address))
        accept(theirs)
        return ours

    # -- for listeners and connectors

    def _link(self, address: Address) -> tuple[MemoryEnd, MemoryEnd, Callable[[MemoryEnd], None]]:
        acceptor = self._acceptors.get(address)
        if acceptor is None:
            raise ConnectionRefusedError(f"nothing listens at {address}")
        number = next(self._connections)
        ours, theirs = MemoryEnd(self, f"memory:{number}"), MemoryEnd(self, f"memory:{number}")
        ours.peer, theirs.peer = theirs, ours
        self._ends += [ours, theirs]
        return ours, theirs, acceptor.accepted

    def connect_driver(self, address: Address, driver: Callable[[MemoryEnd], _Driver]) -> None:
        """Connect, with a driver for this end, before the other end hears of it.

        :raises ConnectionRefusedError: nothing listens at `address`.
        """
        ours, theirs, accept = self._link(address)
        try:
            ours.driver = driver(ours)
        except BaseException:
            self.forget(ours)
            self.forget(theirs)
            raise
        accept(theirs)

    def add_acceptor(self, address: Address, acceptor: _Acceptor) -> None:
        """:raises ListenError: something listens there already."""
        if address in self._acceptors:
            raise ListenError(f"cannot listen on {address}: something listens there already")
        self._acceptors[address] = acceptor

    def remove_acceptor(self, address: Address) -> None:
        self._acceptors.pop(address, None)

    def free_port(self) -> int:
        return next(self._ports)

    def call_later(self, delay: float, function: Callable[[], None]) -> Callable[[], None]:
        """Call `function` once the clock has moved on by `delay` seconds.

        Calling the result before that forgets it.
        """
        timer = (self.now + delay, next(self._timer_order), function)
        heapq.heappush(self._timers, timer)

        def cancel() -> None:
            if timer in self._timers:
                self._timers.remove(timer)
                heapq.heapify(self._timers)

        return cancel

    def forget(self, end: MemoryEnd) -> None:
        if end in self._ends:
            self._ends.remove(end)


class MemoryEnd:
    """One end of a connection. Without a driver it is driven by hand: `write`, `read`, `close`."""

    def __init__(self, network: MemoryNetwork, name: str) -> None:
        self.name = name
        self.network = network
        self.driver: _Driver | None = None
        self.peer: MemoryEnd
        #: Bytes that have arrived and were not read.
        self.incoming = bytearray()
        #: Whether the other end has closed, and all that it sent has arrived.
        self.at_eof = False
        #: When, by the network's clock, the other end last took some of what was written.
        self.progress = 0.0
        self._outgoing = bytearray()
        self._closing = False
        self._open = True

    @property
    def drained(self) -> bool:
        """Whether all that was written has been delivered."""
        return not self._outgoing

    @property
    def room(self) -> int:
        """How many bytes it takes now."""
        return CAPACITY - len(self.incoming)

    def write(self, data: bytes) -> None:
        """Send bytes; after `close` they are dropped, as on a socket."""
        if self._open and not self._closing:
            if self.drained:
                self.progress = self.network.now
            self._outgoing += data

    def read(self, size: int | None = None) -> bytes:
        """What has arrived, at most `size` bytes of it."""
        data = bytes(self.incoming[:size])
        del self.incoming[: len(data)]
        return data

    def close(self) -> None:
        """Close once all that was written has been delivered."""
        self._closing = True

    def cut(self, reason: str = "the connection was lost") -> None:
        """Lose the connection at both ends, with what is on its way; `reason` is for this end."""
        self._lose(reason)
        self.peer._lose("the connection was lost")

    def _lose(self, reason: str) -> None:
        if self._open:
            self._open = False
            self.at_eof = True
            self._outgoing.clear()
            self.network.forget(self)
            if self.driver is not None:
                self.driver.lost(reason)

    def step(self) -> bool:
        if not self._open:
            return False
        happened = self.driver is not None and self.driver.turn()
        chunk = bytes(self._outgoing[: min(self.network.chunk_size, self.peer.room)])
        if chunk:
            del self._outgoing[: len(chunk)]
            self.progress = self.network.now
            self.peer._receive(chunk)
            return True
        if self._closing and not self._outgoing:
            self.peer._end()
            self._lose("closed here")
            return True
        return happened

    def _receive(self, data: bytes) -> None:
        if self.driver is None:
            self.incoming += data
        else:
            self.driver.received(data)

    def _end(self) -> None:
        if self.driver is not None:
            self.driver.ended()
        self._lose("closed by the other end")


class MemoryListener:
    """A listener by hand."""

    def __init__(self, network: MemoryNetwork, address: Address) -> None:
        self.address = address
        self._network = network
        self._waiting: list[MemoryEnd] = []

    def accepted(self, end: MemoryEnd) -> None:
        self._waiting.append(end)

    def accept(self) -> MemoryEnd | None:
        """The connection that has waited longest, if there is one."""
        self._network.run()
        return self._waiting.pop(0) if self._waiting else None

    def close(self) -> None:
        """Listen no more; connections stay."""
        self._network.remove_acceptor(self.address)


#: What storages meet in that were given no network.
default_network = MemoryNetwork()


def _network_of(reactor: object) -> MemoryNetwork:
    if reactor is None:
        return default_network
    if not isinstance(reactor, MemoryNetwork):
        raise ConfigurationError(
            f"the memory transport runs on a MemoryNetwork, not on {type(reactor).__name__}"
        )
    return reactor


def _check_no_tls(tls: object) -> None:
    if tls is not None:
        raise ConfigurationError("the memory transport has no TLS: nothing leaves the process")


class _PrimaryDriver:
    """Drives a primary's session: a batch whenever the one before has been delivered."""

    def __init__(self, listener: Listener, end: MemoryEnd) -> None:
        self._listener = listener
        self._service = listener.service
        self._end = end
        self._session: IPrimarySession = self._service.session(end.name)
        # A look at what the peer takes, if one is planned.
        self._watch: Callable[[], None] | None = None
        self._check_greeting_later()
        # Whether the session may have something: not so between an empty batch and a wake.
        self._ready = True
        self._closing = False

    def received(self, data: bytes) -> None:
        self._session.receive_data(data)

    def ended(self) -> None:
        self._session.receive_eof()

    def lost(self, reason: str) -> None:
        self._forget_greeting()
        if self._watch is not None:
            self._watch()
        self._session.close(reason)
        self._listener.drivers.discard(self)

    # While the clock is moved on nothing is delivered: what is on its way then is not late.

    def _check_greeting_later(self) -> None:
        self._forget_greeting = self._end.network.call_later(
            self._service.handshake_timeout, self._check_greeting
        )

    def _check_greeting(self) -> None:
        if not self._end.peer.drained:
            self._check_greeting_later()
        elif not self._session.started:
            self._service.refused(self._end.name, too_late(self._service))
            self._end.cut("closed here")

    def _check_progress_in(self, seconds: float) -> None:
        self._watch = self._end.network.call_later(seconds, self._check_progress)

    def _check_progress(self) -> None:
        self._watch = None
        if self._end.drained:
            return
        timeout = self._service.write_timeout
        left = self._end.progress + timeout - self._end.network.now
        if left > 0 or self._end.peer.room:
            self._check_progress_in(left if left > 0 else timeout)
        else:
            self._end.cut(does_not_take(self._service))

    def close(self) -> None:
        """Close once the secondary has caught up."""
        self._closing = True
        self._ready = True

    def abort(self) -> None:
        self._end.cut("closed here")

    def abandon(self) -> None:
        self._end.network.forget(self._end)

    def turn(self) -> bool:
        if self._session.finished or (self._closing and not self._session.started):
            self._end.close()
            return False
        if not (self._session.started and self._ready and self._end.drained):
            return False
        chunks = self._session.produce()
        if chunks:
            self._end.write(b"".join(chunks))
            if self._watch is None:
                self._check_progress_in(self._service.write_timeout)
        elif self._closing or self._session.finished:
            self._end.close()
        else:
            self._ready = False
            self._session.wait(self._wake)
        return True

    def _wake(self) -> None:
        self._ready = True


@implementer(IListener)
class Listener:
    """Accepts connections for a service on a `MemoryNetwork`, which its `reactor` is.

    :raises ConfigurationError: the service has a reactor that is no `MemoryNetwork`, or TLS.
    """

    def __init__(self, service: IReplicationService) -> None:
        self.address = service.address
        self.service = service
        self.drivers: set[_PrimaryDriver] = set()
        self._network = _network_of(service.reactor)
        self._stopped = False
        self._forget_check: Callable[[], object] = bool
        _check_no_tls(service.tls)

    def start(self) -> None:
        if isinstance(self.address, TCPAddress) and not self.address.port:
            self.address = TCPAddress(self.address.host, self._network.free_port())
        self._network.add_acceptor(self.address, self)
        self._check_later()

    def _check_later(self) -> None:
        def due() -> None:
            self.service.check()
            self._check_later()

        self._forget_check = self._network.call_later(self.service.check_delay, due)

    def abandon(self) -> None:
        """Leave the network in the child of a fork, where it is a copy."""
        self._stopped = True
        self._forget_check()
        self._network.remove_acceptor(self.address)
        for driver in self.drivers:
            driver.abandon()

    def accepted(self, end: MemoryEnd) -> None:
        if len(self.drivers) >= self.service.max_peers:
            self.service.refused(end.name, too_many(self.service))
            end.close()
            return
        driver = _PrimaryDriver(self, end)
        self.drivers.add(driver)
        end.driver = driver

    def stop(self, timeout: float) -> None:
        """As `IListener`; time stands still, so it stops waiting once nothing moves."""
        if self._stopped:
            return
        self._stopped = True
        self._forget_check()
        self._network.remove_acceptor(self.address)
        for driver in self.drivers:
            driver.close()
        self._network.run()
        for driver in list(self.drivers):
            driver.abort()
        self.service.stopped()


class _SecondaryDriver:
    """Drives a secondary's session."""

    def __init__(self, connector: Connector, end: MemoryEnd, session: ISecondarySession) -> None:
        self._connector = connector
        self._end = end
        self._session = session
        self._greeted = False
        end.write(session.greeting())

    def received(self, data: bytes) -> None:
        self._session.receive_data(data)

    def ended(self) -> None:
        self._session.receive_eof()

    def lost(self, reason: str) -> None:
        self._session.close(reason)
        self._connector.lost()

    def turn(self) -> bool:
        if self._session.finished:
            self._end.close()
        return False

    def keep_alive(self) -> None:
        # While the greeting is not delivered, no time has passed for the other end.
        self._greeted = self._greeted or self._end.drained
        if self._greeted:
            self._end.write(self._session.keep_alive())

    def close(self) -> None:
        self._end.cut("closed here")

    def abandon(self) -> None:
        self._end.network.forget(self._end)


@implementer(IConnector)
class Connector:
    """Keeps a client connected on a `MemoryNetwork`, which its `reactor` is.

    :raises ConfigurationError: the client has a reactor that is no `MemoryNetwork`, or TLS.
    """

    def __init__(self, client: IReplicationClient) -> None:
        self._client = client
        self._network = _network_of(client.reactor)
        _check_no_tls(client.tls)
        self._driver: _SecondaryDriver | None = None
        # What is planned: another attempt, or to say that it is there.
        self._forget_plan: Callable[[], object] = bool
        self._stopped = False

    def start(self) -> None:
        self._connect()

    def abandon(self) -> None:
        """Leave the network in the child of a fork, where it is a copy."""
        self._stopped = True
        self._forget_plan()
        if self._driver is not None:
            self._driver.abandon()
            self._driver = None

    def _connect(self) -> None:
        self._forget_plan()
        try:
            self._network.connect_driver(self._client.address, self._drive)
        except ConnectionRefusedError as error:
            self._client.connection_failed(str(error))
            self._retry()
        except Exception as error:
            if self._driver is not None:
                # It is the other end's.
                raise
            fields = event("unexpected", peer=self._client.address)
            log.exception("%s: trying again", self._client.address, extra=fields)
            self._client.connection_failed(repr(error))
            self._retry()

    def _drive(self, end: MemoryEnd) -> _SecondaryDriver:
        driver = _SecondaryDriver(self, end, self._client.session(end.name, end.name))
        self._driver = driver
        if self._client.keep_alive_delay:
            self._keep_alive_later(driver)
        return driver

    def _keep_alive_later(self, driver: _SecondaryDriver) -> None:
        def due() -> None:
            driver.keep_alive()
            self._keep_alive_later(driver)

        self._forget_plan = self._network.call_later(self._client.keep_alive_delay, due)

    def lost(self) -> None:
        self._driver = None
        self._forget_plan()
        if not self._stopped:
            self._retry()

    def _retry(self) -> None:
        self._forget_plan = self._network.call_later(self._client.retry_delay(), self._connect)

    def reconnect(self) -> None:
        if self._stopped:
            return
        if self._driver is not None:
            self._driver.close()
        self._connect()

    def stop(self) -> None:
        self._stopped = True
        self._forget_plan()
        if self._driver is not None:
            self._driver.close()

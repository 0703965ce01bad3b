"""A network in memory: one thread, a clock that stands still, every step by hand.

For tests and demonstrations. Nothing moves by itself: `MemoryNetwork.step` does one thing, `run`
steps until nothing is left to do, `advance` moves the clock on. A transaction that is committed in
another thread is noticed at the next step.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from zope.interface import implementer

from ..actions import Work
from ..addresses import TCPAddress
from ..errors import ConfigurationError
from ..interfaces import IConnector, IListener, IReplicationClient, IReplicationService, ISession
from ..logs import event
from .driver import Driver, check_service
from .memory_network import CAPACITY, MemoryEnd, MemoryListener, MemoryNetwork

__all__ = ["CAPACITY", "Connector", "Listener", "MemoryEnd", "MemoryListener", "MemoryNetwork"]

log = logging.getLogger("zrs_core.transport")

#: The network of storages that were given none.
default_network = MemoryNetwork()


def _network_of(reactor: object) -> MemoryNetwork:
    if reactor is None:
        return default_network
    if not isinstance(reactor, MemoryNetwork):
        raise ConfigurationError(
            f"the memory transport runs on a MemoryNetwork, not on {type(reactor).__name__}"
        )
    return reactor


class _Connection(Driver):
    """Drives the session of one end.

    :param forget: called when the session is over.
    """

    def __init__(
        self, session: ISession, end: MemoryEnd, forget: Callable[[_Connection], object]
    ) -> None:
        super().__init__(session)
        self._end = end
        self._network = end.network
        self._forget = forget
        self._at_eof = False
        # The time of the timer that is set, and the function that cancels it.
        self.due: float | None = None
        self._cancel: Callable[[], object] = bool
        end.driver = self

    # -- what the network calls

    def turn(self) -> bool:
        """Give the session what is due; return True if anything was."""
        happened, self._end.notified = self._end.notified, False
        if happened:
            self.session.wake(self._network.now)
            self.act()
        deadline, now = self.session.next_deadline(), self._network.now
        if deadline is not None and deadline <= now and self._network.is_late(self._end):
            happened = True
            self.session.handle_timeout(self._network.now)
            self.act()
        return happened

    def received(self) -> None:
        """Give the session what has arrived, if it wants it."""
        if not self._acting:
            self.settle()

    def sent(self, size: int) -> None:
        self.session.sent(size, self._network.now)
        self.act()

    def lost(self, reason: str) -> None:
        self._end.driver = None
        self.session.lost(reason, self._network.now)
        self.act()

    # -- actions

    def send(self, chunks: Sequence[bytes]) -> None:
        self._end.write(b"".join(chunks))

    def work(self, work: Work) -> None:
        report, outcome = self.outcome(work)
        report(outcome, self._network.now)
        if report == self.session.failed and not isinstance(outcome, Exception):
            # It is meant for the caller, in whose thread this is.
            raise outcome

    def half_close(self) -> None:
        self._end.finish()

    def close(self, reason: str) -> None:
        self._end.driver = None
        self._end.close()
        self.session.lost(reason, self._network.now)

    def abort(self, reason: str) -> None:
        self._end.cut(reason)

    def settle(self) -> None:
        session, now = self.session, self._network.now
        if session.over:
            self.abandon()
            self._forget(self)
        elif session.wants_data and self._end.incoming:
            session.receive_data(self._end.read(), now)
            self.act()
        elif session.wants_data and self._end.at_eof and not self._at_eof:
            self._at_eof = True
            session.receive_eof(now)
            self.act()
        elif (deadline := session.next_deadline()) != self.due:
            self._cancel()
            self.due = deadline
            if deadline is not None:
                self._cancel = self._network.call_at(deadline, self.turn)

    # -- what a listener and a connector call

    def stop(self, timeout: float) -> None:
        """Have the session end the connection within `timeout` seconds."""
        self.session.stop(self._network.now, timeout)
        self.act()

    def cut(self) -> None:
        """Lose the connection at both ends."""
        self._end.cut("closed here")

    def abandon(self) -> None:
        self._cancel()
        self.due = None


@implementer(IListener)
class Listener:
    """Accepts connections for a service on a `MemoryNetwork`, which its `reactor` is.

    :raises ConfigurationError: the service has a reactor that is not a `MemoryNetwork`.
    """

    def __init__(self, service: IReplicationService) -> None:
        self.address = service.address
        self.drivers: set[_Connection] = set()
        self._service = service
        self._network = _network_of(service.reactor)
        self._stopped = False
        self._cancel: Callable[[], object] = bool

    def start(self) -> None:
        if isinstance(self.address, TCPAddress) and not self.address.port:
            self.address = TCPAddress(self.address.host, self._network.free_port())
        self._network.add_acceptor(self.address, self)
        self._service.start(self._network.now)
        self._keep_time()

    def _keep_time(self) -> None:
        left = check_service(self._service, self._network.now)
        self._cancel = self._network.call_at(self._network.now + left, self._keep_time)

    def accepted(self, end: MemoryEnd) -> None:
        now = self._network.now
        try:
            session = self._service.accept(end.name, now, end.notify)
        except Exception as error:  # noqa: BLE001
            self._service.serve_failed(error, now)
            session = None
        if session is None:
            end.close()
            return
        driver = _Connection(session, end, self.drivers.discard)
        self.drivers.add(driver)
        driver.act()

    def stop(self, timeout: float) -> None:
        """As `IListener`; time stands still, so it stops waiting once nothing moves."""
        if self._stopped:
            return
        self._leave()
        # A secondary whose greeting is on its way is served.
        self._network.run()
        for driver in list(self.drivers):
            driver.stop(timeout)
        self._network.run()
        for driver in list(self.drivers):
            driver.cut()
        self._service.stop(self._network.now)

    def _leave(self) -> None:
        self._stopped = True
        self._cancel()
        self._network.remove_acceptor(self.address)

    def abandon(self) -> None:
        """Leave the network in the child of a fork, where it is a copy."""
        self._leave()
        for driver in self.drivers:
            driver.abandon()


@implementer(IConnector)
class Connector:
    """Keeps a client connected on a `MemoryNetwork`, which its `reactor` is.

    :raises ConfigurationError: the client has a reactor that is not a `MemoryNetwork`.
    """

    def __init__(self, client: IReplicationClient) -> None:
        self._client = client
        self._network = _network_of(client.reactor)
        self._driver: _Connection | None = None
        # Cancels the next attempt.
        self._cancel: Callable[[], object] = bool
        self._stopped = False

    def start(self) -> None:
        self._cancel()
        network, client = self._network, self._client
        try:
            end, other, accept = network.link(client.address)
        except ConnectionRefusedError as error:
            self._failed(str(error))
            return
        try:
            session = client.session(network.now, end.notify, end.name)
        except Exception as error:
            fields = event("unexpected", peer=client.address)
            log.exception("%s: trying again", client.address, extra=fields)
            network.forget(end)
            network.forget(other)
            self._failed(repr(error))
            return
        self._driver = _Connection(session, end, self._over)
        self._driver.act()
        if not other.at_eof:
            accept(other)

    def _failed(self, reason: str) -> None:
        self._client.connection_failed(reason)
        self._retry()

    def _over(self, driver: _Connection) -> None:
        self._driver = None
        if not self._stopped:
            self._retry()

    def _retry(self) -> None:
        time = self._network.now + self._client.retry_delay()
        self._cancel = self._network.connect_at(time, self.start)

    def reconnect(self) -> None:
        if not self._stopped:
            self._leave()
            self.start()

    def stop(self) -> None:
        self._stopped = True
        self._cancel()
        self._leave()

    def _leave(self) -> None:
        if (driver := self._driver) is not None:
            driver.stop(0.0)
            driver.cut()

    def abandon(self) -> None:
        """Leave the network in the child of a fork, where it is a copy."""
        self._stopped = True
        self._cancel()
        if self._driver is not None:
            self._driver.abandon()
            self._driver = None

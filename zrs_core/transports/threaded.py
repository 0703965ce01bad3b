"""Listeners and connectors that run a thread for each connection, without the sockets.

A listener has a thread that accepts connections, and one for each connection; a connector has one
thread. A subclass of `ThreadedListener` opens the socket that listens. A subclass of either class
may name its own class of drivers; the default is `SocketDriver`.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from abc import ABC, abstractmethod
from typing import ClassVar

from zope.interface import implementer

from ..addresses import Address
from ..errors import ConfigurationError, ListenError
from ..interfaces import IConnector, IListener, IReplicationClient, IReplicationService
from ..logs import event
from .dialler import Dialler, Interrupted
from .driver import check_service
from .listening import check_exposure
from .socket_driver import SocketDriver
from .sockets import is_readable, own_name, peer_name, tune
from .thread_driver import ThreadDriver
from .waiter import READ, Waiter

log = logging.getLogger("zrs_core.transport")

#: Seconds until a listener tries again to accept a connection after a failure.
_ACCEPT_PAUSE = 0.1


@implementer(IListener)
class ThreadedListener(ABC):
    """Accepts connections for a service, and drives each in a thread.

    A subclass defines `listen`. The methods of `IListener` may be called in any thread.

    :param service: the service to accept connections for.
    """

    #: The class of the driver of each connection.
    driver_class: ClassVar[type[ThreadDriver]] = SocketDriver

    def __init__(self, service: IReplicationService) -> None:
        self.address: Address = service.address
        #: The service that connections are accepted for.
        self.service = service
        self._connections: dict[threading.Thread, ThreadDriver] = {}
        self._lock = threading.Lock()
        self._waiter: Waiter
        self._listening: socket.socket
        self._thread: threading.Thread | None = None
        self._stop_by: float | None = None

    @abstractmethod
    def listen(self) -> socket.socket:
        """Return a socket that listens at `self.address` and does not block.

        Set `self.address` if the system has assigned the port.

        :raises OSError: the address cannot be listened on; `start` raises `ListenError` then.
        :raises ListenError: the same, with a text of its own.
        """

    def unlisten(self) -> None:  # noqa: B027
        """Remove what `listen` has made besides the socket, which is still open."""

    def start(self) -> None:
        service = self.service
        check_exposure(self.address, tls=service.tls, require_tls=service.require_tls)
        with contextlib.ExitStack() as opened:
            listening = opened.enter_context(self._listen())
            opened.callback(self.unlisten)
            self._waiter = opened.enter_context(contextlib.closing(Waiter()))
            self._waiter.open()
            thread = threading.Thread(
                target=self._run,
                args=(listening,),
                name=f"zrs_core listening on {self.address}",
                daemon=True,
            )
            thread.start()
            self._thread, self._listening = thread, listening
            # From now on all of it is the thread's, and that of `stop`.
            opened.pop_all()

    def stop(self, timeout: float) -> None:
        # Another thread may stop it too, and be anywhere in this.
        thread = self._thread
        if thread is None:
            return
        self._stop_by = time.monotonic() + timeout
        self._waiter.wake()
        thread.join()
        self._waiter.close()
        with self._lock:
            connections = dict(self._connections)
        for driver in connections.values():
            driver.waiter.wake()
        for each in connections:
            each.join()
        self.service.stop(time.monotonic())
        self._thread = None

    def abandon(self) -> None:
        """Close the descriptors in the child of a fork."""
        if self._thread is not None:
            self._thread = None
            self._listening.close()
            self._waiter.abandon()
            for driver in self._connections.values():
                driver.abandon()

    def _listen(self) -> socket.socket:
        address = self.address
        try:
            return self.listen()
        except ListenError:
            raise
        except OSError as error:
            raise ListenError(f"cannot listen on {address}: {error}") from error

    def _run(self, listening: socket.socket) -> None:
        service = self.service
        with listening:
            service.start(time.monotonic())
            while self._stop_by is None:
                left = check_service(service, time.monotonic())
                if self._waiter.wait(listening, READ, left) & READ:
                    self._accept(listening)
            self.unlisten()

    def _accept(self, listening: socket.socket) -> None:
        try:
            connection, _ = listening.accept()
        except (BlockingIOError, ConnectionError):
            # It was gone before it was accepted.
            return
        except OSError as error:
            # Most likely there are no descriptors left, and that takes a while to change.
            self.service.accept_failed(error, time.monotonic())
            self._waiter.wait(None, 0, _ACCEPT_PAUSE)
            return
        with contextlib.ExitStack() as opened:
            opened.enter_context(connection)
            try:
                if self._serve(connection, opened):
                    opened.pop_all()
            except Exception as error:  # noqa: BLE001
                self.service.serve_failed(error, time.monotonic())

    def _serve(self, connection: socket.socket, opened: contextlib.ExitStack) -> bool:
        """Start a thread for a connection; return False if that is to be closed."""
        peer, waiter = peer_name(connection), Waiter()
        session = self.service.accept(peer, time.monotonic(), waiter.wake)
        if session is None:
            return False
        driver = self.driver_class(session, connection, waiter)
        opened.callback(driver.give_up, "closed here")
        try:
            tune(connection, self.service.peer_timeout)
        except OSError:
            # The peer has left already.
            return False
        waiter.open()
        opened.callback(waiter.close)
        thread = threading.Thread(
            target=self._drive, args=(driver, peer), name=f"zrs_core {peer}", daemon=True
        )
        opened.callback(self._forget, thread)
        # Here, and not in those threads: `stop` joins all that have not ended.
        self._forget_ended()
        with self._lock:
            self._connections[thread] = driver
        thread.start()
        return True

    def _forget_ended(self) -> None:
        with self._lock:
            ended = [each for each in self._connections if not each.is_alive()]
            for each in ended:
                del self._connections[each]

    def _forget(self, thread: threading.Thread) -> None:
        with self._lock:
            del self._connections[thread]

    def _drive(self, driver: ThreadDriver, peer: str) -> None:
        try:
            driver.run(lambda: self._stop_by)
        except Exception:
            # A bug of the session, or here. The other connections go on.
            log.exception("%s: closing", peer, extra=event("unexpected", peer=peer))
        finally:
            driver.waiter.close()


@implementer(IConnector)
class ThreadedConnector:
    """Keeps a client connected, in a thread.

    It connects to TCP addresses and Unix sockets. The methods of `IConnector` may be called in any
    thread.

    :param client: the client to keep connected.
    """

    #: The class of the driver of each connection.
    driver_class: ClassVar[type[ThreadDriver]] = SocketDriver

    def __init__(self, client: IReplicationClient) -> None:
        self._client = client
        self._waiter: Waiter
        self._dialler: Dialler
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._reconnecting = False

    def start(self) -> None:
        self._waiter = Waiter()
        self._waiter.open()
        self._dialler = Dialler(self._waiter, self._interrupted)
        thread = threading.Thread(
            target=self._run, name=f"zrs_core connecting to {self._client.address}", daemon=True
        )
        try:
            thread.start()
        except BaseException:
            self._waiter.close()
            raise
        self._thread = thread

    def reconnect(self) -> None:
        self._reconnecting = True
        self._waiter.wake()

    def stop(self) -> None:
        # Another thread may stop it too, and be anywhere in this.
        thread = self._thread
        if thread is None:
            return
        self._stopping = True
        self._waiter.wake()
        thread.join()
        self._waiter.close()
        self._thread = None

    def abandon(self) -> None:
        """Close the descriptors in the child of a fork."""
        if self._thread is not None:
            self._thread = None
            self._waiter.abandon()
            if self._dialler.socket is not None:
                self._dialler.socket.close()

    def _interrupted(self) -> bool:
        return self._stopping or self._reconnecting

    def _run(self) -> None:
        client = self._client
        while not self._stopping:
            self._reconnecting = False
            try:
                self._connect_once()
            except Interrupted:
                pass
            except BaseException as error:
                # A bug, of the client or here; the next attempt may fare better. A thread ends
                # without a line in the log for SystemExit.
                fields = event("unexpected", peer=client.address)
                log.exception("%s: trying again", client.address, extra=fields)
                client.connection_failed(repr(error))
            retry_at = time.monotonic() + client.retry_delay()
            while not self._interrupted() and (left := retry_at - time.monotonic()) > 0:
                self._waiter.wait(None, 0, left)

    def _connect_once(self) -> None:
        client = self._client
        try:
            connection = self._dialler.connect(client)
        except (OSError, ConfigurationError) as error:
            client.connection_failed(getattr(error, "strerror", None) or str(error))
            return
        with connection:
            session = client.session(
                time.monotonic(),
                self._waiter.wake,
                own_name(connection),
                lambda: is_readable(connection),
            )
            driver = self.driver_class(session, connection, self._waiter)
            driver.run(lambda: 0.0 if self._interrupted() else None)

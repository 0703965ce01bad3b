"""Plain sockets and threads: TCP or Unix sockets, and nothing but the standard library.

A primary has a thread that accepts connections, and one for each connection; a secondary has one
thread. A thread waits for its socket, for a deadline, and to be woken. It calls `Work` itself.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time

from zope.interface import implementer

from ..addresses import Address, TCPAddress, UnixAddress
from ..errors import ConfigurationError, ListenError
from ..interfaces import IConnector, IListener, IReplicationClient, IReplicationService
from ..logs import event
from .dialler import Dialler, Interrupted
from .listening import BACKLOG, check_exposure, open_tcp_listener, remove_stale_socket
from .socket_driver import SocketDriver
from .sockets import is_readable, own_name, peer_name, tune
from .waiter import READ, Waiter

log = logging.getLogger("zrs_core.transport")

#: Seconds until a listener tries again to accept a connection after a failure.
_ACCEPT_PAUSE = 0.1

#: Seconds after which a listener asks its service again for a deadline.
_LISTENER_WAIT = 2.0


@implementer(IListener)
class Listener:
    """Accepts connections for a service, each in a thread."""

    def __init__(self, service: IReplicationService) -> None:
        self.address: Address = service.address
        self._service = service
        self._connections: dict[threading.Thread, SocketDriver] = {}
        self._lock = threading.Lock()
        self._waiter: Waiter
        self._listening: socket.socket
        self._thread: threading.Thread | None = None
        self._stop_by: float | None = None

    def start(self) -> None:
        service = self._service
        check_exposure(self.address, tls=service.tls, require_tls=service.require_tls)
        with contextlib.ExitStack() as opened:
            listening = opened.enter_context(self._listen())
            opened.callback(self._remove_file)
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
        for connection in connections.values():
            connection.waiter.wake()
        for each in connections:
            each.join()
        self._service.stop(time.monotonic())
        self._thread = None

    def abandon(self) -> None:
        """Close the descriptors in the child of a fork."""
        if self._thread is not None:
            self._thread = None
            self._listening.close()
            self._waiter.abandon()
            for connection in self._connections.values():
                connection.abandon()

    def _listen(self) -> socket.socket:
        address = self.address
        if isinstance(address, UnixAddress):
            remove_stale_socket(address)
        try:
            with contextlib.ExitStack() as opened:
                if isinstance(address, UnixAddress):
                    listening = opened.enter_context(socket.socket(socket.AF_UNIX))
                    listening.bind(address.path)
                    os.chmod(address.path, self._service.socket_mode)
                else:
                    listening = opened.enter_context(open_tcp_listener(address))
                    self.address = TCPAddress(address.host, listening.getsockname()[1])
                listening.listen(BACKLOG)
                listening.setblocking(False)
                opened.pop_all()
                return listening
        except OSError as error:
            raise ListenError(f"cannot listen on {address}: {error}") from error

    def _remove_file(self) -> None:
        if isinstance(self.address, UnixAddress):
            # While it still listens: afterwards the file may be that of another process.
            with contextlib.suppress(OSError):
                os.unlink(self.address.path)

    def _run(self, listening: socket.socket) -> None:
        service = self._service
        with listening:
            service.start(time.monotonic())
            while self._stop_by is None:
                deadline = service.next_deadline()
                left = _LISTENER_WAIT if deadline is None else deadline - time.monotonic()
                left = min(max(left, 0.0), _LISTENER_WAIT)
                if self._waiter.wait(listening, READ, left) & READ:
                    self._accept(listening)
                now, deadline = time.monotonic(), service.next_deadline()
                if deadline is not None and deadline <= now:
                    service.handle_timeout(now)
            self._remove_file()

    def _accept(self, listening: socket.socket) -> None:
        try:
            connection, _ = listening.accept()
        except (BlockingIOError, ConnectionError):
            # It was gone before it was accepted.
            return
        except OSError as error:
            # Most likely there are no descriptors left, and that takes a while to change.
            self._service.accept_failed(error, time.monotonic())
            self._waiter.wait(None, 0, _ACCEPT_PAUSE)
            return
        with contextlib.ExitStack() as opened:
            opened.enter_context(connection)
            try:
                if self._serve(connection, opened):
                    opened.pop_all()
            except Exception as error:  # noqa: BLE001
                self._service.serve_failed(error, time.monotonic())

    def _serve(self, connection: socket.socket, opened: contextlib.ExitStack) -> bool:
        """Start a thread for a connection; return False if that is to be closed."""
        peer, waiter = peer_name(connection), Waiter()
        session = self._service.accept(peer, time.monotonic(), waiter.wake)
        if session is None:
            return False
        driver = SocketDriver(session, connection, waiter)
        opened.callback(driver.give_up, "closed here")
        try:
            tune(connection, self._service.peer_timeout)
        except OSError:
            # The peer has left already.
            return False
        waiter.open()
        opened.callback(waiter.close)
        thread = threading.Thread(
            target=self._drive, args=(driver, peer), name=f"zrs_core {peer}", daemon=True
        )
        opened.callback(self._forget, thread)
        with self._lock:
            self._connections[thread] = driver
        thread.start()
        return True

    def _forget(self, thread: threading.Thread) -> None:
        with self._lock:
            del self._connections[thread]

    def _drive(self, driver: SocketDriver, peer: str) -> None:
        try:
            driver.run(lambda: self._stop_by)
        except Exception:
            # A bug of the session, or here. The other connections go on.
            log.exception("%s: closing", peer, extra=event("unexpected", peer=peer))
        finally:
            self._forget(threading.current_thread())
            driver.waiter.close()


@implementer(IConnector)
class Connector:
    """Keeps a client connected, in a thread."""

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
            driver = SocketDriver(session, connection, self._waiter)
            driver.run(lambda: 0.0 if self._interrupted() else None)

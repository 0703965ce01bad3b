"""The primary's side: accepts connections."""

import asyncio
import contextlib
from collections.abc import Callable

from zope.interface import implementer

from zrs_core.addresses import TCPAddress
from zrs_core.errors import ConfigurationError, ListenError
from zrs_core.interfaces import IListener, IReplicationService, ISession
from zrs_core.transports import listening, sockets
from zrs_core.transports.driver import check_service

from .driver import Connection
from .loops import LoopThread


class _Refused(Exception):
    """The service wants a connection to be closed."""


@implementer(IListener)
class Listener:
    """Accepts connections for a service."""

    def __init__(self, service: IReplicationService) -> None:
        if not isinstance(service.address, TCPAddress):
            raise ConfigurationError(f"asyncio-tcp has no Unix sockets: {service.address}")
        self.address = service.address
        self._service = service
        self._thread = LoopThread(self._run)
        self._connections: set[Connection] = set()
        self._stopped = asyncio.Event()
        self._timeout = 0.0

    def start(self) -> None:
        service, address = self._service, self.address
        listening.check_exposure(address, tls=service.tls, require_tls=service.require_tls)
        try:
            self._listening = listening.open_tcp_listener(address)
            self._listening.listen(listening.BACKLOG)
        except OSError as error:
            raise ListenError(f"cannot listen on {address}: {error}") from error
        self._listening.setblocking(False)
        self.address = TCPAddress(address.host, self._listening.getsockname()[1])
        self._thread.start(f"zrs_asyncio listening on {self.address}")

    def stop(self, timeout: float) -> None:
        self._timeout = timeout
        self._thread.finish(self._stopped.set)

    async def _run(self) -> None:
        self._loop, service = asyncio.get_running_loop(), self._service
        service.start(self._loop.time())
        with self._listening:
            self._listen()
            while not self._stopped.is_set():
                left = check_service(service, self._loop.time())
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._stopped.wait(), left)
            self._loop.remove_reader(self._listening)
        connections = list(self._connections)
        for connection in connections:
            connection.stop(self._timeout)
        for connection in connections:
            await connection.over.wait()
        service.stop(self._loop.time())

    def _listen(self) -> None:
        if not self._stopped.is_set():
            self._loop.add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        try:
            accepted, _ = self._listening.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as error:
            # Most likely there are no descriptors left, which takes a while to change.
            self._service.accept_failed(error, self._loop.time())
            self._loop.remove_reader(self._listening)
            self._loop.call_later(0.1, self._listen)
            return
        try:
            accepted.setblocking(False)
            sockets.tune(accepted, self._service.peer_timeout)
            peer = sockets.peer_name(accepted)
            connection = Connection(accepted, lambda *args: self._session(peer, *args))
        except (_Refused, ConnectionError):
            accepted.close()
        except Exception as error:  # noqa: BLE001
            accepted.close()
            self._service.serve_failed(error, self._loop.time())
        else:
            self._connections = {each for each in self._connections if not each.over.is_set()}
            self._connections.add(connection)
            connection.act()

    def _session(self, peer: str, now: float, notify: Callable[[], None]) -> ISession:
        session = self._service.accept(peer, now, notify)
        if session is None:
            raise _Refused
        return session

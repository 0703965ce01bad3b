"""The secondary's side: keeps a client connected."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable

from zope.interface import implementer

from zrs_core.addresses import Address, TCPAddress
from zrs_core.errors import ConfigurationError
from zrs_core.interfaces import IConnector, IReplicationClient, ISession
from zrs_core.logs import event
from zrs_core.transports import lookups, sockets

from .driver import Connection
from .loops import LoopThread

log = logging.getLogger("zrs_core.transport")


@implementer(IConnector)
class Connector:
    """Keeps a client connected."""

    def __init__(self, client: IReplicationClient) -> None:
        if not isinstance(client.address, TCPAddress):
            raise ConfigurationError(f"asyncio-tcp has no Unix sockets: {client.address}")
        self._client = client
        self._thread = LoopThread(self._run)
        self._stopping = False
        # Set when what goes on now is to be given up, and the function that does so.
        self._interrupted = asyncio.Event()
        self._leave: Callable[[], object] = bool

    def start(self) -> None:
        self._thread.start(f"zrs_asyncio connecting to {self._client.address}")

    def reconnect(self) -> None:
        self._thread.call(self._interrupt)

    def stop(self) -> None:
        self._stopping = True
        self._thread.finish(self._interrupt)

    def _interrupt(self) -> None:
        self._interrupted.set()
        self._leave()

    async def _run(self) -> None:
        while not self._stopping:
            self._interrupted.clear()
            try:
                await self._connect_once()
            except Exception as error:
                address = self._client.address
                log.exception("%s: trying again", address, extra=event("unexpected", peer=address))
                self._client.connection_failed(repr(error))
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._interrupted.wait(), self._client.retry_delay())

    async def _connect_once(self) -> None:
        client = self._client
        attempt = asyncio.ensure_future(connect(client.address))
        self._leave = attempt.cancel
        await asyncio.wait([attempt], timeout=client.connect_timeout)
        attempt.cancel()
        try:
            connected = await attempt
        except asyncio.CancelledError:
            if not self._interrupted.is_set():
                client.connection_failed("it took too long")
            return
        except OSError as error:
            client.connection_failed(str(error))
            return
        with connected:
            if not self._interrupted.is_set():
                await self._follow(connected)

    async def _follow(self, connected: socket.socket) -> None:
        def make(now: float, notify: Callable[[], None]) -> ISession:
            name = sockets.own_name(connected)
            return self._client.session(now, notify, name, lambda: sockets.is_readable(connected))

        sockets.tune(connected, self._client.peer_timeout)
        connection = Connection(connected, make)
        self._leave = lambda: connection.stop(0.0)
        connection.act()
        await connection.over.wait()


async def connect(address: Address) -> socket.socket:
    """Return a socket that is connected to the first place of an address that accepts.

    :raises OSError: no place accepts, or there is none.
    """
    failure = OSError(f"{address} has no address that can be used")
    for family, place in await look_up(address):
        connecting = socket.socket(family)
        try:
            connecting.setblocking(False)
            await asyncio.get_running_loop().sock_connect(connecting, place)
            return connecting
        except BaseException as error:
            connecting.close()
            if not isinstance(error, OSError):
                raise
            failure = error
    raise failure


async def look_up(address: Address) -> lookups.Places:
    """Look an address up, in a thread that has nothing else to do."""
    if not lookups.needs_look_up(address):
        return sockets.look_up(address)
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    found = lookups.LookUp(address, lambda: loop.call_soon_threadsafe(ended.set))
    try:
        await ended.wait()
    finally:
        found.cancel()
    return found.result()

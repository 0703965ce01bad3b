"""The primary's side: accepts connections and drives a session for each."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from zope.interface import implementer

from zrs_core.addresses import TCPAddress
from zrs_core.errors import ListenError
from zrs_core.interfaces import IListener, IPrimarySession, IReplicationService
from zrs_core.transports.limits import does_not_take, too_late, too_many
from zrs_core.transports.sockets import (
    BACKLOG,
    check_exposure,
    open_tcp_listener,
    peer_name,
    tune,
)

from .loops import LoopThread, check


@implementer(IListener)
class Listener:
    """Accepts connections for a service."""

    def __init__(self, service: IReplicationService) -> None:
        self.address = check(service.address, service.tls)
        self.service = service
        self.stopping = False
        self._thread: LoopThread | None = None
        self._connections: dict[asyncio.Task[None], _Connection] = {}
        self._stopped: asyncio.Event
        self._listening: socket.socket
        self._timeout = 0.0

    def start(self) -> None:
        check_exposure(self.address, tls=None, require_tls=self.service.require_tls)
        try:
            self._listening = open_tcp_listener(self.address)
        except OSError as error:
            raise ListenError(f"cannot listen on {self.address}: {error}") from error
        self._listening.listen(BACKLOG)
        self._listening.setblocking(False)
        self.address = TCPAddress(self.address.host, self._listening.getsockname()[1])
        self._thread = LoopThread(self._run(), "zrs_asyncio listener")

    def stop(self, timeout: float) -> None:
        if self._thread is not None:
            self._timeout = timeout
            self._thread.call(self._stop)
            self._thread.join()
            self._thread = None
            self.service.stopped()

    def _stop(self) -> None:
        self.stopping = True
        self._stopped.set()

    async def _run(self) -> None:
        self._stopped = asyncio.Event()
        with self._listening:
            self._accept_later()
            while not self.stopping:
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._stopped.wait(), self.service.check_delay)
                self.service.check()
            asyncio.get_running_loop().remove_reader(self._listening)
        await self._finish()

    async def _finish(self) -> None:
        """Let the secondaries catch up, then leave those that did not."""
        connections = dict(self._connections)
        for connection in connections.values():
            connection.more.set()
        if connections:
            await asyncio.wait(connections, timeout=self._timeout)
            for connection in connections.values():
                connection.abort()
            await asyncio.wait(connections)

    def _accept_later(self) -> None:
        if not self.stopping:
            asyncio.get_running_loop().add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        try:
            accepted, _ = self._listening.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError:
            # No descriptors are left, most likely. That takes a while to change.
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._listening)
            loop.call_later(0.1, self._accept_later)
            return
        if len(self._connections) >= self.service.max_peers:
            self.service.refused(peer_name(accepted), too_many(self.service))
            accepted.close()
            return
        connection = _Connection(self, accepted)
        task = asyncio.create_task(connection.serve())
        self._connections[task] = connection
        task.add_done_callback(self._connections.pop)


class _Connection:
    """One secondary that is connected."""

    def __init__(self, listener: Listener, accepted: socket.socket) -> None:
        #: Set when there may be something to do for `_send`.
        self.more = asyncio.Event()
        self._listener = listener
        self._service = listener.service
        self._peer = peer_name(accepted)
        self._socket = accepted
        self._loop = asyncio.get_running_loop()
        self._reason = "closed here"
        self._said_all = self._aborted = False
        self._session: IPrimarySession = self._service.session(self._peer)
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    def abort(self) -> None:
        """Leave at once, whatever is on its way."""
        self._aborted = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    async def serve(self) -> None:
        # A peer that has left already has no settings any more; its end follows.
        with contextlib.suppress(OSError):
            tune(self._socket, self._service.peer_timeout)
        self._reader, self._writer = await asyncio.open_connection(sock=self._socket)
        # With this, `drain` returns only when all that was written has been sent.
        self._writer.transport.set_write_buffer_limits(0)
        reading = asyncio.create_task(self._read())
        deadline = self._loop.call_later(self._service.handshake_timeout, self._check_greeting)
        try:
            await self._send()
        except OSError as error:
            self._reason = str(error)
        deadline.cancel()
        if not self._said_all:
            self._writer.close()
        await reading
        await asyncio.to_thread(self._session.close, self._reason)

    async def _read(self) -> None:
        """Give the session what comes in, until the connection or the session is over."""
        try:
            while data := await self._reader.read(4096):
                waiting = not self._session.started
                self._session.receive_data(data)
                if self._session.finished:
                    break
                if waiting and self._session.started:
                    self.more.set()
            if not (data or self._aborted or self._writer.is_closing()):
                self._reason = "closed by the other end"
        except OSError as error:
            if not self._aborted:
                self._reason = str(error)
        self._session.receive_eof()
        self.more.set()
        # Whoever waits for `drain` now waits in vain.
        self._writer.transport.abort()

    async def _send(self) -> None:
        """Send a batch after the other, until the session is over or all has been said."""
        session = self._session
        while not session.finished:
            self.more.clear()
            stopping = self._listener.stopping
            chunks = await asyncio.to_thread(session.produce) if session.started else []
            if chunks:
                # Not `writelines`: in Python 3.12 and 3.13.0 it does not make `drain` wait.
                self._writer.write(b"".join(chunks))
                await self._drain()
            elif stopping:
                if session.started and not session.finished:
                    # The peer closes when it has read the end. Closing here, with something of
                    # the peer's unread, would reset the connection and lose what is on its way.
                    self._writer.write_eof()
                    self._said_all = True
                return
            elif not session.finished:
                if session.started:
                    session.wait(self._wake)
                await self.more.wait()

    def _check_greeting(self) -> None:
        if not self._session.started:
            self._service.refused(self._peer, too_late(self._service))
            self.abort()

    async def _drain(self) -> None:
        """Wait until all is sent, for as long as the peer takes some of it."""
        transport = self._writer.transport
        left, before = transport.get_write_buffer_size(), None
        while left and left != before:
            before = left
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._writer.drain(), self._service.write_timeout)
            left = transport.get_write_buffer_size()
        if left:
            self.abort()
            raise ConnectionAbortedError(does_not_take(self._service))

    def _wake(self) -> None:
        """There is more: called by whatever thread has committed, perhaps after the loop's end."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.more.set)

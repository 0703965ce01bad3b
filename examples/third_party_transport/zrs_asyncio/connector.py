"""The secondary's side: keeps a client connected and drives its sessions."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from zope.interface import implementer

from zrs_core.interfaces import IConnector, IReplicationClient, ISecondarySession
from zrs_core.transports.sockets import CONNECT_TIMEOUT, READ_SIZE, tune

from .loops import LoopThread, check


@implementer(IConnector)
class Connector:
    """Keeps a client connected."""

    def __init__(self, client: IReplicationClient) -> None:
        check(client.address, client.tls)
        self._client = client
        self._thread: LoopThread | None = None
        self._stopping = False
        # Whether to leave what is going on now, and how.
        self._interrupted = False
        self._leave: Callable[[], object] = bool

    def start(self) -> None:
        self._thread = LoopThread(self._run(), "zrs_asyncio connector")

    def reconnect(self) -> None:
        if self._thread is not None:
            self._thread.call(self._interrupt)

    def stop(self) -> None:
        if self._thread is not None:
            self._stopping = True
            self._thread.call(self._interrupt)
            self._thread.join()
            self._thread = None

    def _interrupt(self) -> None:
        self._interrupted = True
        self._leave()

    async def _run(self) -> None:
        while not self._stopping:
            self._interrupted = False
            await self._connect()
            if not self._interrupted:
                await self._pause(self._client.retry_delay())

    async def _pause(self, delay: float) -> None:
        over = asyncio.Event()
        self._leave = over.set
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(over.wait(), delay)

    async def _connect(self) -> None:
        try:
            host, port = check(self._client.address, None)
            connecting = asyncio.create_task(_open(host or "localhost", port))
            self._leave = connecting.cancel
            reader, writer = await connecting
        except asyncio.CancelledError:
            return
        except (OSError, ValueError, asyncio.TimeoutError) as error:
            self._client.connection_failed(str(error) or "it took too long")
            return
        await self._follow(reader, writer)

    async def _follow(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._leave = writer.transport.abort
        try:
            session = self._client.session(str(self._client.address))
        except Exception as error:  # noqa: BLE001
            # The connector must go on whatever is raised.
            writer.transport.abort()
            self._client.connection_failed(repr(error))
            return
        reason = "closed here"
        try:
            tune(writer.get_extra_info("socket"), self._client.peer_timeout)
            writer.write(await asyncio.to_thread(session.greeting))
            self._keep_alive_later(session, writer)
            while not (session.finished or self._interrupted):
                # No more than this is read before it has been applied: that is the back-pressure.
                data = await reader.read(READ_SIZE)
                if data:
                    await asyncio.to_thread(session.receive_data, data)
                elif not self._interrupted:
                    reason = "closed by the other end"
                    await asyncio.to_thread(session.receive_eof)
        except OSError as error:
            reason = str(error)
            await asyncio.to_thread(session.receive_eof)
        writer.transport.abort()
        await asyncio.to_thread(session.close, reason)

    def _keep_alive_later(self, session: ISecondarySession, writer: asyncio.StreamWriter) -> None:
        def due() -> None:
            if not writer.is_closing():
                writer.write(session.keep_alive())
                if session.finished:
                    writer.transport.abort()
                self._keep_alive_later(session, writer)

        if self._client.keep_alive_delay:
            asyncio.get_running_loop().call_later(self._client.keep_alive_delay, due)


async def _open(host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    # The name is looked up anew, and each of its addresses tried.
    opening = asyncio.open_connection(host, port, limit=READ_SIZE)
    return await asyncio.wait_for(opening, CONNECT_TIMEOUT)

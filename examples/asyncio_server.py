"""A primary served by asyncio, made of the codec and of a source: no transport, no session.

``python asyncio_server.py Data.fs HOST:PORT`` commits the time to a database once a second, and
serves it to any number of secondaries.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time

from ZODB import DB
from ZODB.FileStorage import FileStorage

import zrs_core.codec as zrs
from zrs_core.interfaces import IStorageSource
from zrs_core.storage import source_of

BATCH_SIZE = 256 * 1024


class Follower:
    """One secondary that is connected."""

    def __init__(
        self, source: IStorageSource, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.source, self.reader, self.writer = source, reader, writer
        self.connection = zrs.PrimaryConnection(blobs=source.blobs)
        self.peer = writer.get_extra_info("peername")
        self.more = asyncio.Event()
        self.loop = asyncio.get_running_loop()
        # Drain only when all that was written is on its way: one batch is what a peer can cost.
        writer.transport.set_write_buffer_limits(0)

    async def serve(self) -> None:
        """Read what the secondary says, for as long as it is there."""
        sending: asyncio.Task[None] | None = None
        try:
            while data := await self.reader.read(4096):
                self.connection.receive_data(data)
                for message in self.connection.messages():
                    if isinstance(message, zrs.Start):
                        sending = asyncio.create_task(self.send(message.tid))
        except (zrs.ReplicationError, OSError) as error:
            print(f"{self.peer}: {error}", flush=True)
        finally:
            self.writer.transport.abort()
            self.more.set()
            if sending is not None:
                await sending

    async def send(self, start: bytes) -> None:
        """Send what comes after `start`, a batch at a time, then wait for more."""
        try:
            transactions = await asyncio.to_thread(self.source.open, start)
            with contextlib.closing(transactions):
                while not self.writer.is_closing():
                    self.more.clear()
                    messages = await asyncio.to_thread(transactions.read, BATCH_SIZE)
                    for message in messages:
                        self.writer.write(b"".join(self.connection.send_chunks(message)))
                    await self.writer.drain()
                    if not messages and not self.writer.is_closing():
                        transactions.wait(self.wake)
                        await self.more.wait()
        except (zrs.ReplicationError, OSError) as error:
            print(f"{self.peer}: {error}", flush=True)
        finally:
            self.writer.close()

    def wake(self) -> None:
        """There is more. Called by the thread that has committed."""
        self.loop.call_soon_threadsafe(self.more.set)


async def main(db: DB, source: IStorageSource, host: str, port: str) -> None:
    """Serve, and commit once a second."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await Follower(source, reader, writer).serve()

    def commit() -> None:
        with db.transaction() as connection:
            connection.root()["time"] = time.time()
        source.changed()

    server = await asyncio.start_server(serve, host, int(port))
    # Not `async with`: from Python 3.12 on its end would wait for those who are connected.
    with contextlib.closing(server):
        print("listening on port", server.sockets[0].getsockname()[1], flush=True)
        while True:
            await asyncio.to_thread(commit)
            await asyncio.sleep(1)


if __name__ == "__main__":
    storage = FileStorage(sys.argv[1])
    with contextlib.closing(DB(storage)) as db, contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(db, source_of(storage), *sys.argv[2].rsplit(":", 1)))

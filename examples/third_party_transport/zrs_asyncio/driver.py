"""The driver: one session over one socket, in an event loop."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Sequence

from zrs_core.actions import Work
from zrs_core.interfaces import ISession
from zrs_core.transports.driver import Driver

READ_SIZE = 256 * 1024
PIECE = 128 * 1024
NO_LINGER = socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)


class Connection(Driver):
    """Drives the session of one connection.

    :param connected: a socket that does not block.
    :param make: returns the session; called with the time, and with `notify`.
    """

    def __init__(
        self, connected: socket.socket, make: Callable[[float, Callable[[], None]], ISession]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = connected
        self._outgoing = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self._notified = self._at_eof = self._lost = False
        #: Set when the session is over.
        self.over = asyncio.Event()
        super().__init__(make(self._loop.time(), self.notify))

    # -- inputs

    def _input(self, call: Callable[..., None], *args: object) -> None:
        """Call an input of the session, then carry out what it asks for."""
        if not self.session.over:
            call(*args, self._loop.time())
            self.act()

    def notify(self) -> None:
        """Have the session woken. For any thread, at any time."""
        if not self._notified:
            self._notified = True
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._notified = False
        self._input(self.session.wake)

    def stop(self, timeout: float) -> None:
        """Have the session end the connection."""
        self._input(lambda now: self.session.stop(now, timeout))

    def _read(self) -> None:
        try:
            data = self._socket.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            self.close(str(error))
            self.act()
            return
        if data:
            self._input(self.session.receive_data, data)
        else:
            self._at_eof = True
            self._input(self.session.receive_eof)

    def _write(self) -> None:
        self._flush()
        self.act()

    def _flush(self) -> None:
        try:
            while self._outgoing and not self._lost:
                sent = self._socket.send(self._outgoing[:PIECE])
                del self._outgoing[:sent]
                self.session.sent(sent, self._loop.time())
        except BlockingIOError:
            pass
        except OSError as error:
            self.close(str(error))

    # -- actions

    def send(self, chunks: Sequence[bytes]) -> None:
        self._outgoing += b"".join(chunks)
        self._flush()

    def work(self, work: Work) -> None:
        if work.nearby:
            report, outcome = self.outcome(work)
            report(outcome, self._loop.time())
        else:
            future = self._loop.run_in_executor(None, self.outcome, work)
            future.add_done_callback(lambda done: self._input(*done.result()))

    def half_close(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            self.close(str(error))

    def close(self, reason: str) -> None:
        if not self._lost:
            self._lost = True
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()
            self.session.lost(reason, self._loop.time())

    def abort(self, reason: str) -> None:
        with contextlib.suppress(OSError):
            self._socket.setsockopt(*NO_LINGER)
        self.close(reason)

    def settle(self) -> None:
        loop, session = self._loop, self.session
        if self._timer is not None:
            self._timer.cancel()
        if (deadline := session.next_deadline()) is not None:
            self._timer = loop.call_at(deadline, self._input, session.handle_timeout)
        if session.over:
            self.over.set()
        elif not self._lost:
            if session.wants_data and not self._at_eof:
                loop.add_reader(self._socket, self._read)
            else:
                loop.remove_reader(self._socket)
            if self._outgoing:
                loop.add_writer(self._socket, self._write)
            else:
                loop.remove_writer(self._socket)

"""The driver of one connection over a socket, in one thread."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Callable, Sequence

from ..actions import Work
from ..interfaces import ISession
from .driver import Driver
from .sockets import FIRST_READ_SIZE, next_read_size
from .waiter import READ, WOKEN, WRITE, Waiter

#: Chunks that one system call sends at most (IOV_MAX is 1024 on Linux).
_CHUNKS = 512

# Batches that are sent to a fast peer before the thread looks for data and deadlines. A look costs
# a system call, and gives the processor to other threads.
_BATCHES = 8

#: Makes closing a reset.
_NO_LINGER = struct.pack("ii", 1, 0)


class SocketDriver(Driver):
    """Drives the session of one connection, in one thread.

    :param waiter: its `wake` is the session's `notify`.
    """

    def __init__(self, session: ISession, connection: socket.socket, waiter: Waiter) -> None:
        super().__init__(session)
        connection.setblocking(False)
        self._socket = connection
        self.waiter = waiter
        self._outgoing: list[memoryview] = []
        self._read_size = FIRST_READ_SIZE
        self._at_eof = False
        self._lost = False

    def run(self, stop_by: Callable[[], float | None]) -> None:
        """Drive the session until it is over.

        :param stop_by: returns the time by which the session is to end; None if it is to go on.
            The waiter is woken when that has changed.
        """
        session, stopped = self.session, False
        try:
            self.act()
            while True:
                for _ in range(_BATCHES):
                    if not self._flush():
                        break
                    self.act()
                if session.over:
                    return
                came = self._wait()
                now = time.monotonic()
                if not stopped and (by := stop_by()) is not None:
                    stopped = True
                    session.stop(now, max(by - now, 0.0))
                if came & WOKEN:
                    session.wake(now)
                if came & READ:
                    self._receive(now)
                deadline = session.next_deadline()
                if deadline is not None and deadline <= now:
                    session.handle_timeout(now)
                self.act()
        except BaseException as error:
            self.give_up(repr(error))
            raise

    def give_up(self, reason: str) -> None:
        """Drop the connection, at any time."""
        self.abort(reason)
        self.act()

    def abandon(self) -> None:
        """Close the descriptors in the child of a fork."""
        self._socket.close()
        self.waiter.abandon()

    def _wait(self) -> int:
        """Wait for events, or for the deadline."""
        deadline = self.session.next_deadline()
        left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
        events = WRITE if self._outgoing else 0
        if self.session.wants_data and not (self._at_eof or self._lost):
            events |= READ
        return self.waiter.wait(self._socket, events, left)

    def _flush(self) -> bool:
        """Send what the network accepts; return True if the session was told of anything."""
        told = False
        try:
            while self._outgoing:
                sent = self._socket.sendmsg(self._outgoing[:_CHUNKS])
                self._forget(sent)
                self.session.sent(sent, time.monotonic())
                told = True
        except BlockingIOError:
            pass
        except OSError as error:
            self._lose(str(error))
            told = True
        return told

    def _forget(self, sent: int) -> None:
        done = 0
        for chunk in self._outgoing:
            if sent < len(chunk):
                break
            sent -= len(chunk)
            done += 1
        del self._outgoing[:done]
        if sent:
            self._outgoing[0] = self._outgoing[0][sent:]

    def _receive(self, now: float) -> None:
        try:
            data = self._socket.recv(self._read_size)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(str(error))
            return
        if data:
            self._read_size = next_read_size(len(data))
            self.session.receive_data(data, now)
        else:
            self._at_eof = True
            self.session.receive_eof(now)

    def _lose(self, reason: str) -> None:
        if not self._lost:
            self._lost = True
            self._outgoing.clear()
            self._socket.close()
            self.session.lost(reason, time.monotonic())

    # -- the actions

    def send(self, chunks: Sequence[bytes]) -> None:
        self._outgoing += [memoryview(chunk) for chunk in chunks if chunk]

    def work(self, work: Work) -> None:
        try:
            result = work.call()
        except BaseException as error:  # noqa: BLE001
            self.session.failed(error, time.monotonic())
        else:
            self.session.done(result, time.monotonic())

    def half_close(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._lose(str(error))

    def close(self, reason: str) -> None:
        self._lose(reason)

    def abort(self, reason: str) -> None:
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self._lose(reason)

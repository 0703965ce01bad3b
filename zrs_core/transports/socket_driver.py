"""The driver of one connection over a socket, in one thread."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Sequence

from ..interfaces import ISession
from .sockets import FIRST_READ_SIZE, next_read_size
from .thread_driver import ThreadDriver
from .waiter import READ, WRITE, Waiter

#: Chunks that one system call sends at most (IOV_MAX is 1024 on Linux).
_CHUNKS = 512

#: Makes closing a reset.
_NO_LINGER = struct.pack("ii", 1, 0)


class SocketDriver(ThreadDriver):
    """Drives the session of one connection over a TCP or Unix socket, in one thread."""

    def __init__(self, session: ISession, connection: socket.socket, waiter: Waiter) -> None:
        super().__init__(session, connection, waiter)
        self._outgoing: list[memoryview] = []
        self._read_size = FIRST_READ_SIZE
        self._at_eof = False
        self._lost = False

    def wait(self, timeout: float | None) -> int:
        events = WRITE if self._outgoing else 0
        if self.session.wants_data and not (self._at_eof or self._lost):
            events |= READ
        return self.waiter.wait(self.socket, events, timeout)

    def flush(self) -> bool:
        called = False
        try:
            while self._outgoing:
                sent = self.socket.sendmsg(self._outgoing[:_CHUNKS])
                self._forget(sent)
                self.session.sent(sent, time.monotonic())
                called = True
        except BlockingIOError:
            pass
        except OSError as error:
            self._lose(str(error))
            called = True
        return called

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

    def receive(self, now: float) -> None:
        try:
            data = self.socket.recv(self._read_size)
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
            self.socket.close()
            self.session.lost(reason, time.monotonic())

    # -- the actions

    def send(self, chunks: Sequence[bytes]) -> None:
        self._outgoing += [memoryview(chunk) for chunk in chunks if chunk]

    def half_close(self) -> None:
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._lose(str(error))

    def close(self, reason: str) -> None:
        self._lose(reason)

    def abort(self, reason: str) -> None:
        with contextlib.suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self._lose(reason)

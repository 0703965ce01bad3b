"""The part of a driver that runs in a thread of its own: the loop."""

from __future__ import annotations

import socket
import time
from abc import abstractmethod
from collections.abc import Callable

from ..actions import Work
from ..interfaces import ISession
from .driver import Driver
from .waiter import READ, WOKEN, Waiter

# Batches that are sent to a fast peer before the thread looks for data and deadlines. A look costs
# a system call, and gives the processor to other threads.
_BATCHES = 8


class ThreadDriver(Driver):
    """Drives the session of one connection, in one thread, which also calls `Work`.

    A subclass sends and receives. Its methods are called in the thread that calls `run`, except
    for `abandon`.

    :param session: the session of the connection.
    :param connection: a connected socket. It is set not to block, and `abort` and `close` close it.
    :param waiter: its `wake` is the session's `notify`. The caller opens and closes it.
    """

    def __init__(self, session: ISession, connection: socket.socket, waiter: Waiter) -> None:
        super().__init__(session)
        connection.setblocking(False)
        self.socket = connection
        self.waiter = waiter
        self._stopped = False

    def run(self, stop_by: Callable[[], float | None]) -> None:
        """Drive the session until it is over. If this raises, the connection has been dropped.

        :param stop_by: returns the time of `time.monotonic()` by which the session must end; None
            to go on. When that changes, the caller wakes the waiter.
        """
        session = self.session
        try:
            self.act()
            while True:
                for _ in range(_BATCHES):
                    if not self.flush():
                        break
                    self.act()
                if session.over:
                    return
                deadline = session.next_deadline()
                left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
                came = self.wait(left)
                now = time.monotonic()
                if not self._stopped and (by := stop_by()) is not None:
                    self._stopped = True
                    session.stop(now, max(by - now, 0.0))
                if came & WOKEN:
                    session.wake(now)
                if came & READ:
                    self.receive(now)
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

    def work(self, work: Work) -> None:
        report, outcome = self.outcome(work)
        report(outcome, time.monotonic())

    def abandon(self) -> None:
        """Close the descriptors in the child of a fork."""
        self.socket.close()
        self.waiter.abandon()

    @abstractmethod
    def wait(self, timeout: float | None) -> int:
        """Wait for the connection, or to be woken; return the bits that `Waiter.wait` returns.

        Wait to write if bytes are left to send. Wait to read if `session.wants_data` is true, the
        peer has not ended its half, and the connection is open.

        :param timeout: seconds after which to return 0; None to wait forever.
        """

    @abstractmethod
    def flush(self) -> bool:
        """Send what the network accepts at once; return True if an input was called."""

    @abstractmethod
    def receive(self, now: float) -> None:
        """Read once what can be read at once, and call `receive_data`, `receive_eof` or `lost`."""

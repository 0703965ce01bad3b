"""The one thing that a thread of the transport `socket-thread` waits for at a time."""

from __future__ import annotations

import math
import select
import socket
import threading
from typing import Any

READ = select.POLLIN
WRITE = select.POLLOUT
#: `Waiter.wake` was called; none of the bits of `select`.
WOKEN = 1 << 16

# Seconds of one wait at most: the system accepts no more than 24 days.
_LONGEST_WAIT = 24 * 3600.0


class Waiter:
    """Waits for one socket, and to be woken by any other thread."""

    def __init__(self) -> None:
        # Not one of `selectors`: each connection waits once for each commit.
        self._poll = select.poll()
        self._lock = threading.Lock()
        self._ends: tuple[socket.socket, socket.socket] | None = None
        # True from `wake` until `wait` returns, so that one byte stands for many calls.
        self._woken = False

    def open(self) -> None:
        """Make what `wait` needs. `wake` may have been called before.

        :raises OSError: the process has too many descriptors.
        """
        ends = socket.socketpair()
        for each in ends:
            each.setblocking(False)
        self._poll.register(ends[0], READ)
        with self._lock:
            self._ends = ends
            if self._woken:
                ends[1].send(b"\0")

    def close(self) -> None:
        """Close the descriptors, if they are open."""
        with self._lock:
            ends, self._ends = self._ends, None
        for each in ends or ():
            each.close()

    def abandon(self) -> None:
        """Close it in the child of a fork, where the lock may be held forever."""
        self._lock = threading.Lock()
        self.close()

    def wake(self) -> None:
        """Have `wait` return, now or when it is called next. For any thread, at any time."""
        if self._woken:
            # What the caller has done before is seen by the thread that returns from `wait`.
            return
        with self._lock:
            if not self._woken:
                self._woken = True
                if self._ends is not None:
                    self._ends[1].send(b"\0")

    def wait(self, waited: Any, events: int, timeout: float | None) -> int:
        """Return which of the `events` of a socket have come, and `WOKEN` if `wake` was called.

        0 after `timeout` seconds without either; it may be earlier.

        :param waited: None for no socket.
        """
        milliseconds = None
        if timeout is not None:
            milliseconds = math.ceil(min(timeout, _LONGEST_WAIT) * 1000)
        if waited is None or not events:
            # The system would report that the peer is gone, which was not asked for, at once.
            ready = self._poll.poll(milliseconds)
        else:
            self._poll.register(waited, events)
            try:
                ready = self._poll.poll(milliseconds)
            finally:
                self._poll.unregister(waited)
        came = 0
        for fd, found in ready:
            if self._ends is not None and fd == self._ends[0].fileno():
                self._ends[0].recv(16)
                self._woken = False
                came |= WOKEN
            else:
                # An error of the socket is raised by the call that is made then.
                came |= found & events or events
        return came

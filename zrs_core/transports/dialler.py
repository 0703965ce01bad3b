"""Connecting in a thread that can be interrupted."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable
from typing import Any

from ..addresses import Address
from ..interfaces import IReplicationClient
from .lookups import LookUp, Places, needs_look_up
from .sockets import connect_argument, look_up, tune
from .waiter import WRITE, Waiter


class Interrupted(Exception):
    """The attempt is to be given up."""


class Dialler:
    """Connects to one address at a time.

    :param waiter: to be woken when `interrupted` has changed.
    :param interrupted: returns True if an attempt is to be given up.
    """

    def __init__(self, waiter: Waiter, interrupted: Callable[[], bool]) -> None:
        self._waiter = waiter
        self._interrupted = interrupted
        #: The last socket that was made, open or closed; None for none.
        self.socket: socket.socket | None = None

    def connect(self, client: IReplicationClient) -> socket.socket:
        """Return a socket that does not block, connected to the first place that accepts.

        Each place of the client's address has `connect_timeout` for that.

        :raises OSError: no place has accepted in time, or there is none.
        :raises InvalidAddress: the system has no Unix sockets with such a path.
        :raises Interrupted: `interrupted()` was true meanwhile.
        """
        address = client.address
        failure: OSError = OSError(f"{address} has no address that can be used")
        for family, place in self._look_up(address):
            connection = self.socket = socket.socket(family)
            try:
                self._finish(connection, connect_argument(family, place), client.connect_timeout)
                tune(connection, client.peer_timeout)
                return connection
            except OSError as error:
                connection.close()
                failure = error
            except BaseException:
                connection.close()
                raise
        raise failure

    def _look_up(self, address: Address) -> Places:
        if not needs_look_up(address):
            return look_up(address)
        found = LookUp(address, self._waiter.wake)
        try:
            while not found.over:
                if self._interrupted():
                    raise Interrupted
                self._waiter.wait(None, 0, None)
        finally:
            found.cancel()
        return found.result()

    def _finish(self, connection: socket.socket, where: Any, timeout: float) -> None:
        connection.setblocking(False)
        status = connection.connect_ex(where)
        deadline = time.monotonic() + timeout
        # A Unix socket whose backlog is full says EAGAIN: that is a failure, to be tried again.
        while status == errno.EINPROGRESS:
            left = deadline - time.monotonic()
            if left <= 0:
                status = errno.ETIMEDOUT
            elif self._waiter.wait(connection, WRITE, left) & WRITE:
                status = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if self._interrupted():
                raise Interrupted
        if status:
            raise OSError(status, os.strerror(status))

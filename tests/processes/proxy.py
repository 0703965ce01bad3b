"""A TCP proxy on loopback that cuts its connections where it is told to."""

from __future__ import annotations

import contextlib
import math
import random
import selectors
import socket
import struct
import threading
from collections.abc import Iterable

_READ_SIZE = 65_536


def random_cuts(chance: random.Random, count: int) -> list[int]:
    """Numbers of bytes of each order up to a million.

    So some cuts are in the greeting, and some leave time for the largest of what is sent.
    """
    return [chance.randrange(1, 10 ** chance.randrange(2, 7)) for _ in range(count)]


class CuttingProxy:
    """Forwards to `target`; a connection is reset once it has forwarded so many bytes.

    They count in both directions. The next number in `cuts` is used when a connection was cut at
    the one before, and not when it ended by itself: a stranger may have come by, who looks for
    somebody that used to listen at this port. After the last one, connections are left alone.

    :param hold_after: once it has forwarded so many bytes in all, it forwards no more until `go_on`
        is set.
    """

    def __init__(
        self, target: tuple[str, int], cuts: Iterable[int], hold_after: float = math.inf
    ) -> None:
        #: How many connections were cut.
        self.cut = 0
        #: Set when it holds.
        self.held = threading.Event()
        self.go_on = threading.Event()
        self._left = hold_after
        self._target = target
        self._cuts = list(cuts)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = ("127.0.0.1", self._listener.getsockname()[1])
        self._wake, self._waker = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="proxy")
        self._thread.start()

    def close(self) -> None:
        self.go_on.set()
        self._waker.close()
        self._thread.join()

    def __enter__(self) -> CuttingProxy:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _run(self) -> None:
        with self._listener, self._wake:
            while self._readable(self._listener):
                budget = self._cuts[self.cut] if self.cut < len(self._cuts) else None
                client, _ = self._listener.accept()
                with client:
                    try:
                        server = socket.create_connection(self._target)
                    except OSError:
                        continue
                    with server:
                        if self._forward(client, server, budget):
                            self.cut += 1

    def _readable(self, *sockets: socket.socket) -> list[socket.socket]:
        """Those of the sockets that can be read; none once the proxy is to close."""
        with selectors.DefaultSelector() as selector:
            for each in (*sockets, self._wake):
                selector.register(each, selectors.EVENT_READ)
            ready = [key.fileobj for key, _ in selector.select()]
        return [] if self._wake in ready else [each for each in sockets if each in ready]

    def _forward(self, client: socket.socket, server: socket.socket, budget: int | None) -> bool:
        """Whether the connection was cut."""
        others = {client: server, server: client}
        while ready := self._readable(client, server):
            for source in ready:
                try:
                    data = source.recv(_READ_SIZE if budget is None else min(_READ_SIZE, budget))
                    others[source].sendall(data)
                except OSError:
                    return False
                if not data:
                    return self._half_closed(source, others[source])
                self._left -= len(data)
                if self._left <= 0:
                    self.held.set()
                    self.go_on.wait()
                if budget is not None:
                    budget -= len(data)
                    if not budget:
                        _reset(client, server)
                        return True
        return False

    def _half_closed(self, source: socket.socket, other: socket.socket) -> bool:
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_WR)
            while self._readable(other) and (data := other.recv(_READ_SIZE)):
                source.sendall(data)
        return False


def _reset(*sockets: socket.socket) -> None:
    for each in sockets:
        # Lingering for no time makes close() a reset: what is on its way is lost.
        each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

"""A TCP proxy on loopback that delays what it forwards, each direction by a time of its own."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass, field

_READ_SIZE = 65_536


@dataclass
class _Way:
    """One direction of a connection."""

    source: socket.socket
    target: socket.socket
    towards_client: bool
    #: What has come, when it came and when it is to go on.
    waiting: deque[tuple[float, float, bytes]] = field(default_factory=deque)


class DelayedLine:
    """Forwards to `target`: every piece goes on so many seconds after it has come.

    `to_client` and `to_server` are the delays in seconds; to change one counts for what comes from
    then on. `imposed` has, for each piece that went to a client, how long it was held: a machine
    that is busy holds it for longer. While `refusing`, who connects is closed at once.
    """

    def __init__(
        self, target: tuple[str, int], *, to_client: float = 0.0, to_server: float = 0.0
    ) -> None:
        self.to_client = to_client
        self.to_server = to_server
        self.refusing = False
        self.imposed: list[float] = []
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = ("127.0.0.1", self._listener.getsockname()[1])
        self._woken, self._waker = socket.socketpair()
        self._cutting = self._closing = False
        self._thread = threading.Thread(target=self._run, name="delayed line")
        self._thread.start()

    def cut(self) -> None:
        """Close all connections at once, with what is on its way."""
        self._cutting = True
        self._waker.send(b"\0")

    def close(self) -> None:
        self._closing = True
        self._waker.send(b"\0")
        self._thread.join()
        self._woken.close()
        self._waker.close()

    def __enter__(self) -> DelayedLine:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _run(self) -> None:
        ways: list[_Way] = []
        with self._listener, selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while not self._closing:
                due = min((way.waiting[0][1] for way in ways if way.waiting), default=None)
                timeout = None if due is None else max(due - time.monotonic(), 0)
                ready = {key.fileobj for key, _ in selector.select(timeout)}
                if self._woken in ready:
                    self._woken.recv(100)
                if self._cutting:
                    self._cutting = False
                    ways = _end(ways, ways, selector)
                    continue
                if self._listener in ready:
                    ways += self._accept(selector)
                over = [way for way in ways if not self._read(way, ready) or not self._write(way)]
                ways = _end(ways, over, selector)
            _end(ways, ways, selector)

    def _accept(self, selector: selectors.BaseSelector) -> list[_Way]:
        client, _ = self._listener.accept()
        if self.refusing:
            client.close()
            return []
        try:
            server = socket.create_connection(self._target)
        except OSError:
            client.close()
            return []
        for each in (client, server):
            selector.register(each, selectors.EVENT_READ)
        return [_Way(client, server, False), _Way(server, client, True)]

    def _read(self, way: _Way, ready: set[object]) -> bool:
        if way.source not in ready:
            return True
        try:
            data = way.source.recv(_READ_SIZE)
        except OSError:
            return False
        delay = self.to_client if way.towards_client else self.to_server
        now = time.monotonic()
        way.waiting.append((now, now + delay, data))
        return bool(data)

    def _write(self, way: _Way) -> bool:
        while way.waiting and time.monotonic() >= way.waiting[0][1]:
            came, _, data = way.waiting.popleft()
            # Before it goes on: who gets it may look at once.
            if way.towards_client:
                self.imposed.append(time.monotonic() - came)
            try:
                way.target.sendall(data)
            except OSError:
                return False
        return True


def _end(ways: list[_Way], over: list[_Way], selector: selectors.BaseSelector) -> list[_Way]:
    """Close the connections of some ways; the others, which are left."""
    sockets = {each for way in over for each in (way.source, way.target)}
    for each in sockets:
        with contextlib.suppress(KeyError):
            selector.unregister(each)
        each.close()
    return [way for way in ways if way.source not in sockets]

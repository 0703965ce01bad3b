"""A TCP proxy on loopback that cuts the connection in the middle of what passes through it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

_READ_SIZE = 64 * 1024
_JOIN_TIMEOUT = 10.0


class Cut(NamedTuple):
    """A cut: how many bytes had been forwarded, and how many more had been read and were not."""

    forwarded: int
    withheld: int


class CuttingProxy:
    """Forwards connections to `target`, and cuts them when so many bytes have come from there.

    A context manager: it listens on `address` while entered.

    :param cut_at: rising numbers of bytes, counted over all connections. The cut comes within
        what was read from the target: at least one byte of that is never forwarded.
    :param on_cut: called in a thread of the proxy after each cut.
    """

    def __init__(
        self,
        target: tuple[str, int],
        cut_at: Sequence[int],
        on_cut: Callable[[Cut], None],
    ) -> None:
        self.forwarded = 0
        self._target = target
        self._cut_at = list(cut_at)
        self._on_cut = on_cut
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._closing = False

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._listening.getsockname()
        return host, port

    def __enter__(self) -> CuttingProxy:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._start(self._accept)
        return self

    def __exit__(self, *exc_info: object) -> None:
        with self._lock:
            self._closing = True
            for each in self._sockets:
                _shut(each)
        # Closing it alone would not wake the thread that waits in accept().
        _shut(self._listening)
        for thread in list(self._threads):
            thread.join(_JOIN_TIMEOUT)
        self._listening.close()

    def _start(self, run: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=run, args=args, name="zrs demo proxy", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closing:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            self._start(self._connect, client)

    def _connect(self, client: socket.socket) -> None:
        with client:
            try:
                server = socket.create_connection(self._target)
            except OSError:
                return
            with server:
                with self._lock:
                    if self._closing:
                        return
                    self._sockets |= {client, server}
                try:
                    upstream = threading.Thread(target=_forward, args=(client, server), daemon=True)
                    upstream.start()
                    with contextlib.suppress(OSError):
                        self._forward_and_cut(server, client)
                    upstream.join()
                finally:
                    with self._lock:
                        self._sockets -= {client, server}

    def _forward_and_cut(self, server: socket.socket, client: socket.socket) -> None:
        try:
            while data := server.recv(_READ_SIZE):
                with self._lock:
                    left = self._cut_at[0] - self.forwarded if self._cut_at else len(data)
                    cut = left < len(data)
                    part = data[: max(left, 0)]
                    self.forwarded += len(part)
                    forwarded = self.forwarded
                    if cut:
                        self._cut_at.pop(0)
                client.sendall(part)
                if cut:
                    _shut(client)
                    _shut(server)
                    self._on_cut(Cut(forwarded, len(data) - len(part)))
                    return
            # The secondary may still want to read what it has not, and then it closes.
            client.shutdown(socket.SHUT_WR)
        except OSError:
            _shut(client)
            _shut(server)
            raise


def _forward(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(_READ_SIZE):
            target.sendall(data)
    except OSError:
        pass
    # The one end has said all that it will: so be it on the other side.
    _shut(target)
    _shut(source)


def _shut(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)

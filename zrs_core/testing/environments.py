"""What the conformance suite stands on: how to drive the other end of a transport by hand.

`SocketEnvironment` serves transports over TCP or Unix sockets, and `MemoryEnvironment` serves
`memory`, with or without TLS. A transport over something else brings an `Environment` of its own.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import ssl
import struct
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, cast

from ..addresses import Address, TCPAddress, UnixAddress
from ..tls import TLSOptions
from ..transports.memory import MemoryEnd, MemoryNetwork

#: Seconds after which a test fails that waits in vain.
DEADLINE = 120.0


class End(ABC):
    """One end of a connection, driven by hand."""

    @abstractmethod
    def send(self, data: bytes) -> None:
        """Send bytes; this may wait for the receiver, and fail with OSError when it is gone."""

    @abstractmethod
    def receive(self, size: int) -> bytes:
        """The next `size` bytes, waited for; fewer only if the other end has closed before."""

    @abstractmethod
    def finish_sending(self) -> None:
        """Close this direction; where a network knows no such thing, both."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection, in order."""

    @abstractmethod
    def cut(self) -> None:
        """Lose the connection, with what is on its way."""


class Server(ABC):
    """Something that listens, driven by hand."""

    address: Address

    @abstractmethod
    def accept(self) -> End:
        """The next connection, waited for."""

    @abstractmethod
    def has_waiting(self) -> bool:
        """Whether there is a connection to accept."""

    @abstractmethod
    def close(self) -> None:
        """Listen no more."""


class Environment(ABC):
    """Where a transport is tried out."""

    #: What a service and a client are told to run on.
    reactor: object = None
    #: How both ends encrypt.
    tls: TLSOptions | None = None
    #: True if the transport looks names up with `socket.getaddrinfo`.
    looks_names_up = False

    @abstractmethod
    def address(self) -> Address:
        """Where a listener may listen: another place at each call."""

    @abstractmethod
    def dial(self, address: Address) -> End:
        """Connect to a listener by hand.

        :raises OSError: nobody listens.
        """

    @abstractmethod
    def listen(self, address: Address | None = None) -> Server:
        """Listen by hand."""

    def unused_address(self) -> Address:
        """Where nobody listens, but somebody could."""
        server = self.listen()
        server.close()
        return server.address

    def now(self) -> float:
        """The time that the transport goes by, in seconds."""
        return time.monotonic()

    def turn(self) -> None:
        """Let others do something."""
        time.sleep(0.005)

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        """Return as soon as `condition()` holds.

        :raises AssertionError: it does not within `DEADLINE`.
        """
        deadline = time.monotonic() + DEADLINE
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"waited in vain for {what}")
            self.turn()

    def beside(self, function: Callable[[], object]) -> Callable[[], None]:
        """Begin to do something that takes its time; the result waits for its end."""
        thread = threading.Thread(target=function)
        thread.start()
        return thread.join

    @abstractmethod
    def close(self) -> None:
        """Close what is left open."""


class SocketEnvironment(Environment):
    """TCP on this machine's loopback, or Unix sockets.

    :param tls: the options of all ends, and of what is done by hand.
    :param unix: whether to use Unix sockets.
    """

    def __init__(self, tls: TLSOptions | None = None, *, unix: bool = False) -> None:
        self.tls = tls
        self.looks_names_up = not unix
        self._directory: Any = None
        self._names = itertools.count()
        if unix:
            # Not pytest's, since a path may be too long for a socket.
            self._directory = tempfile.TemporaryDirectory(prefix="zrs")
        self._opened: list[SocketEnd | SocketServer] = []
        self._held: list[socket.socket] = []

    def address(self) -> Address:
        if self._directory is not None:
            return UnixAddress(f"{self._directory.name}/{next(self._names)}.sock")
        return TCPAddress("127.0.0.1", 0)

    def dial(self, address: Address) -> SocketEnd:
        family, where = _place(address)
        connection = socket.socket(family)
        try:
            if self.tls is not None:
                # Before it connects: wrap_socket leaves open what has been reset already.
                connection = self.tls.client_context().wrap_socket(
                    connection,
                    server_hostname=self.tls.host_of(address),
                    do_handshake_on_connect=False,
                )
            # A Unix socket with a timeout does not wait until it is accepted.
            connection.settimeout(None if family == socket.AF_UNIX else DEADLINE)
            connection.connect(where)
            connection.settimeout(DEADLINE)
            if isinstance(connection, ssl.SSLSocket):
                connection.do_handshake()
        except BaseException:
            connection.close()
            raise
        return self._remember(SocketEnd(connection))

    def listen(self, address: Address | None = None) -> SocketServer:
        family, where = _place(address or self.address())
        server = SocketServer(self, family, where)
        self._opened.append(server)
        return server

    def unused_address(self) -> Address:
        address = self.address()
        if isinstance(address, UnixAddress):
            return address
        # Bound, and not listening: nobody else is given this port before it is listened at.
        family, where = _place(address)
        self._held.append(socket.socket(family))
        self._held[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._held[-1].bind(where)
        return TCPAddress(*self._held[-1].getsockname()[:2])

    def accepted(self, connection: socket.socket) -> SocketEnd:
        """A connection that a server has accepted."""
        connection.settimeout(DEADLINE)
        try:
            if self.tls is not None:
                connection = self.tls.server_context().wrap_socket(connection, server_side=True)
        except BaseException:
            connection.close()
            raise
        return self._remember(SocketEnd(connection))

    def _remember(self, end: SocketEnd) -> SocketEnd:
        self._opened = [each for each in self._opened if not each.closed]
        self._opened.append(end)
        return end

    def close(self) -> None:
        for each in (*self._opened, *self._held):
            each.close()
        if self._directory is not None:
            self._directory.cleanup()


def _place(address: Address) -> tuple[int, Any]:
    if isinstance(address, UnixAddress):
        return socket.AF_UNIX, address.path
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    return family, (address.host, address.port)


class SocketEnd(End):
    """A plain blocking socket, or a TLS one."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection

    @property
    def closed(self) -> bool:
        """Whether it has been closed here."""
        return self.socket.fileno() < 0

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            try:
                piece = self.socket.recv(min(size - len(data), 1 << 20))
            except TimeoutError:
                raise
            except OSError:
                break
            if not piece:
                break
            data += piece
        return bytes(data)

    def finish_sending(self) -> None:
        # Of the socket below TLS: this end says goodbye no better than one that crashed.
        socket.socket.shutdown(self.socket, socket.SHUT_WR)

    def close(self) -> None:
        self.socket.close()

    def cut(self) -> None:
        # Lingering for no time makes close() a reset: what is on its way is lost.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


class SocketServer(Server):
    """A plain listening socket."""

    def __init__(self, environment: SocketEnvironment, family: int, where: Any) -> None:
        self._environment = environment
        self.socket = socket.socket(family)
        if family != socket.AF_UNIX:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(where)
        self.socket.listen()
        name = self.socket.getsockname()
        self.address = UnixAddress(name) if isinstance(name, str) else TCPAddress(*name[:2])

    @property
    def closed(self) -> bool:
        """Whether it has been closed here."""
        return self.socket.fileno() < 0

    def accept(self) -> SocketEnd:
        self.socket.settimeout(DEADLINE)
        return self._environment.accepted(self.socket.accept()[0])

    def has_waiting(self) -> bool:
        self.socket.setblocking(False)
        try:
            self.socket.accept()[0].close()
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        self.socket.close()
        if isinstance(self.address, UnixAddress):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.address.path)


class MemoryEnvironment(Environment):
    """A memory network, whose clock advances while `wait_for` waits.

    :param tls: the options of all ends, and of what is done by hand.
    """

    def __init__(self, tls: TLSOptions | None = None) -> None:
        self.tls = tls
        self.network = MemoryNetwork()
        self.reactor = self.network

    def address(self) -> Address:
        return TCPAddress("", 0)

    def dial(self, address: Address) -> End:
        end = MemoryByHand(self, self.network.connect(address))
        if self.tls is None:
            return end
        host = self.tls.host_of(address)
        return TLSByHand(end, self.tls.client_context(), server_hostname=host)

    def listen(self, address: Address | None = None) -> MemoryServer:
        return MemoryServer(self, address or TCPAddress("", self.network.free_port()))

    def now(self) -> float:
        return self.network.now

    def turn(self) -> None:
        self.network.run()
        self.network.advance(0.005)

    def beside(self, function: Callable[[], object]) -> Callable[[], None]:
        function()
        return lambda: None

    def close(self) -> None:
        self.network.cut()


class MemoryByHand(End):
    """A `MemoryEnd` that waits."""

    def __init__(self, environment: MemoryEnvironment, end: MemoryEnd) -> None:
        self._environment = environment
        self._end = end

    def send(self, data: bytes) -> None:
        self._end.write(data)
        self._environment.wait_for(lambda: self._end.drained, "what was sent to arrive")

    def receive(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size and (piece := self.receive_some(size - len(data))):
            data += piece
        return bytes(data)

    def receive_some(self, size: int) -> bytes:
        """The next bytes, at most `size`, waited for; none at the end."""
        data = b""

        def something() -> bool:
            nonlocal data
            at_eof = self._end.at_eof
            data = self._end.read(size)
            return bool(data) or at_eof

        self._environment.wait_for(something, "data")
        return data

    def finish_sending(self) -> None:
        self._end.finish()
        self._environment.network.run()

    def close(self) -> None:
        self._end.close()
        self._environment.network.run()

    def cut(self) -> None:
        self._end.cut()


class TLSByHand(End):
    """TLS over an end that has none itself.

    :param context: the context of this end; `wrap` is for its `wrap_bio`.
    :raises OSError: the handshake has failed.
    """

    def __init__(self, end: MemoryByHand, context: ssl.SSLContext, **wrap: Any) -> None:
        self._end = end
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, **wrap)
        try:
            self._call(self._tls.do_handshake)
        except OSError:
            self.close()
            raise

    def send(self, data: bytes) -> None:
        with memoryview(data) as view:
            done = 0
            while done < len(view):
                done += self._call(lambda: self._tls.write(view[done:]))  # noqa: B023

    def receive(self, size: int) -> bytes:
        data = bytearray()
        with contextlib.suppress(OSError):
            while len(data) < size:
                left = size - len(data)
                piece = self._call(lambda: self._tls.read(left))  # noqa: B023
                if not piece:
                    break
                data += piece
        return bytes(data)

    def finish_sending(self) -> None:
        # Without a goodbye, as one that has crashed.
        self._end.finish_sending()

    def close(self) -> None:
        self._end.close()

    def cut(self) -> None:
        self._end.cut()

    def _call(self, function: Callable[[], Any]) -> Any:
        while True:
            try:
                return function()
            except ssl.SSLWantReadError:
                self._flush()
                data = self._end.receive_some(1 << 20)
                self._incoming.write(data) if data else self._incoming.write_eof()
            finally:
                self._flush()

    def _flush(self) -> None:
        if data := self._outgoing.read():
            self._end.send(data)


class MemoryServer(Server):
    """A `MemoryListener` that waits."""

    def __init__(self, environment: MemoryEnvironment, address: Address) -> None:
        self.address = address
        self._environment = environment
        self._listener = environment.network.listen(address)
        self._accepted: MemoryEnd | None = None

    def accept(self) -> End:
        self._environment.wait_for(self.has_waiting, "a connection")
        accepted, self._accepted = self._accepted, None
        end, tls = MemoryByHand(self._environment, cast(MemoryEnd, accepted)), self._environment.tls
        return end if tls is None else TLSByHand(end, tls.server_context(), server_side=True)

    def has_waiting(self) -> bool:
        if self._accepted is None:
            self._accepted = self._listener.accept()
        return self._accepted is not None

    def close(self) -> None:
        self._listener.close()

"""Asking status servers, within a time and a size: what answers may be anything."""

from __future__ import annotations

import errno
import http.client
import io
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import urlsplit

from ..addresses import Address, TCPAddress, UnixAddress, parse_address
from ..errors import InvalidAddress, NoStatus, NotAStatusServer
from ..transports.sockets import connect_argument, look_up
from .document import Apart, HexTid, InvalidStatus, Status, read_apart, read_status

Answer = TypeVar("Answer")

#: Bytes that an answer may have: room for some tens of thousands of peers.
MAX_SIZE = 16 * 1024 * 1024

# Bytes that are read for one: chunks have their lengths, and there are headers.
_MOST_READ = 2 * MAX_SIZE

_PATH = "/status"
_BEGIN = b"HTTP/"

#: Seconds that a thread has to report that its time is over.
_GRACE = 0.5


class StatusAddress(NamedTuple):
    """Where a status server listens, and the path of its status; `text` is how it is called."""

    text: str
    address: Address
    path: str

    def __str__(self) -> str:
        return self.text


def parse_status_address(text: str) -> StatusAddress:
    """The address in `host:port`, `:port`, a path with a `/` in it, or a URL `http://...`.

    A URL may lead through a proxy: `/status` is asked for below its path.

    :raises InvalidAddress: it is none of these.
    """
    if "://" not in text:
        return _with_port(StatusAddress(text, parse_address(text), _PATH))
    try:
        url = urlsplit(text)
        host, port = url.hostname or "", url.port or 80
    except ValueError as error:
        raise InvalidAddress(f"invalid address {text!r}: {error}") from error
    if url.scheme != "http" or not host or url.query or url.fragment or url.username is not None:
        raise InvalidAddress(
            f"invalid address {text!r}: the URL of a status server is http://host:port or "
            "http://host:port/path"
        )
    if not url.path.isascii() or not url.path.isprintable() or " " in url.path:
        raise InvalidAddress(f"invalid address {text!r}: {url.path!r} is no path of a URL")
    path = url.path.removesuffix("/").removesuffix(_PATH) + _PATH
    return StatusAddress(text, parse_address((host, port)), path)


def _with_port(address: StatusAddress) -> StatusAddress:
    if isinstance(address.address, TCPAddress) and not address.address.port:
        raise InvalidAddress(f"invalid address {address.text!r}: nobody listens at port 0")
    return address


def fetch_status(address: StatusAddress | str, timeout: float) -> Status:
    """Ask a status server for its status; blocks for `timeout` seconds at most.

    That is for all of it, but for the time that the system takes to look up a name. For any thread.

    :param address: a text is parsed first.
    :raises InvalidAddress: that failed.
    :raises NoStatus: nobody listens there, or has answered in time, or the answer is no status.
    :raises NotAStatusServer: it is no answer of HTTP at all.
    """
    if isinstance(address, str):
        address = parse_status_address(address)
    return _fetch(address, address.path, timeout, read_status)


def fetch_apart(
    address: StatusAddress, tid: HexTid, timeout: float, *, count: bool = False
) -> Apart:
    """Ask a primary's status server how far behind one is who holds all up to a transaction.

    :param count: True to have the transactions counted that the primary does not remember.
    :raises NoStatus: as `fetch_status`.
    """
    path = f"{address.path.removesuffix(_PATH)}/distance?tid={tid}"
    path += "&count=1" if count else ""
    return _fetch(address, path, timeout, read_apart)


def _fetch(
    address: StatusAddress, path: str, timeout: float, read: Callable[[bytes], Answer]
) -> Answer:
    with asking(address, timeout):
        with closing(connect(address.address, time.monotonic() + timeout)) as connection:
            body = _get(connection, address, path)
    try:
        return read(body)
    except InvalidStatus as error:
        raise NoStatus(address.text, f"the answer is no status: {error}") from error


@contextmanager
def asking(address: StatusAddress, timeout: float) -> Iterator[None]:
    """:raises NoStatus: for every error of the system."""
    try:
        yield
    except TimeoutError as error:
        raise NoStatus(address.text, f"no answer within {timeout:g} s") from error
    except OSError as error:
        raise NoStatus(address.text, _describe(error)) from error


def fetch_all(addresses: Iterable[StatusAddress], timeout: float) -> list[Status | NoStatus]:
    """Ask several for their status at once; the answers, or what is wrong, in order."""
    return ask_all([(each, partial(fetch_status, each, timeout)) for each in addresses], timeout)


def ask_all(
    questions: Sequence[tuple[StatusAddress, Callable[[], Answer]]], timeout: float
) -> list[Answer | NoStatus]:
    """Ask all at once, each in a thread of its own; the answers, or what is wrong, in order."""
    asked = [_Asked(address, ask, timeout) for address, ask in questions]
    deadline = time.monotonic() + timeout + _GRACE
    return [each.result(deadline) for each in asked]


class _Asked(Generic[Answer]):
    def __init__(self, address: StatusAddress, ask: Callable[[], Answer], timeout: float) -> None:
        self._ask = ask
        # It may look up a name for longer than it has: nobody waits for that.
        self._result: Answer | NoStatus = NoStatus(address.text, f"no answer within {timeout:g} s")
        self._thread = threading.Thread(target=self._run, name=f"ask {address}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._ask()
        except NoStatus as error:
            self._result = error

    def result(self, deadline: float) -> Answer | NoStatus:
        self._thread.join(max(0.0, deadline - time.monotonic()))
        return self._result


class Connection(io.RawIOBase):
    """A connected socket, until a deadline: whatever has not happened then is a `TimeoutError`.

    What comes after `_MOST_READ` bytes is an `OSError`: a negative size of a chunk has Python's
    HTTP client read all that there is, and what may be told before an answer has no end.
    """

    def __init__(self, connected: socket.socket, deadline: float) -> None:
        self._socket = connected
        self._deadline = deadline
        self._left = _MOST_READ

    def _wait(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)

    def send(self, data: bytes) -> None:
        self._wait()
        self._socket.sendall(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._wait()
        size = self._socket.recv_into(buffer)
        self._left -= size
        if self._left < 0:
            raise OSError(errno.EMSGSIZE, "it sends without an end")
        return size

    def close(self) -> None:
        self._socket.close()
        super().close()


def connect(address: Address, deadline: float) -> Connection:
    """Connect, until the `deadline` by `time.monotonic()`.

    :raises TimeoutError: the deadline has passed.
    :raises OSError: it cannot be connected to.
    """
    refused: OSError = ConnectionRefusedError("the host has no address")
    for family, place in look_up(address):
        connected = socket.socket(family, socket.SOCK_STREAM)
        try:
            connected.settimeout(max(deadline - time.monotonic(), 0.001))
            connected.connect(connect_argument(family, place))
        except OSError as error:
            connected.close()
            refused = error
        else:
            return Connection(connected, deadline)
    raise refused


def _describe(error: OSError) -> str:
    """Why an address could not be asked, in a few words."""
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there"
    return error.strerror or str(error)


class _Response:
    """What `HTTPResponse` takes for a socket."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file

    def makefile(self, mode: str) -> io.BufferedReader:
        return self._file


def _get(connection: Connection, address: StatusAddress, path: str) -> bytes:
    """:raises OSError: as the connection does."""
    host = _host_of(address.address)
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    connection.send(request.encode("ascii"))
    with closing(io.BufferedReader(connection)) as file:
        # A line that never ends would be waited for: what is no HTTP is seen by its first bytes.
        answer = file.peek(1)[: len(_BEGIN)]
        if not answer:
            raise NoStatus(address.text, "it closes the connection without an answer")
        if not _BEGIN.startswith(answer):
            reason = f"it is no status server: its answer is no HTTP and begins with {answer!r}"
            raise NotAStatusServer(address.text, reason, answer)
        # Collected when its file is closed, it would complain.
        with closing(http.client.HTTPResponse(_Response(file))) as response:  # type: ignore[arg-type]
            try:
                response.begin()
                body = response.read(MAX_SIZE + 1)
            except (http.client.HTTPException, ValueError) as error:
                raise NoStatus(address.text, "its answer is no proper HTTP") from error
            if response.status == http.client.MISDIRECTED_REQUEST:
                what = f"it does not answer for the host {host}: its status-hosts must have it"
                raise NoStatus(address.text, what)
            if response.status != http.client.OK:
                what = f"it is no status server: it answers {_says(response)} to {path}"
                raise NoStatus(address.text, what)
    if len(body) > MAX_SIZE:
        raise NoStatus(address.text, f"the answer is longer than {MAX_SIZE >> 20} MiB")
    return body


def _host_of(address: Address) -> str:
    if isinstance(address, UnixAddress):
        return "localhost"
    name = address.host.encode("idna").decode("ascii") or "localhost"
    return str(address._replace(host=name))


def _says(response: http.client.HTTPResponse) -> str:
    reason = "".join(each for each in response.reason if each.isprintable())
    return f"{response.status} {reason[:40]}"

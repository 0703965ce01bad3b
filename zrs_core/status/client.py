"""Asks a status server."""

from __future__ import annotations

import json
import socket
import time
from http.client import HTTPException, HTTPResponse
from io import BytesIO
from typing import IO, Any, cast

from ..addresses import Address, TCPAddress
from ..errors import ReplicationError
from ..transports.sockets import connect_argument, look_up

#: The most bytes of an answer.
_LONGEST_ANSWER = 16 * 1024 * 1024

_READ_SIZE = 65_536


class NoStatus(ReplicationError):
    """There is no answer, or none that could be understood."""


def url_of(address: Address) -> str:
    """How an address is shown."""
    return f"http://{address}" if isinstance(address, TCPAddress) else str(address)


def ask(address: Address, path: str = "/status", timeout: float = 5.0) -> Any:
    """The JSON that a status server answers to `path`.

    :param timeout: seconds that all of it may take.
    :raises NoStatus: there is no such answer in time; the text names the address.
    """
    status, body = get(address, path, timeout)
    if status != 200:
        raise NoStatus(f"{address} answers {status} to {path}: {_first_line(body)}")
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise NoStatus(f"{address} answers something else than JSON to {path}") from error


def get(address: Address, path: str, timeout: float = 5.0) -> tuple[int, bytes]:
    """The HTTP status and the body of an answer.

    :raises NoStatus: as `ask`.
    """
    deadline = time.monotonic() + timeout
    try:
        raw = _exchange(address, path, deadline)
    except TimeoutError as error:
        raise NoStatus(f"{address} does not answer within {timeout:g} s") from error
    except OSError as error:
        raise NoStatus(f"{address} cannot be asked: {error.strerror or error}") from error
    response = HTTPResponse(cast(socket.socket, _Received(raw)))
    try:
        response.begin()
        return response.status, response.read()
    except (HTTPException, ValueError) as error:
        raise NoStatus(f"{address} does not speak HTTP") from error


class _Received:
    """What has come, as if it were still a socket."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> IO[bytes]:
        return BytesIO(self._data)


def _exchange(address: Address, path: str, deadline: float) -> bytes:
    family, place = look_up(address)[0]
    host = str(address) if isinstance(address, TCPAddress) else "localhost"
    request = f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode()
    received = bytearray()
    with socket.socket(family) as connection:
        connection.settimeout(_left(deadline))
        connection.connect(connect_argument(family, place))
        connection.sendall(request)
        while len(received) <= _LONGEST_ANSWER:
            connection.settimeout(_left(deadline))
            data = connection.recv(_READ_SIZE)
            if not data:
                return bytes(received)
            received += data
    raise OSError(f"its answer has more than {_LONGEST_ANSWER} bytes")


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _first_line(body: bytes) -> str:
    return body.decode("utf-8", "replace").partition("\n")[0][:200].strip()

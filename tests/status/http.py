"""Requests by hand."""

from __future__ import annotations

import json
import socket
from typing import Any, NamedTuple

from zrs_core.addresses import Address, TCPAddress

#: Seconds that an answer may take.
DEADLINE = 60.0


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def connect(address: Address) -> socket.socket:
    tcp = isinstance(address, TCPAddress)
    connection = socket.socket(socket.AF_INET if tcp else socket.AF_UNIX)
    connection.settimeout(DEADLINE)
    try:
        connection.connect(tuple(address) if tcp else address.path)
    except OSError:
        connection.close()
        raise
    return connection


def exchange(address: Address, request: bytes) -> bytes:
    """All that is answered until the server closes the connection."""
    with connect(address) as connection:
        connection.sendall(request)
        return receive(connection)


def receive(connection: socket.socket) -> bytes:
    received = b""
    while data := connection.recv(65_536):
        received += data
    return received


def parse(answer: bytes) -> Answer:
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("ascii").split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return Answer(int(first.split()[1]), headers, body)


def get(address: Address, path: str, method: str = "GET") -> Answer:
    return parse(exchange(address, f"{method} {path} HTTP/1.0\r\n\r\n".encode()))

"""Secondaries that are nothing but sockets: they cost next to nothing by themselves."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from zrs_core.testing import greeting

_TIMEOUT = 120.0


def connect(address: tuple[str, int], start: bytes) -> socket.socket:
    """Connect, and ask for all after the transaction `start`."""
    host, port = address
    peer = socket.create_connection((host, port), timeout=_TIMEOUT)
    peer.sendall(greeting(start=start))
    return peer


@contextlib.contextmanager
def connected(address: tuple[str, int], start: bytes, count: int) -> Iterator[list[socket.socket]]:
    """So many at once."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(connect(address, start)) for _ in range(count)]

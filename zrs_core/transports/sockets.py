"""Functions for connected sockets, and for those to connect: settings, names, places."""

from __future__ import annotations

import contextlib
import ipaddress
import select
import socket
from typing import Any

from ..addresses import Address, TCPAddress, UnixAddress, check_path

#: Bytes that one read takes from the network at most; applied in one go.
READ_SIZE = 1024 * 1024

#: Bytes that a read takes at most where the one before has not taken as many: what is set aside for
#: more, and not needed, is given back to the system, which takes a while.
FIRST_READ_SIZE = 64 * 1024

_PROBES = 4


def next_read_size(size: int) -> int:
    """Bytes that a read takes at most, behind one that took `size`."""
    return READ_SIZE if size >= FIRST_READ_SIZE else FIRST_READ_SIZE


def tune(connection: Any, peer_timeout: float) -> None:
    """Send at once, and notice within `peer_timeout` seconds that the peer is gone.

    While nothing is under way the system probes the peer; what is under way must be acknowledged
    in time. Where a system lacks one of these settings, its own time-outs hold.

    :param connection: a connected socket.
    """
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    half = peer_timeout / 2
    settings = {
        "TCP_KEEPIDLE": max(1, int(half)),
        "TCP_KEEPINTVL": max(1, int(half / _PROBES)),
        "TCP_KEEPCNT": _PROBES,
        "TCP_USER_TIMEOUT": int(peer_timeout * 1000),
    }
    for name, value in settings.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def is_readable(connection: Any) -> bool:
    """Whether there is something to be read from a socket, at once. For any thread."""
    poll = select.poll()
    try:
        poll.register(connection, select.POLLIN)
    except ValueError:
        # It is closed.
        return False
    return bool(poll.poll(0))


def look_up(address: Address) -> list[tuple[int, tuple[Any, ...]]]:
    """Where an address may be reached, in the system's order: pairs of a family and a place.

    A place is (path,) of a Unix socket, or begins with a host's number and the port.

    :raises OSError: the host has no address.
    :raises InvalidAddress: the system has no Unix sockets with such a path.
    """
    if isinstance(address, UnixAddress):
        return [(socket.AF_UNIX, (check_path(address).path,))]
    host = address.host or "localhost"
    found = socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM)
    return [(family, where) for family, _, _, _, where in found]


def connect_argument(family: int, place: tuple[Any, ...]) -> Any:
    """A place as `socket.connect` and `socket.bind` take it."""
    return place[0] if family == socket.AF_UNIX else place


def own_name(connection: Any) -> str | None:
    """How a primary names this end of a socket; None if it has no name, as on a Unix socket."""
    if connection.family == socket.AF_UNIX:
        return None
    try:
        host, port, *_ = connection.getsockname()
    except OSError:
        return None
    return tcp_name(host, port)


def peer_name(connection: Any) -> str:
    """How the log and the status name the other end of a socket that a primary has accepted.

    No two that are open at once have the same name.
    """
    if connection.family == socket.AF_UNIX:
        # The other end has no name of its own.
        return f"unix:{connection.getsockname()}#{connection.fileno()}"
    try:
        host, port, *_ = connection.getpeername()
    except OSError:
        return "a peer that has left"
    return tcp_name(host, port)


def tcp_name(host: str, port: int) -> str:
    """Return the name of one end of a connection: for IPv4 within IPv6, the IPv4 address."""
    with contextlib.suppress(ValueError):
        mapped = getattr(ipaddress.ip_address(host), "ipv4_mapped", None)
        host = host if mapped is None else str(mapped)
    return str(TCPAddress(host, port))

"""What transports over sockets share: time-outs, Unix sockets, looking names up, exposure."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import os
import select
import socket
import stat
from typing import Any

from ..addresses import Address, TCPAddress, UnixAddress, check_path
from ..errors import Exposed, ListenError
from ..logs import event

log = logging.getLogger("zrs_core.primary")

#: Bytes that one read takes from the network at most; applied in one go.
READ_SIZE = 1024 * 1024

#: Bytes that a read takes at most where the one before has not taken as many: what is set aside for
#: more, and not needed, is given back to the system, which takes a while.
FIRST_READ_SIZE = 64 * 1024

#: Seconds for which what was applied waits for the rest of a TLS record, to be visible with it.
LONGEST_HOLD = 0.1

#: Seconds within which a secondary's attempt to connect, or its TLS handshake, must succeed.
CONNECT_TIMEOUT = 30.0

#: Seconds that a peer has to take what was sent before a connection is closed.
CLOSE_TIMEOUT = 10.0

#: Connections that the system keeps until they are accepted: all secondaries may come at once.
BACKLOG = 128

_PROBES = 4

# Of a system without IPv6, without its addresses, or without sockets for both families.
_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.ENOPROTOOPT, errno.EINVAL)


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


def open_tcp_listener(address: TCPAddress) -> socket.socket:
    """Return a socket that is bound to an address and does not listen yet.

    An address without a host, and `[::]`, stand for all interfaces by IPv6 and by IPv4, with one
    port for both. Where the system has no IPv6, they stand for all by IPv4.

    :raises OSError: it cannot be bound, or the host has no address.
    """
    if not is_wildcard(address):
        family, place = look_up(address)[0]
        return _bound(family, place)
    try:
        return _bound(socket.AF_INET6, ("::", address.port))
    except OSError as error:
        if error.errno not in _NO_IPV6:
            raise
        return _bound(socket.AF_INET, ("", address.port))


def is_wildcard(address: Address) -> bool:
    """Return True for all interfaces, by IPv6 and by IPv4."""
    return isinstance(address, TCPAddress) and (
        not address.host or (":" in address.host and _is_unspecified(address.host))
    )


def _is_unspecified(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _bound(family: int, place: tuple[Any, ...]) -> socket.socket:
    listening = socket.socket(family)
    try:
        if family == socket.AF_INET6:
            both = place[0] == "::"
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not both))
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(place)
    except BaseException:
        listening.close()
        raise
    return listening


def check_exposure(address: Address, *, tls: object, require_tls: bool) -> None:
    """Warn of an address where other machines can connect, if there is no TLS.

    A name stands for all addresses that it has now; one that has none is left to whoever listens.

    :raises Exposed: it is one, and `require_tls` is true.
    """
    if tls is not None or not is_exposed(address):
        return
    risk = (
        f"{address} can be reached from other machines, and there is no TLS: whoever connects can "
        "read the whole database, and whoever is on the way can read and change what secondaries "
        "get"
    )
    remedy = "give it TLS, or listen on 127.0.0.1 or a Unix socket"
    if require_tls:
        raise Exposed(f"{risk}; require_tls forbids that: {remedy}")
    fields = event("exposed", address=address)
    log.warning("%s; %s, or let a firewall see to it", risk, remedy, extra=fields)


def is_exposed(address: Address) -> bool:
    """Whether other machines can connect to an address that is listened on, as far as known."""
    if isinstance(address, UnixAddress):
        return False
    if not address.host:
        return True
    try:
        places = look_up(address)
    except OSError:
        return False
    return not all(is_loopback(place[0]) for _, place in places)


def is_loopback(host: str) -> bool:
    """Return True if an IP address is one of this machine alone."""
    number = ipaddress.ip_address(host)
    # An IPv4 address within an IPv6 one is told from others by Python 3.13 alone.
    return (getattr(number, "ipv4_mapped", None) or number).is_loopback


def remove_stale_socket(address: UnixAddress) -> None:
    """Remove the socket file of a process that is gone, if one is in the way.

    :raises ListenError: what is at the path is no socket, or somebody listens there.
    """
    path = address.path
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise ListenError(f"cannot listen on {path}: {error.strerror}") from error
    if not stat.S_ISSOCK(mode):
        raise ListenError(f"cannot listen on {path}: there is a file that is no socket")
    try:
        live = _is_live(path)
        if not live:
            os.unlink(path)
    except OSError as error:
        raise ListenError(f"cannot listen on {path}: {error.strerror}") from error
    if live:
        raise ListenError(f"cannot listen on {path}: somebody listens there")


def try_binding(address: UnixAddress) -> None:
    """Whether a Unix socket can be made there.

    :raises ListenError: it cannot.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.bind(address.path)
            os.unlink(address.path)
        except OSError as error:
            raise ListenError(f"cannot listen on {address}: {error}") from error


def _is_live(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        # One who listens and accepts nobody would keep it waiting.
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        except BlockingIOError:
            pass
    return True


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

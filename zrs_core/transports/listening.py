"""Sockets that listen: all interfaces, Unix sockets, and addresses that other machines reach."""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import socket
import stat
from typing import Any

from ..addresses import Address, TCPAddress, UnixAddress
from ..errors import Exposed, ListenError
from ..logs import event
from .sockets import look_up

log = logging.getLogger("zrs_core.primary")

#: Connections that the system keeps until they are accepted: all secondaries may come at once.
BACKLOG = 128

# Of a system without IPv6, without its addresses, or without sockets for both families.
_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.ENOPROTOOPT, errno.EINVAL)


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

    A name stands for all addresses that it has now; a name without addresses is not checked.

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

    :raises ListenError: the path is not a socket, or another process listens there.
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

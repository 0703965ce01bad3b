"""Addresses to listen on and to connect to, as people write them."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import NamedTuple, TypeAlias

from .errors import InvalidAddress
from .texts import path_of

_FORMS = (
    "an address is 'host:port', ':port', 'port', '[v6]:port', a pair (host, port), "
    "or the path of a Unix socket with a '/' in it"
)

#: Bytes in the path of a Unix socket, at most: what `sun_path` holds, without the zero at its end.
LONGEST_PATH = 107 if sys.platform == "linux" else 103


class TCPAddress(NamedTuple):
    """A host (a name or a number; empty for all interfaces, or this machine) and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class UnixAddress(NamedTuple):
    """The path of a Unix socket."""

    path: str

    def __str__(self) -> str:
        return self.path


Address: TypeAlias = TCPAddress | UnixAddress


def parse_address(address: object) -> Address:
    """The address in a text such as `host:port` or `/run/zrs.sock`, in a port or in a pair.

    :raises InvalidAddress: it is none of these, the port is not 0 to 65535, or the system has no
        Unix sockets with such a path.
    """
    if isinstance(address, UnixAddress):
        return check_path(address)
    if isinstance(address, os.PathLike):
        address = os.fspath(address)
    if isinstance(address, str) and "/" in address:
        with contextlib.suppress(UnicodeEncodeError):
            address = path_of(address)
        return check_path(UnixAddress(address))
    if isinstance(address, str):
        host, port = _split(address)
    elif isinstance(address, int):
        host, port = "", address
    elif isinstance(address, (tuple, list)) and len(address) == 2:
        host, port = address
    else:
        raise InvalidAddress(f"invalid address {address!r}: {_FORMS}")
    if not isinstance(host, str) or not isinstance(port, int) or isinstance(port, bool):
        raise InvalidAddress(f"invalid address {address!r}: {_FORMS}")
    if not is_host(host):
        raise InvalidAddress(f"invalid address {address!r}: {host!r} is no name of a host")
    if not 0 <= port <= 65535:
        raise InvalidAddress(f"invalid address {address!r}: a port is a number from 0 to 65535")
    return TCPAddress(host, port)


def check_path(address: UnixAddress) -> UnixAddress:
    """Return the address of a Unix socket if the system can bind and connect to its path.

    The path counts as it is given: a relative one may be short enough where the absolute one is
    not.

    :raises InvalidAddress: it cannot.
    """
    path = address.path
    try:
        size = len(os.fsencode(path))
    except UnicodeEncodeError as error:
        raise InvalidAddress(f"invalid address {path!r}: it cannot be encoded: {error}") from error
    if not path or "\0" in path:
        raise InvalidAddress(
            f"invalid address {path!r}: the path of a Unix socket must not be empty or contain "
            "zero bytes"
        )
    if size > LONGEST_PATH:
        raise InvalidAddress(
            f"invalid address {path!r}: the path of a Unix socket must have at most "
            f"{LONGEST_PATH} bytes, got {size}"
        )
    return address


def _split(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise InvalidAddress(
            f"invalid address {text!r}: an IPv6 address stands in brackets, as in '[::1]:8100'"
        )
    if not (port.isascii() and port.isdigit()) or len(port) > 5:
        raise InvalidAddress(f"invalid address {text!r}: {_FORMS}")
    return host, int(port)


def is_host(host: str) -> bool:
    """Whether a text can be the name of a host, or its IP address."""
    if any(character in host for character in "\0[] "):
        return False
    try:
        # What cannot be written so cannot be looked up either.
        host.encode("idna")
    except UnicodeError:
        return False
    return True

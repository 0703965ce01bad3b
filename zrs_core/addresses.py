"""Network addresses, as people write them."""

from __future__ import annotations

from typing import NamedTuple

from .errors import InvalidAddress

_FORMS = "an address is 'host:port', ':port', '[v6]:port' or a pair (host, port)"


class Address(NamedTuple):
    """A host (a name or a number; empty for all interfaces, or this machine) and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_address(address: object) -> Address:
    """The `Address` in a text such as `host:port`, `:port` or `[::1]:port`, or in a pair.

    :raises InvalidAddress: it is none of these, or the port is not 0 to 65535.
    """
    if isinstance(address, str):
        host, port = _split(address)
    elif isinstance(address, (tuple, list)) and len(address) == 2:
        host, port = address
    else:
        raise InvalidAddress(f"invalid address {address!r}: {_FORMS}")
    if not isinstance(host, str) or not isinstance(port, int) or isinstance(port, bool):
        raise InvalidAddress(f"invalid address {address!r}: {_FORMS}")
    if not 0 <= port <= 65535:
        raise InvalidAddress(f"invalid address {address!r}: a port is a number from 0 to 65535")
    return Address(host, port)


def _split(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise InvalidAddress(
            f"invalid address {text!r}: an IPv6 address stands in brackets, as in '[::1]:8100'"
        )
    if not colon or not (port.isascii() and port.isdigit()) or len(port) > 5:
        raise InvalidAddress(f"invalid address {text!r}: {_FORMS}")
    return host, int(port)

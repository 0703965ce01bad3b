"""Names of hosts for which a status server answers.

A browser treats a page of `evil.example` and this server as one origin once `evil.example` resolves
to 127.0.0.1 (DNS rebinding). The browser sends the name in the header `Host`, so that the server
can refuse the request.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from ..addresses import is_host
from ..errors import InvalidAddress
from ..transports.listening import is_loopback

_LOCALHOST = "localhost"

# A name or an IPv4 address, or an IPv6 address in brackets, and maybe a port.
_HOST = re.compile(r"(?P<name>[^][:/@\s]*)(:[0-9]{0,5})?|\[(?P<v6>[0-9A-Fa-f:.]+)\](:[0-9]{0,5})?")
_NAME = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")


def host_name(text: object) -> str:
    """Return the normal form of the name or the IP address of a host, without a port.

    :raises InvalidAddress: it is not one.
    """
    name = _normal(text.strip()) if isinstance(text, str) else ""
    if _ip_address(name) is None and not _NAME.fullmatch(name):
        raise InvalidAddress(
            f"invalid host {text!r}: it must be the name or the IP address of a host, without a "
            "port, such as status.example"
        )
    return name


class Hosts:
    """The hosts that a request may name: this machine, and those that were configured.

    :param configured: names and IP addresses, without ports.
    """

    def __init__(self, configured: Iterable[str]) -> None:
        self._configured = frozenset(map(_normal, configured))

    def include(self, header: str) -> bool:
        """Return True if a request with this header `Host` may be answered."""
        header = header.strip()
        match = _HOST.fullmatch(header)
        if match is None:
            return False
        if match["v6"] is not None:
            address = _ip_address(match["v6"])
            if address is None or ":" not in address:
                return False
            name = address
        else:
            name = _normal(match["name"])
        # No browser sends an empty name.
        return name in ("", _LOCALHOST) or name in self._configured or _is_loopback(name)


def _normal(text: str) -> str:
    name = text.removeprefix("[").removesuffix("]") if text.startswith("[") else text
    address = _ip_address(name.removesuffix("."))
    if address is not None:
        return address
    if not is_host(name):
        return "?"
    return name.encode("idna").decode("ascii").lower().removesuffix(".")


def _ip_address(text: str) -> str | None:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None


def _is_loopback(name: str) -> bool:
    return _ip_address(name) is not None and is_loopback(name)

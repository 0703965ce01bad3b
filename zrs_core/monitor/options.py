"""What can be set about a status server, checked before anything is opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..addresses import Address, TCPAddress, parse_address
from ..errors import InvalidAddress
from ..options import check_seconds
from .fetch import StatusAddress, parse_status_address
from .hosts import host_name

#: Seconds that a secondary may be behind to count as ready.
DEFAULT_MAX_LAG = 60.0

# The host of an address that names none.
_LOOPBACK = "127.0.0.1"


def listening_address(address: object) -> Address:
    """Where a status server listens: on loopback, unless the address names a host.

    :raises InvalidAddress: it is no address.
    """
    where = parse_address(address)
    if isinstance(where, TCPAddress) and not where.host:
        return TCPAddress(_LOOPBACK, where.port)
    return where


def node_address(address: object) -> StatusAddress:
    """Where another node's status server listens: an address, or a URL.

    :raises InvalidAddress: it is none, or nobody can listen there.
    """
    if isinstance(address, StatusAddress):
        return address
    text = address if isinstance(address, str) else str(parse_address(address))
    return parse_status_address(text)


@dataclass(frozen=True, slots=True)
class StatusOptions:
    """Where to serve the status, and of what.

    `address` is where to listen: `host:port`, `:port` or a port for loopback alone, or the path of
    a Unix socket; port 0 lets the system choose. `max_lag` is the number of seconds that a
    secondary may be behind to count as ready; `nodes` are the addresses (or URLs) of other status
    servers, whose answers are shown beside this one's. `hosts` are names of hosts, besides
    those of this machine, that requests may have in the header `Host`.

    :raises ConfigurationError: a value that is none of these.
    """

    address: object
    max_lag: float = DEFAULT_MAX_LAG
    nodes: Sequence[object] = ()
    hosts: Sequence[str] = ()
    #: The parsed addresses.
    where: Address = field(init=False)
    others: tuple[StatusAddress, ...] = field(init=False)
    #: The normal forms of `hosts`.
    host_names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        check_seconds("max_lag", self.max_lag)
        if isinstance(self.nodes, (str, bytes)):
            raise InvalidAddress(f"nodes must be several addresses, not {self.nodes!r}")
        if isinstance(self.hosts, (str, bytes)):
            raise InvalidAddress(f"hosts must be several names of hosts, not {self.hosts!r}")
        object.__setattr__(self, "where", listening_address(self.address))
        object.__setattr__(self, "others", tuple(node_address(each) for each in self.nodes))
        object.__setattr__(self, "host_names", tuple(host_name(each) for each in self.hosts))

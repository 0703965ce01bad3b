"""The two implementations, behind the same two functions.

Each is imported when it is asked for: a process has one of them, and its virtual environment need
not have the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

Address = tuple[str, int]


class Implementation(NamedTuple):
    """`primary(storage)` and `secondary(storage, address)` open one end around a FileStorage;
    `address(primary)` tells where it listens.
    """

    primary: Callable[[Any], Any]
    address: Callable[[Any], Address]
    secondary: Callable[[Any, Address], Any]


def load(name: str, transport: str) -> Implementation:
    """Import what an implementation needs, all of it."""
    return _zrs_core(transport) if name == "zrs_core" else _zc_zrs()


def _zrs_core(transport: str) -> Implementation:
    from zrs_core import Primary, Secondary, transports

    transports.listener_factory(transport)
    return Implementation(
        lambda storage: Primary(storage, "127.0.0.1:0", transport=transport),
        lambda primary: primary.replication_address,
        lambda storage, address: Secondary(storage, address, transport=transport),
    )


def _zc_zrs() -> Implementation:
    import zc.zrs.primary
    import zc.zrs.secondary

    def address(primary: Any) -> Address:
        # The reactor's thread listens some time after the constructor has returned.
        while primary._listener is None:
            time.sleep(0.001)
        where = primary._listener.getHost()
        return where.host, where.port

    return Implementation(
        lambda storage: zc.zrs.primary.Primary(storage, ("127.0.0.1", 0)),
        address,
        lambda storage, address: zc.zrs.secondary.Secondary(storage, tuple(address)),
    )

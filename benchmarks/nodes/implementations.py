"""The two implementations, and none, behind the same functions.

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
    return {"zrs_core": _zrs_core, "zc.zrs": _zc_zrs, "FileStorage": _none}[name](transport)


def _zrs_core(transport: str) -> Implementation:
    from zrs_core import Primary, Secondary, transports

    transports.listener_factory(transport)
    return Implementation(
        lambda storage: Primary(storage, "127.0.0.1:0", transport=transport),
        lambda primary: primary.replication_address,
        lambda storage, address: Secondary(storage, address, transport=transport),
    )


def _zc_zrs(transport: str) -> Implementation:
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


def _none(transport: str) -> Implementation:
    """A FileStorage by itself, which nobody follows."""

    def nobody(*args: Any) -> Any:
        raise ValueError("a FileStorage by itself has no secondaries")

    return Implementation(lambda storage: storage, lambda storage: ("", 0), nobody)

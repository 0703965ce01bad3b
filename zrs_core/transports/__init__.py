"""Transports by name.

A transport is a pair of adapters in the zope.component registry, registered under its name:
`IReplicationService` to `IListener`, and `IReplicationClient` to `IConnector`. The ones that come
with this package register themselves when their name is first asked for, so that nobody imports
Twisted who does not use it; so do those that another package names in an entry point of the group
`zrs_core.transports`. What has been registered already, by `register` or by ZCML, comes first.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable
from importlib.metadata import EntryPoint
from typing import Any

from zope.component import getGlobalSiteManager
from zope.interface.interface import InterfaceClass

from ..errors import UnknownTransport
from ..interfaces import IConnector, IListener, IReplicationClient, IReplicationService

#: The group of entry points that name other packages' transports. An entry point leads to a module,
#: or any other object, with a `Listener` and a `Connector`.
ENTRY_POINTS = "zrs_core.transports"

# Each module has a `Listener` and a `Connector`.
_BUILT_IN = {
    "memory": "zrs_core.transports.memory",
    "socket-thread": "zrs_core.transports.socket_thread",
    "twisted-tcp": "zrs_core.transports.twisted_tcp",
}


def register(name: str, listener: Callable[..., Any], connector: Callable[..., Any]) -> None:
    """Make a transport known under `name`.

    :param listener: makes an `IListener` of an `IReplicationService`.
    :param connector: makes an `IConnector` of an `IReplicationClient`.
    """
    registry = getGlobalSiteManager()
    registry.registerAdapter(listener, (IReplicationService,), IListener, name)
    registry.registerAdapter(connector, (IReplicationClient,), IConnector, name)


def names() -> list[str]:
    """The names of all transports that are known, also of those that are not loaded yet."""
    adapters = getGlobalSiteManager().adapters
    listeners = adapters.lookupAll((IReplicationService,), IListener)
    connectors = adapters.lookupAll((IReplicationClient,), IConnector)
    registered = (name for name, _ in (*listeners, *connectors) if name)
    return sorted({*_BUILT_IN, *_entry_points(), *registered})


def listener_factory(name: str) -> Callable[..., Any]:
    """What makes an `IListener` of an `IReplicationService`.

    :raises UnknownTransport: nothing is known under `name`, or it cannot be loaded.
    """
    return _find(name, IReplicationService, IListener)


def connector_factory(name: str) -> Callable[..., Any]:
    """What makes an `IConnector` of an `IReplicationClient`.

    :raises UnknownTransport: nothing is known under `name`, or it cannot be loaded.
    """
    return _find(name, IReplicationClient, IConnector)


def abandon(end: Any) -> None:
    """Have a listener or a connector give up its descriptors in the child of a fork.

    A transport need not be able to.
    """
    give_up: Callable[[], object] = getattr(end, "abandon", bool)
    give_up()


def _find(name: str, required: InterfaceClass, provided: InterfaceClass) -> Callable[..., Any]:
    if not isinstance(name, str):
        raise UnknownTransport(f"a transport has a name, which {name!r} is not")
    adapters = getGlobalSiteManager().adapters
    factory = adapters.lookup((required,), provided, name)
    if factory is None and _load(name):
        factory = adapters.lookup((required,), provided, name)
    if factory is None:
        raise UnknownTransport(
            f"unknown transport {name!r}; the known ones are {', '.join(names())}"
        )
    result: Callable[..., Any] = factory
    return result


def _load(name: str) -> bool:
    """Register the adapters of the transport `name` that are not registered yet, if it is there."""
    if name in _BUILT_IN:
        home = importlib.import_module(_BUILT_IN[name])
        listener, connector = home.Listener, home.Connector
    elif (entry_point := _entry_points().get(name)) is not None:
        try:
            home = entry_point.load()
            listener, connector = home.Listener, home.Connector
        except Exception as error:
            # Whatever the other package does wrong, the configuration names it.
            raise UnknownTransport(
                f"the transport {name!r} cannot be loaded from {entry_point.value}"
                f"{_origin(entry_point)}: {type(error).__name__}: {error}"
            ) from error
    else:
        return False
    registry = getGlobalSiteManager()
    for factory, required, provided in (
        (listener, IReplicationService, IListener),
        (connector, IReplicationClient, IConnector),
    ):
        if registry.adapters.lookup((required,), provided, name) is None:
            registry.registerAdapter(factory, (required,), provided, name)
    return True


def _entry_points() -> dict[str, EntryPoint]:
    # Asked for each time: it is seldom, and what is installed meanwhile counts.
    found = importlib.metadata.entry_points(group=ENTRY_POINTS)
    return {each.name: each for each in reversed([*found])}


def _origin(entry_point: EntryPoint) -> str:
    return "" if entry_point.dist is None else f" ({entry_point.dist.name})"

"""Transports by name.

A transport is a pair of adapters in the zope.component registry, registered under its name:
`IReplicationService` to `IListener`, and `IReplicationClient` to `IConnector`. The ones that come
with this package register themselves when their name is first asked for, so that nobody imports
Twisted who does not use it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from zope.component import getGlobalSiteManager
from zope.interface.interface import InterfaceClass

from ..errors import UnknownTransport
from ..interfaces import IConnector, IListener, IReplicationClient, IReplicationService

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
    """The names of all transports that are known."""
    registered = getGlobalSiteManager().adapters.lookupAll((IReplicationService,), IListener)
    return sorted({*_BUILT_IN, *(name for name, _ in registered if name)})


def listener_factory(name: str) -> Callable[..., Any]:
    """What makes an `IListener` of an `IReplicationService`.

    :raises UnknownTransport: nothing is registered under `name`.
    """
    return _find(name, IReplicationService, IListener)


def connector_factory(name: str) -> Callable[..., Any]:
    """What makes an `IConnector` of an `IReplicationClient`.

    :raises UnknownTransport: nothing is registered under `name`.
    """
    return _find(name, IReplicationClient, IConnector)


def _find(name: str, required: InterfaceClass, provided: InterfaceClass) -> Callable[..., Any]:
    if not isinstance(name, str):
        raise UnknownTransport(f"a transport has a name, which {name!r} is not")
    adapters = getGlobalSiteManager().adapters
    factory = adapters.lookup((required,), provided, name)
    if factory is None and name in _BUILT_IN:
        module = importlib.import_module(_BUILT_IN[name])
        register(name, module.Listener, module.Connector)
        factory = adapters.lookup((required,), provided, name)
    if factory is None:
        raise UnknownTransport(
            f"unknown transport {name!r}; the known ones are {', '.join(names())}"
        )
    result: Callable[..., Any] = factory
    return result

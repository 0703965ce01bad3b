import pytest
from zope.component import getGlobalSiteManager

from zrs_core import transports
from zrs_core.errors import UnknownTransport
from zrs_core.interfaces import (
    IConnector,
    IListener,
    IReplicationClient,
    IReplicationService,
)
from zrs_core.transports import memory


def test_a_transport_is_found_by_its_name():
    assert transports.listener_factory("memory") is memory.Listener
    assert transports.connector_factory("memory") is memory.Connector


def test_it_is_an_adapter_in_the_registry():
    transports.listener_factory("memory")
    adapters = getGlobalSiteManager().adapters
    assert adapters.lookup((IReplicationService,), IListener, "memory") is memory.Listener
    assert adapters.lookup((IReplicationClient,), IConnector, "memory") is memory.Connector


@pytest.mark.parametrize("find", [transports.listener_factory, transports.connector_factory])
def test_an_unknown_name_lists_the_known_ones(find):
    with pytest.raises(UnknownTransport) as caught:
        find("pigeon")
    assert str(caught.value) == (
        "unknown transport 'pigeon'; the known ones are memory, socket-thread, twisted-tcp"
    )


def test_a_transport_from_outside_is_found_too():
    registry = getGlobalSiteManager()
    transports.register("pigeon", memory.Listener, memory.Connector)
    try:
        assert transports.names() == ["memory", "pigeon", "socket-thread", "twisted-tcp"]
        assert transports.listener_factory("pigeon") is memory.Listener
    finally:
        registry.unregisterAdapter(memory.Listener, (IReplicationService,), IListener, "pigeon")
        registry.unregisterAdapter(memory.Connector, (IReplicationClient,), IConnector, "pigeon")
    assert transports.names() == ["memory", "socket-thread", "twisted-tcp"]


def test_what_was_registered_first_stays():
    registry = getGlobalSiteManager()

    def other(service):
        return "other"

    registry.registerAdapter(other, (IReplicationService,), IListener, "memory")
    try:
        assert transports.listener_factory("memory") is other
    finally:
        transports.register("memory", memory.Listener, memory.Connector)

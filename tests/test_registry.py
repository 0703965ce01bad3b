"""Transports from outside: by an entry point, and by ZCML."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from zope.component import getGlobalSiteManager
from zope.configuration import xmlconfig

import zrs_core
from zrs_core import Primary, Secondary, transports
from zrs_core.errors import UnknownTransport
from zrs_core.interfaces import IConnector, IListener, IReplicationClient, IReplicationService
from zrs_core.transports import memory, socket_thread, twisted_tcp
from zrs_core.transports.memory import MemoryNetwork

MODULE = """
from zrs_core.transports.memory import Connector, Listener
"""


@pytest.fixture(autouse=True)
def registry_as_before() -> Iterator[None]:
    registry = getGlobalSiteManager()
    before = {*registry.registeredAdapters()}
    yield
    for each in {*registry.registeredAdapters()} - before:
        registry.unregisterAdapter(each.factory, each.required, each.provided, each.name)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is searched as those of installed packages are, with a package in it."""
    home = tmp_path / "site"
    metadata = home / "pigeons-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: pigeons\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[zrs_core.transports]\n"
        "pigeon = zrs_pigeons\n"
        "carrier = zrs_pigeons:Carrier\n"
        "lost = zrs_no_such_module\n"
        "half = zrs_pigeons:Half\n"
        "broken = zrs_broken_pigeon\n"
        "memory = zrs_pigeons\n"
    )
    (home / "zrs_pigeons.py").write_text(
        MODULE + "class Carrier:\n    Listener, Connector = Listener, Connector\n"
        "class Half:\n    Listener = Listener\n"
    )
    (home / "zrs_broken_pigeon.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(home)
    yield home
    sys.modules.pop("zrs_pigeons", None)


@pytest.mark.parametrize("name", ["pigeon", "carrier"])
@pytest.mark.usefixtures("installed")
def test_an_entry_point_is_loaded_when_its_name_is_asked_for(name):
    assert name in transports.names()
    assert "zrs_pigeons" not in sys.modules
    assert transports.connector_factory(name) is memory.Connector
    assert transports.listener_factory(name) is memory.Listener
    assert name in transports.names()


@pytest.mark.usefixtures("installed")
def test_storages_use_it(tmp_path):
    network = MemoryNetwork()
    primary = Primary(str(tmp_path / "1.fs"), ("", 1), network, transport="pigeon")
    secondary = Secondary(str(tmp_path / "2.fs"), ("", 1), network, transport="pigeon")
    network.run()
    assert secondary.progress.connected
    secondary.close()
    primary.close()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lost", "ModuleNotFoundError: No module named 'zrs_no_such_module'"),
        ("half", "AttributeError: type object 'Half' has no attribute 'Connector'"),
        ("broken", "ZeroDivisionError: division by zero"),
    ],
)
@pytest.mark.parametrize("find", [transports.listener_factory, transports.connector_factory])
@pytest.mark.usefixtures("installed")
def test_a_broken_entry_point_is_an_unknown_transport_with_its_cause(find, name, message):
    assert name in transports.names()
    with pytest.raises(UnknownTransport) as caught:
        find(name)
    text = str(caught.value)
    assert text.startswith(f"the transport {name!r} cannot be loaded from zrs_")
    assert text.endswith(f" (pigeons): {message}")
    assert caught.value.__cause__ is not None


@pytest.mark.usefixtures("installed")
def test_a_name_of_our_own_stays_ours():
    assert transports.listener_factory("memory") is memory.Listener
    assert transports.names().count("memory") == 1


def test_one_adapter_of_another_is_not_replaced_by_ours():
    def other(client):
        return "other"

    registry = getGlobalSiteManager()
    ours = {each for each in registry.registeredAdapters() if each.name == "socket-thread"}
    for each in ours:
        registry.unregisterAdapter(each.factory, each.required, each.provided, each.name)
    registry.registerAdapter(other, (IReplicationClient,), IConnector, "socket-thread")
    assert transports.listener_factory("socket-thread") is socket_thread.Listener
    assert transports.connector_factory("socket-thread") is other


def test_a_connector_alone_has_a_name_too():
    getGlobalSiteManager().registerAdapter(
        memory.Connector, (IReplicationClient,), IConnector, "one-way"
    )
    assert "one-way" in transports.names()
    with pytest.raises(UnknownTransport):
        transports.listener_factory("one-way")


def test_zcml_registers_the_transports():
    adapters = getGlobalSiteManager().adapters
    xmlconfig.file("configure.zcml", zrs_core)
    for name, module in {
        "memory": memory,
        "socket-thread": socket_thread,
        "twisted-tcp": twisted_tcp,
    }.items():
        assert adapters.lookup((IReplicationService,), IListener, name) is module.Listener
        assert adapters.lookup((IReplicationClient,), IConnector, name) is module.Connector


@pytest.mark.usefixtures("installed")
def test_zcml_of_others_registers_theirs():
    xmlconfig.string(
        """
        <configure xmlns="http://namespaces.zope.org/zope">
          <include package="zrs_core" />
          <adapter
              name="dove"
              for="zrs_core.interfaces.IReplicationService"
              provides="zrs_core.interfaces.IListener"
              factory="zrs_pigeons.Listener"
              />
          <adapter
              name="dove"
              for="zrs_core.interfaces.IReplicationClient"
              provides="zrs_core.interfaces.IConnector"
              factory="zrs_pigeons.Connector"
              />
        </configure>
        """
    )
    assert "dove" in transports.names()
    assert transports.listener_factory("dove") is memory.Listener
    assert transports.connector_factory("dove") is memory.Connector


def test_zcml_alone_is_enough_for_a_fresh_process():
    check = (
        "from zope.configuration import xmlconfig\n"
        "import zrs_core, sys\n"
        "xmlconfig.file('configure.zcml', zrs_core)\n"
        "from zrs_core import transports\n"
        "print(transports.connector_factory('twisted-tcp').__module__)\n"
        "print('twisted.internet.reactor' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout == "zrs_core.transports.twisted_tcp\nFalse\n"

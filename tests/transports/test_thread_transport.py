"""The transport that docs/write-a-transport.rst shows in full is short, and does what it must."""

from pathlib import Path

import pytest
from zope.component import getGlobalSiteManager

from zrs_core import transports
from zrs_core.interfaces import IConnector, IListener, IReplicationClient, IReplicationService
from zrs_core.testing.conformance import TLSConformance, TransportConformance

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module", autouse=True)
def registered():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        import thread_transport as example
    transports.register("example-threads", example.Listener, example.Connector)
    yield
    registry = getGlobalSiteManager()
    for made, of, provided in (
        (example.Listener, IReplicationService, IListener),
        (example.Connector, IReplicationClient, IConnector),
    ):
        registry.unregisterAdapter(made, (of,), provided, "example-threads")


def test_it_has_fewer_than_a_hundred_lines():
    text = (EXAMPLES / "thread_transport.py").read_text("utf-8")
    assert len([line for line in text.splitlines() if line.strip()]) < 100


class TestThreads(TransportConformance):
    transport = "example-threads"
    cycles = 30


class TestThreadsWithTLS(TLSConformance):
    transport = "example-threads"
    cycles = 30

"""What every transport must show, as tests: for the transports of this package and for others'.

In a test module of your own::

    import pytest

    pytest.register_assert_rewrite("zrs_core.testing.conformance")

    from zrs_core.testing.conformance import TLSConformance, TransportConformance

    class TestMyTransport(TransportConformance):
        transport = "my-transport"

    class TestMyTransportWithTLS(TLSConformance):
        transport = "my-transport"

Each test also checks that the driver keeps the contract of `ISession`: one call at a time, with a
time that is never set back, no call when the session is over, and one piece of work at a time.

A transport that does not listen on TCP's loopback, or whose peers are not plain sockets, overrides
`environment`. The suite needs pytest, and trustme for the certificate; nothing else of the package
needs them.
"""

from __future__ import annotations

from typing import ClassVar

from .connector import ConnectorTests
from .driver import DriverTests
from .limits import LimitTests
from .listener import ListenerTests
from .names import NameTests
from .storages import Copy, Everyone, Flood
from .suite import Stillness, open_files
from .together import BothTests

__all__ = [
    "Copy",
    "Everyone",
    "Flood",
    "Stillness",
    "TLSConformance",
    "TransportConformance",
    "open_files",
]


class TransportConformance(
    ListenerTests, LimitTests, ConnectorTests, NameTests, BothTests, DriverTests
):
    """The suite. A subclass gives the name of the transport."""

    #: Under which the transport is registered.
    transport: ClassVar[str]
    #: True if everything is tried with TLS.
    tls: ClassVar[bool] = False
    #: How many times the tests for leaks connect and disconnect.
    cycles: ClassVar[int] = 1000


class TLSConformance(TransportConformance):
    """The suite, with TLS."""

    tls = True

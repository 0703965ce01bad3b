"""Connecting over Twisted: the look-up of a name, and the attempts at the places that it has."""

from __future__ import annotations

import socket
import time
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
)
from twisted.internet.error import ConnectError

from ..addresses import Address
from ..interfaces import IReplicationClient
from .lookups import LookUp, Places, needs_look_up
from .reactors import Loop
from .sockets import look_up
from .twisted_driver import Connection, ConnectionFactory

_ENDPOINTS: dict[int, Any] = {
    socket.AF_UNIX: UNIXClientEndpoint,
    socket.AF_INET: TCP4ClientEndpoint,
    socket.AF_INET6: TCP6ClientEndpoint,
}


def connect(address: Address, client: IReplicationClient, loop: Loop) -> Deferred[Connection]:
    """Connect to the first place of an address that accepts it, within `client.connect_timeout`.

    Twisted's HostnameEndpoint imports the global reactor, which an application may want to choose,
    and its timeouts follow the system's clock. The result can be cancelled. It fails with OSError
    or ConnectError.
    """
    return Deferred.fromCoroutine(_connect(address, client, loop))


async def _connect(address: Address, client: IReplicationClient, loop: Loop) -> Connection:
    end = time.monotonic() + client.connect_timeout
    factory = ConnectionFactory(lambda addr: Connection(loop, client.peer_timeout))
    failure: Exception = OSError(f"{address} has no address that can be used")
    places = await _in_time(_look_up(address, loop), client.connect_timeout, loop)
    places = [each for each in places if each[0] in _ENDPOINTS]
    for tried, (family, where) in enumerate(places):
        endpoint = _ENDPOINTS[family](loop.reactor, *where[:2], timeout=None)
        # A place that does not answer leaves the others their share of the time.
        share = (end - time.monotonic()) / (len(places) - tried)
        try:
            connection: Connection = await _in_time(endpoint.connect(factory), share, loop)
        except (ConnectError, TimeoutError) as error:
            failure = error
        else:
            return connection
    raise failure


async def _in_time(waiting: Deferred[Any], seconds: float, loop: Loop) -> Any:
    clock: Any = loop
    return await waiting.addTimeout(max(seconds, 0.0), clock, _timed_out)


def _timed_out(result: object, seconds: float) -> None:
    raise TimeoutError("timed out")


def _look_up(address: Address, loop: Loop) -> Deferred[Places]:
    if not needs_look_up(address):
        return maybeDeferred(look_up, address)
    result: Deferred[Places] = Deferred(lambda _: found.cancel())

    def end() -> None:
        # It may have been cancelled meanwhile.
        if not result.called:
            maybeDeferred(found.result).chainDeferred(result)

    found = LookUp(address, lambda: loop.reactor.callFromThread(end))
    return result

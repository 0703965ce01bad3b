"""Sessions that the tests drive by hand."""

from __future__ import annotations

from zrs_core.addresses import TCPAddress
from zrs_core.messages import NO_TID, Commit, Store, Transaction
from zrs_core.options import ClientOptions, ServiceOptions
from zrs_core.sessions import ReplicationClient, ReplicationService
from zrs_core.testing import HandDriver, greeting

ADDRESS = TCPAddress("localhost", 8100)
TID = b"\0" * 7 + b"\1"


def transactions(first, count):
    """Return the messages of `count` transactions, whose tids rise from `first` on."""
    tids = [number.to_bytes(8, "big") for number in range(first, first + count)]
    return [each for tid in tids for each in (Transaction(tid), Store(bytes(8), tid), Commit())]


def make_service(source, **options):
    return ReplicationService(source, ADDRESS, options=ServiceOptions(**options))


def accept(service, peer="peer", **driver):
    """Return the driver of a session for a new connection."""
    return HandDriver(lambda now, notify: service.accept(peer, now, notify), **driver)


def primary_session(source, **options):
    return accept(make_service(source, **options))


def started_session(source, start=NO_TID, **driver):
    """Return the driver of a session that has received its start."""
    session = accept(make_service(source), **driver)
    session.receive(greeting(start=start))
    return session


def make_client(sink, **options):
    return ReplicationClient(sink, ADDRESS, None, ClientOptions(**options))


def connect(client, readable=lambda: False, local_address=None, **driver):
    """Return the driver of a session for a new connection to a primary."""
    return HandDriver(
        lambda now, notify: client.session(now, notify, local_address, readable), **driver
    )


def greeted_session(sink, **options):
    return connect(make_client(sink, **options))

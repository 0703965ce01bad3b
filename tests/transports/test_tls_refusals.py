"""TLS: who is refused, what both logs say about it, and that nobody else is disturbed."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import logging
import shutil
import socket
import ssl

import pytest

from zrs_core import transports
from zrs_core.addresses import TCPAddress
from zrs_core.options import ClientOptions, ServiceOptions
from zrs_core.sessions import ReplicationClient, ReplicationService, SecondaryTimes
from zrs_core.testing import WHOLE, Sink, Source
from zrs_core.tls import TLSOptions
from zrs_core.transports.memory import MemoryNetwork

from ..certificates import authority, both_ends
from ..conditions import wait_for

# The transports of the primary and of the secondary.
PAIRS = [
    *itertools.product(("socket-thread", "twisted-tcp"), repeat=2),
    ("memory", "memory"),
]
OURS, OTHERS = authority(), authority("others")
LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)
HERE = OURS.issue("localhost", "127.0.0.1")
EXPIRED = OURS.issue("localhost", "127.0.0.1", file="expired.pem", not_after=LONG_AGO)
FOREIGN = OTHERS.issue("localhost", "127.0.0.1")
ELSEWHERE = OURS.issue("db.example")


@pytest.fixture(params=PAIRS, ids="-".join)
def pair(request):
    return request.param


@pytest.fixture
def network(pair):
    """The network of transports in memory, None for the others."""
    return MemoryNetwork() if "memory" in pair else None


@pytest.fixture
def until(network):
    """Waits for a condition."""

    def wait(condition, what):
        def holds():
            if network is not None:
                network.advance(0.01)
                network.run()
            return condition()

        wait_for(holds, what)

    return wait


@pytest.fixture
def listen(pair, network, caplog):
    caplog.set_level(logging.DEBUG, "zrs_core")
    listeners = []

    def start(source, tls, **options):
        service = ReplicationService(
            source, TCPAddress("127.0.0.1", 0), network, ServiceOptions(tls=tls, **options)
        )
        listeners.append(transports.listener_factory(pair[0])(service))
        listeners[-1].start()
        return listeners[-1].address

    yield start
    for each in listeners:
        each.stop(0)


@pytest.fixture
def connect(pair, network):
    connectors = []

    def start(sink, address, tls, **times):
        options = ClientOptions(tls=tls, reconnect_delay=0.02)
        client = ReplicationClient(sink, address, network, options, times=SecondaryTimes(**times))
        connectors.append(transports.connector_factory(pair[1])(client))
        connectors[-1].start()
        return connectors[-1]

    yield start
    for each in connectors:
        each.stop()


# Of transports over sockets, one of which is driven by hand.
one_listener = pytest.mark.parametrize("pair", [PAIRS[0], PAIRS[3]], ids="-".join)


def warnings(caplog, logger):
    return [
        each.getMessage()
        for each in list(caplog.records)
        if each.name == logger and each.levelno >= logging.WARNING
    ]


SERVER = TLSOptions(certificate=HERE, ca=OURS.ca)
CLIENT = TLSOptions(certificate=HERE, ca=OURS.ca)

LOG_TELLS = "the primary closed the connection without sending anything"
NOT_LISTED = "TLS: its certificate is for 127.0.0.1, localhost, which is not listed"
UNKNOWN = "TLS: the peer does not know the authority that signed this end's certificate"
UNTRUSTED = "TLS: the peer's certificate is signed by an authority that is not trusted"
HAS_EXPIRED = "TLS: the peer's certificate has expired"

REFUSALS = {
    "plain text secondary": (SERVER, None, "TLS: the peer does not speak TLS", LOG_TELLS),
    "plain text primary": (
        None,
        CLIENT,
        "the peer speaks TLS, and this primary does not",
        "it speaks no TLS, or does not accept this end's certificate",
    ),
    "secondary of another authority": (
        SERVER,
        TLSOptions(certificate=FOREIGN, ca=OURS.ca),
        UNTRUSTED,
        UNKNOWN,
    ),
    "primary of another authority": (
        TLSOptions(certificate=FOREIGN, ca=OURS.ca),
        CLIENT,
        UNKNOWN,
        UNTRUSTED,
    ),
    "expired secondary": (
        SERVER,
        TLSOptions(certificate=EXPIRED, ca=OURS.ca),
        HAS_EXPIRED,
        "TLS: the peer says that this end's certificate has expired",
    ),
    "expired primary": (
        TLSOptions(certificate=EXPIRED, ca=OURS.ca),
        CLIENT,
        "TLS: the peer says that this end's certificate has expired",
        HAS_EXPIRED,
    ),
    "secondary that is not listed": (
        TLSOptions(certificate=HERE, ca=OURS.ca, peer_names=("db.example",)),
        CLIENT,
        NOT_LISTED,
        LOG_TELLS,
    ),
    "primary that is not listed": (
        SERVER,
        TLSOptions(certificate=HERE, ca=OURS.ca, peer_names=("db.example",)),
        "the secondary left without a word",
        NOT_LISTED,
    ),
    "secondary without a certificate": (
        SERVER,
        TLSOptions(ca=OURS.ca),
        "TLS: the peer has no certificate",
        "TLS: the peer wants a certificate and this end has none",
    ),
    "primary with another name": (
        TLSOptions(certificate=ELSEWHERE, ca=OURS.ca),
        CLIENT,
        "TLS: the peer does not accept this end's certificate",
        "TLS: the peer's certificate is not for the host that was connected to",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_both_logs_tell_why_and_nothing_is_replicated(case, listen, connect, until, caplog):
    server, client, primary_says, secondary_says = REFUSALS[case]
    source, sink = Source(), Sink()
    connector = connect(sink, listen(source, server), client)
    until(lambda: warnings(caplog, "zrs_core.secondary"), "the secondary's log")
    until(lambda: warnings(caplog, "zrs_core.primary"), "the primary's")
    connector.stop()
    for logger, says in (("primary", primary_says), ("secondary", secondary_says)):
        assert says in warnings(caplog, f"zrs_core.{logger}")[0]
    assert (source.started, sink.applied) == ([], [])


def test_others_are_not_disturbed_by_one_who_is_refused(listen, connect, until, caplog):
    source, good = Source(), Sink()
    address = listen(source, SERVER)
    connect(good, address, CLIENT)
    until(lambda: source.waiting, "a session")
    connect(Sink(), address, TLSOptions(certificate=FOREIGN, ca=OURS.ca))
    until(lambda: len(warnings(caplog, "zrs_core.primary")) > 2, "refusals")
    source.batches.append(WHOLE)
    source.waiting.pop()()
    until(lambda: good.applied == WHOLE, "the transaction")


def test_renewed_certificates_are_used_by_the_next_connection(
    listen, connect, until, tmp_path, caplog
):
    certificate, ca = tmp_path / "certificate.pem", tmp_path / "ca.pem"
    shutil.copy(FOREIGN, certificate)
    shutil.copy(OURS.ca, ca)
    source, sink = Source(WHOLE), Sink()
    address = listen(source, TLSOptions(certificate=str(certificate), ca=str(ca)))
    connect(sink, address, CLIENT)
    until(lambda: warnings(caplog, "zrs_core.primary"), "a refusal")
    renewed = tmp_path / "renewed.pem"
    shutil.copy(HERE, renewed)
    renewed.rename(certificate)
    until(lambda: sink.applied == WHOLE, "the transaction")


@pytest.mark.parametrize("content", [b"garbage", None])
def test_a_file_that_is_spoilt_later_refuses_connections_until_it_is_mended(
    content, listen, connect, until, tmp_path, caplog
):
    certificate = tmp_path / "certificate.pem"
    shutil.copy(HERE, certificate)
    source, sink = Source(WHOLE), Sink()
    address = listen(source, TLSOptions(certificate=str(certificate), ca=OURS.ca))
    certificate.unlink()
    if content is not None:
        certificate.write_bytes(content)
    connect(sink, address, CLIENT)
    until(lambda: warnings(caplog, "zrs_core.primary"), "a refusal")
    assert f"certificate {certificate}" in warnings(caplog, "zrs_core.primary")[0]
    renewed = tmp_path / "renewed.pem"
    shutil.copy(HERE, renewed)
    renewed.rename(certificate)
    until(lambda: sink.applied == WHOLE, "the transaction")


@one_listener
def test_a_secondary_that_never_shakes_hands_is_given_up(listen, until, caplog):
    address = listen(Source(), SERVER, handshake_timeout=0.1)
    with socket.create_connection(address, 60) as peer:
        until(lambda: warnings(caplog, "zrs_core.primary"), "the log")
        with contextlib.suppress(ConnectionResetError):
            assert peer.recv(1) == b""
    assert "the handshake took too long" in warnings(caplog, "zrs_core.primary")[0]


@one_listener
def test_a_secondary_that_says_nothing_after_the_handshake_is_given_up(listen, until, caplog):
    address = listen(Source(), SERVER, handshake_timeout=0.3)
    context = both_ends().client_context()

    def is_refused():
        # The handshake counts, and on a busy machine it may not be over in time.
        with context.wrap_socket(socket.socket(), server_hostname="localhost") as peer:
            with contextlib.suppress(OSError):
                peer.settimeout(60)
                peer.connect(address)
                assert peer.recv(1) == b""
        reason = "refused (it sent no valid greeting within 0.3 seconds)"
        return any(each.endswith(reason) for each in warnings(caplog, "zrs_core.primary"))

    until(is_refused, "a secondary to be refused")


@one_listener
def test_a_primary_that_never_shakes_hands_is_given_up(connect, until, caplog):
    with socket.create_server(("127.0.0.1", 0)) as server:
        connector = connect(Sink(), TCPAddress(*server.getsockname()), CLIENT, connect=0.1)
        # On a busy machine it may take too long to connect, too.
        until(lambda: "the handshake took too long" in caplog.text, "the log")
        connector.stop()
    assert "cannot connect (" in warnings(caplog, "zrs_core.secondary")[0]


@one_listener
def test_stopping_in_mid_handshake_does_not_wait_for_it(listen, connect):
    with socket.create_connection(listen(Source(), SERVER), 60):
        with socket.create_server(("127.0.0.1", 0)) as server:
            connector = connect(Sink(), TCPAddress(*server.getsockname()), CLIENT)
            server.accept()[0].close()
            connection = server.accept()[0]
            connector.stop()
            connection.close()


@one_listener
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_tls_1_1_is_refused(listen, until, caplog):
    context = both_ends().client_context()
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    source = Source()
    with socket.create_connection(listen(source, SERVER), 60) as connection:
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            context.wrap_socket(connection, server_hostname="localhost")
    until(lambda: warnings(caplog, "zrs_core.primary"), "the log")
    assert "no version of TLS" in warnings(caplog, "zrs_core.primary")[0]
    assert source.started == []


def test_a_primary_without_ca_lets_in_everyone(listen, connect, until):
    sink = Sink()
    connect(sink, listen(Source(WHOLE), TLSOptions(certificate=HERE)), TLSOptions(ca=OURS.ca))
    until(lambda: sink.applied == WHOLE, "the transaction")


def test_listed_names_are_let_in_whatever_the_host(listen, connect, until):
    listed = TLSOptions(certificate=ELSEWHERE, ca=OURS.ca, peer_names=("DB.example",))
    sink = Sink()
    connect(sink, listen(Source(WHOLE), listed), listed)
    until(lambda: sink.applied == WHOLE, "the transaction")


def test_server_name_takes_the_place_of_the_host(listen, connect, until):
    server = TLSOptions(certificate=ELSEWHERE, ca=OURS.ca)
    client = TLSOptions(certificate=ELSEWHERE, ca=OURS.ca, server_name="db.example")
    sink = Sink()
    connect(sink, listen(Source(WHOLE), server), client)
    until(lambda: sink.applied == WHOLE, "the transaction")

"""TLS: who is refused, what both logs say about it, and that nobody else is disturbed."""

from __future__ import annotations

import contextlib
import datetime
import logging
import shutil
import socket
import ssl

import pytest

from zrs_core import transports
from zrs_core.addresses import TCPAddress
from zrs_core.options import ClientOptions, ServiceOptions
from zrs_core.sessions import ReplicationClient, ReplicationService
from zrs_core.testing import WHOLE, Sink, Source
from zrs_core.tls import TLSOptions

from ..certificates import authority, both_ends
from ..conditions import wait_for

MODULES = {
    "twisted-tcp": "zrs_core.transports.twisted_tcp",
    "socket-thread": "zrs_core.transports.socket_thread",
}
OURS, OTHERS = authority(), authority("others")
LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)
HERE = OURS.issue("localhost", "127.0.0.1")
EXPIRED = OURS.issue("localhost", "127.0.0.1", file="expired.pem", not_after=LONG_AGO)
FOREIGN = OTHERS.issue("localhost", "127.0.0.1")
ELSEWHERE = OURS.issue("db.example")


@pytest.fixture(params=sorted(MODULES))
def primary_transport(request):
    return request.param


@pytest.fixture(params=sorted(MODULES))
def secondary_transport(request):
    return request.param


@pytest.fixture
def listen(primary_transport, caplog):
    caplog.set_level(logging.DEBUG, "zrs_core")
    listeners = []

    def start(source, tls, **options):
        service = ReplicationService(
            source, TCPAddress("127.0.0.1", 0), None, ServiceOptions(tls=tls, **options)
        )
        listeners.append(transports.listener_factory(primary_transport)(service))
        listeners[-1].start()
        return listeners[-1].address

    yield start
    for each in listeners:
        each.stop(0)


@pytest.fixture
def connect(secondary_transport):
    connectors = []

    def start(sink, address, tls):
        options = ClientOptions(tls=tls, reconnect_delay=0.02)
        client = ReplicationClient(sink, address, None, options)
        connectors.append(transports.connector_factory(secondary_transport)(client))
        connectors[-1].start()
        return connectors[-1]

    yield start
    for each in connectors:
        each.stop()


def warnings(caplog, logger):
    return [
        each.getMessage()
        for each in list(caplog.records)
        if each.name == logger and each.levelno >= logging.WARNING
    ]


SERVER = TLSOptions(certificate=HERE, ca=OURS.ca)
CLIENT = TLSOptions(certificate=HERE, ca=OURS.ca)

# What a secondary learns when its handshake is over at its own end: what it is told, unless it has
# greeted meanwhile, and what it is told is lost.
TOLD = ("TLS: ", "its log tells why")

HAS_EXPIRED = "the peer's certificate has expired"

REFUSALS = {
    "plain text secondary": (SERVER, None, "does not speak TLS", "its log tells why"),
    "plain text primary": (
        None,
        CLIENT,
        "the peer speaks TLS, and this",
        "it speaks no TLS",
    ),
    "secondary of another authority": (
        SERVER,
        TLSOptions(certificate=FOREIGN, ca=OURS.ca),
        "the peer's certificate is signed by an authority that is not trusted",
        TOLD,
    ),
    "primary of another authority": (
        TLSOptions(certificate=FOREIGN, ca=OURS.ca),
        CLIENT,
        "does not know the authority",
        "the peer's certificate is signed by an authority that is not trusted",
    ),
    "expired secondary": (
        SERVER,
        TLSOptions(certificate=EXPIRED, ca=OURS.ca),
        HAS_EXPIRED,
        TOLD,
    ),
    "expired primary": (
        TLSOptions(certificate=EXPIRED, ca=OURS.ca),
        CLIENT,
        "expired",
        HAS_EXPIRED,
    ),
    "secondary that is not listed": (
        TLSOptions(certificate=HERE, ca=OURS.ca, peer_names=("db.example",)),
        CLIENT,
        "its certificate is for 127.0.0.1, localhost, which is not listed",
        ("its log tells why", "does not accept this end's certificate"),
    ),
    "primary that is not listed": (
        SERVER,
        TLSOptions(certificate=HERE, ca=OURS.ca, peer_names=("db.example",)),
        # After the handshake, or within it.
        ("the secondary left without a word", "does not accept this end's certificate"),
        "its certificate is for 127.0.0.1, localhost, which is not listed",
    ),
    "secondary without a certificate": (
        SERVER,
        TLSOptions(ca=OURS.ca),
        "the peer has no certificate",
        TOLD,
    ),
    "primary with another name": (
        TLSOptions(certificate=ELSEWHERE, ca=OURS.ca),
        CLIENT,
        ("the secondary left without a word", "TLS: "),
        "the peer's certificate is not for the host that was connected to",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_both_logs_tell_why_and_nothing_is_replicated(case, listen, connect, caplog):
    server, client, primary_says, secondary_says = REFUSALS[case]
    source, sink = Source(), Sink()
    connector = connect(sink, listen(source, server), client)
    wait_for(lambda: warnings(caplog, "zrs_core.secondary"), "the secondary's log")
    wait_for(lambda: warnings(caplog, "zrs_core.primary"), "the primary's")
    connector.stop()
    for logger, says in (("primary", primary_says), ("secondary", secondary_says)):
        line = warnings(caplog, f"zrs_core.{logger}")[0]
        assert any(text in line for text in ((says,) if isinstance(says, str) else says)), line
    assert (source.started, sink.applied) == ([], [])


def test_others_are_not_disturbed_by_one_who_is_refused(listen, connect, caplog, primary_transport):
    source, good = Source(), Sink()
    address = listen(source, SERVER)
    connect(good, address, CLIENT)
    wait_for(lambda: source.waiting, "a session")
    connect(Sink(), address, TLSOptions(certificate=FOREIGN, ca=OURS.ca))
    wait_for(lambda: len(warnings(caplog, "zrs_core.primary")) > 2, "refusals")
    source.batches.append(WHOLE)
    source.waiting.pop()()
    wait_for(lambda: good.applied == WHOLE, "the transaction")


def test_renewed_certificates_are_used_by_the_next_connection(
    listen, connect, tmp_path, caplog, secondary_transport
):
    certificate, ca = tmp_path / "certificate.pem", tmp_path / "ca.pem"
    shutil.copy(FOREIGN, certificate)
    shutil.copy(OURS.ca, ca)
    source, sink = Source(WHOLE), Sink()
    address = listen(source, TLSOptions(certificate=str(certificate), ca=str(ca)))
    connect(sink, address, CLIENT)
    wait_for(lambda: warnings(caplog, "zrs_core.primary"), "a refusal")
    renewed = tmp_path / "renewed.pem"
    shutil.copy(HERE, renewed)
    renewed.rename(certificate)
    wait_for(lambda: sink.applied == WHOLE, "the transaction")


@pytest.mark.parametrize("content", [b"garbage", None])
def test_a_file_that_is_spoilt_later_refuses_connections_until_it_is_mended(
    content, listen, connect, tmp_path, caplog
):
    certificate = tmp_path / "certificate.pem"
    shutil.copy(HERE, certificate)
    source, sink = Source(WHOLE), Sink()
    address = listen(source, TLSOptions(certificate=str(certificate), ca=OURS.ca))
    certificate.unlink()
    if content is not None:
        certificate.write_bytes(content)
    connect(sink, address, CLIENT)
    wait_for(lambda: warnings(caplog, "zrs_core.primary"), "a refusal")
    assert f"certificate {certificate}" in warnings(caplog, "zrs_core.primary")[0]
    renewed = tmp_path / "renewed.pem"
    shutil.copy(HERE, renewed)
    renewed.rename(certificate)
    wait_for(lambda: sink.applied == WHOLE, "the transaction")


def test_a_secondary_that_never_shakes_hands_is_given_up(listen, caplog):
    address = listen(Source(), SERVER, handshake_timeout=0.1)
    with socket.create_connection(address, 60) as peer:
        wait_for(lambda: warnings(caplog, "zrs_core.primary"), "the log")
        with contextlib.suppress(ConnectionResetError):
            assert peer.recv(1) == b""
    assert "the handshake took too long" in warnings(caplog, "zrs_core.primary")[0]


def test_a_secondary_that_says_nothing_after_the_handshake_is_given_up(listen, caplog):
    address = listen(Source(), SERVER, handshake_timeout=1)
    context = both_ends().client_context()

    def is_refused():
        # The handshake counts, and on a busy machine it may not be over in time.
        with context.wrap_socket(socket.socket(), server_hostname="localhost") as peer:
            with contextlib.suppress(OSError):
                peer.settimeout(60)
                peer.connect(address)
                assert peer.recv(1) == b""
        reason = "refused (it sent no valid greeting within 1 seconds)"
        return any(each.endswith(reason) for each in warnings(caplog, "zrs_core.primary"))

    wait_for(is_refused, "a secondary to be refused")


def test_a_primary_that_never_shakes_hands_is_given_up(
    connect, monkeypatch, caplog, secondary_transport
):
    monkeypatch.setattr(f"{MODULES[secondary_transport]}.CONNECT_TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        connector = connect(Sink(), TCPAddress(*server.getsockname()), CLIENT)
        # On a busy machine it may take too long to connect, too.
        wait_for(lambda: "the handshake took too long" in caplog.text, "the log")
        connector.stop()
    assert "cannot connect (" in warnings(caplog, "zrs_core.secondary")[0]


def test_stopping_in_mid_handshake_does_not_wait_for_it(listen, connect):
    with socket.create_connection(listen(Source(), SERVER), 60):
        with socket.create_server(("127.0.0.1", 0)) as server:
            connector = connect(Sink(), TCPAddress(*server.getsockname()), CLIENT)
            server.accept()[0].close()
            connection = server.accept()[0]
            connector.stop()
            connection.close()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_tls_1_1_is_refused(listen, caplog):
    context = both_ends().client_context()
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    source = Source()
    with socket.create_connection(listen(source, SERVER), 60) as connection:
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            context.wrap_socket(connection, server_hostname="localhost")
    wait_for(lambda: warnings(caplog, "zrs_core.primary"), "the log")
    assert "no version of TLS" in warnings(caplog, "zrs_core.primary")[0]
    assert source.started == []


def test_a_primary_without_ca_lets_in_everyone(listen, connect):
    sink = Sink()
    connect(sink, listen(Source(WHOLE), TLSOptions(certificate=HERE)), TLSOptions(ca=OURS.ca))
    wait_for(lambda: sink.applied == WHOLE, "the transaction")


def test_listed_names_are_let_in_whatever_the_host(listen, connect):
    listed = TLSOptions(certificate=ELSEWHERE, ca=OURS.ca, peer_names=("DB.example",))
    sink = Sink()
    connect(sink, listen(Source(WHOLE), listed), listed)
    wait_for(lambda: sink.applied == WHOLE, "the transaction")


def test_server_name_takes_the_place_of_the_host(listen, connect):
    server = TLSOptions(certificate=ELSEWHERE, ca=OURS.ca)
    client = TLSOptions(certificate=ELSEWHERE, ca=OURS.ca, server_name="db.example")
    sink = Sink()
    connect(sink, listen(Source(WHOLE), server), client)
    wait_for(lambda: sink.applied == WHOLE, "the transaction")

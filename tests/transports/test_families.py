"""All interfaces: by IPv6 and by IPv4, with one port."""

from __future__ import annotations

import contextlib
import errno
import socket

import pytest
import ZODB.config

from zrs_core import Primary, Secondary
from zrs_core.addresses import TCPAddress
from zrs_core.monitor import StatusServer
from zrs_core.transports.listening import open_tcp_listener
from zrs_core.transports.sockets import tcp_name

from ..conditions import wait_for
from ..installed import installed_example
from ..status.http import get


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory):
    with installed_example(tmp_path_factory.mktemp("site")):
        yield


def has_ipv6():
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")

TRANSPORTS = ["socket-thread", "twisted-tcp", "asyncio-tcp"]


def reached(port):
    found = []
    for host in "127.0.0.1", "::1":
        with contextlib.suppress(OSError), socket.create_connection((host, port), 10):
            found.append(host)
    return found


@needs_ipv6
@pytest.mark.parametrize("address", [":0", "[::]:0", 0])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_primary_is_reached_by_both(transport, address, tmp_path):
    with contextlib.closing(Primary(tmp_path / "p.fs", address, transport=transport)) as primary:
        where = primary.replication_address
        assert str(where).rpartition(":")[0] == str(address).rpartition(":")[0]
        assert reached(where.port) == ["127.0.0.1", "::1"]


@needs_ipv6
@pytest.mark.parametrize(("host", "name"), [("127.0.0.1", "127.0.0.1:"), ("::1", "[::1]:")])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_peer_has_its_own_address(transport, host, name, tmp_path):
    """Also one that comes by IPv4, as IPv6 writes it."""
    with contextlib.ExitStack() as stack:
        primary = Primary(tmp_path / "p.fs", ":0", transport=transport)
        stack.enter_context(contextlib.closing(primary))
        address = TCPAddress(host, primary.replication_address.port)
        secondary = Secondary(tmp_path / "s.fs", address, transport=transport)
        stack.enter_context(contextlib.closing(secondary))
        wait_for(lambda: primary.status().peers, "a peer")
        [peer] = primary.status().peers
        assert peer.address.startswith(name)
        if transport != "asyncio-tcp":
            wait_for(lambda: secondary.status().local_address, "the other end")
            assert secondary.status().local_address == peer.address


@needs_ipv6
def test_a_status_server_is_reached_by_both_where_it_is_to(tmp_path):
    with contextlib.closing(Primary(tmp_path / "p.fs", "127.0.0.1:0")) as primary:
        with StatusServer(primary, "[::]:0") as server:
            assert reached(server.address.port) == ["127.0.0.1", "::1"]
        with StatusServer(primary, ":0") as server:
            assert reached(server.address.port) == ["127.0.0.1"]
            assert get(server.address, "/healthz").status == 200


@needs_ipv6
@pytest.mark.parametrize("taken", ["0.0.0.0", "::"])
def test_a_configuration_finds_a_port_that_is_taken_in_either(taken, tmp_path):
    family = socket.AF_INET6 if ":" in taken else socket.AF_INET
    with socket.create_server((taken, 0), family=family) as other:
        text = (
            f"%import zrs_core\n<zrs>\nreplicate-to {other.getsockname()[1]}\n<filestorage>\n"
            f"path {tmp_path}/Data.fs\n</filestorage>\n</zrs>"
        )
        with pytest.raises(ValueError, match="Address already in use"):
            ZODB.config.storageFromString(text)
    assert not (tmp_path / "Data.fs").exists()


@pytest.mark.parametrize("address", [TCPAddress("", 0), TCPAddress("::", 0)])
@pytest.mark.parametrize("error", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def test_without_ipv6_it_is_ipv4(error, address, monkeypatch):
    class Socket(socket.socket):
        def __init__(self, family, *arguments):
            if family == socket.AF_INET6 and error == errno.EAFNOSUPPORT:
                raise OSError(error, "no IPv6")
            super().__init__(family, *arguments)

        def bind(self, where):
            if self.family == socket.AF_INET6:
                raise OSError(error, "no IPv6")
            super().bind(where)

    monkeypatch.setattr(socket, "socket", Socket)
    with open_tcp_listener(address) as listening:
        assert listening.family == socket.AF_INET
        assert listening.getsockname()[0] == "0.0.0.0"


def test_another_error_is_one(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as other:
        with pytest.raises(OSError, match="in use"):
            open_tcp_listener(TCPAddress("", other.getsockname()[1])).close()


def test_names_of_ends():
    assert tcp_name("::ffff:192.0.2.1", 80) == "192.0.2.1:80"
    assert tcp_name("192.0.2.1", 80) == "192.0.2.1:80"
    assert tcp_name("2001:db8::1", 80) == "[2001:db8::1]:80"
    assert tcp_name("fe80::1%eth0", 80) == "[fe80::1%eth0]:80"

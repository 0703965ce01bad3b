"""The header `Host` of requests to a status server."""

from __future__ import annotations

import logging
import socket

import pytest

from tests.conditions import wait_for
from zrs_core.addresses import TCPAddress
from zrs_core.errors import ConfigurationError, NoStatus
from zrs_core.monitor import StatusServer
from zrs_core.monitor.fetch import fetch_status
from zrs_core.monitor.hosts import Hosts, host_name

from .http import exchange, parse

HOSTS = Hosts(["Status.Example.", "10.0.0.5", "bücher.example", "[2001:DB8::5]"])


def ask(server, *headers, version="1.1", path="/status", method="GET"):
    lines = [f"{method} {path} HTTP/{version}", *headers, "", ""]
    return parse(exchange(server.address, "\r\n".join(lines).encode()))


@pytest.mark.parametrize(
    "header",
    [
        "localhost",
        "LocalHost:8201",
        "localhost.",
        "localhost.:8201",
        "localhost:",
        "127.0.0.1",
        "127.0.0.1:8201",
        "127.1.2.3:1",
        "127.0.0.1.:80",
        "[::1]",
        "[::1]:8201",
        "[0:0:0:0:0:0:0:1]:8201",
        "[::ffff:127.0.0.1]",
        "",
        ":8201",
        "status.example",
        "STATUS.example.:443",
        "10.0.0.5:8201",
        "xn--bcher-kva.example",
        "[2001:db8:0::5]:1",
    ],
)
def test_hosts_that_may_be_named(header):
    assert HOSTS.include(header)


@pytest.mark.parametrize(
    "header",
    [
        "rebound.evil.example",
        "rebound.evil.example:8201",
        "localhost.evil.example",
        "localhost.localdomain",
        "evil.localhost",
        "127.0.0.1.evil.example",
        "status.example.evil.example",
        "xstatus.example",
        "10.0.0.6",
        "0.0.0.0:8201",
        "[::]:8201",
        "[::2]",
        "127.1",
        "0x7f.0.0.1",
        "2130706433",
        "::1",
        "[localhost]",
        "[127.0.0.1]",
        "[::1",
        "localhost:80:80",
        "localhost:http",
        "evil@localhost",
        "localhost@evil.example",
        "localhost/evil",
        "localhost evil",
        "localhost, evil.example",
        "localhost..",
        "?",
        "\xff",
        "a" * 70_000,
    ],
)
def test_hosts_that_may_not_be_named(header):
    assert not HOSTS.include(header)


@pytest.mark.parametrize("path", ["/", "/status", "/metrics", "/healthz", "/nodes", "/nothing"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_nothing_is_answered_for_another_host(primary, serve, path, method):
    answer = ask(serve(primary), "Host: rebound.example", path=path, method=method)
    assert answer.status == 421
    assert b"rebound" not in answer.body
    assert (b"status-hosts" in answer.body) == (method == "GET")


@pytest.mark.parametrize(
    ("headers", "version", "status"),
    [
        ((), "1.0", 200),
        (("Host: rebound.example",), "1.0", 421),
        (("hOsT:127.0.0.1:1",), "1.1", 200),
        (("Host: localhost", "X-Forwarded-Host: rebound.example"), "1.1", 200),
        (("Host: rebound.example", "X-Forwarded-Host: localhost"), "1.1", 421),
        (("Host: localhost", "Host: rebound.example"), "1.1", 400),
        ((), "1.1", 400),
    ],
)
def test_the_header(primary, serve, headers, version, status):
    assert ask(serve(primary), *headers, version=version).status == status


def test_a_url_in_the_request_names_nothing(primary, serve):
    path = "http://localhost/status"
    assert ask(serve(primary), "Host: rebound.example", path=path).status == 421


def test_names_that_were_configured(primary, serve):
    served = serve(primary, hosts=["status.example"])
    assert ask(served, "Host: status.example:80").status == 200
    assert ask(served, "Host: localhost").status == 200
    assert ask(served, "Host: other.example").status == 421


def test_the_name_in_its_address_is_one(primary, serve, monkeypatch):
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]
    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", lambda *arguments, **options: found)
        served = StatusServer(primary, "node.example:0")
    with served:
        where = TCPAddress("127.0.0.1", served.address.port)
        answer = parse(exchange(where, b"GET /status HTTP/1.1\r\nHost: Node.Example\r\n\r\n"))
        assert answer.status == 200
        answer = parse(exchange(where, b"GET /status HTTP/1.1\r\nHost: other.example\r\n\r\n"))
        assert answer.status == 421


def test_elsewhere_names_are_checked_if_there_are_any(primary, serve):
    assert ask(serve(primary, "0.0.0.0:0"), "Host: any.example").status == 200
    served = serve(primary, "0.0.0.0:0", hosts=["status.example"])
    assert ask(served, "Host: any.example").status == 421
    assert ask(served, "Host: status.example").status == 200


def test_a_unix_socket_answers_for_any(primary, serve, tmp_path):
    served = serve(primary, tmp_path / "status.sock")
    assert ask(served, "Host: any.example").status == 200


def test_refusals_are_logged(primary, serve, caplog):
    caplog.set_level(logging.WARNING, "zrs_core.status")
    served = serve(primary)
    ask(served, "Host: rebound.example\x1b[2J" + "x" * 1000)
    [record] = caplog.records
    assert record.event == "other-host"
    assert "rebound.example\\x1b[2Jxxx" in record.getMessage()
    assert len(record.getMessage()) < 500


@pytest.mark.parametrize("form", [":{}", "localhost:{}", "http://127.0.0.1:{}/status"])
def test_nodes_ask_by_names_that_may_be_named(primary, secondary, serve, form):
    there = serve(primary)
    text = form.format(there.address.port)
    assert fetch_status(text, 10)["role"] == "primary"
    here = serve(secondary, nodes=[text])
    wait_for(lambda: here.nodes_as_json()["nodes"][1]["status"], "the primary's status")


def test_a_refusal_says_what_to_configure(primary, serve, monkeypatch):
    there = serve(primary)
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *args, **options: real("127.0.0.1", *args, **options)
    )
    expected = r"does not answer for the host node\.example:\d+: its status-hosts must have it"
    with pytest.raises(NoStatus, match=expected):
        fetch_status(f"node.example:{there.address.port}", 10)


@pytest.mark.parametrize(
    "wrong", ["", " ", "a:80", "http://a", "*", "*.example", "a b", "a..b", "[a]x", None, 5]
)
def test_what_is_no_host_is_named(primary, wrong):
    with pytest.raises(ConfigurationError, match="invalid host"):
        host_name(wrong)
    with pytest.raises(ConfigurationError, match="invalid host"):
        StatusServer(primary, "127.0.0.1:0", hosts=[wrong])


def test_one_text_is_not_several_hosts(primary):
    with pytest.raises(ConfigurationError, match="hosts must be several names of hosts"):
        StatusServer(primary, "127.0.0.1:0", hosts="status.example")

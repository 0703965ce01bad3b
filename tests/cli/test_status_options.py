"""The status that `zrs primary` and `zrs secondary` serve."""

from __future__ import annotations

import socket

import pytest

from tests.conditions import wait_for
from tests.status.http import exchange, get, parse
from zrs_core.addresses import parse_address


def served(process):
    """Where a process serves its status."""
    return parse_address(process.wait_for("Status at ").removeprefix("Status at http://"))


def test_both_serve_their_status(zrs, tmp_path, database):
    options = ("--blobs", database / "blobs", "--status", "127.0.0.1:0")
    primary = zrs("primary", database / "Data.fs", "--listen", "127.0.0.1:0", *options)
    here = served(primary)
    address = primary.wait_for("Serving ").rpartition(" ")[2]
    options = ("--blobs", tmp_path / "copied", "--status", "127.0.0.1:0")
    options += (
        "--name",
        "replica one",
        "--status-max-lag",
        "3600",
        "--status-node",
        here,
        "--status-host",
        "b.example",
    )
    secondary = zrs("secondary", address, tmp_path / "Copy.fs", *options)
    there = served(secondary)
    wait_for(lambda: get(there, "/readyz").status == 200, "the secondary to be ready")
    last = get(here, "/status").json["primary"]["position"]
    wait_for(
        lambda: get(there, "/status").json["secondary"]["position"] == last, "the last transaction"
    )

    status = get(there, "/status").json
    assert status["secondary"]["name"] == "replica one"
    assert b'secondary="replica one"' in get(there, "/metrics").body
    assert f"Opening {tmp_path / 'Copy.fs'} {address} as replica one" in secondary.out

    def other():
        return get(there, "/nodes").json["nodes"][1]["status"]

    wait_for(other, "an answer of the other node")
    assert other()["name"] == str(database / "Data.fs")
    for name, status in (("b.example", 200), ("c.example", 421)):
        request = f"GET /status HTTP/1.1\r\nHost: {name}\r\n\r\n".encode()
        assert parse(exchange(there, request)).status == status
    for each in (secondary, primary):
        assert each.stop() == 0
        assert each.err == ""


@pytest.mark.parametrize(
    "command", [("primary", "Data.fs", "--listen", "0"), ("secondary", "1", "x")]
)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--status", "here"), "invalid address 'here'"),
        (("--status", "0", "--status-max-lag", "nan"), "max_lag must be 0 or more seconds"),
        (("--status", "0", "--status-node", "1:2:3"), "invalid address '1:2:3'"),
        (("--status-node", "a:1"), "--status-node belongs to --status: give both."),
        (("--status-host", "a"), "--status-host belongs to --status: give both."),
        (("--status", "0", "--status-host", "a:1"), "invalid host 'a:1'"),
        (("--status-max-lag", "5"), "--status-max-lag belongs to --status: give both."),
    ],
)
def test_what_cannot_be(invoke, command, options, message):
    assert message in invoke(*command, *options)


def test_an_address_that_is_taken(zrs, tmp_path, database):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        options = ("--listen", "127.0.0.1:0", "--status", address)
        primary = zrs("primary", database / "Data.fs", "--blobs", database / "blobs", *options)
        assert primary.finish() == 2
    [line] = primary.err.splitlines()
    assert line.startswith(f"zrs: cannot serve the status at {address}: ")

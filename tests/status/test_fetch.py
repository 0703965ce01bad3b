"""Asking status servers, and those that are none."""

from __future__ import annotations

import copy
import json
import socket
import struct
import threading
import time

import pytest

from tests.status.answers import (
    as_answer,
    http,
    node,
    primary,
    primary_part,
    secondary,
    secondary_part,
    serving,
)
from zrs_core.addresses import TCPAddress, UnixAddress
from zrs_core.errors import InvalidAddress, NoStatus, NotAStatusServer
from zrs_core.monitor import fetch
from zrs_core.monitor.document import InvalidStatus, read_status
from zrs_core.monitor.fetch import fetch_all, fetch_status, parse_status_address

ENOUGH = 60.0


@pytest.fixture
def server():
    with serving() as server:
        yield server


@pytest.mark.parametrize(
    "document",
    [
        primary(),
        secondary(),
        node("cascade", primary=primary_part(peers=[]), secondary=secondary_part()),
        primary(position=None, last_error={"message": "gone", "time": 1}),
        {**secondary(lag_seconds=None), "from a newer version": [1, None]},
    ],
)
def test_a_status_arrives_as_it_was_told(server, document):
    server.tell(document)
    assert fetch_status(server.text, ENOUGH) == document
    [request] = server.requests
    assert request.startswith(b"GET /status HTTP/1.1\r\nHost: 127.0.0.1:")


def test_unix_sockets(tmp_path):
    with serving(primary(), tmp_path / "status.sock") as server:
        assert fetch_status(server.text, ENOUGH) == primary()


@pytest.mark.parametrize(
    "begin",
    [
        "",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.0 200 Fine\r\nContent-Type: application/json\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ],
)
def test_all_ways_of_http(server, begin):
    body = json.dumps(primary()).encode()
    if "chunked" in begin:
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    server.answer = begin.encode() + body if begin else http(body)
    assert fetch_status(server.text, ENOUGH) == primary()


@pytest.mark.parametrize(
    ("text", "address", "path"),
    [
        ("localhost:8101", TCPAddress("localhost", 8101), "/status"),
        (":8101", TCPAddress("", 8101), "/status"),
        ("[::1]:8101", TCPAddress("::1", 8101), "/status"),
        ("/run/status.sock", UnixAddress("/run/status.sock"), "/status"),
        ("http://example.org", TCPAddress("example.org", 80), "/status"),
        ("http://example.org:81/", TCPAddress("example.org", 81), "/status"),
        ("http://[::1]:81/status", TCPAddress("::1", 81), "/status"),
        ("http://example.org/zrs/a", TCPAddress("example.org", 80), "/zrs/a/status"),
    ],
)
def test_addresses(text, address, path):
    assert parse_status_address(text) == (text, address, path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "localhost",
        "localhost:http",
        "localhost:0",
        ":99999",
        "http://",
        "http://:80",
        "http://example.org:http",
        "http://example.org:99999",
        "http://[::1",
        "http://me:secret@example.org",
        "http://example.org/status?all",
        "http://example.org/#top",
        "http://example.org/a b",
        "http://example.org/ü",
        "https://example.org",
        "file:///etc/passwd",
    ],
)
def test_what_is_no_address(text):
    with pytest.raises(InvalidAddress, match=r"^invalid address"):
        parse_status_address(text)


def test_nobody_listens(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(NoStatus) as caught:
        fetch_status(address, ENOUGH)
    assert str(caught.value) == f"{address}: nobody listens there"
    with pytest.raises(NoStatus, match=r"nowhere\.sock: No such file or directory"):
        fetch_status(str(tmp_path / "nowhere.sock"), ENOUGH)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "it closes the connection without an answer"),
        (b"HTTP/1.1", "its answer is no proper HTTP"),
        (b"HTTP/1.1 two hundred\r\n\r\n", "its answer is no proper HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n", "its answer is no proper HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 99_999, "its answer is no proper HTTP"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nmany\r\n",
            "its answer is no proper HTTP",
        ),
        (
            http(b"{}", "404 Not \x1b[2JFound"),
            "it is no status server: it answers 404 Not [2JFound",
        ),
        (http(b"{}", "302 Found", "Location: /\r\n"), "it is no status server: it answers 302"),
        (http(b""), "the answer is no status: it is no JSON"),
        (http(b"<html>"), "the answer is no status: it is no JSON"),
        (http(b"\xff"), "the answer is no status: it is no JSON"),
        (http(b"NaN"), "the answer is no status: it is no JSON"),
        (as_answer(primary())[:-9], "the answer is no status: it is no JSON"),
        (http(b"[" * 100_000), "the answer is no status: its JSON is nested too deeply"),
        (http(b"[]"), "the answer is no status: it is not an object"),
        (http(b"{}"), "the answer is no status: it is not an object with 'now'"),
    ],
)
def test_answers_that_are_no_status(server, answer, reason):
    server.answer = answer
    with pytest.raises(NoStatus) as caught:
        fetch_status(server.text, ENOUGH)
    assert str(caught.value).startswith(f"{server.text}: {reason}")
    assert str(caught.value).isprintable()


def test_who_speaks_something_else(server):
    server.answer = lambda connection: connection.sendall(b"\0\0\0\2Z5 and on")
    with pytest.raises(NotAStatusServer) as caught:
        fetch_status(server.text, ENOUGH)
    assert caught.value.answer == b"\0\0\0\2Z"
    assert str(caught.value).endswith(r"its answer is no HTTP and begins with b'\x00\x00\x00\x02Z'")


def test_a_connection_that_is_reset(server):
    def reset(connection):
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    server.answer = reset
    with pytest.raises(NoStatus, match="Connection reset by peer"):
        fetch_status(server.text, ENOUGH)


@pytest.mark.parametrize("begin", [b"", b"HTT", b"HTTP/1.1 200 OK\r\n", http(b"{")[:-1]])
def test_an_answer_that_does_not_come(server, begin):
    def answer(connection):
        connection.sendall(begin)
        server.closing.wait()

    server.answer = answer
    with pytest.raises(NoStatus, match=r"no answer within 0\.05 s"):
        fetch_status(server.text, 0.05)


def test_an_answer_that_comes_drop_by_drop(server):
    def answer(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while not server.closing.wait(0.01):
            connection.sendall(b" ")

    server.answer = answer
    with pytest.raises(NoStatus, match=r"no answer within 0\.2 s"):
        fetch_status(server.text, 0.2)


def test_an_answer_without_end(server, monkeypatch):
    def answer(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b" " * 4096)

    server.answer = answer
    monkeypatch.setattr(fetch, "MAX_SIZE", 1 << 20)
    with pytest.raises(NoStatus, match="the answer is longer than 1 MiB"):
        fetch_status(server.text, ENOUGH)


def test_a_deadline_that_has_passed(server):
    with pytest.raises(NoStatus, match="no answer within 0 s"):
        fetch_status(server.text, 0)


def test_several_are_asked_at_once(tmp_path):
    asked = threading.Barrier(3)

    def answer(connection):
        asked.wait(ENOUGH)
        connection.sendall(as_answer(secondary()))

    with serving() as one, serving() as other, serving() as broken:
        one.answer = other.answer = answer

        def fail(connection):
            asked.wait(ENOUGH)
            connection.sendall(b"what?")

        broken.answer = fail
        addresses = [parse_status_address(each.text) for each in (one, broken, other)]
        first, second, third = fetch_all(addresses, ENOUGH)
    assert first == third == secondary()
    assert isinstance(second, NotAStatusServer)


def test_a_name_that_is_looked_up_for_long(monkeypatch):
    found = threading.Event()

    def look_up(address):
        found.wait()
        raise OSError("gone")

    monkeypatch.setattr(fetch, "look_up", look_up)
    begin = time.monotonic()
    [error] = fetch_all([parse_status_address("example.org:80")], 0.05)
    assert time.monotonic() - begin < ENOUGH
    assert str(error) == "example.org:80: no answer within 0.05 s"
    found.set()


def changed(path: str, value: object) -> dict[str, object]:
    """A cascade's status with another value at the path; DELETED for none."""
    document = copy.deepcopy(node("cascade", primary=primary_part(), secondary=secondary_part()))
    place = document
    *way, last = (int(each) if each.isdigit() else each for each in path.split("."))
    for each in way:
        place = place[each]
    if value is DELETED:
        del place[last]
    else:
        place[last] = value
    return document


DELETED = object()


@pytest.mark.parametrize(
    ("path", "value", "what"),
    [
        ("now", "noon", "now is not a number"),
        ("now", True, "now is not a number"),
        ("now", 10**400, "now is not a number"),
        ("now", None, "now is not a number"),
        ("pid", 1.5, "pid is not a whole number"),
        ("ready", 1, "ready is not true or false"),
        ("name", ["x"], "name is not a string"),
        ("role", "boss", "role is not 'primary' or 'secondary' or 'cascade'"),
        ("role", {}, "role is not 'primary' or"),
        ("primary", [], "primary is not an object"),
        ("primary", DELETED, "it is not an object with 'primary'"),
        ("primary.peers", {}, "primary.peers is not a list"),
        ("primary.peers.0", None, "primary.peers[0] is not an object"),
        ("primary.peers.0.state", "asleep", "primary.peers[0].state is not 'greeting' or"),
        ("primary.rates.5min", DELETED, "primary.rates is not an object with '5min'"),
        ("primary.rates.5min.bytes", "1e3", "primary.rates.5min.bytes is not a number"),
        ("primary.position.tid", "0x01", "primary.position.tid is not 0x and 16 hexadecimal"),
        ("primary.position.tid", 1, "primary.position.tid is not 0x and 16 hexadecimal"),
        ("secondary.primary_position.as_of", DELETED, "secondary.primary_position is not an obj"),
        ("secondary.primary_position.tid", DELETED, "secondary.primary_position is not an obj"),
        ("secondary.last_error", "bad", "secondary.last_error is not an object"),
    ],
)
def test_members_of_other_types(path, value, what):
    with pytest.raises(InvalidStatus) as caught:
        read_status(json.dumps(changed(path, value)).encode())
    assert str(caught.value).startswith(what)


def test_a_number_that_is_none():
    text = json.dumps(changed("now", 12345)).replace("12345", "1e999")
    with pytest.raises(InvalidStatus, match="its 1e999 is not a number"):
        read_status(text.encode())


def test_what_is_sent_on_is_json():
    text = json.dumps({**primary(), "from a newer version": 12345}).replace("12345", "1e999")
    with pytest.raises(InvalidStatus, match="its 1e999 is not a number"):
        read_status(text.encode())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ],
)
def test_an_answer_without_an_end(server, answer, monkeypatch):
    """A negative size has Python's HTTP client read all that there is."""
    monkeypatch.setattr(fetch, "_MOST_READ", 100_000)
    server.answer = answer * 10_000 if answer.endswith(b"\r\n\r\n") else answer + bytes(200_000)
    with pytest.raises(NoStatus, match="it sends without an end"):
        fetch_status(server.text, ENOUGH)

import os
import socket
from pathlib import Path

import pytest

from zrs_core import Primary, Secondary
from zrs_core.addresses import LONGEST_PATH, TCPAddress, UnixAddress, parse_address
from zrs_core.errors import InvalidAddress
from zrs_core.monitor.options import StatusOptions


@pytest.mark.parametrize(
    ("written", "host", "port"),
    [
        ("localhost:8100", "localhost", 8100),
        (":8100", "", 8100),
        ("[::1]:8100", "::1", 8100),
        ("10.0.0.1:0", "10.0.0.1", 0),
        (("", 8000), "", 8000),
        ("8100", "", 8100),
        (8100, "", 8100),
        (["zodb.example.org", 65535], "zodb.example.org", 65535),
        (TCPAddress("::1", 1), "::1", 1),
    ],
)
def test_an_address_is_read_as_people_write_it(written, host, port):
    assert parse_address(written) == (host, port)


@pytest.mark.parametrize(
    "written",
    [
        "",
        "localhost",
        "localhost:",
        "localhost:http",
        "localhost:-1",
        "localhost:65536",
        "localhost:123456",
        "localhost:٣",
        "::1:8100",
        ("localhost", "8100"),
        ("localhost", True),
        ("localhost", -1),
        ("localhost", 65536),
        (None, 8100),
        ("localhost",),
        -1,
        True,
        None,
    ],
)
def test_anything_else_is_named_in_the_error(written):
    with pytest.raises(InvalidAddress) as caught:
        parse_address(written)
    assert repr(written) in str(caught.value)


@pytest.mark.parametrize("host", ["..", "a..b", "x" * 70, "a\0b", "[abc", "a b", "a]b"])
def test_what_no_host_can_be_called_is_refused(host):
    for written in (f"{host}:8100", (host, 8100)):
        with pytest.raises(InvalidAddress, match="is no name of a host") as caught:
            parse_address(written)
        assert repr(written) in str(caught.value)


@pytest.mark.parametrize("written", ["/run/zrs.sock", "./zrs.sock", Path("/run/zrs.sock")])
def test_a_path_is_that_of_a_unix_socket(written):
    address = parse_address(written)
    assert address == UnixAddress(str(written))
    assert parse_address(address) is address
    assert str(address) == str(written)


@pytest.mark.parametrize("character", ["x", "ä"])
def test_a_path_is_as_long_as_the_system_allows(character, tmp_path, monkeypatch):
    # The path counts as it is given, and in bytes.
    monkeypatch.chdir(tmp_path)
    size = len(os.fsencode(character))
    longest = "./" + character * ((LONGEST_PATH - 2) // size)
    longest += "y" * (LONGEST_PATH - len(os.fsencode(longest)))
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as connected:
        listening.bind(longest)
        listening.listen()
        connected.connect(longest)
        with pytest.raises(OSError, match="too long"):
            connected.bind(longest + "y")
    assert parse_address(longest) == UnixAddress(longest)
    for written in (longest + "y", UnixAddress(longest + "y"), Path(longest[2:] + "/yy")):
        with pytest.raises(InvalidAddress, match=f"at most {LONGEST_PATH} bytes, got"):
            parse_address(written)


@pytest.mark.parametrize(
    "written",
    ["/run/zrs\0.sock", "\0/run/zrs.sock", "/run/\udfff", UnixAddress(""), UnixAddress("a\0b")],
)
def test_what_no_path_can_be_is_refused(written):
    with pytest.raises(InvalidAddress) as caught:
        parse_address(written)
    path = written if isinstance(written, str) else written.path
    assert repr(path) in str(caught.value)


@pytest.mark.parametrize(
    "use",
    [
        lambda path: Primary("Data.fs", path),
        lambda path: Secondary("Data.fs", path),
        StatusOptions,
        lambda path: StatusOptions(0, nodes=[path]),
    ],
    ids=["primary", "secondary", "status", "nodes"],
)
def test_a_path_that_is_too_long_is_refused_where_it_is_given(use, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidAddress, match="at most"):
        use("/tmp/" + "x" * LONGEST_PATH)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("written", ["localhost:8100", ":8100", "[::1]:8100"])
def test_it_is_written_as_it_is_read(written):
    assert str(parse_address(written)) == written

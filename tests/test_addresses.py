from pathlib import Path

import pytest

from zrs_core.addresses import TCPAddress, UnixAddress, parse_address
from zrs_core.errors import InvalidAddress


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


@pytest.mark.parametrize("written", ["localhost:8100", ":8100", "[::1]:8100"])
def test_it_is_written_as_it_is_read(written):
    assert str(parse_address(written)) == written

"""Listening where other machines can connect, without TLS."""

from __future__ import annotations

import contextlib
import logging
import socket

import pytest
import ZConfig
import ZODB.config

from zrs_core import Primary
from zrs_core.addresses import parse_address
from zrs_core.errors import ConfigurationError, Exposed
from zrs_core.transports.listening import check_exposure
from zrs_core.transports.memory import MemoryNetwork

from ..certificates import both_ends
from ..installed import installed_example

EXPOSED = ["0.0.0.0:0", "[::]:0", ":0", 0, "192.0.2.1:0", "[::ffff:192.0.2.1]:0", "[2001:db8::1]:0"]
SAFE = ["127.0.0.1:0", "127.1.2.3:0", "localhost:0", "[::1]:0", "[::ffff:127.0.0.1]:0", "./sock"]
WARNING = (
    "can be reached from other machines, and there is no TLS: whoever connects can read the whole "
    "database, and whoever is on the way can read and change what secondaries get; "
)


@pytest.fixture(scope="module", autouse=True)
def asyncio_tcp(tmp_path_factory):
    with installed_example(tmp_path_factory.mktemp("site")):
        yield


def warnings(caplog):
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


@pytest.mark.parametrize("text", EXPOSED)
def test_what_others_reach_is_warned_of_or_refused(text, caplog):
    address = parse_address(text)
    check_exposure(address, tls=None, require_tls=False)
    [line] = warnings(caplog)
    assert line.startswith(f"{address} {WARNING}give it TLS, or listen on 127.0.0.1")
    with pytest.raises(Exposed) as caught:
        check_exposure(address, tls=None, require_tls=True)
    assert str(caught.value) == (
        f"{address} {WARNING}require_tls forbids that: give it TLS, or listen on 127.0.0.1 or a "
        "Unix socket"
    )
    check_exposure(address, tls=both_ends(), require_tls=True)


@pytest.mark.parametrize("address", SAFE)
def test_what_only_this_machine_reaches_is_not(address, caplog):
    check_exposure(parse_address(address), tls=None, require_tls=True)
    assert warnings(caplog) == []


def test_a_name_is_all_of_its_addresses(monkeypatch):
    def look_up(host, port, **kwargs):
        if host == "nowhere.example":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port))
            for each in ("127.0.0.1", "192.0.2.1")
        ]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with pytest.raises(Exposed):
        check_exposure(parse_address("db.example:1"), tls=None, require_tls=True)
    # Whoever listens there says what is wrong.
    check_exposure(parse_address("nowhere.example:1"), tls=None, require_tls=True)


@pytest.mark.parametrize("transport", ["socket-thread", "twisted-tcp", "asyncio-tcp"])
def test_a_primary_warns_or_refuses(transport, tmp_path, caplog):
    with contextlib.closing(Primary(tmp_path / "Data.fs", ":0", transport=transport)):
        [line] = warnings(caplog)
    assert line.startswith(f":0 {WARNING}")
    with contextlib.closing(Primary(tmp_path / "1.fs", "127.0.0.1:0", transport=transport)):
        assert len(warnings(caplog)) == 1
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ConfigurationError, match="require_tls forbids that"):
        Primary(tmp_path / "2.fs", ":0", transport=transport, require_tls=True)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("transport", ["socket-thread", "twisted-tcp"])
def test_a_configuration_warns_once(transport, tmp_path, caplog):
    storage = ZODB.config.storageFromString(
        f"%import zrs_core\n<zrs>\nreplicate-to 0\ntransport {transport}\n<filestorage>\n"
        f"path {tmp_path}/Data.fs\n</filestorage>\n</zrs>"
    )
    with contextlib.closing(storage):
        assert len(warnings(caplog)) == 1


@pytest.mark.parametrize("transport", ["socket-thread", "twisted-tcp"])
def test_with_tls_it_is_content(transport, tmp_path, caplog):
    options = {"transport": transport, "tls": both_ends(), "require_tls": True}
    with contextlib.closing(Primary(tmp_path / "Data.fs", ":0", **options)):
        assert warnings(caplog) == []


def test_memory_is_reached_from_nowhere(tmp_path, caplog):
    with contextlib.closing(
        Primary(tmp_path / "Data.fs", ":0", MemoryNetwork(), transport="memory", require_tls=True)
    ):
        assert warnings(caplog) == []


def test_a_configuration_names_the_line_and_opens_nothing(tmp_path):
    with pytest.raises(ZConfig.DataConversionError) as caught:
        ZODB.config.storageFromString(
            f"%import zrs_core\n<zrs>\nreplicate-to 0\nrequire-tls yes\n<filestorage>\n"
            f"path {tmp_path}/Data.fs\n</filestorage>\n</zrs>"
        )
    assert str(caught.value).startswith("replicate-to 0: :0 can be reached from other machines")
    assert str(caught.value).endswith("(line 3)")
    assert list(tmp_path.iterdir()) == []


def test_a_configuration_over_a_transport_of_others_names_the_line_too(tmp_path):
    with pytest.raises(ZConfig.DataConversionError, match=r"replicate-to 0: .* \(line 3\)"):
        ZODB.config.storageFromString(
            f"%import zrs_core\n<zrs>\nreplicate-to 0\nrequire-tls yes\n"
            f"transport asyncio-tcp\n<filestorage>\n"
            f"path {tmp_path}/Data.fs\n</filestorage>\n</zrs>"
        )

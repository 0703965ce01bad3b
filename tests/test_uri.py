"""`zrs://` URIs."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import trustme
import ZODB
import zodburi
from ZODB.FileStorage import FileStorage

from zrs_core import Primary, Secondary
from zrs_core.addresses import TCPAddress, UnixAddress
from zrs_core.config import uri
from zrs_core.errors import ConfigurationError, ListenError

from .conditions import wait_for
from .databases import open_file_storage, traffic
from .status.http import get


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a secondary would be opened with."""
    seen: dict[str, Any] = {}

    def secondary(path: str, address: object, **options: Any) -> None:
        seen.update(path=path, address=address, **options)

    monkeypatch.setattr("zrs_core.secondary.Secondary", secondary)
    return seen


def test_a_database_by_a_string(tmp_path):
    primary = Primary(
        open_file_storage(tmp_path / "1"), ("127.0.0.1", 0), transport="socket-thread"
    )
    with traffic(primary) as commits:
        commits.commit(10)
        factory, arguments = zodburi.resolve_uri(
            f"zrs://{primary.replication_address}{tmp_path}/2.fs?blob_dir={tmp_path}/2&"
            "transport=socket-thread&reconnect_delay=0.01&connection_cache_size=123&"
            "database_name=copy"
        )
        assert not os.path.exists(tmp_path / "2.fs")
        storage = factory()
        with contextlib.closing(storage):
            assert isinstance(storage, Secondary)
            wait_for(
                lambda: storage.progress.tid == primary.lastTransaction(), "the last transaction"
            )
            db = ZODB.DB(storage, **arguments)
            assert (db.getCacheSize(), db.database_name) == (123, "copy")
            with db.transaction() as connection:
                assert len(connection.root()) > 0


def test_every_argument_arrives(seen):
    factory, arguments = uri.resolve(
        "zrs://[::1]:8100/var/Data%20base.fs?transport=memory&blob_dir=/tmp/blobs&peer_timeout=5&"
        "keep_alive_delay=60&reconnect_delay=0.5,30&check_checksums=require&max_record_size=1MB&"
        "durability=none&max_compared_size=2MB&name=replica+one&"
        "connection_pool_size=3&connection_cache_size_bytes=1MB"
    )
    factory()
    assert seen == {
        "path": "/var/Data base.fs",
        "address": TCPAddress("::1", 8100),
        "transport": "memory",
        "blob_dir": "/tmp/blobs",
        "peer_timeout": 5,
        "keep_alive_delay": 60,
        "reconnect_delay": (0.5, 30),
        "check_checksums": "require",
        "max_record_size": 1 << 20,
        "durability": "none",
        "max_compared_size": 2 << 20,
        "name": "replica one",
        "tls": None,
    }
    assert arguments == {"connection_pool_size": "3", "connection_cache_size_bytes": "1MB"}


def test_a_unix_socket(seen):
    factory, _ = uri.resolve("zrs:///var/Data.fs?address=/run/zrs.sock")
    factory()
    assert seen["address"] == UnixAddress("/run/zrs.sock")


def test_tls(seen, tmp_path):
    ca = trustme.CA()
    issued = ca.issue_cert("localhost")
    paths = {name: str(tmp_path / f"{name}.pem") for name in ("ca", "certificate", "key")}
    ca.cert_pem.write_to_path(paths["ca"])
    issued.cert_chain_pems[0].write_to_path(paths["certificate"])
    issued.private_key_pem.write_to_path(paths["key"])
    query = "&".join(f"tls_{name}={path}" for name, path in paths.items())
    uri.resolve(f"zrs://a:1/D.fs?{query}&tls_peer_names=a,b&tls_server_name=c")[0]()
    tls = seen["tls"]
    assert (tls.certificate, tls.key, tls.ca) == (paths["certificate"], paths["key"], paths["ca"])
    assert (tls.peer_names, tls.server_name) == (("a", "b"), "c")
    uri.resolve("zrs://a:1/D.fs?tls=yes")[0]()
    assert seen["tls"].ca is None
    uri.resolve("zrs://a:1/D.fs?tls=no")[0]()
    assert seen["tls"] is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file:///D.fs", "it does not begin with zrs://"),
        ("zrs:/D.fs", "it does not begin with zrs://"),
        ("zrs://a:1", "the path of a FileStorage is missing"),
        ("zrs://a:1/", "the path of a FileStorage is missing"),
        ("zrs:///D.fs", "the address of the primary is needed once"),
        ("zrs://a:1/D.fs?address=/x", "the address of the primary is needed once"),
        ("zrs://a/D.fs", "the address a: invalid address 'a': an address is"),
        ("zrs://a:0/D.fs", "the address a:0: nobody can listen at port 0"),
        ("zrs://a:99999/D.fs", "the address a:99999: invalid address"),
        ("zrs://[::1/D.fs", "Invalid IPv6 URL"),
        ("zrs://a:1/D.fs#x", "#x has no meaning here"),
        ("zrs://a:1/D.fs?blobdir=x", "unknown argument blobdir; known are address, blob_dir, "),
        ("zrs://a:1/D.fs?socket_mode=600", "unknown argument socket_mode"),
        ("zrs://a:1/D.fs?tls_nonsense=x", "unknown argument tls_nonsense"),
        ("zrs://a:1/D.fs?transport", "bad query field: 'transport'"),
        ("zrs://a:1/D.fs?transport=pigeon", "transport pigeon: unknown transport"),
        ("zrs://a:1/D.fs?peer_timeout=5&peer_timeout=6", "peer_timeout is given twice"),
        ("zrs://a:1/D.fs?reconnect_delay=x", "reconnect_delay x: it is no number"),
        ("zrs://a:1/D.fs?tls_ca=/no.pem", "tls_ca /no.pem: the file cannot be read"),
        ("zrs://a:1/D.fs?status_hosts=b", "status_hosts has no effect without status_address"),
        ("zrs://a:1/D.fs?status_address=1&status_hosts=b:1", "status_hosts b:1: invalid host"),
        ("zrs://a:1/D.fs?tls=maybe", "tls maybe: it is neither yes nor no"),
        ("zrs://a:1/D.fs?tls=no&tls_server_name=a", "tls=no contradicts tls_server_name"),
    ],
)
def test_what_is_wrong_is_named(text, message):
    with pytest.raises(ConfigurationError) as caught:
        zodburi.resolve_uri(text) if text.startswith("zrs") else uri.resolve(text)
    assert str(caught.value).startswith(f"{text}: {message}")


def test_what_is_not_zodburis_own_is_refused_by_zodburi():
    with pytest.raises(zodburi.UnknownDatabaseKeywords, match="connection_colour"):
        zodburi.resolve_uri("zrs://a:1/D.fs?connection_colour=red")


def test_the_path_is_that_of_the_file_system(seen):
    uri.resolve("zrs://a:1//var/../var/Data.fs")[0]()
    assert Path(seen["path"]).name == "Data.fs"


def test_a_status_is_served_until_the_storage_is_closed(tmp_path):
    factory, _ = uri.resolve(
        f"zrs://127.0.0.1:1{tmp_path}/Data.fs?transport=socket-thread&"
        f"status_address={tmp_path}/s.sock&status_max_lag=5&status_nodes=:1,:2&status_hosts=a.example"
    )
    where = UnixAddress(f"{tmp_path}/s.sock")
    with contextlib.closing(factory()):
        assert get(where, "/status").json["role"] == "secondary"
        urls = [each["url"] for each in get(where, "/nodes").json["nodes"]]
        assert urls == [str(where), "http://:1", "http://:2"]
    assert not os.path.exists(where.path)


def test_a_status_that_cannot_be_served_leaves_nothing_open(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        factory, _ = uri.resolve(
            f"zrs://127.0.0.1:1{tmp_path}/Data.fs?transport=socket-thread&"
            f"status_address={taken.getsockname()[1]}"
        )
        with pytest.raises(ListenError, match="cannot serve the status"):
            factory()
    FileStorage(str(tmp_path / "Data.fs")).close()

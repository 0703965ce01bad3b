"""The examples are run, and what the documents quote of them is what they say."""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import trustme
from ZODB import DB
from zope.component import getGlobalSiteManager
from zope.configuration import xmlconfig

from zrs_core import Primary, Secondary, transports
from zrs_core.errors import ConfigurationError, ListenError
from zrs_core.interfaces import (
    IConnector,
    IListener,
    IReplicationClient,
    IReplicationService,
)
from zrs_core.testing import seeds
from zrs_core.tls import TLSOptions

from .conditions import DEADLINE, wait_for
from .databases import contents, open_file_storage, traffic
from .installed import installed_example

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"


# -- asyncio_server.py


@pytest.fixture
def server(tmp_path):
    """The example as a process, and the port that it listens on."""
    command = [sys.executable, "-W", "error", EXAMPLES / "asyncio_server.py"]
    process = subprocess.Popen(
        [*command, tmp_path / "server.fs", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            *_, port = process.stdout.readline().split()
            yield process, int(port)
        finally:
            process.kill()


def test_the_asyncio_server_is_followed(server, tmp_path):
    process, port = server
    storage = Secondary(tmp_path / "copy.fs", ("127.0.0.1", port), transport="socket-thread")
    with contextlib.closing(storage) as secondary:
        # The second one is committed when the first has been sent.
        wait_for(lambda: secondary.progress.transactions >= 3, "commits of the server")
        last = secondary.progress.tid
        db = DB(secondary)
        with db.transaction() as connection:
            assert isinstance(connection.root()["time"], float)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (0, "", "")
        db.close()
    with contextlib.closing(Primary(tmp_path / "server.fs", "127.0.0.1:0")) as original:
        assert last in [each.tid for each in contents(original)]


@pytest.mark.parametrize(
    ("said", "logged"),
    [
        (b"\0\0\0\6zrs9.9", "Invalid protocol 'zrs9.9' (at byte 0 of the stream)"),
        (b"\0\0\0\6zrs2.1\0\0\0\x08" + b"\x7f" * 8, "the secondary holds 0x7f"),
    ],
)
def test_the_asyncio_server_refuses_a_peer_with_a_line(server, said, logged):
    process, port = server
    with socket.create_connection(("127.0.0.1", port)) as peer:
        peer.sendall(said)
        assert peer.recv(1000) == b""
    assert logged in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == ("", "")


# -- fuzz_follower.py


def fuzz_follower(*arguments):
    pytest.importorskip("atheris", reason="`make .venv/.fuzz` installs Atheris")
    command = [EXAMPLES / "fuzz_follower.py", *arguments]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_atheris_fuzzes_a_follower(tmp_path):
    corpus = tmp_path / "corpus"
    fuzz_follower("--seeds", corpus)
    assert {path.read_bytes() for path in corpus.iterdir()} == {*seeds.from_primary()}
    assert "Done 300 runs" in fuzz_follower("-seed=1", "-runs=300", corpus)


# -- third_party_transport


@pytest.fixture
def installed(tmp_path_factory):
    with installed_example(tmp_path_factory.mktemp("site")):
        yield


@pytest.mark.usefixtures("installed")
def test_the_example_is_found_by_its_entry_point():
    assert "asyncio-tcp" in transports.names()
    import zrs_asyncio

    assert transports.listener_factory("asyncio-tcp") is zrs_asyncio.Listener
    assert transports.connector_factory("asyncio-tcp") is zrs_asyncio.Connector


def primary_in(path, address="127.0.0.1:0", **options):
    return Primary(open_file_storage(path), address, transport="asyncio-tcp", **options)


def secondary_in(path, address, **options):
    options = {"reconnect_delay": 0.05, "transport": "asyncio-tcp", **options}
    return Secondary(open_file_storage(path), address, **options)


def assert_caught_up(primary, secondary):
    wait_for(lambda: secondary.lastTransaction() == primary.lastTransaction(), "the secondary")
    assert contents(secondary) == contents(primary)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("other", ["asyncio-tcp", "socket-thread", "twisted-tcp"])
def test_the_example_replicates(tmp_path, other):
    primary = primary_in(tmp_path / "primary")
    with traffic(primary) as commits:
        commits.commit(50)
        secondary = secondary_in(
            tmp_path / "secondary", primary.replication_address, transport=other
        )
        with contextlib.closing(secondary):
            assert_caught_up(primary, secondary)
            commits.commit(50)
            assert_caught_up(primary, secondary)


@pytest.mark.usefixtures("installed")
def test_closing_lets_the_secondary_catch_up(tmp_path):
    primary = primary_in(tmp_path / "primary", close_timeout=DEADLINE)
    secondary = secondary_in(
        tmp_path / "secondary", primary.replication_address, keep_alive_delay=0.01
    )
    with contextlib.closing(secondary):
        with traffic(primary) as commits:
            commits.commit(100)
            wait_for(lambda: secondary.progress.connected, "a connection")
            wait_for(lambda: secondary.progress.transactions, "a transaction")
            commits.commit(50)
            last = primary.lastTransaction()
        wait_for(lambda: secondary.lastTransaction() == last, "the last transaction")


@pytest.mark.usefixtures("installed")
def test_a_secondary_connects_again_and_elsewhere(tmp_path):
    primary = primary_in(tmp_path / "primary")
    address = primary.replication_address
    with contextlib.closing(secondary_in(tmp_path / "secondary", address)) as secondary:
        with traffic(primary) as commits:
            commits.commit(5)
            assert_caught_up(primary, secondary)
        wait_for(lambda: not secondary.progress.connected, "the end of the connection")
        primary = primary_in(tmp_path / "primary")
        with traffic(primary) as commits:
            commits.commit(5)
            secondary.setReplicationAddress(primary.replication_address)
            assert_caught_up(primary, secondary)


@pytest.mark.usefixtures("installed")
def test_a_receiver_that_does_not_read_costs_a_batch_and_holds_up_nobody(tmp_path):
    primary = primary_in(tmp_path / "primary", close_timeout=0)
    with traffic(primary) as commits:
        commits.commit(200)
        address = primary.replication_address
        with socket.create_connection(address) as idle:
            idle.sendall(b"\0\0\0\6zrs2.1\0\0\0\x08" + bytes(8))
            with contextlib.closing(secondary_in(tmp_path / "secondary", address)) as secondary:
                assert_caught_up(primary, secondary)


@pytest.mark.usefixtures("installed")
def test_what_the_example_cannot_do_is_refused(tmp_path):
    taken = socket.create_server(("127.0.0.1", 0))
    path = tmp_path / "Data.fs"
    with taken, pytest.raises(ListenError, match="cannot listen on"):
        Primary(path, taken.getsockname(), transport="asyncio-tcp")
    with pytest.raises(ConfigurationError, match="asyncio-tcp has no Unix sockets"):
        Secondary(path, "/nowhere/at.all", transport="asyncio-tcp")


@pytest.mark.usefixtures("installed")
def test_a_zcml_file_registers_the_example_too():
    import zrs_asyncio

    xmlconfig.file("configure.zcml", zrs_asyncio)
    adapters = getGlobalSiteManager().adapters
    for required, provided, factory in (
        (IReplicationService, IListener, zrs_asyncio.Listener),
        (IReplicationClient, IConnector, zrs_asyncio.Connector),
    ):
        assert adapters.lookup((required,), provided, "asyncio-tcp") is factory


# -- the refusals that docs/tls.rst lists


def rows_of_the_table():
    """Its rows: what is wrong, and the texts of which each end logs one."""
    _, _, text = (ROOT / "docs" / "tls.rst").read_text(encoding="utf-8").partition("list-table::")
    rows = re.findall(r"   \* - (.+)\n     - ((?:.+\n)+?)     - ((?:.+\n)+?)(?=   \*|\n)", text)
    return [
        pytest.param(wrong, *(re.findall("``(.+?)``", each) for each in texts), id=wrong)
        for wrong, *texts in rows[1:]
    ]


@pytest.fixture
def refusals(tmp_path):
    """By what is wrong: the options of the primary, and those of the secondary."""
    ours, others = trustme.CA(), trustme.CA()

    def options(name, trusted=ours, signed_by=ours, **kwargs):
        ca, path = tmp_path / f"{name}{len(files)}.ca", tmp_path / f"{name}{len(files)}.pem"
        files.append(path)
        trusted.cert_pem.write_to_path(ca)
        past = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)
        certificate = signed_by.issue_cert(name, not_after=past if kwargs.pop("old", 0) else None)
        certificate.private_key_and_cert_chain_pem.write_to_path(path)
        if not kwargs.pop("shown", True):
            return TLSOptions(ca=str(ca))
        return TLSOptions(str(path), ca=str(ca), **kwargs)

    files = []
    here, there = "127.0.0.1", "secondary.example"
    elsewhere = ("elsewhere.example",)
    primary, secondary = options(here), options(there)
    return {
        "the secondary speaks no TLS": (primary, None),
        "the primary speaks no TLS": (None, secondary),
        "the secondary's ``ca`` has not signed the primary's certificate": (
            primary,
            options(there, trusted=others),
        ),
        "the primary's ``ca`` has not signed the secondary's certificate": (
            primary,
            options(there, signed_by=others),
        ),
        "the secondary has no certificate": (primary, options(there, shown=False)),
        "the secondary's certificate has expired": (primary, options(there, old=True)),
        "the primary's certificate has expired": (options(here, old=True), secondary),
        "the primary does not list the secondary's name": (
            options(here, peer_names=elsewhere),
            secondary,
        ),
        "the secondary does not list the primary's name": (
            primary,
            options(there, peer_names=elsewhere),
        ),
        "the primary's certificate is for another host": (options(there), secondary),
    }


@pytest.mark.parametrize("transport", ["socket-thread", "twisted-tcp"])
@pytest.mark.parametrize(("wrong", "in_primary", "in_secondary"), rows_of_the_table())
def test_a_refusal_is_logged_as_listed(
    tmp_path, caplog, refusals, transport, wrong, in_primary, in_secondary
):
    def logged(logger, texts):
        lines = [each.getMessage() for each in caplog.records if each.name == logger]
        return any(text in line for text in texts for line in lines)

    caplog.set_level(logging.INFO, "zrs_core")
    for_primary, for_secondary = refusals[wrong]
    common = {"transport": transport}
    primary = Primary(tmp_path / "primary.fs", "127.0.0.1:0", tls=for_primary, **common)
    with contextlib.closing(primary):
        address = primary.replication_address
        secondary = Secondary(tmp_path / "copy.fs", address, tls=for_secondary, **common)
        with contextlib.closing(secondary):
            wait_for(lambda: logged("zrs_core.primary", in_primary), in_primary)
            wait_for(lambda: logged("zrs_core.secondary", in_secondary), in_secondary)
            assert secondary.progress.bytes == 0


def test_all_refusals_are_tried(refusals):
    assert [row.id for row in rows_of_the_table()] == list(refusals)

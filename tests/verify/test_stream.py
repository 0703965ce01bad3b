"""A running primary, by its address, against a file."""

from __future__ import annotations

import contextlib
import shutil
import socket
import threading
import time

import pytest
import ZODB

from tests.certificates import authority
from tests.conditions import DEADLINE
from tests.databases import open_file_storage, traffic
from tests.verify.conftest import verified
from zrs_core import Primary
from zrs_core.addresses import parse_address
from zrs_core.codec.framing import prefix
from zrs_core.errors import Unverifiable
from zrs_core.tools.cli.connections import tls_options
from zrs_core.tools.verify import stream
from zrs_core.tools.verify.run import Options, Verification
from zrs_core.tools.verify.sources import Source

#: So long the primary is listened to when it has sent all. The last transaction is not waited for
#: by that.
WAIT = 0.2


@pytest.fixture(params=["socket-thread", pytest.param("twisted-tcp", marks=pytest.mark.long)])
def transport(request):
    return request.param


@contextlib.contextmanager
def primary_of(database, transport="socket-thread", **options):
    """What a database is called when it is served."""
    storage = open_file_storage(database.directory)
    primary = Primary(storage, "127.0.0.1:0", transport=transport, close_timeout=0, **options)
    try:
        yield primary, source_of(primary.replication_address)
    finally:
        primary.close()


def source_of(address):
    return Source(str(address), address=parse_address(str(address)))


def compared(a, b, **options):
    return verified(a, b, **{"wait": WAIT, **options})


def test_equal_databases(pair, transport):
    a, b = pair
    with primary_of(a, transport) as (_, source):
        for one, other in ((source, b), (b, source)):
            report = compared(one, other)
            assert report.equal
            assert report.transactions == 61
            assert report.blobs == len(b.all_blobs())
            assert report.last == b.headers[-1].tid


@pytest.mark.long
def test_what_is_planted(pair):
    a, b = pair
    headers = a.headers
    one, other = b.all_blobs()[-2:]
    one.unlink()
    other.chmod(0o600)
    other.write_bytes(b"another")
    b.flip(headers[10].end - 1)
    b.flip(headers[15].pos + 23)
    b.cut_out(headers[-1])
    shutil.copy(other, other.with_name("0x7000000000000000.blob"))
    expected = {"record": 1, "meta data": 1, "missing blob": 1, "blob": 1, "extra blob": 1}
    with primary_of(a) as (_, source):
        report = compared(source, b)
        assert report.counts == {**expected, "missing transaction": 1}
        assert compared(source, b, common=True).counts == expected
        expected = {"record": 1, "meta data": 1, "extra blob": 1, "blob": 1, "missing blob": 1}
        assert compared(b, source).counts == {**expected, "extra transaction": 1}


def test_a_transaction_in_the_middle(pair):
    a, b = pair
    header = a.headers[20]
    b.cut_out(header)
    with primary_of(a) as (_, source):
        report = compared(source, b)
    (missing,) = (each for each in report.differences if each.oid is None)
    assert (missing.name, missing.tid) == ("missing transaction", header.tid)
    with primary_of(b) as (_, source):
        report = compared(source, a)
    (extra,) = (each for each in report.differences if each.oid is None)
    assert (extra.name, extra.tid) == ("extra transaction", header.tid)


def test_a_primary_that_lacks_the_last_ones(pair):
    """It refuses a secondary that holds them, which proves it."""
    a, b = pair
    a.cut_out(a.headers[-1])
    a.cut_out(a.headers[-1])
    with primary_of(a) as (_, source):
        assert compared(source, b).counts == {"extra transaction": 2}
        report = compared(source, b, common=True)
        assert report.beyond == [0, 2]
        assert report.transactions == 59


def test_a_primary_whose_clock_was_ahead(small_pair, monkeypatch):
    """The time of a transaction does not say that it was committed after the command began."""
    a, b = small_pair
    clock = time.time
    with primary_of(a) as (primary, source):
        monkeypatch.setattr(time, "time", lambda: clock() + 3600)
        with traffic(primary, blobs=False) as commit:
            commit.commit(2)
            monkeypatch.setattr(time, "time", clock)
            assert compared(source, b).counts["missing transaction"] >= 2


class _Stopped(Exception):
    """What a watch raises to end it all."""


def test_it_can_be_stopped_while_nothing_comes(pair):
    """A signal may have come just before it began to wait, and does not interrupt that."""
    _, b = pair
    asked = []

    def watch(what, done, total):
        # The first one is before anything is waited for.
        asked.append((what, done, total))
        if len(asked) > 2:
            raise _Stopped

    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(_Stopped):
            verified(source_of(address), b, wait=1000, watch=watch)
    size = b.path.stat().st_size
    assert asked[1:] == [("Transactions", 4, size)] * 2


def test_blobs_that_are_not_given(pair):
    a, b = pair
    with primary_of(a) as (_, source):
        report = compared(source, b.source(blobs=False))
    assert report.equal
    assert not report.blobs_compared


@pytest.mark.long
def test_a_primary_that_commits_meanwhile(pair):
    a, b = pair
    with primary_of(a) as (primary, source):
        db = ZODB.DB(primary)
        done = threading.Event()

        def commit():
            with contextlib.closing(db.open()) as connection:
                while not done.is_set():
                    connection.root()["n"] = connection.root().get("n", 0) + 1
                    connection.transaction_manager.commit()

        thread = threading.Thread(target=commit)
        thread.start()
        try:
            report = compared(source, b, common=True)
            assert report.equal
            assert report.transactions == 61
            # It ends although there is always more.
            assert compared(source, b).counts.keys() == {"missing transaction"}
        finally:
            done.set()
            thread.join()
            db.close()


@pytest.mark.long
def test_tls(pair):
    a, b = pair
    ours = authority()
    certificate = ours.issue("127.0.0.1")
    server = tls_options(certificate, None, None, ())
    client = tls_options(None, None, ours.ca, ())
    with primary_of(a, tls=server) as (_, source):
        run = Verification(source, b.source(), Options(wait=WAIT), lambda *args: None, tls=client)
        assert run.run().equal
        with pytest.raises(Unverifiable, match="check whether a primary listens there"):
            compared(source, b)
        strangers = tls_options(None, None, authority("others").ca, ())
        run = Verification(source, b.source(), Options(), lambda *args: None, tls=strangers)
        with pytest.raises(Unverifiable, match=r"cannot connect to .*: TLS: .* not trusted"):
            run.run()


def test_a_certificate_for_another_name(pair):
    """The connection is closed, without the garbage collector."""
    a, b = pair
    ours = authority()
    server = tls_options(ours.issue("127.0.0.1"), None, None, ())
    client = tls_options(None, None, ours.ca, ("another.example",))
    with primary_of(a, tls=server) as (_, source):
        run = Verification(source, b.source(), Options(), lambda *args: None, tls=client)
        with pytest.raises(Unverifiable, match=r"cannot connect to .*which is not listed"):
            run.run()


def test_interrupted_while_it_connects(pair, monkeypatch):
    def interrupt(family, place):
        raise KeyboardInterrupt

    monkeypatch.setattr(stream, "connect_argument", interrupt)
    with pytest.raises(KeyboardInterrupt):
        compared(source_of("127.0.0.1:1"), pair[1])


def test_nobody_there(pair, unused_port):
    with pytest.raises(
        Unverifiable, match=r"cannot connect to 127\.0\.0\.1:.*: Connection refused"
    ):
        compared(source_of(f"127.0.0.1:{unused_port}"), pair[1])


@pytest.fixture
def unused_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextlib.contextmanager
def answering(*answers, close=True):
    """Listens, and sends each who connects the next answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(DEADLINE)
        connections = []

        def serve():
            for answer in answers:
                connection, _ = server.accept()
                connections.append(connection)
                connection.settimeout(DEADLINE)
                connection.recv(100)
                connection.sendall(answer)
                if close:
                    connection.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield source_of(f"127.0.0.1:{server.getsockname()[1]}")
        finally:
            thread.join()
            for each in connections:
                each.close()


def test_one_who_closes_or_says_something_else(pair):
    b = pair[1]
    with answering(b"") as source:
        with pytest.raises(Unverifiable, match="has closed the connection without sending"):
            compared(source, b)
    with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as source:
        with pytest.raises(Unverifiable, match="does not speak the protocol"):
            compared(source, b)
    with answering(prefix(100) + b"half") as source:
        with pytest.raises(Unverifiable, match="has closed the connection after the start"):
            compared(source, b)


def test_one_who_says_nothing(pair, monkeypatch):
    monkeypatch.setattr(stream, "ANSWER_TIME", 0.1)
    monkeypatch.setattr(stream, "REFUSAL_TIME", 0.1)
    with answering(b"", b"", close=False) as source:
        with pytest.raises(Unverifiable, match="has sent nothing for 0 seconds after the start"):
            compared(source, pair[1], wait=0.1)


def test_two_addresses(pair):
    with pytest.raises(ValueError, match="cannot be compared with what a primary sends"):
        compared(source_of("127.0.0.1:1"), source_of("127.0.0.1:2"))


def test_going_on(pair, tmp_path):
    """A connection that is lost; the next run asks from where it was."""
    a, b = pair
    state = tmp_path / "state"
    b.flip(a.headers[5].end - 1)
    with primary_of(a) as (_, source):

        class Stop(Exception):
            pass

        def watch(what, done, total):
            if done > total / 2:
                raise Stop

        with pytest.raises(Stop):
            verified(source, b, wait=WAIT, state=state, watch=watch)
        assert state.exists()
        report = verified(source, b, wait=WAIT, state=state)
        assert not state.exists()
        assert report.counts == {"record": 1}
        assert report.transactions == 61
        assert report.blobs == len(b.all_blobs())

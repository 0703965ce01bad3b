"""The status while something is replicated, over each transport."""

from __future__ import annotations

import itertools
import time

import pytest
import transaction
import ZODB
from persistent.timestamp import TimeStamp
from ZODB.blob import Blob

from tests.certificates import authority
from tests.conditions import wait_for
from tests.databases import open_file_storage
from zrs_core import Primary, Secondary
from zrs_core.addresses import TCPAddress
from zrs_core.messages import NO_TID
from zrs_core.progress import State
from zrs_core.status.state import PeerState
from zrs_core.tls import TLSOptions

from .conftest import ADDRESS
from .http import get
from .line import DelayedLine

TRANSPORTS = ("twisted-tcp", "socket-thread")


@pytest.fixture(params=TRANSPORTS)
def transport(request):
    return request.param


@pytest.fixture
def commit(closing):
    """Commits to a storage, a transaction at a call; the tid."""
    databases = {}
    numbers = itertools.count()

    def one(storage, value=None):
        if storage not in databases:
            databases[storage] = closing(ZODB.DB(storage))
        with databases[storage].transaction() as connection:
            connection.root()[f"key{next(numbers) % 10}"] = value
        return storage.lastTransaction()

    yield one
    transaction.abort()


def arrives(secondary, tid):
    """Wait until a transaction can be read, and is noted; the time when it could be read."""
    wait_for(lambda: secondary.lastTransaction() == tid, "the transaction")
    moment = time.time()
    wait_for(lambda: secondary.progress.tid == tid, "it to be noted")
    return moment


def lag_metric(address):
    """What Prometheus gets."""
    lines = get(address, "/metrics").body.decode().splitlines()
    [line] = [line for line in lines if line.startswith("zrs_lag_seconds ")]
    return float(line.split()[1])


def test_both_ends_tell_of_the_same(transport, closing, commit, tmp_path):
    primary = closing(
        Primary(open_file_storage(tmp_path / "p"), "127.0.0.1:0", transport=transport)
    )
    first = commit(primary, "value")
    secondary = Secondary(
        open_file_storage(tmp_path / "s"), primary.replication_address, transport=transport
    )
    closing(secondary)
    last = commit(primary, Blob(b"blob" * 50_000))
    arrives(secondary, last)
    wait_for(lambda: primary.status().peers[0].state is PeerState.WAITING, "the end of it")
    here, there = primary.status(), secondary.status()
    [peer] = here.peers
    assert here.address == str(primary.replication_address) == there.primary_address
    assert here.transport == there.transport == transport
    assert (here.tls, there.tls) == (False, False)
    assert peer.address == there.local_address
    assert peer.certificate is None
    assert peer.protocol == there.protocol == "zrs2.1"
    assert peer.start == NO_TID
    assert here.position == peer.position == there.position
    assert here.position.tid == last > first
    assert here.position.time == TimeStamp(last).timeTime()
    assert peer.transactions == there.transactions >= 3
    assert peer.bytes == there.bytes > 200_000
    assert (peer.lag_seconds, peer.lag_transactions) == (0.0, 0)
    assert 0 <= peer.back_pressure_seconds < time.time() - peer.connected_since
    assert there.state is State.REPLICATING
    assert there.connected
    assert there.primary_position.tid == last
    assert there.primary_position.as_of == there.last_heard
    assert (there.blobs_written, there.missing_blobs, here.missing_blobs) == (1, 0, 0)
    assert (there.connections, there.failures, there.last_error) == (1, 0, None)
    assert (here.refused, here.last_error) == (0, None)
    assert abs(peer.connected_since - there.connected_since) < 60
    for rates in (here.rates, there.rates):
        assert rates.ten_seconds.transactions >= 3 / 311
        assert rates.five_minutes.bytes >= 200_000 / 311


def test_the_lag_is_that_of_the_line(transport, closing, commit, serve, tmp_path):
    primary = closing(Primary(tmp_path / "p.fs", "127.0.0.1:0", transport=transport))
    line = closing(DelayedLine(primary.replication_address, to_server=0.1))
    secondary = closing(Secondary(tmp_path / "s.fs", line.address, transport=transport))
    served = serve(secondary)
    arrives(secondary, commit(primary))
    line.to_client = 1.0

    def agrees():
        """Whether both say what was seen here; this process may be kept from looking at once."""
        tid = commit(primary)
        seen = arrives(secondary, tid) - TimeStamp(tid).timeTime()
        held = line.imposed[-1]
        status = served.node.status().secondary
        assert seen >= held >= 1.0
        assert status.lag_seconds >= held
        assert status.lag_seconds == lag_metric(served.address)
        tolerance = max(0.05, 0.1 * seen)
        return abs(status.lag_seconds - seen) <= tolerance

    wait_for(agrees, "the lag")


def test_the_primary_knows_what_the_line_holds_up(closing, commit, serve, tmp_path):
    options = {"transport": "socket-thread"}
    primary = closing(Primary(tmp_path / "p.fs", "127.0.0.1:0", **options))
    line = closing(DelayedLine(primary.replication_address))
    secondary = closing(Secondary(tmp_path / "s.fs", line.address, **options))
    served = serve(secondary, nodes=[serve(primary).address], max_lag=0.5)

    def is_ready():
        """After another commit: this machine may be too busy for one to be visible in time."""
        arrives(secondary, commit(primary))
        wait_for(lambda: served.status().secondary.lag_transactions == 0, "nothing to be missing")
        return served.status().ready

    wait_for(is_ready, "a commit that is not late")
    line.to_client = 3600.0
    missing = commit(primary)
    commit(primary)
    wait_for(lambda: not served.status().ready, "the lag")
    held = served.status().secondary
    assert held.lag_transactions in (1, 2)
    assert held.primary_position.tid >= missing
    assert 0.5 < held.lag_seconds <= time.time() - TimeStamp(missing).timeTime()
    wait_for(lambda: served.status().secondary.lag_transactions == 2, "both")
    assert held.lag_seconds < served.status().secondary.lag_seconds
    # By itself it knows nothing of that.
    assert secondary.status().lag_transactions is None


def test_a_line_that_is_cut_is_told_at_both_ends(transport, closing, commit, serve, tmp_path):
    primary = closing(Primary(tmp_path / "p.fs", "127.0.0.1:0", transport=transport))
    line = closing(DelayedLine(primary.replication_address))
    secondary = Secondary(
        tmp_path / "s.fs", line.address, transport=transport, reconnect_delay=(0.05, 0.05)
    )
    closing(secondary)
    served = serve(secondary)
    arrives(secondary, commit(primary))
    wait_for(lambda: served.node.status().ready, "all to be well")
    line.refusing = True
    line.cut()

    def is_lost():
        # It connects again and again, and is closed at once.
        nonlocal lost
        lost = served.node.status()
        told = lost.secondary.connected, lost.secondary.lag_seconds, primary.status().peers
        return told == (False, None, ()) and lost.secondary.last_error

    lost = None
    wait_for(is_lost, "the loss")
    assert not lost.ready
    assert lost.ready_reason == f"{lost.secondary.state}: {lost.secondary.last_error.message}"
    assert lost.secondary.news.startswith("no news since 20")
    # What is missing, the primary alone can tell.
    last = commit(primary)
    assert primary.status().position.tid == last > lost.secondary.primary_position.tid
    line.refusing = False
    arrives(secondary, last)
    wait_for(lambda: served.node.status().ready, "all to be well again")
    again = secondary.status()
    assert again.connections >= 2
    assert again.last_error.time <= again.connected_since


@pytest.mark.parametrize("where", ["127.0.0.1:0", "unix"])
def test_names_stay_when_secondaries_connect_again(
    transport, where, closing, serve, tmp_path, caplog
):
    caplog.set_level("INFO", "zrs_core")
    path = str(tmp_path / "p.sock")
    where, own = (path, path) if where == "unix" else (where, "127.0.0.1")
    primary = closing(Primary(tmp_path / "p.fs", where, transport=transport))
    served = serve(primary)

    def start(number):
        where = primary.replication_address
        return Secondary(tmp_path / f"{number}.fs", where, name=f"r{number}", transport=transport)

    def names():
        return sorted(each.name for each in primary.status().peers)

    expected = [own, f"{own}#2"]
    series = set()
    closing(start(0))
    wait_for(lambda: names() == expected[:1], "the first")
    for _ in range(3):
        replica = closing(start(1))
        wait_for(lambda: names() == expected, "both")
        there = replica.status()
        lines = get(served.address, "/metrics").body.decode().splitlines()
        series |= {line.partition(" ")[0] for line in lines if line.startswith("zrs_peer_lag_s")}
        replica.close()
        wait_for(lambda: names() == expected[:1], "the end of one")
    assert series == {f'zrs_peer_lag_seconds{{certificate="",peer="{name}"}}' for name in expected}
    assert there.name == "r1"
    ours = [each for each in caplog.records if each.name == "zrs_core.secondary"]
    assert {each.secondary for each in ours} == {"r0", "r1"}
    theirs = [each for each in caplog.records if each.name == "zrs_core.primary"]
    assert {each.secondary for each in theirs if hasattr(each, "peer")} == {*expected}


def test_certificates_have_names(transport, closing, tmp_path):
    ours = authority()
    server = TLSOptions(ours.issue("localhost", "127.0.0.1"), ca=ours.ca)
    primary = closing(Primary(tmp_path / "p.fs", "127.0.0.1:0", transport=transport, tls=server))
    names = {"Replica One": {"common_name": "Replica One"}, "replica.example": {}}
    for number, (name, options) in enumerate(names.items()):
        file = ours.issue("replica.example", file=f"replica{number}.pem", **options)
        tls = TLSOptions(file, ca=ours.ca)
        address = primary.replication_address
        path = tmp_path / f"{number}.fs"
        closing(Secondary(path, address, transport=transport, tls=tls))
        wait_for(lambda number=number: len(primary.status().peers) == number + 1, name)
        assert [each.certificate for each in primary.status().peers][number] == name
        assert [each.name for each in primary.status().peers][number] == name
    another = Secondary(tmp_path / "2.fs", address, transport=transport, tls=tls)
    closing(another)
    wait_for(lambda: len(primary.status().peers) == 3, "one with the same certificate")
    assert primary.status().peers[2].name == "replica.example#2"
    assert primary.status().tls


def test_a_certificate_is_not_asked_for(transport, closing, tmp_path):
    ours = authority()
    server = TLSOptions(ours.issue("localhost", "127.0.0.1"))
    primary = closing(Primary(tmp_path / "p.fs", "127.0.0.1:0", transport=transport, tls=server))
    tls = TLSOptions(ca=ours.ca)
    closing(Secondary(tmp_path / "s.fs", primary.replication_address, transport=transport, tls=tls))
    wait_for(lambda: primary.status().peers, "the peer")
    assert primary.status().peers[0].certificate is None


def test_one_that_is_refused_is_counted(transport, closing, commit, tmp_path):
    primary = closing(Primary(tmp_path / "p.fs", "127.0.0.1:0", transport=transport, max_peers=1))
    arrives_at = primary.replication_address
    secondary = closing(Secondary(tmp_path / "s.fs", arrives_at, transport=transport))
    wait_for(lambda: primary.status().peers, "the first")
    begin = time.time()
    second = closing(Secondary(tmp_path / "t.fs", arrives_at, transport=transport))
    wait_for(lambda: primary.status().refused, "the second")
    assert "max_peers allows no more" in primary.status().last_error.message
    assert begin <= primary.status().last_error.time <= time.time()
    wait_for(lambda: second.status().last_error, "an error there")
    assert secondary.status().last_error is None


class TestInMemory:
    def test_peers_that_take_their_time(self, primary, network, commit):
        connection = network.connect(ADDRESS)
        network.run()
        [peer] = primary.status().peers
        assert (peer.state, peer.start, peer.lag_seconds) == (PeerState.GREETING, None, None)
        connection.close()
        network.run()
        assert primary.status().peers == ()

    def test_what_was_not_sent_is_counted(self, primary, secondary, network, commit):
        commit(primary)
        network.run()
        assert primary.status().peers[0].lag_transactions == 0
        for _ in range(3):
            commit(primary)
        [peer] = primary.status().peers
        assert peer.lag_transactions == 3
        assert 0 <= peer.lag_seconds < 60
        network.run()
        [peer] = primary.status().peers
        assert (peer.state, peer.lag_seconds, peer.lag_transactions) == (PeerState.WAITING, 0.0, 0)
        assert peer.address == secondary.status().local_address

    def test_a_cascade_counts_no_transactions(self, primary, network, closing, commit, tmp_path):
        middle = Secondary(tmp_path / "middle.fs", ADDRESS, network, transport="memory")
        cascade = closing(Primary(middle, ("", 8001), network, transport="memory"))
        third = Secondary(tmp_path / "third.fs", ("", 8001), network, transport="memory")
        closing(third)
        commit(primary)
        network.run()
        assert third.lastTransaction() == primary.lastTransaction()
        assert cascade.status().position == middle.status().position == third.status().position
        assert cascade.status().peers[0].lag_transactions == 0
        assert middle.status().lag_seconds <= third.status().lag_seconds

    def test_blobs_that_are_missing_are_reported(self, network, closing, commit, tmp_path):
        primary = Primary(open_file_storage(tmp_path / "p"), ADDRESS, network, transport="memory")
        closing(primary)
        commit(primary, Blob(b"one"))
        tid = commit(primary, Blob(b"two"))
        [path] = [each for each in tmp_path.rglob("*.blob") if each.read_bytes() == b"one"]
        path.unlink()
        secondary = closing(
            Secondary(open_file_storage(tmp_path / "s"), ADDRESS, network, transport="memory")
        )
        network.run()
        assert secondary.lastTransaction() == tid
        status = secondary.status()
        assert (status.blobs_written, status.missing_blobs) == (1, 1)
        assert primary.status().missing_blobs == 1

    def test_what_is_copied_is_known_no_more(self, primary, secondary, network, tmp_path, commit):
        other = open_file_storage(tmp_path / "other", blobs=False)
        with ZODB.DB(other).transaction() as connection:
            connection.root()["key"] = "value"
        primary.copyTransactionsFrom(other)
        other.close()
        network.run()
        assert secondary.status().position == primary.status().position
        assert primary.status().peers[0].lag_transactions == 0

    def test_it_never_changes(self, primary):
        status = primary.status()
        with pytest.raises(AttributeError):
            status.refused = 5

    def test_following_another(self, primary, secondary, network, commit):
        commit(primary)
        network.run()
        assert secondary.status().lag_transactions is None
        secondary.setReplicationAddress(("", 8002))
        network.run()
        status = secondary.status()
        assert status.primary_address == str(TCPAddress("", 8002))
        assert not status.connected

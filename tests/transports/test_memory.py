from __future__ import annotations

import logging

import pytest
import transaction
from ZODB.blob import Blob

from zrs_core import Primary, Secondary
from zrs_core.addresses import TCPAddress
from zrs_core.errors import ConfigurationError, ListenError
from zrs_core.messages import Store
from zrs_core.options import ClientOptions
from zrs_core.sessions import ReplicationClient, ReplicationService
from zrs_core.testing import WHOLE, Peer, Sink, Source, greeting, stream
from zrs_core.testing.conformance import TLSConformance, TransportConformance
from zrs_core.testing.environments import MemoryEnvironment
from zrs_core.transports.memory import (
    CAPACITY,
    Connector,
    Listener,
    MemoryNetwork,
    default_network,
)

from ..databases import contents, open_file_storage, temporary_files, traffic

ADDRESS = TCPAddress("", 8000)


@pytest.fixture
def network():
    return MemoryNetwork()


def listen(network, source, address=ADDRESS):
    listener = Listener(ReplicationService(source, address, network))
    listener.start()
    return listener


def connect(network, sink, **options):
    options = ClientOptions(**{"reconnect_delay": 10, **options})
    connector = Connector(ReplicationClient(sink, ADDRESS, network, options))
    connector.start()
    return connector


class _InMemory:
    transport = "memory"

    def environment(self):
        return MemoryEnvironment(self.tls_options())


class TestConformance(_InMemory, TransportConformance):
    pass


class TestConformanceWithTLS(_InMemory, TLSConformance):
    cycles = 100


def test_nothing_is_planned_any_more_for_what_is_closed(network):
    """What is planned is kept by the network, which may be that of the process."""
    source = Source(WHOLE)
    listener = listen(network, source)
    connectors = [connect(network, Sink(), keep_alive_delay=5) for _ in range(3)]
    lazy = network.connect(ADDRESS)
    lazy.write(greeting())
    source.batches.append([Store(b"\0" * 8, b"\0" * 7 + b"\1", b"x" * CAPACITY)])
    network.run()
    assert network._timers
    connectors[0].reconnect()
    listener.stop(0)
    for each in connectors:
        each.stop()
    assert network._timers == []


class TestByHand:
    def test_what_one_end_writes_the_other_reads(self, network):
        listener = network.listen(ADDRESS)
        ours = network.connect(("", 8000))
        ours.write(b"over ")
        ours.write(b"there")
        theirs = listener.accept()
        assert theirs.read(3) == b"ove"
        assert theirs.read() == b"r there"
        assert theirs.read() == b""

    def test_nothing_moves_by_itself(self, network):
        listener = network.listen(ADDRESS)
        ours = network.connect(ADDRESS)
        theirs = listener.accept()
        ours.write(b"x")
        assert theirs.read() == b""
        assert not ours.drained
        assert network.step()
        assert ours.drained
        assert theirs.read() == b"x"
        assert not network.step()

    def test_a_step_delivers_a_chunk(self):
        network = MemoryNetwork(chunk_size=2)
        listener = network.listen(ADDRESS)
        ours = network.connect(ADDRESS)
        theirs = listener.accept()
        ours.write(b"12345")
        for expected in (b"12", b"34", b"5"):
            network.step()
            assert theirs.read() == expected

    def test_a_receiver_that_does_not_read_takes_no_more(self, network):
        listener = network.listen(ADDRESS)
        ours = network.connect(ADDRESS)
        theirs = listener.accept()
        ours.write(b"x" * (CAPACITY + 1000))
        network.run()
        assert len(theirs.incoming) == CAPACITY
        theirs.read()
        network.run()
        assert len(theirs.incoming) == 1000

    def test_closing_sends_what_was_written(self, network):
        listener = network.listen(ADDRESS)
        ours = network.connect(ADDRESS)
        theirs = listener.accept()
        ours.write(b"last words")
        ours.close()
        ours.write(b"too late")
        assert not theirs.at_eof
        network.run()
        assert theirs.read() == b"last words"
        assert theirs.at_eof

    def test_a_cut_loses_what_is_on_its_way(self, network):
        listener = network.listen(ADDRESS)
        ours = network.connect(ADDRESS)
        theirs = listener.accept()
        ours.write(b"lost")
        network.cut()
        network.run()
        assert theirs.read() == b""
        assert theirs.at_eof
        assert ours.at_eof
        assert not network.step()
        assert not ours.step()

    def test_nobody_listens(self, network):
        with pytest.raises(ConnectionRefusedError, match="nothing listens at :8000"):
            network.connect(ADDRESS)
        listener = network.listen(ADDRESS)
        with pytest.raises(ListenError, match="something listens there already"):
            network.listen(ADDRESS)
        assert listener.accept() is None
        listener.close()
        with pytest.raises(ConnectionRefusedError):
            network.connect(ADDRESS)

    def test_the_clock_stands_still_until_it_is_moved(self, network):
        due = []
        network.call_at(5, lambda: due.append(network.now))
        network.call_at(2, lambda: due.append(network.now))
        network.run()
        assert due == []
        network.advance(4)
        assert due == [2]
        network.advance(4)
        assert (due, network.now) == ([2, 5], 8)

    def test_attempts_to_connect_are_made_when_the_clock_has_moved(self, network):
        made = []
        network.connect_at(2, lambda: made.append(network.now))
        cancel = network.connect_at(3, lambda: made.append("cancelled"))
        cancel()
        network.advance(1)
        assert made == []
        network.advance(9)
        assert made == [10]


class TestListener:
    def test_a_batch_is_made_when_the_one_before_has_gone(self, network):
        batch = [WHOLE[0]]
        source = Source(batch, *([WHOLE[1]] for _ in range(20_000)))
        listen(network, source)
        peer = network.connect(ADDRESS)
        peer.write(greeting())
        network.run()
        left = len(source.batches)
        assert left > 10_000
        assert len(peer.incoming) <= CAPACITY
        network.run()
        assert len(source.batches) == left

    def test_a_peer_that_leaves_frees_its_session(self, network):
        source = Source()
        listener = listen(network, source)
        peer = network.connect(ADDRESS)
        peer.write(greeting())
        network.run()
        peer.close()
        network.run()
        assert source.closed == 1
        assert listener.drivers == set()

    def test_port_0_is_any_free_port(self, network):
        addresses = {listen(network, Source(), TCPAddress("", 0)).address for _ in range(3)}
        assert len(addresses) == 3
        assert TCPAddress("", 0) not in addresses

    def test_it_runs_on_a_memory_network_alone(self):
        with pytest.raises(ConfigurationError, match="runs on a MemoryNetwork, not on str"):
            Listener(ReplicationService(Source(), ADDRESS, "reactor"))
        service = ReplicationService(Source(), ADDRESS)
        assert Listener(service)._network is default_network

    def test_what_is_on_its_way_is_not_late(self, network, caplog):
        listen(network, Source(WHOLE))
        late, quiet = network.connect(ADDRESS), network.connect(ADDRESS)
        late.write(greeting())
        network.advance(1000)
        assert (late.at_eof, quiet.at_eof) == (False, True)
        network.run()
        assert late.read() == stream(WHOLE)
        assert caplog.text.count("it sent no valid greeting") == 1


class TestConnector:
    def test_it_tries_until_somebody_listens(self, network, caplog):
        connect(network, Sink())
        network.advance(10)
        network.advance(5)
        listener = network.listen(ADDRESS)
        assert listener.accept() is None
        network.advance(5)
        assert listener.accept().read() == greeting()
        assert caplog.text.count("cannot connect") == 1

    @pytest.mark.parametrize("how", ["cut", "close"])
    def test_it_comes_again_when_the_connection_is_lost(self, how, network):
        listener = network.listen(ADDRESS)
        connect(network, Sink())
        for _ in range(3):
            peer = listener.accept()
            assert peer.read() == greeting()
            getattr(peer, how)()
            assert listener.accept() is None
            network.advance(10)

    def test_it_says_that_it_is_there(self, network):
        listener = network.listen(ADDRESS)
        connect(network, Sink(), keep_alive_delay=3)
        peer = listener.accept()
        for _ in range(3):
            network.advance(3)
            network.run()
        assert peer.read() == greeting() + b"\0" * 12
        peer.cut()
        network.advance(9)
        assert network.now == 18


class TestPeer:
    def test_nobody_has_connected(self):
        with pytest.raises(ConnectionRefusedError, match="nobody has connected"):
            Peer(None)

    def test_nothing_has_come(self, network):
        network.listen(ADDRESS)
        peer = Peer(network.connect(ADDRESS))
        assert not peer.have_data()
        with pytest.raises(EOFError, match="no message has come"):
            peer.read()

    def test_messages_are_read_whole_pickled_or_raw(self, network):
        listener = network.listen(ADDRESS)
        peer, other = Peer(network.connect(ADDRESS)), Peer(listener.accept())
        peer.send(("C", (b"digest",)))
        peer.send(b"raw")
        peer.send(b"")
        assert other.read() == ("C", (b"digest",))
        assert other.read(raw=True) == b"raw"
        assert other.have_data()
        assert other.read(raw=True) == b""
        assert not other.have_data()
        other.close()
        assert peer.closed


def small_changes(commits):
    db = commits._db
    with db.transaction() as connection:
        connection.root()["blob"] = Blob(b"0123456789")
        connection.root()["empty"] = Blob(b"")
    with db.transaction() as connection:
        del connection.root()["blob"]
    db.undo(db.undoLog(0, 1)[0]["id"])
    transaction.commit()


def all_kinds(commits):
    commits.commit(40)


@pytest.mark.parametrize(
    ("chunk_size", "change", "least"),
    [
        pytest.param(1, small_changes, 800, marks=pytest.mark.long),
        (8, small_changes, 100),
        (4096, all_kinds, 40),
    ],
)
def test_a_cut_anywhere_is_survived(chunk_size, change, least, tmp_path, caplog):
    caplog.set_level(logging.CRITICAL)
    network = MemoryNetwork(chunk_size=chunk_size)
    primary = Primary(open_file_storage(tmp_path / "primary"), ADDRESS, network, transport="memory")
    secondary = Secondary(
        open_file_storage(tmp_path / "secondary"),
        ADDRESS,
        network,
        transport="memory",
        reconnect_delay=1,
    )
    with traffic(primary) as commits:
        change(commits)
        expected = contents(primary)
        steps = cuts = 0
        held = []
        while len(held) < len(expected):
            # One step further each time nothing whole has come, so that the cut moves through
            # every place of every transaction.
            for _ in range(steps):
                network.step()
            network.cut()
            cuts += 1
            assert temporary_files(tmp_path / "secondary" / "blobs") == []
            before, held = held, contents(secondary)
            steps = 1 if len(held) > len(before) else steps + 1
            assert held == expected[: len(held)]
            network.advance(1)
        assert cuts > least
        secondary.close()

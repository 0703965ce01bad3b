"""Hostile streams at both ends of each transport, as docs/how-to/fuzz.rst sends them."""

import contextlib
import itertools
import socket

import pytest
from hypothesis import given, settings
from ZODB import DB
from ZODB.FileStorage import FileStorage

from zrs_core import Primary, Secondary
from zrs_core.messages import NO_TID, Transaction
from zrs_core.testing import seeds, strategies
from zrs_core.testing.outcomes import committed, in_pieces, listening, outcome

from ..conditions import DEADLINE, wait_for

TRANSPORTS = ["socket-thread", "twisted-tcp"]

each_transport = pytest.mark.parametrize("transport", TRANSPORTS)


def send(peer, stream):
    """Send a stream, and wait until the other end has closed the connection."""
    peer.settimeout(DEADLINE)
    try:
        for piece in in_pieces(stream, seed=len(stream)):
            peer.sendall(piece)
        peer.shutdown(socket.SHUT_WR)
        while peer.recv(65536):
            pass
    except TimeoutError:
        raise
    except OSError:
        pass


@contextlib.contextmanager
def attacked(transport, path):
    """A function that sends a greeting to a primary, which must serve a replica afterwards."""
    primary = Primary(path / "Data.fs", "127.0.0.1:0", transport=transport)
    with contextlib.closing(DB(primary)):
        address = primary.replication_address

        def attack(greeting):
            with socket.create_connection(address) as peer:
                send(peer, greeting)

        yield attack
        copy = Secondary(path / "Copy.fs", address, transport=transport)
        with contextlib.closing(copy):
            wait_for(lambda: copy.lastTransaction() == primary.lastTransaction(), "the replica")


class Attack:
    """Sends a stream to a new secondary, which must store its whole transactions and no more."""

    def __init__(self, transport, path):
        self.transport, self.path, self.numbers = transport, path, itertools.count()

    def __call__(self, stream):
        storage = FileStorage(str(self.path / f"{next(self.numbers)}.fs"))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = listener.getsockname()
            secondary = Secondary(storage, address, transport=self.transport)
            peer, _ = listener.accept()
        with contextlib.closing(secondary), peer:
            send(peer, stream)
        messages = committed(outcome(listening("zrs2.0"), [stream]).messages)
        tids = [each.tid for each in messages if isinstance(each, Transaction)]
        assert storage.lastTransaction() == max(tids, default=NO_TID)


@each_transport
def test_a_listener_survives_hostile_greetings(transport, tmp_path):
    with attacked(transport, tmp_path) as attack:
        for greeting in seeds.from_secondary():
            attack(greeting)


@each_transport
def test_a_connector_survives_hostile_streams(transport, tmp_path):
    attack = Attack(transport, tmp_path)
    for stream in seeds.from_primary():
        # The others are refused at their first message.
        if outcome(listening("zrs2.0"), [stream]).messages:
            attack(stream)


@pytest.mark.long
@each_transport
def test_a_listener_survives_mutated_greetings(transport, tmp_path):
    valid = strategies.from_secondary()
    with attacked(transport, tmp_path) as attack:
        settings(max_examples=200)(given(greeting=valid | strategies.mutated(valid))(attack))()


@pytest.mark.long
@each_transport
def test_a_connector_survives_mutated_streams(transport, tmp_path):
    valid = strategies.from_primary(blobs=False)
    attack = Attack(transport, tmp_path)

    @settings(max_examples=200)
    @given(valid | strategies.mutated(valid))
    def check(stream):
        attack(stream)

    check()
    for stream in seeds.from_primary():
        attack(stream)

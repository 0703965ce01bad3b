"""A message that does not become complete, and what is waited for longer."""

from __future__ import annotations

import itertools

import pytest

from tests.sessions.helpers import connect, make_client
from zrs_core.messages import NO_TID, Commit, Store, Transaction
from zrs_core.progress import State
from zrs_core.sessions.patience import Patience
from zrs_core.testing import stream
from zrs_core.testing.conformance import Copy

TID = bytes(7) + b"\1"
DATA = stream([Transaction(TID), Store(bytes(8), TID, b"x" * 1000), Commit()])
LENGTH = DATA.index(b"\0\0\3\xe8x")
DAMAGED = DATA[:LENGTH] + b"\0\1" + DATA[LENGTH + 2 :]


def test_one_that_comes_again_is_waited_for():
    patience = Patience(10)
    assert not patience.is_over(9.9, "one")
    assert patience.is_over(10, "one")
    assert not patience.is_over(25, "one")
    # Others that take as long are not suspected any more.
    assert not patience.is_over(49, "other")
    assert patience.is_over(50, "other")


@pytest.fixture
def replication():
    return make_client(Copy(), peer_timeout=60)


@pytest.mark.parametrize("more", [b"", b"y" * 100], ids=["silent", "commits follow"])
def test_a_damaged_length_ends_its_connection(replication, more):
    session = connect(replication)
    session.receive(DAMAGED)
    for _ in range(6):
        assert not session.end
        session.advance(10)
        session.receive(more)
    assert session.end
    assert replication.progress.state is State.FAILING
    assert "a message of 66536 bytes after 0x0000000000000000" in replication.progress.failure
    session = connect(replication)
    session.receive(DATA)
    assert replication.progress.state is State.REPLICATING
    assert replication.progress.tid == TID


def test_a_record_that_is_slow_is_waited_for_when_it_comes_again(replication):
    session = connect(replication)
    session.receive(DATA[:-100])
    session.advance(60)
    assert session.end
    session = connect(replication)
    for place in range(0, len(DATA), 100):
        session.advance(60)
        session.receive(DATA[place : place + 100])
        assert not session.end
    assert replication.progress.tid == TID


def test_a_long_transaction_that_goes_on_is_waited_for(replication):
    session = connect(replication)
    records = [Store(bytes([0] * 7 + [n]), TID, b"x") for n in range(20)]
    messages = [Transaction(TID), *records, Commit()]
    data = [stream(messages[:n]) for n in range(len(messages) + 1)]
    for before, after in itertools.pairwise(data):
        session.advance(50)
        session.receive(after[len(before) :])
        assert not session.end
    assert replication.progress.tid == TID


def test_one_that_is_idle_between_transactions_is_left_alone(replication):
    session = connect(replication)
    session.receive(DATA)
    session.advance(10_000)
    assert not session.end
    assert replication.progress.tid != NO_TID

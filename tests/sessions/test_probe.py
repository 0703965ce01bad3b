"""The sessions of a search: each asks one question, and applies nothing."""

from __future__ import annotations

import pytest
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.sessions.helpers import connect, make_client
from zrs_core.errors import OtherHistory
from zrs_core.interfaces import ISearchableSink, ISession
from zrs_core.messages import NO_TID, Commit, Store, Transaction
from zrs_core.progress import Divergence, State
from zrs_core.sessions import PROBE_DEADLINES, SecondaryTimes
from zrs_core.sessions.probe import ProbeSession
from zrs_core.testing import stream
from zrs_core.testing.conformance import Copy


def tid(number):
    return number.to_bytes(8, "big")


def whole(number, size=1):
    return [Transaction(tid(number)), Store(bytes(8), tid(number), b"x" * size), Commit()]


@implementer(ISearchableSink)
class Holding(Copy):
    """A sink that holds transactions 1 to 4."""

    def __init__(self):
        super().__init__()
        for number in (1, 2, 3, 4):
            self.finished += whole(number)

    def last_transaction(self, limit):
        raise AssertionError

    def history(self, before, count):
        older = [n for n in (4, 3, 2, 1) if before is None or tid(n) < before]
        return [(tid(n), False) for n in older[:count]]


@pytest.fixture
def searching():
    """A client that has begun to search: its last transaction differs."""
    it = make_client(Holding(), peer_timeout=60)
    assert it.search(OtherHistory(tid(3), tid(4), tid(4), "with another record"))
    return it


def asked(it):
    session = connect(it)
    assert isinstance(session.session, ProbeSession)
    assert session.take()
    return session


def test_the_interface_is_provided(searching):
    assert verifyObject(ISession, asked(searching).session)


def test_each_deadline_of_the_table_has_a_handler(searching):
    assert set(asked(searching).session._timers._handlers) == set(PROBE_DEADLINES)


def test_what_is_expected_answers_with_its_first_message(searching):
    session = asked(searching)
    assert session.session._search.start == tid(2)
    session.receive(stream(whole(3)[:1], tid(2)))
    assert session.end
    session.lose("closed here")
    assert not searching.progress.searching
    assert searching.progress.state is State.DIVERGED
    assert searching.progress.divergence == Divergence(tid(3), 1)
    assert "with another record" in searching.progress.failure
    assert searching.progress.transactions == 0


@pytest.mark.parametrize("bit", range(8))
def test_something_else_counts_when_its_checksum_was_right(searching, bit):
    data = stream(whole(9), tid(2))
    place = data.index(tid(9)) + 7
    session = asked(searching)
    session.receive(data[:-1])
    assert not session.end
    session.lose("lost")
    damaged = asked(searching)
    damaged.receive(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
    assert damaged.end
    damaged.lose("closed here")
    if data[place] ^ 1 << bit == 3:
        return
    assert searching._search.start == tid(2)
    session = asked(searching)
    session.receive(data)
    assert session.end
    session.lose("closed here")
    assert searching._search.start == NO_TID


def test_a_primary_that_has_nothing_to_send(searching):
    session = asked(searching)
    session.advance(SecondaryTimes().sending - 0.1)
    assert session.end is None
    session.advance(0.1)
    assert session.end
    assert searching._search.start == NO_TID


def test_one_that_refuses_the_start(searching):
    asked(searching).receive_eof()
    assert searching._search.start == NO_TID


def test_one_that_is_lost_without_a_word_is_taken_for_one_that_refuses(searching):
    asked(searching).lose("reset")
    assert searching._search.start == NO_TID


def test_one_that_stops_in_the_midst_of_a_message_is_asked_again(searching):
    for trusted in (False, True):
        session = asked(searching)
        session.receive(stream(whole(9, 1000), tid(2))[:-500])
        session.advance(100)
        assert (session.end is None) == trusted
        session.lose("closed here")
        assert searching._search.start == tid(2)


def test_what_is_held_cannot_be_read(searching, caplog):
    def fail(before, count):
        raise OSError("Input/output error")

    searching._search._history = fail
    session = asked(searching)
    session.receive_eof()
    session.lose("closed by the other end")
    assert searching.progress.state is State.FAILING
    assert "cannot read what is held: Input/output error" in searching.progress.failure
    assert not searching.progress.searching

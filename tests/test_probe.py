"""The sessions of a search: each asks one question, and applies nothing."""

from __future__ import annotations

import pytest
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.test_sessions import client, stream
from zrs_core.errors import OtherHistory
from zrs_core.interfaces import ISearchableSink, ISecondarySession
from zrs_core.messages import NO_TID, Commit, Store, Transaction
from zrs_core.progress import Divergence, State
from zrs_core.sessions.probe import SENDING_TIME, ProbeSession
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
    it = client(Holding(), peer_timeout=60)
    assert it.search(OtherHistory(tid(3), tid(4), tid(4), "with another record"))
    return it


def asked(it):
    session = it.session("peer")
    assert isinstance(session, ProbeSession)
    assert session.greeting()
    return session


def test_the_interface_is_provided(searching):
    session = searching.session("peer")
    assert verifyObject(ISecondarySession, session)
    session.close("closed here")


def test_what_is_expected_answers_with_its_first_message(searching):
    session = asked(searching)
    assert session._search.start == tid(2)
    session.receive_data(stream(whole(3)[:1], tid(2)))
    assert session.finished
    session.close("closed here")
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
    session.receive_data(data[:-1])
    assert not session.finished
    session.close("lost")
    damaged = asked(searching)
    damaged.receive_data(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
    assert damaged.finished
    damaged.close("closed here")
    if data[place] ^ 1 << bit == 3:
        return
    assert searching._search.start == tid(2)
    session = asked(searching)
    session.receive_data(data)
    assert session.finished
    session.close("closed here")
    assert searching._search.start == NO_TID


def test_a_primary_that_has_nothing_to_send(searching):
    session = asked(searching)
    ticks = 0
    while not session.finished:
        assert session.keep_alive() == b""
        ticks += 1
    assert ticks * searching.keep_alive_delay >= SENDING_TIME
    session.close("closed here")
    assert searching._search.start == NO_TID


def test_one_that_stops_in_the_midst_of_a_message_is_asked_again(searching):
    for trusted in (False, True):
        session = asked(searching)
        session.receive_data(stream(whole(9, 1000), tid(2))[:-500])
        for _ in range(100):
            session.keep_alive()
        assert session.finished != trusted
        session.close("closed here")
        assert searching._search.start == tid(2)


def test_what_is_held_cannot_be_read(searching, caplog):
    def fail(before, count):
        raise OSError("Input/output error")

    searching._search._history = fail
    session = asked(searching)
    session.receive_eof()
    session.close("closed by the other end")
    assert searching.progress.state is State.FAILING
    assert "cannot read what is held: Input/output error" in searching.progress.failure
    assert not searching.progress.searching

"""How far a secondary is behind, and what it cannot know."""

from __future__ import annotations

import itertools
import time

import pytest
from persistent.timestamp import TimeStamp

from tests.sessions.helpers import connect, make_client
from zrs_core.messages import NO_TID, Commit, Store, Transaction
from zrs_core.progress import State
from zrs_core.status.lag import QUIET, readiness
from zrs_core.testing import Sink, stream


def tid_at(moment):
    return TimeStamp(*time.gmtime(moment)[:5], moment % 60).raw()


def whole(moment):
    tid = tid_at(moment)
    return [Transaction(tid), Store(b"\0" * 8, tid, b"record"), Commit()]


class Kept(Sink):
    """One that keeps what is whole."""

    _last = NO_TID

    def last_tid(self):
        return self._last

    def apply(self, message):
        super().apply(message)
        if isinstance(message, Commit):
            self._last = Sink.last_tid(self)


@pytest.fixture
def clock(monkeypatch):
    """Both clocks, which stand still; `clock(seconds)` moves them on."""
    now = [1_700_000_000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def go_on(seconds=0.0):
        now[0] += seconds
        return now[0]

    return go_on


@pytest.fixture
def secondary(clock):
    """A client, and a session of it that has greeted."""
    replication = make_client(Kept())
    session = connect(replication, local_address="127.0.0.1:5")
    yield replication, session
    session.lose("gone")


def status(replication):
    return replication.status("memory")


def ready(replication, max_lag=60.0):
    progress = replication.progress
    return readiness(status(replication), progress.quiet, max_lag, progress.late)


def test_nothing_is_known_at_first(clock):
    begun = status(make_client(Kept()))
    assert (begun.state, begun.connected, begun.news) == (State.CONNECTING, False, "no news yet")
    for unknown in (
        begun.position,
        begun.primary_position,
        begun.lag_seconds,
        begun.lag_transactions,
        begun.last_heard,
        begun.silence_seconds,
        begun.last_error,
        begun.connected_since,
        begun.local_address,
    ):
        assert unknown is None


def test_the_lag_is_the_time_until_the_last_one_was_visible(secondary, clock):
    replication, session = secondary
    committed = clock(10)
    clock(1.5)
    session.receive(stream(whole(committed)))
    applied = status(replication)
    assert applied.lag_seconds == pytest.approx(1.5, abs=1e-5)
    assert applied.lag_transactions is None
    assert applied.position.tid == tid_at(committed)
    assert applied.position.time == pytest.approx(committed, abs=1e-5)
    assert (applied.last_heard, applied.silence_seconds) == (clock(), 0)
    # Nothing comes: what it was stays, and since when is told.
    clock(3600)
    later = status(replication)
    assert later.lag_seconds == applied.lag_seconds
    assert later.silence_seconds == 3600
    assert later.news == "no news since 2023-11-14 22:13:31 UTC"
    assert later.primary_position.as_of == applied.last_heard
    assert (applied.local_address, applied.connected_since) == ("127.0.0.1:5", 1_700_000_000)


def test_it_grows_while_one_is_under_way(secondary, clock):
    replication, session = secondary
    first, second = clock(1), clock(1)
    data = stream(whole(first) + whole(second))
    half = len(data) * 3 // 4
    session.receive(data[:half])
    under_way = status(replication)
    assert under_way.position.tid == tid_at(first)
    assert under_way.primary_position.tid == tid_at(second)
    assert under_way.lag_transactions == 1
    for _ in range(3):
        clock(10)
        assert status(replication).lag_seconds == pytest.approx(clock() - second, abs=1e-5)
    assert status(replication).news.startswith("1 transaction(s) on the way, heard of at 2023-")
    # Also without a connection: it is known to be there.
    session.lose("lost")
    lost = status(replication)
    assert (lost.connected, lost.lag_transactions) == (False, 1)
    assert lost.lag_seconds == pytest.approx(30, abs=1e-5)
    again = connect(replication)
    again.receive(stream(whole(second), start=tid_at(first)))
    applied = status(replication)
    assert (applied.lag_transactions, applied.position.tid) == (None, tid_at(second))
    again.lose("gone")


def test_the_first_of_several_that_wait_counts(secondary, clock):
    replication, session = secondary
    moments = [clock(1) for _ in range(3)]
    clock(5)
    data = stream([message for moment in moments for message in whole(moment)])
    session.session._readable = lambda: True
    session.receive(data)
    held = status(replication)
    assert held.lag_transactions == 3
    assert held.lag_seconds == pytest.approx(clock() - moments[0], abs=1e-5)
    assert held.position is None
    assert held.primary_position.tid == tid_at(moments[-1])


def test_without_a_connection_nothing_is_known(secondary, clock):
    replication, session = secondary
    session.receive(stream(whole(clock(1))))
    assert status(replication).lag_seconds is not None
    clock(5)
    session.lose("the wire was cut")
    lost = status(replication)
    assert (lost.lag_seconds, lost.lag_transactions) == (None, None)
    assert (lost.connected_since, lost.local_address) == (None, None)
    assert (lost.last_error.message, lost.last_error.time) == ("the wire was cut", clock())
    assert ready(replication) == (False, "connecting: the wire was cut")


def test_what_was_committed_before_the_connection_says_little(secondary, clock):
    """A week old, it may be the last there is: that it has come late is no lag of the line."""
    replication, session = secondary
    session.receive(stream(whole(clock() - 7 * 24 * 3600)))
    assert status(replication).lag_seconds == pytest.approx(7 * 24 * 3600)
    assert ready(replication) == (False, "604800.000 s behind its primary, where 60 s are allowed")
    clock(QUIET)
    assert status(replication).lag_seconds is None
    good, why = ready(replication)
    assert good
    assert why == "connected, and nothing has come for 2 s: no news since 2023-11-14 22:13:20 UTC"


def test_by_clocks_that_differ_too_much_nothing_is_known(secondary, clock):
    replication, session = secondary
    session.receive(stream(whole(clock() + 1000)))
    assert status(replication).lag_seconds is None
    session.receive(stream(whole(clock() + 2000))[:-30])
    assert (status(replication).lag_seconds, status(replication).lag_transactions) == (None, 1)


@pytest.mark.parametrize("ahead", [0.02, 0.999])
def test_a_clock_that_is_a_little_ahead_makes_no_difference(secondary, clock, ahead):
    """Commits come without a pause, and none of them is in the past."""
    replication, session = secondary
    moments = [clock() + ahead + number for number in range(5)]
    data = stream([message for moment in moments for message in whole(moment)])
    size = len(data) // 5
    for number in range(5):
        session.receive(data[number * size : (number + 1) * size])
        assert status(replication).lag_seconds == 0
        assert ready(replication, 1)[0]
        clock(1)


def commits(clock, session, *ages):
    """Commits that come one a second, with these ages by the clock here."""
    begin = clock()
    moments = [begin + number - age for number, age in enumerate(ages)]
    data = [stream([each for m in moments[:n] for each in whole(m)]) for n in range(len(ages) + 1)]
    for before, after in itertools.pairwise(data):
        session.receive(after[len(before) :])
        yield
        clock(1)


def test_by_a_clock_that_is_far_ahead_one_that_had_all_stays_ready(secondary, clock):
    replication, session = secondary
    clock(QUIET)
    found = []
    for _ in commits(clock, session, -100, -100, -99.5, -99, -100):
        assert status(replication).lag_seconds is None
        found.append(ready(replication, 0.7))
    assert [good for good, _ in found] == [True, True, True, False, True]
    assert found[2][1] == (
        "its primary's clock is ahead; commits take 0.500 s longer than when it had all, where "
        "0.7 s are allowed"
    )
    assert "commits take 1.000 s longer" in found[3][1]


def test_by_a_clock_that_is_far_ahead_one_that_never_had_all_is_not_ready(secondary, clock):
    replication, session = secondary
    for _ in commits(clock, session, -100, -101, -102, -103):
        assert not ready(replication)[0]


def test_ready_within_the_lag_that_is_allowed(secondary, clock):
    replication, session = secondary
    assert ready(replication) == (False, "it has no transaction yet")
    committed = clock(1)
    clock(30)
    session.receive(stream(whole(committed)))
    assert ready(replication, 60) == (True, "30.000 s behind its primary, where 60 s are allowed")
    assert ready(replication, 29) == (False, "30.000 s behind its primary, where 29 s are allowed")


def test_one_that_has_just_connected_may_be_behind(clock):
    sink = Kept()
    for message in whole(clock()):
        sink.apply(message)
    replication = make_client(sink)
    clock(1000)
    session = connect(replication)
    good, why = ready(replication)
    assert (good, why) == (False, "it has been connected for less than 2 s, and more may come")
    clock(QUIET)
    assert ready(replication) == (True, "connected, and nothing has come for 2 s: no news yet")
    session.lose("gone")


def test_an_error_is_told_with_its_time_until_the_next(secondary, clock):
    replication, session = secondary
    clock(1)
    session.receive(b"\0\0\0\1x")
    failed = clock()
    clock(1)
    session.lose("closed here")
    broken = status(replication)
    assert (broken.state, broken.failures) == (State.FAILING, 1)
    assert "pickle" in broken.last_error.message
    assert broken.last_error.time == failed
    good, why = ready(replication)
    assert not good
    assert why.startswith("failing: ")
    clock(1)
    replication.connection_failed("nobody there")
    assert status(replication).last_error.message == "nobody there"
    assert status(replication).last_error.time == clock()


def test_what_was_known_of_another_primary_is_forgotten(secondary, clock):
    replication, session = secondary
    session.receive(stream(whole(clock(1)))[:-30])
    assert status(replication).lag_transactions == 1
    session.lose("gone")
    replication.progress.follows_another()
    assert status(replication).lag_transactions is None


@pytest.mark.parametrize("size", [2, 30, 110])
def test_the_lag_grows_from_the_first_byte_on(secondary, clock, size):
    """Of a length, of a T, of a record, also when what follows is taken for the rest of it."""
    replication, session = secondary
    first, second = clock(1), clock() + 100
    data = stream(whole(first) + whole(second))
    begin = len(stream(whole(first)))
    session.receive(data[:begin])
    clock(100)
    session.receive(data[begin : begin + size])
    clock(QUIET)
    assert status(replication).lag_seconds == pytest.approx(QUIET, abs=1e-5)
    assert status(replication).lag_transactions == 1
    for _ in range(8):
        clock(1)
        session.receive(b"")
    assert status(replication).lag_seconds == pytest.approx(QUIET + 8, abs=1e-5)
    assert ready(replication, 5) == (False, "10.000 s behind its primary, where 5 s are allowed")
    session.lose("gone")
    assert replication.progress.partial is None


def test_between_transactions_the_lag_does_not_grow(secondary, clock):
    replication, session = secondary
    data = stream(whole(clock(1)))
    session.receive(data[:50])
    clock(1)
    session.receive(data[50:])
    assert replication.progress.partial is None
    clock(5)
    assert status(replication).lag_seconds == pytest.approx(1, abs=1e-5)


def test_an_empty_history(secondary, clock):
    replication, session = secondary
    session.receive(b"\0")
    heard = status(replication)
    assert heard.silence_seconds == 0
    assert heard.primary_position is None
    assert replication.progress.tid == NO_TID

"""Where the reception of a primary's history may end."""

from __future__ import annotations

import types

import pytest

from zrs_core.errors import ReplicationError, Unverifiable
from zrs_core.messages import MAX_TID, NO_TID, Commit, Transaction
from zrs_core.tools.snapshots import ending, receiving
from zrs_core.tools.snapshots.receiving import Received

from .scripted import tid_of


class Case:
    """An `Ending` with a clock, a receiver and answers given by hand."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        clock = types.SimpleNamespace(monotonic=lambda: self.now)
        monkeypatch.setattr(ending, "time", clock)
        self.receiver = types.SimpleNamespace(received=Received(), busy=0.0)
        self.ending = ending.Ending(self.receiver, lambda: None)
        self.asked = []
        self.answer = True
        monkeypatch.setattr(self.ending, "_comes_within", self._answer)
        monkeypatch.setattr(self.ending, "_is_last_packed", self._answer)

    def _answer(self, *question):
        self.asked.append(question)
        if self.answer is None:
            raise Unverifiable("cannot connect")
        return self.answer

    def receive(self, number, status=" ", *, seconds=0.0, busy=0.0):
        received = self.receiver.received.copy()
        received.add(Transaction(tid_of(number), status, b"", b"", b""))
        self.receiver.received = received
        self.now += seconds
        self.receiver.busy += busy


@pytest.fixture
def case(monkeypatch):
    return Case(monkeypatch)


def test_a_primary_that_was_waited_for_in_two_windows(case):
    assert not case.ending.has_kept_up()
    case.receive(1)
    assert not case.ending.has_kept_up()
    case.receive(2, seconds=1.9)
    assert not case.ending.has_kept_up()
    assert case.asked == []
    case.receive(3, seconds=0.2, busy=0.25)
    assert not case.ending.has_kept_up()
    ((start, last, seconds),) = case.asked
    assert (start, last) == (tid_of(1), tid_of(3))
    assert seconds == pytest.approx(2.1 / 2 - 0.25)
    case.receive(4, seconds=2.1)
    assert case.ending.has_kept_up()
    assert case.asked[1][:2] == (tid_of(3), tid_of(4))


def test_what_is_slow_again_was_not_waited_for(case):
    case.receive(1)
    case.ending.has_kept_up()
    for number, answer in enumerate((True, False, True, False)):
        case.answer = answer
        case.receive(2 + number, seconds=61)
        assert not case.ending.has_kept_up()
    assert len(case.asked) == 4


def test_storing_takes_the_time(case):
    case.receive(1)
    case.ending.has_kept_up()
    case.receive(2, seconds=3, busy=1.6)
    assert not case.ending.has_kept_up()
    assert case.asked == []


def test_where_nothing_comes_it_is_not_asked(case):
    case.receive(1)
    case.ending.has_kept_up()
    case.now += 10
    assert not case.ending.has_kept_up()
    assert case.asked == []


def test_a_pack_begins_the_windows_anew(case):
    case.receive(1)
    case.ending.has_kept_up()
    case.receive(2, seconds=3)
    assert not case.ending.has_kept_up()
    case.receive(3, "p")
    case.receive(4, seconds=3)
    assert not case.ending.has_kept_up()
    assert len(case.asked) == 1
    case.receive(5, seconds=3)
    assert not case.ending.has_kept_up()
    case.receive(6, seconds=3)
    assert case.ending.has_kept_up()


def test_questions_are_asked_less_and_less_often(case):
    case.answer = False
    case.receive(1)
    case.ending.has_kept_up()
    for number in range(3600):
        case.receive(2 + number, seconds=1)
        case.ending.has_kept_up()
    assert 3600 / 65 < len(case.asked) < 3600 / 55 + 10


def test_no_answer_at_all(case):
    case.answer = None
    case.receive(1)
    case.ending.has_kept_up()
    for number in range(4):
        case.receive(2 + number, seconds=100)
        assert not case.ending.has_kept_up()
    case.receive(6, seconds=100)
    with pytest.raises(ReplicationError, match="cannot connect; it is asked over another"):
        case.ending.has_kept_up()


def test_a_transaction_without_a_mark_is_a_state(case):
    case.receive(1, "p")
    case.receive(2)
    assert case.ending.is_state()
    assert case.asked == []


def test_a_transaction_with_a_mark_is_asked_for_once(case):
    case.answer = False
    case.receive(1, "p")
    assert not case.ending.is_state()
    assert not case.ending.is_state()
    assert case.asked == [(tid_of(1),)]
    case.now += 10
    case.answer = True
    assert case.ending.is_state()
    assert case.ending.is_state()
    assert len(case.asked) == 2
    case.receive(2, "p")
    assert case.ending.is_state()
    assert len(case.asked) == 3


def test_nothing_follows_the_highest_tid(monkeypatch):
    receiver = types.SimpleNamespace(received=Received(), busy=0.0)
    receiver.received.add(Transaction(MAX_TID, "p", b"", b"", b""))
    assert ending.Ending(receiver, lambda: None).is_state()


class Slow:
    """A sink that takes a second for each call, by the clock of `receiving`."""

    blobs = True

    def __init__(self, clock):
        self._clock = clock

    def last_tid(self):
        return NO_TID

    def last_transaction(self, limit):
        raise NotImplementedError

    def _take_time(self, *arguments):
        self._clock[0] += 1.0

    apply = flush = abort = _take_time


def test_the_time_that_storing_takes(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(receiving, "time", types.SimpleNamespace(monotonic=lambda: clock[0]))
    recorder = receiving._Recorder(Slow(clock))
    recorder.apply(Transaction(tid_of(1), " ", b"", b"", b""))
    clock[0] += 10
    recorder.apply(Commit())
    assert recorder.busy == 2.0
    assert recorder.visible.tid == NO_TID
    recorder.flush()
    assert recorder.busy == 3.0
    assert recorder.visible.tid == tid_of(1)


def test_what_is_given_up_is_not_received(monkeypatch):
    clock = [100.0]
    recorder = receiving._Recorder(Slow(clock))
    recorder.apply(Transaction(tid_of(1), "p", b"", b"", b""))
    recorder.apply(Commit())
    recorder.abort()
    assert recorder.visible.tid == NO_TID
    recorder.apply(Transaction(tid_of(2), " ", b"", b"", b""))
    recorder.apply(Commit())
    recorder.flush()
    assert (recorder.visible.tid, recorder.visible.status) == (tid_of(2), " ")
    assert recorder.visible.packed == NO_TID

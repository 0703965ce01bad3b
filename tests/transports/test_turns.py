from __future__ import annotations

import threading

import pytest
from twisted.internet.pollreactor import PollReactor

from zrs_core.transports.reactors import acquire
from zrs_core.transports.turns import Turns


@pytest.fixture
def loop():
    loop = acquire(None)
    yield loop
    loop.close()


class Outcomes:
    """What calls have become, in order."""

    def __init__(self):
        self.threads = set()
        self._all = []
        self._changed = threading.Condition()

    def add(self, outcome):
        with self._changed:
            self.threads.add(threading.current_thread().name)
            self._all.append(outcome)
            self._changed.notify_all()

    def first(self, count):
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._all) >= count, 60)
            return self._all[:count]


def test_calls_come_one_after_the_other_in_threads_of_the_pool(loop):
    turns, outcomes = Turns(loop), Outcomes()
    running, overlaps, threads = threading.Lock(), [], set()

    def call(number):
        overlaps.append(running.locked())
        with running:
            threads.add(threading.current_thread().name)
            return number

    for number in range(100):
        turns.call(lambda number=number: call(number), outcomes.add, outcomes.add)
    assert outcomes.first(100) == [*range(100)]
    assert not any(overlaps)
    assert all(name.startswith("PoolThread") for name in threads)
    assert outcomes.threads == {"zrs_core reactor"}


def test_threads_may_begin_calls_at_the_same_time(loop):
    turns, outcomes = Turns(loop), Outcomes()
    counted = []

    def begin():
        for _ in range(200):
            turns.call(lambda: counted.append(len(counted)), outcomes.add, outcomes.add)

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    outcomes.first(800)
    assert counted == [*range(800)]


def test_what_a_call_raises_is_told_and_the_next_has_its_turn(loop):
    turns, outcomes = Turns(loop), Outcomes()
    turns.call(lambda: 1 // 0, outcomes.add, lambda failure: outcomes.add(failure.type))
    turns.call(lambda: 1, outcomes.add, outcomes.add)
    assert outcomes.first(2) == [ZeroDivisionError, 1]


def test_a_call_may_be_waited_for_as_a_deferred(loop):
    turns = Turns(loop)
    assert loop.call(turns.deferred, max, 1, 2) == 2
    with pytest.raises(ZeroDivisionError):
        loop.call(turns.deferred, lambda: 1 // 0)


def test_where_the_system_gives_no_threads_a_call_is_made_by_the_reactor(loop):
    """Not by who asks: a commit does not wait for the disk of a source."""
    turns, outcomes = Turns(loop), Outcomes()

    def no_thread(*args, **kwargs):
        raise RuntimeError("can't start new thread")

    loop.reactor.getThreadPool().threadFactory = no_thread
    for _ in range(2):
        turns.call(lambda: threading.current_thread().name, outcomes.add, outcomes.add)
    assert outcomes.first(2) == ["zrs_core reactor"] * 2
    assert outcomes.threads == {"zrs_core reactor"}


def test_where_the_reactor_has_ended_a_call_is_made_at_once():
    loop = acquire(None)
    turns, outcomes = Turns(loop), Outcomes()
    turns.call(lambda: 1, outcomes.add, outcomes.add)
    outcomes.first(1)
    loop.close()
    # Its pipe is closed; waking it would raise.
    turns.call(threading.current_thread, outcomes.add, outcomes.add)
    assert outcomes.first(2) == [1, threading.current_thread()]


def test_a_call_that_comes_as_the_reactor_ends_has_its_turn_when_the_one_before_has_returned():
    reactor = PollReactor()
    turns, order, told = Turns(acquire(reactor)), [], []
    begun, gate = threading.Event(), threading.Event()

    def first():
        begun.set()
        assert gate.wait(60)
        order.append(1)

    def ended():
        # As when connections are lost by that: its threads are still there.
        order.append(reactor.running)
        turns.call(lambda: order.append(2), told.append, told.append)
        gate.set()

    reactor.addSystemEventTrigger("during", "shutdown", ended)
    reactor.callWhenRunning(turns.call, first, told.append, told.append)
    thread = threading.Thread(target=reactor.run, args=(False,))
    thread.start()
    assert begun.wait(60)
    reactor.callFromThread(reactor.stop)
    thread.join(60)
    reactor.waker.connectionLost(None)
    assert order == [False, 1, 2]
    # Nobody is left to be told in.
    assert told == []

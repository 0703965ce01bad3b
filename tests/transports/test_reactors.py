from __future__ import annotations

import os
import queue
import threading
import time

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.pollreactor import PollReactor

from zrs_core.transports.reactors import acquire

from ..conditions import wait_for


class SettableReactor(PollReactor):
    """A reactor that goes by a clock which can be set, as the system's."""

    offset = 0.0

    def seconds(self):
        return time.time() + self.offset


@pytest.fixture
def reactor():
    """A reactor that runs in a thread, as an application's would."""
    reactor = SettableReactor()
    running = threading.Event()
    reactor.callWhenRunning(running.set)
    thread = threading.Thread(target=reactor.run, args=(False,))
    thread.start()
    running.wait()
    yield reactor
    reactor.callFromThread(reactor.stop)
    thread.join()
    reactor.waker.connectionLost(None)


@pytest.fixture(params=[False, True], ids=["background", "given"])
def loop(request):
    loop = acquire(request.getfixturevalue("reactor") if request.param else None)
    yield loop
    loop.close()


def raising():
    raise ValueError("no")


def test_the_background_reactor_is_shared_and_ends_with_its_last_user():
    threads = threading.active_count()
    files = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        first, second = acquire(None), acquire(None)
        assert first.reactor is second.reactor
        assert first.call(threading.current_thread).name == "zrs_core reactor"
        first.close()
        assert second.call(lambda: succeed(7)) == 7
        second.close()
        assert threading.active_count() == threads
        assert len(os.listdir("/proc/self/fd")) == files


def test_a_thread_that_cannot_be_started_leaves_nothing_to_those_who_come_later(monkeypatch):
    files = len(os.listdir("/proc/self/fd"))

    def start(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            acquire(None)
    assert len(os.listdir("/proc/self/fd")) == files
    loop = acquire(None)
    assert loop.call(lambda: succeed(7)) == 7
    loop.close()


def test_while_its_end_waits_for_a_thread_another_one_serves():
    ending = acquire(None)
    started, gate = threading.Event(), threading.Event()

    def wait():
        started.set()
        assert gate.wait(60)

    ending.start(wait)
    assert started.wait(60)
    reactor, closing = ending.reactor, threading.Thread(target=ending.close)
    closing.start()
    wait_for(lambda: reactor._stopped, "the end to begin")
    loop = acquire(None)
    try:
        assert loop.reactor is not reactor
        assert loop.call(lambda: succeed(7)) == 7
        loop.close()
    finally:
        gate.set()
        closing.join()


def test_it_ends_though_a_thread_of_its_pool_could_not_be_started(monkeypatch):
    loop = acquire(None)

    def start(thread):
        raise RuntimeError("can't start new thread")

    told = []
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        # The reactor does it itself then.
        loop.start(lambda: told.append(threading.current_thread().name))
        wait_for(lambda: told, "the call")
    loop.close()
    assert told == ["zrs_core reactor"]


def test_its_threads_end_with_it():
    loop = acquire(None)
    threads = set(threading.enumerate())
    done = threading.Event()
    loop.start(done.wait)
    worker = set(threading.enumerate()) - threads
    assert all(each.daemon for each in worker)
    done.set()
    loop.close()
    for each in worker:
        each.join()


def test_in_its_own_thread_it_does_not_wait_for_itself():
    loop = acquire(None)
    never = Deferred()
    assert loop.call(lambda: loop.call(lambda: never)) is None
    assert loop.call(lambda: loop.call(lambda: succeed(1))) == 1
    extra = acquire(None)
    loop.call(loop.close)
    extra.close()


def test_its_last_user_may_leave_in_its_own_thread():
    loop = acquire(None)
    reactor = loop.reactor
    loop.call(loop.close)
    again = acquire(None)
    assert again.reactor is reactor
    again.close()


def test_errors_come_out_where_the_call_was_made(reactor):
    loop = acquire(reactor)
    with pytest.raises(ValueError, match="no"):
        loop.call(raising)
    with pytest.raises(ValueError, match="no"):
        loop.call(lambda: loop.call(lambda: fail(ValueError("no"))))
    loop.close()


def test_a_given_reactor_is_used_and_left_running(reactor):
    loop = acquire(reactor)
    assert loop.reactor is reactor
    assert loop.call(lambda: succeed(1)) == 1
    loop.close()
    assert reactor.running


def test_a_given_reactor_need_not_run_yet():
    reactor = PollReactor()
    loop = acquire(reactor)
    assert loop.call(lambda: succeed(1)) == 1
    assert loop.call(Deferred) is None
    loop.close()
    reactor.waker.connectionLost(None)


def test_work_is_done_in_a_thread_and_reported_in_the_reactors(loop):
    threads, reported = [], threading.Event()

    def report(*arguments):
        threads.append((threading.current_thread(), arguments))
        reported.set()

    def work():
        threads.append(threading.current_thread())
        loop.soon(report, 1, 2)

    loop.start(work)
    assert reported.wait(60)
    worker, (reactor_thread, arguments) = threads
    assert arguments == (1, 2)
    assert loop.call(threading.current_thread) is reactor_thread
    assert len({worker, reactor_thread, threading.current_thread()}) == 3


def test_where_a_reactor_does_not_run_work_is_done_at_once():
    reactor, threads = PollReactor(), []
    loop = acquire(reactor)
    loop.start(lambda: threads.append(threading.current_thread()))
    loop.soon(lambda: threads.append(threading.current_thread()))
    assert threads == [threading.current_thread()] * 2
    loop.close()
    reactor.waker.connectionLost(None)


class Calls:
    """Delayed calls of a given reactor, and the seconds after which they are made."""

    def __init__(self, reactor):
        self.reactor = reactor
        self.loop = acquire(reactor)
        self._begun = time.monotonic()
        self._made = queue.Queue()

    def add(self, seconds, name=""):
        call = lambda: self._made.put((name, time.monotonic() - self._begun))  # noqa: E731
        return self.loop.call(self.loop.callLater, seconds, call)

    def set_clock(self, offset):
        self.reactor.callFromThread(setattr, self.reactor, "offset", offset)

    def next(self):
        return self._made.get(timeout=60)

    def pending(self):
        return self.loop.call(self.reactor.getDelayedCalls)


@pytest.fixture
def calls(reactor):
    calls = Calls(reactor)
    yield calls
    calls.loop.close()


def test_a_call_is_made_though_the_system_s_clock_was_set_back(calls):
    calls.add(0.1)
    calls.set_clock(-3600)
    assert calls.next() >= ("", 0.1)
    # Nothing is left to the reactor, which is an application's.
    assert calls.pending() == []


def test_a_call_is_not_made_early_when_the_system_s_clock_was_set_forward(calls):
    calls.add(0.3)
    calls.set_clock(3600)
    assert calls.next() >= ("", 0.3)


def test_calls_that_are_late_come_in_their_order(calls):
    for each in (0.03, 0.01, 0.02, 0.04):
        calls.add(each, str(each))
    calls.set_clock(-3600)
    assert [calls.next()[0] for _ in range(4)] == ["0.01", "0.02", "0.03", "0.04"]


def test_a_call_that_is_taken_back_is_not_made(calls):
    first = calls.add(0.01, "first")
    assert first.active()
    calls.loop.call(first.cancel)
    assert not first.active()
    second = calls.add(0.02, "second")
    calls.set_clock(-3600)
    assert calls.next()[0] == "second"
    assert not second.active()
    assert calls.pending() == []


def test_a_call_that_is_late_may_take_back_the_next(calls):
    loop, made = calls.loop, []

    def first():
        made.append("first")
        second.cancel()

    def add():
        return loop.callLater(0.01, first), loop.callLater(0.02, made.append, "second")

    _, second = loop.call(add)
    calls.add(0.03)
    calls.set_clock(-3600)
    calls.next()
    assert made == ["first"]

from __future__ import annotations

import os
import threading

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.pollreactor import PollReactor

from zrs_core.transports.reactors import acquire

from ..conditions import wait_for


@pytest.fixture
def reactor():
    """A reactor that runs in a thread, as an application's would."""
    reactor = PollReactor()
    running = threading.Event()
    reactor.callWhenRunning(running.set)
    thread = threading.Thread(target=reactor.run, args=(False,))
    thread.start()
    running.wait()
    yield reactor
    reactor.callFromThread(reactor.stop)
    thread.join()
    reactor.waker.connectionLost(None)


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

    def wait(tell):
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
        loop.start(lambda tell: told.append(threading.current_thread().name))
        wait_for(lambda: told, "the call")
    loop.close()
    assert told == ["zrs_core reactor"]


def test_its_threads_end_with_it():
    loop = acquire(None)
    threads = set(threading.enumerate())
    done = threading.Event()
    loop.start(lambda tell: done.wait())
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
    reactor.waker.connectionLost(None)


def test_a_thread_is_started_from_any_other(reactor):
    loop = acquire(reactor)
    threads, arguments, told = [], [], threading.Event()

    def hear(*what):
        threads.append(threading.current_thread())
        arguments.extend(what)
        told.set()

    def function(tell):
        threads.append(threading.current_thread())
        tell(hear, 1, 2)

    loop.start(function)
    assert told.wait(60)
    assert arguments == [1, 2]
    assert len({*threads, threading.current_thread()}) == 3


def test_where_a_reactor_does_not_run_nothing_is_started_beside():
    reactor = PollReactor()
    threads = []
    acquire(reactor).start(lambda tell: tell(threads.append, threading.current_thread()))
    assert threads == [threading.current_thread()]
    reactor.waker.connectionLost(None)

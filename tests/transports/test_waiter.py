from __future__ import annotations

import contextlib
import socket
import threading

import pytest

from zrs_core.transports.waiter import READ, WOKEN, WRITE, Waiter

TIMEOUT = 60


@pytest.fixture
def waiter():
    with contextlib.closing(Waiter()) as waiter:
        waiter.open()
        yield waiter


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_events_of_a_socket_are_returned(waiter, ends):
    ours, theirs = ends
    assert waiter.wait(ours, READ | WRITE, TIMEOUT) == WRITE
    theirs.send(b"x")
    assert waiter.wait(ours, READ, TIMEOUT) == READ


def test_it_waits_no_longer_than_it_should(waiter, ends):
    assert waiter.wait(ends[0], READ, 0.001) == 0
    assert waiter.wait(None, 0, 0) == 0


def test_a_wake_is_kept_until_it_is_waited_for(waiter, ends):
    waiter.wake()
    waiter.wake()
    assert waiter.wait(ends[0], READ, TIMEOUT) == WOKEN
    assert waiter.wait(ends[0], READ, 0) == 0


def test_a_wake_comes_with_an_event(waiter, ends):
    waiter.wake()
    assert waiter.wait(ends[0], WRITE, TIMEOUT) == WOKEN | WRITE


@pytest.mark.parametrize("seconds", [None, 30 * 24 * 3600.0])
def test_another_thread_wakes_it_however_long_it_would_wait(seconds, waiter):
    """The system refuses to wait for more than 24 days."""
    came = []
    thread = threading.Thread(target=lambda: came.append(waiter.wait(None, 0, seconds)))
    thread.start()
    waiter.wake()
    thread.join(TIMEOUT)
    assert came == [WOKEN]


def test_a_peer_that_has_left_is_reported_to_those_who_asked_for_something(waiter, ends):
    ours, theirs = ends
    theirs.close()
    assert waiter.wait(ours, READ, TIMEOUT) == READ
    assert waiter.wait(ours, 0, 0) == 0


def test_a_wake_may_come_before_it_is_opened():
    with contextlib.closing(Waiter()) as waiter:
        waiter.wake()
        waiter.open()
        assert waiter.wait(None, 0, TIMEOUT) == WOKEN


def test_a_wake_that_comes_after_the_end_does_nothing():
    waiter = Waiter()
    waiter.open()
    waiter.close()
    waiter.wake()

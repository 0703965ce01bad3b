"""The check that the conformance suite makes in every test finds each mistake."""

from __future__ import annotations

import threading

import pytest

from zrs_core.actions import Send, Work
from zrs_core.testing.conformance.driver import Script
from zrs_core.testing.conformance.watch import Watch


@pytest.fixture
def clock():
    return [100.0]


@pytest.fixture
def watch(clock):
    return Watch(lambda: clock[0])


@pytest.fixture
def script():
    return Script(lambda: None)


@pytest.fixture
def session(watch, script):
    return watch.over(script)


def carry_out(session):
    action = session.next_action()
    if isinstance(action, Work):
        session.done(action.call(), 100)
    return action


def test_what_a_driver_may_do(watch, script, session):
    session.receive_data(b"x", 90)
    session.wake(91)
    script.send([b"ab", b"c"])
    carry_out(session)
    session.sent(2, 92)
    session.sent(1, 92)
    script.actions.append(Work(lambda: 1))
    carry_out(session)
    session.receive_eof(100)
    session.lost("closed here", 100)
    watch.finish()


def test_a_session_that_is_not_over(watch, session):
    with pytest.raises(AssertionError, match="a session is not over"):
        watch.finish()


@pytest.mark.parametrize(
    ("calls", "mistake"),
    [
        ([("receive_eof", 100), ("receive_data", b"x", 100)], "data came after the end"),
        ([("receive_eof", 100), ("receive_eof", 100)], "the end came twice"),
        ([("lost", "x", 100), ("receive_data", b"x", 100)], "after the connection was lost"),
        ([("lost", "x", 100), ("lost", "x", 100)], "lost twice"),
        ([("lost", "x", 100), ("wake", 100)], "wake was called when the session was over"),
        ([("sent", 1, 100)], "more was accepted than was sent"),
        ([("done", 1, 100)], "the outcome of no work was reported"),
        ([("failed", OSError(), 100)], "the outcome of no work was reported"),
        ([("wake", 99), ("wake", 98)], "lies before that of another call"),
        ([("wake", 101)], "no monotonic clock"),
        ([("handle_timeout", 10)], "no monotonic clock"),
    ],
)
def test_a_wrong_call(calls, mistake, watch, session):
    for name, *arguments in calls:
        getattr(session, name)(*arguments)
    assert mistake in "\n".join(watch.mistakes)


def test_a_call_within_another(watch, script, session):
    script.on_wake = lambda: session.receive_data(b"x", 100)
    session.wake(100)
    assert watch.mistakes == ["receive_data was called during another call"]


def test_work_beside_other_work(watch, script, session):
    script.actions += [Work(lambda: second.call()), Work(lambda: None)]
    first, second = session.next_action(), session.next_action()
    thread = threading.Thread(target=first.call)
    thread.start()
    thread.join()
    assert "work was done while other work was under way" in watch.mistakes


def test_work_before_the_outcome_of_other_work(watch, script, session):
    script.actions += [Work(lambda: None), Work(lambda: None)]
    session.next_action().call()
    session.next_action().call()
    assert watch.mistakes == ["work was done before the outcome of other work"]


def test_other_actions_are_passed_on(script, session):
    script.send([b"x"])
    assert session.next_action() == Send([b"x"])

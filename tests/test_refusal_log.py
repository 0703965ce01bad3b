"""The log of refused peers, with a clock that the tests set."""

from __future__ import annotations

import logging
import threading

import pytest

from zrs_core.refusals import PERIOD, REASONS, TOLD, RefusalLog


class Time:
    """A clock, and what is to be called when it has gone on."""

    def __init__(self):
        self.now = 1000.0
        self.due = []

    def call_later(self, seconds, function):
        alarm = Alarm(self.now + seconds, function)
        self.due.append(alarm)
        return alarm

    def advance(self, seconds):
        self.now += seconds
        for alarm in self.due:
            if alarm.time <= self.now and not alarm.done:
                alarm.done = True
                alarm.function()


class Alarm:
    def __init__(self, time, function):
        self.time, self.function, self.done = time, function, False

    def cancel(self):
        self.done = True


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def refusals(time, caplog):
    caplog.set_level(logging.DEBUG, "refusals")
    return RefusalLog(logging.getLogger("refusals"), lambda: time.now, time.call_later)


def news(refusals, count, reason="a mistake"):
    return sum(refusals.is_news(f"peer-{number}", reason) for number in range(1, count + 1))


def test_a_few_are_told_and_the_others_summed_up_after_a_minute(refusals, time, caplog):
    assert news(refusals, 10_000) == TOLD
    assert refusals.quiet
    time.advance(PERIOD - 1)
    assert caplog.messages == []
    time.advance(1)
    more = f"{10_000 - TOLD:,}"
    assert caplog.messages == [
        f"refused (a mistake): and {more} more in the last minute, the last of them peer-10000"
    ]
    assert not refusals.quiet
    time.advance(10 * PERIOD)
    assert len(caplog.messages) == 1


def test_each_minute_is_a_new_one(refusals, time, caplog):
    for number in range(3):
        assert news(refusals, TOLD + 5) == TOLD
        time.advance(PERIOD)
        assert len(caplog.messages) == number + 1
    assert caplog.messages[-1].startswith("refused (a mistake): and 5 more in the last minute")


def test_a_few_a_minute_are_all_told(refusals, time, caplog):
    for _ in range(5):
        assert news(refusals, TOLD) == TOLD
        time.advance(PERIOD)
    assert caplog.messages == []
    assert time.due == []


def test_another_reason_is_news(refusals):
    news(refusals, 1000)
    assert refusals.is_news("secondary", "histories do not match")


def test_reasons_that_differ_in_details_are_one(refusals, time, caplog):
    told = sum(refusals.is_news("peer", f"byte {number}") for number in range(100))
    assert told == TOLD
    time.advance(PERIOD)
    assert caplog.messages == [
        "refused (byte 99): and 90 more in the last minute, the last of them peer"
    ]


def test_reasons_without_end_are_one(refusals, time, caplog):
    told = sum(refusals.is_news("peer", f"reason-{number}") for number in range(10_000))
    assert told == REASONS + TOLD
    time.advance(PERIOD)
    more = f"{10_000 - REASONS - TOLD:,}"
    assert caplog.messages == [
        f"refused (for other reasons): and {more} more in the last minute, the last of them peer"
    ]


def test_stopping_sums_up_at_once(refusals, time, caplog):
    news(refusals, TOLD + 7)
    refusals.summarize()
    assert "and 7 more in the last minute" in caplog.text
    refusals.summarize()
    time.advance(PERIOD)
    assert len(caplog.messages) == 1


def test_without_a_thread_to_spare_the_next_refusal_sums_up(time, caplog):
    def no_thread(seconds, function):
        raise RuntimeError("can't start new thread")

    refusals = RefusalLog(logging.getLogger("refusals"), lambda: time.now, no_thread)
    assert news(refusals, TOLD + 3) == TOLD
    time.advance(PERIOD)
    assert refusals.is_news("peer", "a mistake")
    assert "and 3 more in the last minute" in caplog.text


def test_by_itself_it_waits_in_a_thread_that_stopping_ends(caplog):
    refusals = RefusalLog(logging.getLogger("refusals"))
    news(refusals, TOLD + 1)
    [thread] = [each for each in threading.enumerate() if each.name == "zrs_core refusals"]
    assert thread.daemon
    refusals.summarize()
    thread.join(60)
    assert not thread.is_alive()
    assert "and 1 more in the last minute" in caplog.text

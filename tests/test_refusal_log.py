"""The log of refused peers, with a clock that the tests set."""

from __future__ import annotations

import logging

import pytest

from zrs_core.refusals import PERIOD, REASONS, TOLD, RefusalLog


class Time:
    """A clock, by which the log is told when its deadline has passed."""

    def __init__(self, refusals):
        self.now = 1000.0
        self._refusals = refusals

    def advance(self, seconds):
        until = self.now + seconds
        while (due := self._refusals.due) is not None and due <= until:
            self._refusals.handle_timeout(due)
        self.now = until


@pytest.fixture
def refusals(caplog):
    caplog.set_level(logging.DEBUG, "refusals")
    return RefusalLog(logging.getLogger("refusals"))


@pytest.fixture
def time(refusals):
    return Time(refusals)


def news(refusals, count, time, reason="a mistake"):
    return sum(
        refusals.is_news(f"peer-{number}", reason, time.now) for number in range(1, count + 1)
    )


def test_a_few_are_told_and_the_others_summed_up_after_a_minute(refusals, time, caplog):
    assert news(refusals, 10_000, time) == TOLD
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
        assert news(refusals, TOLD + 5, time) == TOLD
        time.advance(PERIOD)
        assert len(caplog.messages) == number + 1
    assert caplog.messages[-1].startswith("refused (a mistake): and 5 more in the last minute")


def test_a_few_a_minute_are_all_told(refusals, time, caplog):
    for _ in range(5):
        assert news(refusals, TOLD, time) == TOLD
        time.advance(PERIOD)
    assert caplog.messages == []
    assert refusals.due is None


def test_another_reason_is_news(refusals, time):
    news(refusals, 1000, time)
    assert refusals.is_news("secondary", "histories do not match", time.now)


def test_reasons_that_differ_in_details_are_one(refusals, time, caplog):
    told = sum(refusals.is_news("peer", f"byte {number}", time.now) for number in range(100))
    assert told == TOLD
    time.advance(PERIOD)
    assert caplog.messages == [
        "refused (byte 99): and 90 more in the last minute, the last of them peer"
    ]


def test_reasons_without_end_are_one(refusals, time, caplog):
    told = sum(refusals.is_news("peer", f"reason-{number}", time.now) for number in range(10_000))
    assert told == REASONS + TOLD
    time.advance(PERIOD)
    more = f"{10_000 - REASONS - TOLD:,}"
    assert caplog.messages == [
        f"refused (for other reasons): and {more} more in the last minute, the last of them peer"
    ]


def test_stopping_sums_up_at_once(refusals, time, caplog):
    news(refusals, TOLD + 7, time)
    refusals.summarize()
    assert "and 7 more in the last minute" in caplog.text
    refusals.summarize()
    time.advance(PERIOD)
    assert len(caplog.messages) == 1


def test_without_a_deadline_the_next_refusal_sums_up(refusals, time, caplog):
    assert news(refusals, TOLD + 3, time) == TOLD
    time.now += PERIOD
    assert refusals.is_news("peer", "a mistake", time.now)
    assert "and 3 more in the last minute" in caplog.text

"""Rates by the second."""

from __future__ import annotations

import time

import pytest

from zrs_core.status.rates import Meter, rates_of


@pytest.fixture
def clock(monkeypatch):
    """The monotonic clock, which stands still unless it is set: `clock[0]` are its seconds."""
    seconds = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: seconds[0])
    return seconds


def test_a_rate_is_taken_over_the_time_there_was(clock):
    meter = Meter()
    clock[0] += 2
    meter.add(10, 4000)
    rates = rates_of([meter])
    assert rates.ten_seconds == rates.five_minutes
    assert (rates.ten_seconds.transactions, rates.ten_seconds.bytes) == (5, 2000)


def test_what_has_just_begun_counts_as_a_second(clock):
    meter = Meter()
    meter.add(3, 7)
    assert rates_of([meter]).ten_seconds.transactions == 3


def test_each_window_forgets_by_itself(clock):
    meter = Meter()
    for _ in range(400):
        meter.add(2, 1000)
        clock[0] += 1
    rates = rates_of([meter])
    # The second that has begun is empty yet.
    assert rates.ten_seconds.transactions == pytest.approx(2)
    assert rates.five_minutes.bytes == pytest.approx(1000)
    clock[0] += 60
    rates = rates_of([meter])
    assert rates.ten_seconds.transactions == 0
    assert rates.five_minutes.transactions == pytest.approx(2 * 240 / 300)
    clock[0] += 1000
    assert rates_of([meter]).five_minutes.bytes == 0
    assert (meter.transactions, meter.bytes) == (800, 400_000)


def test_several_are_added_and_one_goes_on_for_another(clock):
    first = Meter()
    clock[0] += 100
    second, third = Meter(), Meter()
    for meter in (first, second, third):
        meter.add(1, 10)
    clock[0] += 1
    third.add(1, 10)
    clock[0] += 9
    before = rates_of([first, second, third])
    assert before.ten_seconds.transactions == pytest.approx(0.4)
    first.absorb(third)
    assert rates_of([first, second]) == before
    assert (first.transactions, first.bytes) == (3, 30)

from __future__ import annotations

import pytest

from zrs_core.options import MIN_KEEP_ALIVE_DELAY
from zrs_core.sessions.allowance import AT_FIRST, AT_MOST, PER_SECOND, Allowance


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def allowance(clock):
    return Allowance(clock)


def taken(allowance):
    allowance.refill()
    count = 0
    while allowance.take():
        count += 1
    return count


def test_a_secondary_may_always_send_as_often_as_its_option_allows(allowance, clock):
    for _ in range(10_000):
        clock.now += MIN_KEEP_ALIVE_DELAY
        allowance.refill()
        assert allowance.take()


def test_those_that_piled_up_while_the_primary_was_stopped_are_allowed(allowance, clock):
    seconds = AT_MOST * MIN_KEEP_ALIVE_DELAY
    clock.now += seconds
    assert taken(allowance) == AT_MOST


def test_a_flood_is_not(allowance, clock):
    assert taken(allowance) == AT_FIRST
    clock.now += 1
    assert taken(allowance) in (PER_SECOND - 1, PER_SECOND)
    assert taken(allowance) == 0


def test_silence_allows_no_more_than_so_many(allowance, clock):
    clock.now += 1e6
    assert taken(allowance) == AT_MOST

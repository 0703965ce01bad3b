from __future__ import annotations

import pytest

from zrs_core.options import MIN_KEEP_ALIVE_DELAY
from zrs_core.sessions.allowance import AT_FIRST, AT_MOST, PER_SECOND, Allowance

NOW = 1000.0


@pytest.fixture
def allowance():
    return Allowance(NOW)


def taken(allowance, now):
    allowance.refill(now)
    count = 0
    while allowance.take():
        count += 1
    return count


def test_a_secondary_may_always_send_as_often_as_its_option_allows(allowance):
    for number in range(1, 10_000):
        allowance.refill(NOW + number * MIN_KEEP_ALIVE_DELAY)
        assert allowance.take()


def test_those_that_piled_up_while_the_primary_was_stopped_are_allowed(allowance):
    assert taken(allowance, NOW + AT_MOST * MIN_KEEP_ALIVE_DELAY) == AT_MOST


def test_a_flood_is_not(allowance):
    assert taken(allowance, NOW) == AT_FIRST
    assert taken(allowance, NOW + 1) in (PER_SECOND - 1, PER_SECOND)
    assert taken(allowance, NOW + 1) == 0


def test_silence_allows_no_more_than_so_many(allowance):
    assert taken(allowance, NOW + 1e6) == AT_MOST

import pytest

from zrs_core.backoff import Backoff


def test_delays_double_with_a_little_chance_up_to_the_longest():
    backoff = Backoff(0.5, 60)
    for expected in [0.5, 1, 2, 4, 8, 16, 32]:
        backoff.failed()
        assert expected * 0.8 <= backoff.delay() <= expected * 1.2
    for _ in range(1000):
        backoff.failed()
        assert 48 <= backoff.delay() <= 60


def test_a_success_begins_anew():
    backoff = Backoff(0.5, 60)
    for _ in range(10):
        backoff.failed()
    assert backoff.failures == 10
    backoff.succeeded()
    assert backoff.failures == 0
    assert backoff.delay() <= 0.6


def test_equal_bounds_leave_nothing_to_chance():
    backoff = Backoff(3, 3)
    backoff.failed()
    assert backoff.delay() == 3


def test_chance_keeps_secondaries_from_coming_all_at_once():
    assert len({Backoff(1, 60).delay() for _ in range(20)}) > 1


@pytest.mark.parametrize("failures", [0, 1])
def test_the_first_delay_is_the_shortest(failures):
    backoff = Backoff(0.5, 60)
    for _ in range(failures):
        backoff.failed()
    assert backoff.delay() <= 0.6

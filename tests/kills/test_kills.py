"""Processes that are killed, stopped or told to end, and go on with nothing lost."""

from __future__ import annotations

import pytest

from . import run
from .cases import Case


def test_a_kill_of_each() -> None:
    assert run(0, 2) == 0


# In parts, for as many processors: 100 kills, 150 at system calls, 10 stops, 20 ends in all.
@pytest.mark.long
@pytest.mark.parametrize("start", range(0, 280, 70))
def test_all_cases(start: int) -> None:
    assert run(start, 70) == 0


def test_the_cases_are_as_many_as_they_should_be() -> None:
    kinds = [Case(number).kind for number in range(280)]
    assert kinds.count("kill") == 100
    assert kinds.count("system call") == 150
    assert {Case(number).transports for number in range(280)} == {
        (here, there)
        for here in ("socket-thread", "twisted-tcp")
        for there in ("socket-thread", "twisted-tcp")
    }

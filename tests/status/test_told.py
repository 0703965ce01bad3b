"""What a primary's status server adds to what a secondary knows."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from tests.sessions.helpers import make_client
from zrs_core.messages import NO_TID
from zrs_core.monitor.told import Told, with_told
from zrs_core.status.state import KnownPosition, Position
from zrs_core.testing import Sink

TID = b"\0" * 7 + b"\5"


@pytest.fixture
def clock(monkeypatch):
    seconds = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: seconds[0])
    return seconds


@pytest.fixture
def status(clock):
    return replace(make_client(Sink()).status("memory"), position=Position(TID, 5.0))


def told(seconds, transactions, tid=TID, position=None):
    return Told(tid, seconds, transactions, position, 1000.0)


def lag(status, told):
    found = with_told(status, told)
    return found.lag_seconds, found.lag_transactions


def test_nothing_was_told(status):
    assert with_told(status, None) is status
    assert with_told(status, told(None, None)) is status


def test_what_is_missing_is_added_and_grows(status, clock):
    assert lag(status, told(3.0, 2)) == (3.0, 2)
    clock[0] += 10
    assert lag(status, told(3.0, 2)) == (13.0, 2)
    # Nobody has counted them.
    assert lag(status, told(3.0, None)) == (13.0, None)
    assert lag(replace(status, lag_seconds=20.0, lag_transactions=1), told(3.0, None)) == (20.0, 1)


def test_nothing_is_missing_for_a_while(status, clock):
    assert lag(status, told(0.0, 0)) == (0.0, 0)
    assert lag(replace(status, lag_seconds=1.5), told(0.0, 0)) == (1.5, 0)
    # Something has begun to come since.
    assert lag(replace(status, lag_seconds=1.5, lag_transactions=1), told(0.0, 0)) == (1.5, 1)
    clock[0] += 60
    assert lag(status, told(0.0, 0)) == (None, None)


def test_what_was_told_of_another_position_counts_no_more(status):
    assert lag(status, told(3.0, 2, tid=NO_TID)) == (None, None)
    assert lag(replace(status, position=None), told(3.0, 2, tid=NO_TID)) == (3.0, 2)


def test_the_primary_is_where_it_says_or_further(status):
    far, farther = KnownPosition(TID, 5.0, 90.0), KnownPosition(b"\1" * 8, 9.0, 80.0)
    assert with_told(status, told(None, None, position=far)).primary_position == far
    known = replace(status, primary_position=farther)
    assert with_told(known, told(None, None, position=far)).primary_position == farther

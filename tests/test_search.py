"""The search for the last transaction that a secondary and its primary both hold."""

from __future__ import annotations

import random

import pytest

from zrs_core.messages import NO_TID
from zrs_core.sessions import search as searches
from zrs_core.sessions.search import MAX_PROBES, Divergence, Search


def tid(number):
    return number.to_bytes(8, "big")


def held(numbers, packed=()):
    """What a sink that holds these transactions answers for its history."""

    def history(before, count):
        older = [n for n in sorted(numbers, reverse=True) if before is None or tid(n) < before]
        return [(tid(n), n in packed) for n in older[:count]]

    return history


class Primary:
    """Answers as one that holds these transactions; `looks` if it refuses a start that it lacks."""

    def __init__(self, numbers, looks=True):
        self.tids = [tid(n) for n in sorted(numbers)]
        self._looks = looks

    def answer(self, search):
        """Answer one question; a secondary passes over what it may have packed away."""
        start = search.start
        last = self.tids[-1] if self.tids else NO_TID
        if start > last or (self._looks and start not in (NO_TID, *self.tids)):
            search.refused()
            return
        sent = [each for each in self.tids if each > start]
        if search.skips:
            sent = [each for each in sent if each >= search.expected] or sent[-1:]
        if sent:
            search.sent(sent[0])
        else:
            search.nothing_sent()


def find(search, primary, most=MAX_PROBES):
    asked = 0
    while not search.over:
        primary.answer(search)
        asked += 1
        assert asked <= most
    return search.result


@pytest.mark.parametrize("looks", [True, False])
def test_any_two_histories(looks):
    chance = random.Random(1)
    for _ in range(300):
        numbers = chance.sample(range(1, 10_000), chance.randrange(1, 200))
        common = sorted(numbers)[: chance.randrange(len(numbers) + 1)]
        rest = [n for n in numbers if n not in common]
        theirs = [n for n in rest if chance.random() < 0.5]
        ours = [n for n in rest if n not in theirs]
        if not ours:
            continue
        result = find(Search(held(common + ours)), Primary(common + theirs, looks), most=30)
        if not common and not theirs:
            assert result is None or result.common is None
            continue
        after = min(theirs, default=0)
        assert result.alone == len(ours)
        assert result.common == (tid(common[-1]) if common else None)
        assert result.sent == tid(after)


def test_it_asks_little_where_little_differs():
    common = range(1, 100_000)
    search = Search(held([*common, 100_001, 100_003]))
    primary = Primary([*common, 100_000, 100_002])
    assert find(search, primary, most=5) == Divergence(tid(99_999), 2, True, tid(100_000))


def test_a_primary_that_is_behind():
    search = Search(held(range(1, 50)))
    assert find(search, Primary(range(1, 20))) == Divergence(tid(19), 30, True, NO_TID)


@pytest.mark.parametrize("looks", [True, False])
def test_a_primary_that_has_gone_on_from_the_last_one(looks):
    """Whatever seemed to be wrong: the histories have not diverged."""
    search = Search(held(range(1, 50)))
    assert find(search, Primary(range(1, 60), looks), most=2) is None


def test_the_same_tid_with_another_content():
    search = Search(held(range(1, 50)), sent=tid(49))
    assert find(search, Primary(range(1, 50))) == Divergence(tid(48), 1, True, tid(49))


def test_another_database():
    search = Search(held(range(1, 50)))
    assert find(search, Primary(range(100, 110))) == Divergence(None, 49, True, tid(100))


def test_a_primary_that_refuses_everything_has_another_reason():
    search = Search(held(range(1, 50)))
    while not search.over:
        search.refused()
    assert search.result is None


@pytest.mark.parametrize("refused", range(10))
def test_refusals_while_the_primary_restarts_lead_nowhere_else(refused):
    search = Search(held([*range(1, 500), 1000, 1001]))
    for _ in range(refused):
        if not search.over:
            search.refused()
    assert find(search, Primary([*range(1, 500), 900])) == Divergence(tid(499), 2, True, tid(900))


def test_lost_connections_are_counted():
    search = Search(held(range(1, 50)))
    for _ in range(MAX_PROBES):
        search.inconclusive()
    assert search.over
    assert search.result is None


def test_what_a_pack_has_removed_here_is_passed_over():
    ours, packed = [*range(1, 100, 7), *range(100, 120), 151], set(range(1, 120))
    search = Search(held(ours, packed))
    primary = Primary([*range(1, 120), 150])
    assert find(search, primary) == Divergence(tid(119), 1, True, tid(150))


def test_a_long_history_is_not_read_to_its_beginning(monkeypatch):
    monkeypatch.setattr(searches, "MAX_TIDS", 64)
    read = []

    def history(before, count):
        read.append(count)
        return held(range(1, 1000))(before, count)

    search = Search(history)
    result = find(search, Primary([*range(2000, 2010)], looks=False))
    assert result == Divergence(None, 64, False, tid(2000))
    assert sum(read) == 64

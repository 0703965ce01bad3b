"""The consistency check: its table, and the outcomes that it reports."""

from __future__ import annotations

import itertools

import pytest
from zope.interface import implementer

from zrs_core.errors import NotComparable
from zrs_core.held import PACKED, HeldTransaction, digest
from zrs_core.interfaces import IComparableSink
from zrs_core.messages import NO_TID, Commit, Store, Transaction
from zrs_core.sessions import CHECK_TABLE, Check, CheckEvent, CheckState
from zrs_core.sessions.check import Apply, CompareFirst, Confirmed, Different, Doubt, Held
from zrs_core.testing import Sink

BEFORE, TID, NEXT = (number.to_bytes(8, "big") for number in (1, 2, 3))
OID = bytes(8)
HEADER = Transaction(TID, " ", b"user", b"note")
LAST = [HEADER, Store(OID, TID, b"record"), Commit()]
FOLLOWING = [Transaction(NEXT), Store(OID, NEXT, b"record"), Commit()]


@implementer(IComparableSink)
class Holding(Sink):
    """A sink that holds `LAST`."""

    def __init__(self, gaps=False):
        super().__init__()
        self.applied = [Transaction(BEFORE), Commit(), *LAST]
        self._gaps = gaps

    def last_transaction(self, limit):
        if limit < 10:
            raise NotComparable("it is too large")
        records = {OID: digest(b"record")}
        return HeldTransaction(BEFORE, self._gaps, HEADER, records, lambda oid: None)


def check(limit=1000, doubt=None, sink=None):
    return Check(sink or Holding(), limit, doubt)


def outcomes(check, messages, *, newer_pickles=True):
    found = []
    for message in messages:
        if check.is_over:
            break
        found.append(check.take(message, newer_pickles=newer_pickles))
    return found


class TestTheTable:
    def test_states_at_the_end_have_no_row(self):
        final = {state for state in CheckState if state not in CHECK_TABLE}
        assert final == {
            CheckState.SKIPPED,
            CheckState.CONFIRMED,
            CheckState.REFUSED,
            CheckState.UNANSWERED,
            CheckState.COMPARE_FIRST,
            CheckState.DIFFERENT,
        }

    def test_every_state_is_reached(self):
        first = {
            CheckState.SKIPPED,
            CheckState.ASKING,
            CheckState.UNCONFIRMED,
            CheckState.WITHHOLDING,
        }
        reached = first | {state for row in CHECK_TABLE.values() for state in row.values()}
        assert reached == set(CheckState)

    @pytest.mark.parametrize(("state", "event"), [*itertools.product(CheckState, CheckEvent)])
    def test_what_is_not_in_it_changes_nothing(self, state, event):
        it = check()
        it.state = state
        it.happens(event)
        assert it.state is CHECK_TABLE.get(state, {}).get(event, state)

    def test_every_state_and_event_is_described(self):
        for each in (*CheckState, *CheckEvent):
            assert each.value


class TestTheStart:
    def test_it_asks_from_the_transaction_before_the_last_one(self):
        it = check()
        assert (it.state, it.start, it.last) == (CheckState.ASKING, BEFORE, TID)
        assert it.compares
        assert not it.is_over
        assert it.note.startswith(", the one before 0x0000000000000002")

    @pytest.mark.parametrize(
        ("limit", "sink", "note"),
        [
            (0, None, ""),
            (1000, Sink(), ""),
            (9, None, ", not compared: it is too large"),
        ],
    )
    def test_what_cannot_be_compared_is_skipped(self, limit, sink, note):
        it = check(limit, sink=sink)
        assert (it.state, it.note) == (CheckState.SKIPPED, note)
        assert it.start == (NO_TID if sink else TID)
        assert it.is_over
        assert not it.compares

    @pytest.mark.parametrize(
        ("refused", "state"), [(True, CheckState.UNCONFIRMED), (False, CheckState.WITHHOLDING)]
    )
    def test_a_doubt_is_heeded(self, refused, state):
        it = check(doubt=Doubt(BEFORE, "does not serve it", refused))
        assert (it.state, it.start) == (state, TID)
        assert it.note == ", not compared: the primary does not serve it"
        assert not it.compares
        assert not it.is_over


class TestComparing:
    def test_the_same(self):
        it = check()
        it.happens(CheckEvent.DATA)
        assert outcomes(it, LAST + FOLLOWING) == [Held(), Held(), Confirmed(False)]
        assert it.state is CheckState.CONFIRMED
        assert it.is_over
        assert not it.compares

    def test_something_else(self):
        it = check()
        it.happens(CheckEvent.DATA)
        other = [HEADER, Store(OID, TID, b"other"), Commit()]
        *held, last = outcomes(it, other)
        assert held == [Held(), Held()]
        assert isinstance(last, Different)
        assert last.compared
        assert last.error.sent == TID
        assert it.state is CheckState.DIFFERENT
        assert it.compares

    def test_a_pack_explains_that_it_does_not_come(self):
        it = check()
        it.happens(CheckEvent.DATA)
        (first,) = outcomes(it, [Transaction(NEXT, PACKED)])
        assert first == Confirmed(True, ("a pack of the primary may have removed it",))
        assert it.is_over

    def test_a_primary_that_refuses_is_doubted(self):
        it = check()
        it.happens(CheckEvent.CLOSED)
        assert it.state is CheckState.REFUSED
        doubt = it.doubt()
        assert (doubt.before, doubt.refused) == (BEFORE, True)
        assert doubt.why.startswith("does not serve 0x0000000000000001")

    def test_a_primary_that_does_not_answer_is_doubted(self):
        it = check()
        it.happens(CheckEvent.TIMEOUT)
        assert it.state is CheckState.UNANSWERED
        doubt = it.doubt()
        assert (doubt.before, doubt.refused) == (BEFORE, False)
        assert doubt.why.startswith("has sent nothing after 0x0000000000000001")

    def test_one_that_has_begun_to_answer_is_not(self):
        it = check()
        it.happens(CheckEvent.DATA)
        it.happens(CheckEvent.TIMEOUT)
        it.happens(CheckEvent.CLOSED)
        assert it.state is CheckState.COMPARING
        assert it.doubt() is None

    def test_closing_may_be_repeated(self):
        it = check()
        it.close()
        it.close()
        assert not it.compares


class TestDoubting:
    def test_a_primary_that_looks_for_a_start_vouches(self):
        it = check(doubt=Doubt(BEFORE, "why", refused=True))
        assert outcomes(it, FOLLOWING) == [Apply(), Apply(), Confirmed(True)]
        assert it.state is CheckState.CONFIRMED

    def test_one_that_does_not_look_proves_nothing(self):
        it = check(doubt=Doubt(BEFORE, "why", refused=True))
        *applied, last = outcomes(it, FOLLOWING, newer_pickles=False)
        assert applied == [Apply(), Apply()]
        assert isinstance(last, Different)
        assert not last.compared
        assert (last.error.before, last.error.last, last.error.sent) == (BEFORE, TID, NEXT)
        assert "why" in last.error.what
        assert it.state is CheckState.DIFFERENT

    @pytest.mark.parametrize("newer", [True, False])
    def test_one_that_had_nothing_to_send_is_compared_first(self, newer):
        it = check(doubt=Doubt(BEFORE, "why", refused=False))
        found = outcomes(it, FOLLOWING, newer_pickles=newer)
        assert found == [Apply(), Apply(), CompareFirst()]
        assert it.state is CheckState.COMPARE_FIRST

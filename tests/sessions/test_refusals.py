"""A primary that refuses a secondary closes without a word; the secondary's end tells that."""

from __future__ import annotations

import logging

import pytest
from zope.interface import implementer

from tests.sessions.helpers import connect, greeted_session, make_client
from zrs_core.held import HeldTransaction
from zrs_core.interfaces import IComparableSink
from zrs_core.messages import NO_TID
from zrs_core.sessions import ALARM_AFTER, SecondaryTimes
from zrs_core.testing import WHOLE, Sink, stream

REFUSAL = SecondaryTimes().refusal


@pytest.fixture(autouse=True)
def _log_level(caplog):
    caplog.set_level(logging.INFO, "zrs_core")


def test_a_close_without_a_byte_is_a_refusal(caplog):
    session = greeted_session(Sink())
    progress = session.session._client.progress
    session.receive_eof()
    session.receive_eof()
    session.lose("Connection was closed cleanly.")
    assert progress.refusals == 1
    [record] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert record.getMessage() == (
        "localhost:8100: the primary closed the connection without sending anything after start "
        f"0x{NO_TID.hex()} (1900-01-01 00:00:00.000000); its log tells why"
    )


def test_refusals_are_counted_in_a_row():
    it = make_client(Sink())
    for number in (1, 2):
        session = connect(it)
        session.receive_eof()
        session.lose("closed")
        assert (it.progress.refusals, it.progress.connections) == (number, number)
    session = connect(it)
    session.receive(stream(WHOLE)[:1])
    assert it.progress.refusals == 0
    session.receive_eof()
    assert it.progress.refusals == 0
    session.lose("closed")


def fail(replication, data=b""):
    """A session that fails: refused, or because of what is sent."""
    session = connect(replication)
    if data:
        session.receive(data)
    else:
        session.receive_eof()
    assert session.end
    session.lose("closed")


def told(caplog):
    return [
        (record.levelname, record.getMessage())
        for record in caplog.records
        if record.levelno >= logging.INFO
    ]


def test_the_same_failure_again_is_no_news(caplog):
    it = make_client(Sink())
    fail(it)
    first = told(caplog)
    assert [level for level, _ in first] == ["INFO", "INFO", "WARNING", "INFO"]
    for _ in range(ALARM_AFTER - 2):
        fail(it)
    assert told(caplog) == first
    assert it.progress.refusals == ALARM_AFTER - 1


def test_one_that_has_nothing_to_send_and_does_not_hang_up_has_not_refused(caplog):
    """A primary that is stopped right after it was asked looks like one that refuses."""
    it = make_client(Sink())
    fail(it)
    assert it.progress.state == "failing"
    session = connect(it)
    session.advance(REFUSAL - 0.1)
    assert it.progress.state == "failing"
    session.advance(0.1)
    assert (it.progress.state, it.progress.failure) == ("replicating", None)
    assert "replicating again after 1 failed session(s)" in caplog.text


def test_one_that_has_begun_to_send_has_to_get_it_done():
    it = make_client(Sink())
    fail(it)
    session = connect(it)
    session.receive(b"\0\0")
    session.advance(2 * REFUSAL)
    assert it.progress.state == "failing"


@implementer(IComparableSink)
class Comparable(Sink):
    def __init__(self):
        super().__init__()
        self.applied = list(WHOLE)

    def last_transaction(self, limit):
        return HeldTransaction(NO_TID, False, WHOLE[0], {}, lambda oid: None)


def test_one_that_is_still_to_send_what_is_compared_has_to_do_so():
    """Nothing comes, and it is not known whether the primary has what is held."""
    it, served = make_client(Comparable()), []
    it.served = lambda: served.append(it)
    session = connect(it)
    session.advance(SecondaryTimes().answer - 0.1)
    assert session.end is None
    # It gives the comparison up, and the next one does without.
    session.advance(0.1)
    assert session.end
    session = connect(it)
    session.advance(10 * REFUSAL)
    session.lose("lost")
    assert served == []


def test_many_failures_in_a_row_are_an_alarm(caplog):
    it = make_client(Sink(), reconnect_delay=(0.5, 60))
    for _ in range(ALARM_AFTER):
        assert it.retry_delay() < 20
        fail(it)
    alarms = [message for level, message in told(caplog) if level == "ERROR"]
    assert len(alarms) == 1
    assert alarms[0] == (
        "localhost:8100: 5 sessions in a row have failed for the reason above, and nothing was "
        "applied; will go on trying with the longest delay"
    )
    assert it.retry_delay() > 40
    assert it.progress.state == "failing"
    assert it.progress.failure in caplog.text
    for _ in range(3):
        fail(it)
    assert it.progress.failures == ALARM_AFTER + 3
    assert [message for level, message in told(caplog) if level == "ERROR"] == alarms
    session = connect(it)
    session.receive(stream(WHOLE))
    session.lose("lost")
    assert it.retry_delay() < 1
    assert (it.progress.state, it.progress.failure, it.progress.failures) == (
        "connecting",
        None,
        0,
    )


def test_another_failure_and_the_recovery_are_news(caplog):
    it = make_client(Sink())
    for _ in range(2):
        fail(it)
    caplog.clear()
    for _ in range(2):
        fail(it, b"\0\0\0\1x")
    [(level, message)] = told(caplog)
    assert level == "ERROR"
    assert "pickle" in message
    caplog.clear()
    session = connect(it)
    assert told(caplog) == []
    session.receive(stream(WHOLE))
    session.lose("lost")
    assert told(caplog) == [
        ("INFO", "localhost:8100: replicating again after 4 failed session(s)"),
        (
            "INFO",
            "localhost:8100: Disconnected (lost); last is 0x0000000000000001 "
            "(1900-01-01 00:00:00.000000)",
        ),
    ]
    caplog.clear()
    fail(it)
    assert "ERROR" in [level for level, _ in told(caplog)]


def test_a_primary_that_goes_while_it_refuses_is_news(caplog):
    it = make_client(Sink())
    fail(it)
    caplog.clear()
    for _ in range(2):
        it.connection_failed("refused")
    assert told(caplog) == [
        ("WARNING", "localhost:8100: cannot connect (refused); will keep trying")
    ]


def test_a_connection_that_lasted_was_no_refusal(caplog):
    it = make_client(Sink())
    it.progress.refusals = 1
    session = connect(it)
    session.advance(REFUSAL + 0.1)
    session.receive_eof()
    assert it.progress.refusals == 0
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


def test_a_close_from_this_side_is_no_refusal():
    it = make_client(Sink())
    connect(it).stop()
    assert it.progress.refusals == 0
    assert not it.progress.connected


def test_unfinished_in_the_middle_of_a_transaction():
    session = greeted_session(Sink())
    progress = session.session._client.progress
    data = stream(WHOLE)
    session.receive(data[:-10])
    assert progress.unfinished
    session.receive(data[-10:])
    assert not progress.unfinished
    session.lose("lost")

    session = greeted_session(Sink())
    session.receive(data[:-10])
    session.lose("lost")
    assert not session.session._client.progress.unfinished


def test_a_primary_that_is_gone_is_news_once_after_each_connection(caplog):
    it = make_client(Sink())
    for _ in range(2):
        session = connect(it)
        session.stop()
        for _ in range(3):
            it.connection_failed("refused")
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 2
    assert all("cannot connect (refused)" in record.getMessage() for record in warnings)

"""The primary's session, driven by hand."""

from __future__ import annotations

import logging
import ssl

import pytest
from zope.interface.verify import verifyObject

from zrs_core.errors import Diverged, NotCarried, TidTooHigh
from zrs_core.interfaces import IReplicationService, ISession
from zrs_core.messages import NO_TID
from zrs_core.sessions import PRIMARY_DEADLINES, PrimarySession, PrimaryTimes, SecondaryTimes
from zrs_core.sessions.allowance import AT_MOST
from zrs_core.sessions.primary import PrimaryState
from zrs_core.status.peers import Commits
from zrs_core.status.state import PeerState
from zrs_core.testing import WHOLE, Source, greeting, stream

from ..certificates import both_ends
from .helpers import TID, accept, make_service, primary_session, started_session, transactions

WRITE_TIMEOUT = 60.0


@pytest.fixture(autouse=True)
def _log_level(caplog):
    caplog.set_level(logging.DEBUG, "zrs_core")


def errors(caplog):
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR]


def test_the_interfaces_are_provided():
    assert verifyObject(IReplicationService, make_service(Source()))
    assert verifyObject(ISession, primary_session(Source()).session)


def test_each_deadline_of_the_table_has_a_handler():
    session = primary_session(Source()).session
    assert set(session._timers._handlers) == set(PRIMARY_DEADLINES)


class TestGreeting:
    def test_nothing_is_read_before_the_start(self):
        source = Source(WHOLE)
        session = primary_session(source)
        assert session.session.state is PrimaryState.GREETING
        session.receive(greeting()[:-1])
        assert source.started == []
        assert session.take() == b""

    def test_a_peer_that_does_not_greet_in_time_is_refused(self, caplog):
        session = primary_session(Source(), handshake_timeout=5)
        session.receive(greeting()[:-1])
        session.advance(4.9)
        assert session.end is None
        session.advance(0.1)
        assert session.aborted
        assert errors(caplog) == ["peer: refused (it sent no valid greeting within 5 seconds)"]
        assert session.session.over

    def test_one_that_has_greeted_may_be_silent(self):
        session = primary_session(Source(), handshake_timeout=5)
        session.receive(greeting())
        session.advance(1e6)
        assert session.end is None

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (b"\0\0\0\x06zrs9.9", "Invalid protocol 'zrs9.9'"),
            (b"\0\0\0\x06zrs2.0", "Invalid protocol 'zrs2.0'. Require >= 2.1"),
            (b"\0\0\0\x06zrs2.1\0\0\0\x01x", "Invalid transaction id, b'x'"),
            (greeting() + b"\0\0\0\x01x", "Too many messages"),
            (b"GET / HTTP/1.1", "a message of 1195725856 bytes, where at most 8 are allowed"),
        ],
    )
    def test_a_peer_that_breaks_the_protocol_is_refused_in_one_line(self, data, reason, caplog):
        session = primary_session(Source())
        session.receive(data)
        assert session.end == "closed here"
        assert errors(caplog) == [f"peer: {reason}"]
        session.receive(data * 100)
        assert errors(caplog) == [f"peer: {reason}"]

    def test_a_peer_that_speaks_tls_is_named(self, caplog):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        connection = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            connection.do_handshake()
        session = primary_session(Source())
        session.receive(outgoing.read())
        assert session.end
        assert errors(caplog) == ["peer: the peer speaks TLS, and this primary does not"]

    def test_an_empty_read_means_nothing(self):
        source = Source(WHOLE)
        session = started_session(source)
        session.receive(b"")
        assert session.end is None
        assert session.session.state is PrimaryState.WAITING

    def test_keep_alive_messages_are_noticed_quietly(self, caplog):
        session = started_session(Source())
        session.receive(b"\0" * 4)
        assert caplog.records[-1].levelname == "DEBUG"
        assert session.end is None

    def test_a_peer_that_floods_is_refused(self, caplog):
        session = started_session(Source())
        session.receive(bytes(4 * AT_MOST))
        assert session.end
        assert errors(caplog) == ["peer: it sends more than 200 empty messages a second"]
        handled = len(caplog.records)
        session.receive(bytes(4096))
        assert len(caplog.records) == handled

    def test_messages_that_come_at_a_rate_that_is_allowed(self):
        session = started_session(Source())
        for _ in range(100):
            session.advance(1)
            session.receive(bytes(4 * 150))
        assert session.end is None


class TestSending:
    def test_batches_are_sent_from_the_start_on(self, caplog):
        source = Source(WHOLE[:2], WHOLE[2:])
        session = started_session(source)
        assert source.started == [NO_TID]
        assert session.take() == stream(WHOLE)
        assert session.session.state is PrimaryState.WAITING
        assert caplog.messages == [
            "peer: Connected",
            "peer: start 0x0000000000000000 (1900-01-01 00:00:00.000000)",
        ]

    def test_the_next_batch_is_read_when_the_network_has_the_one_before(self):
        source = Source(WHOLE[:1], WHOLE[1:])
        session = started_session(source, accepts=False)
        assert len(source.batches) == 1
        session.accept(len(session.unsent) - 1)
        assert len(source.batches) == 1
        session.accept()
        assert source.batches == []

    def test_a_commit_wakes_one_that_waits(self):
        source = Source()
        session = started_session(source)
        source.batches.append(WHOLE)
        source.waiting.pop()()
        assert session.take() == stream(WHOLE)
        assert len(source.waiting) == 1

    def test_what_was_just_committed_may_be_read_at_once(self):
        source = Source()
        source.nearby = True
        session = started_session(source)
        kinds = []
        session.work = lambda work: kinds.append(work.nearby)
        source.waiting.pop()()
        assert kinds == [True]

    def test_a_wake_in_between_means_nothing(self):
        source = Source(WHOLE)
        session = started_session(source, accepts=False)
        session.session.wake(0.0)
        session.act()
        assert session.session.state is PrimaryState.SENDING

    def test_it_rests_for_each_transaction_when_it_has_read_all(self):
        source = Source(transactions(1, 2), transactions(3, 1))
        source.at_end = True
        session = started_session(source)
        assert session.session.state is PrimaryState.RESTING
        assert session.session.next_deadline() == pytest.approx(0.002)
        assert source.waiting == []
        session.advance(0.002)
        assert session.session.state is PrimaryState.WAITING
        source.waiting.pop()()
        assert session.session.next_deadline() == pytest.approx(0.003)

    def test_it_does_not_rest_before_it_has_read_all(self):
        session = started_session(Source(transactions(1, 2), transactions(3, 1)))
        assert session.session.state is PrimaryState.WAITING

    def test_it_rests_the_longer_the_more_are_connected(self):
        source = Source(transactions(1, 2))
        source.at_end = True
        service = make_service(source)
        for _ in range(2):
            accept(service)
        session = accept(service)
        session.receive(greeting())
        assert session.session.next_deadline() == pytest.approx(0.006)

    def test_the_rest_has_a_limit(self):
        source = Source(transactions(1, 100))
        source.at_end = True
        assert started_session(source).session.next_deadline() == pytest.approx(0.05)

    def test_the_state_for_the_status(self):
        source = Source(transactions(1, 2))
        source.at_end = True
        service = make_service(source)
        session = accept(service)

        def state():
            (status,) = service.peers.status(Commits(NO_TID, exact=True), NO_TID)
            return status.state

        assert state() is PeerState.GREETING
        session.receive(greeting())
        assert state() is PeerState.SENDING
        session.advance(1)
        assert state() is PeerState.WAITING

    def test_the_position_is_the_last_transaction_that_is_whole(self, caplog):
        first, second = transactions(1, 1), transactions(2, 1)
        source = Source(first[:2], [first[2], *second[:2]], [second[2]])
        session = started_session(source, accepts=False)
        positions = []
        for _ in range(3):
            session.receive(b"\0\0\0\0")
            positions.append(caplog.records[-1].tid)
            session.accept()
        assert positions == [f"0x{number:016x}" for number in (0, 1, 2)]


class TestAPeerThatTakesNothing:
    def test_it_is_left(self, caplog):
        session = started_session(Source(WHOLE), accepts=False)
        session.advance(WRITE_TIMEOUT)
        assert session.aborted
        assert session.end == "it took nothing of what it was sent for 60 seconds"

    def test_one_that_takes_a_little_at_a_time_is_not(self):
        session = started_session(Source(WHOLE), accepts=False)
        for _ in range(5):
            session.advance(WRITE_TIMEOUT - 1)
            session.accept(1)
        assert session.end is None

    def test_one_that_has_all_may_take_its_time(self):
        session = started_session(Source(WHOLE))
        session.advance(10 * WRITE_TIMEOUT)
        assert session.end is None


class TestFailing:
    @pytest.mark.parametrize("error", [TidTooHigh(TID, NO_TID), Diverged(TID, None, None)])
    def test_a_start_that_cannot_be_served_is_refused(self, error, caplog):
        session = started_session(Source(error=error), start=TID)
        assert session.end == "closed here"
        assert f"peer: {error}" in caplog.messages

    def test_a_source_that_fails_ends_the_session(self, caplog):
        session = started_session(Source(WHOLE[:1], error=OSError("Input/output error")))
        assert session.take()
        assert session.end
        assert "peer: cannot go on sending: Input/output error" in caplog.messages

    def test_a_failure_of_the_same_kind_is_news_once(self, caplog):
        service = make_service(Source(error=OSError("Input/output error")))
        for _ in range(3):
            accept(service).receive(greeting())
        assert len(errors(caplog)) == 1

    def test_a_mistake_ends_the_session_and_is_logged(self, caplog):
        source = Source()
        source.wait = None
        session = started_session(source)
        assert session.aborted
        assert "peer: closing" in caplog.messages
        assert session.session.over


class TestATransactionThatCannotBeSent:
    ERROR = NotCarried(b"\0" * 7 + b"\2", "it is too long", "Shorten it")
    TEXT = (
        "transaction 0x0000000000000002 cannot be replicated: it is too long. What precedes it is "
        "sent. Shorten it"
    )

    def test_what_precedes_is_sent_and_the_connection_closed(self, caplog):
        session = started_session(Source(WHOLE, error=self.ERROR))
        assert session.take() == stream(WHOLE)
        assert session.end
        (told,) = [each for each in caplog.records if each.levelname == "ERROR"]
        assert (told.event, told.tid) == ("not-carried", "0x" + "0" * 15 + "2")
        assert told.getMessage() == f"peer: {self.TEXT}"

    def test_a_fresh_secondary_is_closed_at_once(self):
        assert started_session(Source(error=self.ERROR)).end

    def test_one_that_was_sent_nothing_is_held_for_longer_than_a_refusal(self):
        source = Source(error=self.ERROR)
        session = started_session(source, start=TID)
        session.advance(SecondaryTimes().refusal)
        assert session.end is None
        session.advance(PrimaryTimes().hold - SecondaryTimes().refusal)
        assert session.end == "closed here"
        assert source.waiting == []

    def test_it_is_logged_once_for_all(self, caplog):
        service = make_service(Source(error=self.ERROR))
        for _ in range(3):
            accept(service).receive(greeting())
        levels = [each.levelname for each in caplog.records if each.event == "not-carried"]
        assert levels == ["ERROR", "DEBUG", "DEBUG"]
        assert service.peers.last_error.message == self.TEXT


class TestTheEnd:
    def test_the_end_of_the_peers_stream_ends_the_session(self):
        source = Source()
        session = started_session(source)
        session.receive_eof()
        assert session.end == "closed by the other end"
        assert source.closed == 1

    def test_a_lost_connection_closes_the_reader_once(self, caplog):
        source = Source(WHOLE)
        session = started_session(source)
        session.lose("gone")
        session.lose("gone")
        assert source.closed == 1
        assert sum("Disconnected (gone)" in each for each in caplog.messages) == 1
        assert session.session.over
        assert session.session.next_deadline() is None
        assert not session.session.wants_data

    def test_one_that_is_lost_while_it_reads_is_over_when_that_is_done(self):
        source = Source(WHOLE)
        session = primary_session(source)
        work = []
        session.work = work.append
        session.receive(greeting())
        session.lose()
        assert not session.session.over
        session.session.done(work.pop().call(), 0.0)
        session.act()
        assert session.session.over
        assert session.take() == b""
        assert source.closed == 1

    def test_a_peer_whose_name_looks_like_a_format(self, caplog):
        session = accept(make_service(Source(WHOLE)), "unix:/run/100%s.sock")
        session.lose("lost")
        assert caplog.messages[-1] == "unix:/run/100%s.sock: Disconnected (lost)"

    def test_stopping_closes_one_that_has_not_greeted(self):
        session = primary_session(Source())
        session.stop(10)
        assert session.end == "closed here"

    def test_stopping_lets_a_secondary_catch_up(self):
        source = Source(WHOLE[:1])
        session = started_session(source)
        source.batches += [WHOLE[1:]]
        session.stop(10)
        assert session.take() == stream(WHOLE)
        assert session.half_closed
        assert session.end is None
        session.receive_eof()
        assert session.end == "closed by the other end"

    def test_stopping_sends_what_came_after_an_empty_batch(self):
        source = Source()
        session = primary_session(source)
        work = []
        session.work = work.append
        session.receive(greeting())
        empty = work.pop().call()
        session.stop(10)
        source.batches.append(WHOLE)
        session.work = type(session).work.__get__(session)
        session.session.done(empty, 0.0)
        session.act()
        assert session.take() == stream(WHOLE)
        assert session.half_closed

    def test_stopping_ends_a_rest(self):
        source = Source(transactions(1, 2))
        source.at_end = True
        session = started_session(source)
        session.stop(10)
        assert session.half_closed

    def test_one_that_does_not_catch_up_in_time_is_left(self):
        session = started_session(Source(WHOLE), accepts=False)
        session.stop(10)
        session.advance(9.9)
        assert session.end is None
        session.advance(0.1)
        assert session.aborted

    def test_one_that_does_not_close_in_time_is_left(self):
        session = started_session(Source(WHOLE))
        session.stop(10)
        session.advance(10)
        assert session.aborted

    def test_a_close_waits_for_what_was_sent(self):
        source = Source(WHOLE, error=OSError("disk"))
        session = started_session(source, accepts=False)
        session.receive(b"nonsense")
        assert session.end is None
        session.accept()
        assert session.end == "closed here"
        assert session.take() == stream(WHOLE)

    def test_but_not_for_ever(self):
        session = started_session(Source(WHOLE), accepts=False)
        session.receive(b"nonsense")
        session.advance(PrimaryTimes().close)
        assert session.aborted
        assert session.session.over

    @pytest.mark.parametrize("data", [b"", b"\0"])
    def test_a_secondary_may_not_accept_the_certificate(self, data, caplog):
        service = make_service(Source(), tls=both_ends())
        session = PrimarySession(service, "peer", 0.0, lambda: None)
        if data:
            session.receive_data(data, 0.0)
        session.lost("gone", 0.0)
        assert ("the secondary left without a word" in caplog.text) == (not data)

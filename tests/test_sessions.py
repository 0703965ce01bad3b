"""Sessions, driven as a transport drives them."""

from __future__ import annotations

import logging
import ssl
import threading

import pytest
from zope.interface import implementer
from zope.interface.verify import verifyObject

from zrs_core.addresses import TCPAddress
from zrs_core.errors import Diverged, NotCarried, NotComparable, NotWritten, TidTooHigh
from zrs_core.interfaces import (
    IComparableSink,
    IPrimarySession,
    IReplicationClient,
    IReplicationService,
    ISecondarySession,
)
from zrs_core.logs import event
from zrs_core.messages import NO_TID, Commit, Store, Transaction
from zrs_core.options import ClientOptions
from zrs_core.progress import State
from zrs_core.sessions import REFUSAL_TIME, PrimarySession, ReplicationClient, ReplicationService
from zrs_core.sessions import primary as primary_module
from zrs_core.sessions.allowance import AT_MOST
from zrs_core.sessions.log import PeerLog
from zrs_core.sessions.secondary import EARLY, EARLY_ENDS
from zrs_core.status.peers import Commits
from zrs_core.status.state import PeerState
from zrs_core.testing import WHOLE, Sink, Source, greeting, stream

from .conditions import wait_for

ADDRESS = TCPAddress("localhost", 8100)


@implementer(IComparableSink)
class Held(Sink):
    """One whose last transaction is too large to be compared."""

    def last_transaction(self, limit):
        raise NotComparable("it is too large")


def _fail():
    raise OSError("Input/output error")


def _exit():
    raise SystemExit


class Unreadable(Held):
    def __init__(self, held):
        super().__init__()
        self.applied = list(held)

    def last_transaction(self, limit):
        raise OSError("Input/output error")


TID = b"\0" * 7 + b"\1"


@pytest.fixture(autouse=True)
def _log_level(caplog):
    caplog.set_level(logging.DEBUG, "zrs_core")


def transactions(first, count):
    """The messages of so many transactions, whose tids rise from `first` on."""
    tids = [number.to_bytes(8, "big") for number in range(first, first + count)]
    return [each for tid in tids for each in (Transaction(tid), Store(bytes(8), tid), Commit())]


def primary_session(source):
    return ReplicationService(source, ADDRESS).session("peer")


def started_session(source, start=NO_TID):
    session = primary_session(source)
    session.receive_data(greeting(start=start))
    return session


def client(sink, **options):
    return ReplicationClient(sink, ADDRESS, None, ClientOptions(**options))


def greeted_session(sink, **options):
    session = client(sink, **options).session("peer")
    session.greeting()
    return session


class TestPrimarySession:
    def test_the_interfaces_are_provided(self):
        assert verifyObject(IReplicationService, ReplicationService(Source(), ADDRESS))
        assert verifyObject(IPrimarySession, primary_session(Source()))

    def test_nothing_is_produced_before_the_start(self):
        source = Source(WHOLE)
        session = primary_session(source)
        assert not session.started
        assert session.produce() == []
        assert source.started == []

    def test_batches_are_produced_from_the_start_on(self, caplog):
        source = Source(WHOLE[:2], WHOLE[2:])
        session = started_session(source, start=NO_TID)
        assert session.started
        batches = [session.produce(), session.produce(), session.produce()]
        assert source.started == [NO_TID]
        assert b"".join(batches[0] + batches[1]) == stream(WHOLE)
        assert batches[2] == []
        assert caplog.messages == [
            "peer: Connected",
            "peer: start 0x0000000000000000 (1900-01-01 00:00:00.000000)",
        ]

    def test_it_rests_for_each_transaction_when_it_has_read_all(self):
        source = Source(transactions(1, 2), transactions(3, 1), transactions(4, 3), [])
        source.batches.append(transactions(7, 100))
        session = started_session(source)
        rests = []
        for source.at_end in (False, True, True, True, True):
            session.produce()
            rests.append(session.rest)
        assert rests == [0.0, 0.001, 0.003, 0.0, 0.05]

    def test_it_rests_the_longer_the_more_are_connected(self):
        source = Source(transactions(1, 2), transactions(3, 2), transactions(5, 2))
        source.at_end = True
        service = ReplicationService(source, ADDRESS)
        session, *others = [service.session("peer") for _ in range(3)]
        session.receive_data(greeting())
        rests = []
        for other in (*others, None):
            session.produce()
            rests.append(session.rest)
            if other is not None:
                other.close("gone")
        assert rests == [0.006, 0.004, 0.002]

    def test_waiting_is_the_readers(self):
        source = Source()
        session = started_session(source)
        session.wait(None)
        assert source.waiting == []
        session.produce()
        session.wait("wake")
        assert source.waiting == ["wake"]
        session.close("gone")
        session.wait("wake")
        assert source.waiting == ["wake"]

    def test_one_that_rests_may_be_asked_to_wake_after_it(self):
        source = Source(transactions(1, 2))
        source.at_end = True
        service = ReplicationService(source, ADDRESS)
        session = service.session("peer")
        session.receive_data(greeting())

        def state():
            (status,) = service.peers.status(Commits(NO_TID, exact=True), NO_TID)
            return status.state

        session.produce()
        assert session.rest
        assert state() is PeerState.SENDING
        session.wait("wake")
        assert source.waiting == ["wake"]
        assert state() is PeerState.WAITING

    def test_keep_alive_messages_are_noticed_quietly(self, caplog):
        session = started_session(Source())
        session.receive_data(b"\0" * 4)
        assert caplog.records[-1].levelname == "DEBUG"
        assert not session.finished

    def test_a_peer_that_floods_is_refused(self, caplog):
        session = started_session(Source())
        session.receive_data(bytes(4 * AT_MOST))
        assert session.finished
        errors = [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR]
        assert errors == ["peer: it sends more than 200 empty messages a second"]
        handled = len(caplog.records)
        session.receive_data(bytes(4096))
        assert len(caplog.records) == handled

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
        session.receive_data(data)
        assert session.finished
        errors = [r for r in caplog.records if r.levelno >= logging.ERROR]
        assert [r.getMessage() for r in errors] == [f"peer: {reason}"]
        assert caplog.messages[-1] == "peer: Closed"
        session.receive_data(data * 100)
        assert [r for r in caplog.records if r.levelno >= logging.ERROR] == errors

    @pytest.mark.parametrize("error", [TidTooHigh(TID, NO_TID), Diverged(TID, None, None)])
    def test_a_start_that_cannot_be_served_is_refused(self, error, caplog):
        session = started_session(Source(error=error), start=TID)
        assert session.produce() == []
        assert session.finished
        assert f"peer: {error}" in caplog.messages
        assert session.produce() == []

    def test_a_source_that_fails_ends_the_session(self, caplog):
        session = started_session(Source(WHOLE[:1], error=OSError("Input/output error")))
        assert session.produce()
        assert session.produce() == []
        assert session.finished
        assert "peer: cannot go on sending: Input/output error" in caplog.messages

    def test_the_end_of_the_peers_stream_ends_the_session(self):
        session = started_session(Source())
        session.receive_eof()
        assert session.finished
        assert session.produce() == []

    def test_a_peer_whose_name_looks_like_a_format(self, caplog):
        session = ReplicationService(Source(WHOLE), ADDRESS).session("unix:/run/100%s.sock")
        session.close("lost")
        assert caplog.messages[-1] == "unix:/run/100%s.sock: Disconnected (lost)"

    def test_the_position_is_the_last_transaction_that_is_whole(self, caplog):
        first, second = transactions(1, 1), transactions(2, 1)
        source = Source(first[:2], [first[2], *second[:2]], [second[2]])
        session = started_session(source)
        positions = []
        for _ in range(3):
            session.produce()
            session.receive_data(b"\0\0\0\0")
            positions.append(caplog.records[-1].tid)
        assert positions == [f"0x{number:016x}" for number in (0, 1, 2)]
        session.close("gone")

    def test_closing_closes_the_reader_once(self, caplog):
        source = Source(WHOLE)
        session = started_session(source)
        session.produce()
        session.close("gone")
        session.close("gone")
        assert source.closed == 1
        assert sum("Disconnected (gone)" in each for each in caplog.messages) == 1
        assert session.produce() == []


class TestATransactionThatCannotBeSent:
    ERROR = NotCarried(b"\0" * 7 + b"\2", "it is too long", "Shorten it")
    TEXT = (
        "transaction 0x0000000000000002 cannot be replicated: it is too long. What precedes it is "
        "sent. Shorten it"
    )

    def test_what_precedes_is_sent_and_the_connection_closed(self, caplog):
        session = started_session(Source(WHOLE, error=self.ERROR))
        assert b"".join(session.produce()) == stream(WHOLE)
        assert not session.finished
        assert session.produce() == []
        assert session.finished
        told = caplog.records[-1]
        assert (told.levelname, told.event, told.tid) == (
            "ERROR",
            "not-carried",
            "0x" + "0" * 15 + "2",
        )
        assert told.getMessage() == f"peer: {self.TEXT}"

    def test_a_fresh_secondary_is_closed_at_once(self):
        session = started_session(Source(error=self.ERROR))
        session.produce()
        assert session.finished

    def test_who_was_sent_nothing_is_held_for_longer_than_a_refusal(self, monkeypatch):
        monkeypatch.setattr(primary_module, "_HOLD", 0.01)
        source = Source(error=self.ERROR)
        session = started_session(source, start=b"\0" * 7 + b"\1")
        assert session.produce() == []
        assert not session.finished
        woken = []
        session.wait(lambda: woken.append(session.finished))
        wait_for(lambda: woken, "the end")
        assert woken == [True]
        assert source.waiting == []
        session.close("over")

    def test_it_is_closed_while_it_is_held(self):
        session = started_session(Source(error=self.ERROR), start=b"\0" * 7 + b"\1")
        session.produce()
        session.wait(lambda: None)
        session.close("gone")
        wait_for(
            lambda: not any(each.name == "zrs_core closing" for each in threading.enumerate()),
            "the end of the timer",
        )

    def test_the_hold_is_longer_than_a_secondary_needs_for_a_refusal(self):
        assert primary_module._HOLD > REFUSAL_TIME

    def test_it_is_logged_once_for_all(self, caplog):
        service = ReplicationService(Source(error=self.ERROR), ADDRESS)
        for _ in range(3):
            session = service.session("peer")
            session.receive_data(greeting())
            session.produce()
            session.close("over")
        levels = [each.levelname for each in caplog.records if each.event == "not-carried"]
        assert levels == ["ERROR", "DEBUG", "DEBUG"]
        assert service.peers.last_error.message == self.TEXT


def test_a_record_that_is_larger_than_the_secondary_takes(caplog):
    """What came before it is applied, and the error has the remedy."""
    sink = Sink()
    small = [Transaction(bytes(7) + b"\1"), Commit()]
    large = [Transaction(bytes(7) + b"\2"), Store(bytes(8), bytes(7) + b"\2", b"x" * 6), Commit()]
    session = greeted_session(sink, max_record_size=5)
    session.receive_data(stream([*small, *large]))
    assert session.finished
    assert sink.applied[:2] == small
    (told,) = [each for each in caplog.records if each.levelname == "ERROR"]
    assert "a message of 6 bytes, where at most 5 are allowed" in told.getMessage()
    assert "in transaction 0x0000000000000002" in told.getMessage()
    assert "raise max_record_size" in told.getMessage()


class TestAPrimaryThatEndsEarly:
    def ended(self, it, data=b"", greeted=None):
        session = it.session("peer")
        session.greeting()
        if data:
            session.receive_data(data)
        session.receive_eof()
        session.close("closed by the other end")
        return session

    def test_some_in_a_row_are_a_failure(self, caplog):
        sink = Sink()
        it = client(sink)
        self.ended(it, stream(WHOLE))
        assert it.early_ends == 0
        for number in range(1, EARLY_ENDS + 2):
            # It has been connected for longer than a refusal takes.
            session = it.session("peer")
            session.greeting()
            session._greeted_at -= REFUSAL_TIME + 0.1
            session.receive_eof()
            session.close("closed by the other end")
            assert it.early_ends == number
            assert (it.progress.state is State.FAILING) == (number >= EARLY_ENDS)
        assert "it cannot send what follows" in it.progress.failure
        assert [each.levelname for each in caplog.records].count("ERROR") == 1
        assert it.retry_delay() > 0.6

    def test_something_new_ends_the_row(self):
        it = client(Sink())
        it.early_ends = EARLY_ENDS
        self.ended(it, stream(WHOLE))
        assert it.early_ends == 0

    def test_one_that_lasted_ends_the_row(self):
        it = client(Sink())
        it.early_ends = EARLY_ENDS - 1
        session = it.session("peer")
        session.greeting()
        session._greeted_at -= EARLY + 1
        session.receive_eof()
        assert it.early_ends == 0
        assert it.progress.failure is None

    def test_one_that_lasts_ends_the_failure(self):
        it = client(Sink())
        it.early_ends = EARLY_ENDS
        it.session_failed("why")
        session = it.session("peer")
        session.greeting()
        session._greeted_at -= EARLY - 5
        session.keep_alive()
        assert it.progress.state is State.FAILING
        session._greeted_at -= 6
        session.keep_alive()
        assert it.progress.state is State.REPLICATING
        assert it.early_ends == 0


class TestSecondarySession:
    def test_an_empty_message_between_transactions_is_an_error(self, caplog):
        session = greeted_session(Sink())
        session.receive_data(bytes(4096))
        assert session.finished
        assert len([each for each in caplog.records if each.levelno >= logging.ERROR]) == 1

    def test_the_interfaces_are_provided(self):
        assert verifyObject(IReplicationClient, client(Sink()))
        assert verifyObject(ISecondarySession, client(Sink()).session("peer"))

    def test_what_was_applied_is_held_back_while_more_is_there(self, monkeypatch):
        now = [100.0]
        monkeypatch.setattr("time.monotonic", lambda: now[0])
        sink, flushed = Sink(), []
        sink.flush = lambda: flushed.append(len(sink.applied))
        data = stream(transactions(1, 5))
        session = greeted_session(sink)
        size = len(data) // 5
        parts = [data[place : place + size] for place in range(0, len(data), size)]
        session.receive_data(parts[0], lambda: True)
        now[0] += 0.09
        session.receive_data(parts[1], lambda: True)
        assert flushed == []
        now[0] += 0.02
        session.receive_data(parts[2], lambda: True)
        assert flushed == [9]
        session.receive_data(parts[3], lambda: True)
        assert flushed == [9]
        session.receive_data(parts[4], lambda: False)
        assert flushed == [9, 15]

    def test_what_is_held_back_for_what_was_no_data_is_made_visible(self):
        sink, flushed = Sink(), []
        sink.flush = lambda: flushed.append(len(sink.applied))
        session = greeted_session(sink)
        session.receive_data(b"")
        session.receive_data(stream(WHOLE), lambda: True)
        session.receive_data(b"", lambda: True)
        assert flushed == []
        session.receive_data(b"")
        assert flushed == [len(WHOLE)]
        session.receive_data(b"")
        assert flushed == [len(WHOLE)]

    def test_what_is_held_back_counts_when_the_connection_ends(self):
        sink, flushed = Sink(), []
        sink.flush = lambda: flushed.append(sink.aborts)
        session = greeted_session(sink)
        session.receive_data(stream(WHOLE), lambda: True)
        assert flushed == []
        session.close("gone")
        assert flushed == [0]
        assert sink.aborts == 1

    def test_it_greets_with_its_word_and_its_start(self):
        assert client(Sink()).session("peer").greeting() == greeting("zrs2.1")
        sink = Sink()
        sink.blobs = False
        sink.applied = list(WHOLE)
        assert client(sink).session("peer").greeting() == greeting("zrs2.0", TID)

    def test_what_comes_is_applied(self):
        sink = Sink()
        session = greeted_session(sink)
        data = stream(WHOLE)
        session.receive_data(data[:50])
        session.receive_data(data[50:])
        assert sink.applied == WHOLE
        assert not session.finished

    def test_progress_is_counted(self):
        replication = client(Sink())
        assert not replication.progress.connected
        session = replication.session("peer")
        session.greeting()
        assert replication.progress.connected
        data = stream(WHOLE)
        session.receive_data(data)
        progress = replication.progress
        assert (progress.bytes, progress.transactions, progress.tid) == (len(data), 1, TID)
        session.close("gone")
        assert not progress.connected
        assert progress.last_error == "gone"

    def test_it_can_say_that_it_is_there(self):
        assert greeted_session(Sink(), keep_alive_delay=1).keep_alive() == b"\0" * 4
        assert greeted_session(Sink()).keep_alive() == b""

    def test_a_long_delay_is_kept_though_it_is_called_more_often(self):
        session = greeted_session(Sink(), keep_alive_delay=5)
        assert [session.keep_alive() for _ in range(6)] == [b"", b"", b"\0" * 4] * 2

    def test_a_broken_stream_ends_it(self, caplog):
        sink = Sink()
        session = greeted_session(sink)
        session.receive_data(stream(WHOLE) + b"\0\0\0\1x")
        assert session.finished
        assert sink.applied == WHOLE
        assert any(r.levelname == "ERROR" and "byte" in r.getMessage() for r in caplog.records)
        session.receive_data(b"more")
        session.receive_eof()

    def test_an_end_in_mid_transaction_ends_it_with_an_error(self, caplog):
        sink = Sink()
        session = greeted_session(sink)
        session.receive_data(stream(WHOLE[:2]))
        session.receive_eof()
        session.close("gone")
        assert sink.aborts == 1
        assert "ended in the middle of a transaction" in caplog.text

    def test_an_end_between_transactions_is_no_error(self, caplog):
        session = greeted_session(Sink())
        session.receive_data(stream(WHOLE))
        session.receive_eof()
        assert session.finished
        assert not [r for r in caplog.records if r.levelno >= logging.ERROR]

    def test_a_sink_that_fails_ends_it(self, caplog):
        sink = Sink(failing=Store)
        session = greeted_session(sink)
        session.receive_data(stream(WHOLE))
        assert session.finished
        assert sink.applied == WHOLE[:1]
        assert (
            "peer: cannot apply what was received: No space left on device (transaction "
            "0x0000000000000001 (1900-01-01 00:00:00.000000))"
        ) in caplog.messages

    def test_a_disk_that_does_not_take_it_ends_it_for_good(self, caplog):
        sink = Sink(failing=Store, error=NotWritten(OSError("I/O error")))
        replication = client(sink)
        session = replication.session("peer")
        session.greeting()
        session.receive_data(stream(WHOLE))
        session.close("closed here")
        assert isinstance(replication.progress.stopped, NotWritten)
        assert "peer: stopped for good: the disk did not take" in caplog.text
        assert replication.retry_delay() == 3600
        again = replication.session("peer")
        assert again.greeting() == b""
        assert again.finished
        # It may be time for that before the connection is closed.
        assert again.keep_alive() == b""
        again.close("closed here")
        assert sink.applied == WHOLE[:1]

    def test_closing_aborts_once(self, caplog):
        sink = Sink()
        session = greeted_session(sink)
        session.receive_data(stream(WHOLE[:1]))
        session.close("gone")
        session.close("gone")
        assert sink.aborts == 1
        session.receive_data(stream(WHOLE))
        assert len(sink.applied) == 1
        assert sum("Disconnected (gone)" in each for each in caplog.messages) == 1

    def test_a_failing_abort_does_not_keep_the_next_session_waiting(self, caplog):
        replication = client(Sink(abort_error=OSError("disk")))
        first = replication.session("first")
        first.greeting()
        first.close("gone")
        assert "first: cannot clean up after an unfinished transaction" in caplog.messages
        assert replication.session("second").greeting()

    def test_whatever_an_abort_raises_the_end_of_the_connection_is_told(self):
        replication = client(Sink(abort_error=SystemExit()))
        first = replication.session("first")
        first.greeting()
        with pytest.raises(SystemExit):
            first.close("gone")
        assert not replication.progress.connected
        assert replication.progress.last_error == "gone"
        assert replication.session("second").greeting()

    @pytest.mark.parametrize("raises", ["last_tid", "flush"])
    def test_whatever_a_sink_raises_in_the_end_the_next_session_has_its_turn(
        self, raises, monkeypatch
    ):
        sink = Sink()
        replication = client(sink)
        first = replication.session("first")
        first.greeting()
        # Then it is flushed in the end.
        first.receive_data(stream(WHOLE), lambda: True)
        with monkeypatch.context() as failing:
            failing.setattr(sink, raises, _exit)
            with pytest.raises(SystemExit):
                first.close("gone")
        assert sink.aborts == 1
        assert not replication.progress.connected
        assert replication.session("second").greeting()

    def test_what_was_visible_before_a_failure_is_known_after_it(self, monkeypatch):
        sink, told = Sink(), []
        replication = ReplicationClient(
            sink, ADDRESS, committed=lambda: told.append(sink.last_tid())
        )
        session = replication.session("peer")
        session.greeting()
        with monkeypatch.context() as failing:
            failing.setattr(sink, "flush", _fail)
            session.receive_data(stream(WHOLE))
        assert (replication.progress.tid, told) == (NO_TID, [])
        session.close("closed")
        assert (replication.progress.tid, told) == (TID, [TID])

    def test_what_is_held_cannot_be_read(self, caplog):
        replication = client(Unreadable(WHOLE))
        session = replication.session("peer")
        assert session.greeting() == b""
        assert session.finished
        session.close("closed")
        assert "peer: cannot read what is held: Input/output error" in caplog.messages
        assert replication.progress.state is State.FAILING
        assert replication.session("next").greeting() == b""

    def test_what_is_held_is_not_compared(self, caplog):
        """Where it cannot be, or is not to be."""
        for sink, options in (
            (Held(), {}),
            (Sink(), {}),
            (Unreadable(WHOLE), {"max_compared_size": 0}),
        ):
            sink.applied = list(WHOLE)
            session = greeted_session(sink, **options)
            assert session._client.progress.state is State.REPLICATING
            session.close("closed")
        assert sum("not compared: it is too large" in message for message in caplog.messages) == 1

    def test_a_session_that_was_closed_first_greets_nobody(self):
        replication = client(Sink())
        session = replication.session("peer")
        session.close("gone")
        assert session.greeting() == b""
        assert replication.session("next").greeting()

    def test_sessions_take_turns(self):
        sink = Sink()
        replication = client(sink)
        first = replication.session("first")
        first.greeting()
        first.receive_data(stream(WHOLE[:1]))
        second = replication.session("second")
        with pytest.raises(RuntimeError, match="is not closed yet"):
            second.greeting()
        assert sink.aborts == 0
        first.close("gone")
        assert sink.aborts == 1
        assert second.greeting()
        second.close("gone")
        assert sink.aborts == 2


class TestTheOtherOneSpeaksTLS:
    """Told in words: what an encrypted beginning means as a length tells nobody anything."""

    def test_a_primary_hears_a_client_hello(self, caplog):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        connection = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            connection.do_handshake()
        session = primary_session(Source())
        session.receive_data(outgoing.read())
        assert session.finished
        errors = [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]
        assert errors == ["peer: the peer speaks TLS, and this primary does not"]

    def test_a_secondary_hears_an_alert(self, caplog):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        connection = context.wrap_bio(incoming, outgoing, server_side=True)
        session = client(Sink()).session("peer")
        incoming.write(session.greeting())
        with pytest.raises(ssl.SSLError):
            connection.do_handshake()
        # Some versions of OpenSSL say nothing to what is no TLS at all.
        session.receive_data(outgoing.read() or b"\x15\x03\x03\x00\x02\x02\x46")
        session.receive_eof()
        assert session.finished
        errors = [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]
        assert errors == ["peer: the primary speaks TLS, and this secondary does not"]
        session.close("gone")

    @pytest.mark.parametrize("tls", [True, False])
    @pytest.mark.parametrize("data", [b"", b"\0"])
    def test_a_secondary_may_not_like_the_certificate(self, tls, data, caplog):
        session = PrimarySession(Source(), "peer", pickle_protocol=3, tls=tls)
        if data:
            session.receive_data(data)
        session.close("gone")
        assert ("the secondary left without a word" in caplog.text) == (tls and not data)

    def test_the_same_bytes_later_are_none(self, caplog):
        session = greeted_session(Sink())
        session.receive_data(stream(WHOLE))
        session.receive_data(b"\x15\x03\x03\x00")
        assert session.finished
        assert "TLS" not in caplog.text
        session.close("gone")


class TestRetrying:
    def test_only_the_first_failure_is_news(self, caplog):
        replication = client(Sink(), reconnect_delay=5)
        for _ in range(3):
            replication.connection_failed("refused")
        assert [record.levelname for record in caplog.records] == ["WARNING", "DEBUG", "DEBUG"]
        assert "localhost:8100: cannot connect (refused)" in caplog.text
        assert replication.retry_delay() == 5

    def test_attempts_while_the_session_before_is_still_applying_are_no_failed_sessions(self):
        replication = client(Sink())
        session = replication.session("peer")
        session.greeting()
        session.receive_data(stream(WHOLE))
        for _ in range(6):
            replication.connection_failed("refused")
        assert replication.progress.state is State.REPLICATING
        assert replication.progress.failures == 0
        session.close("lost")
        assert replication.progress.state is State.CONNECTING

    def test_a_session_whose_certificate_is_refused_is_a_failed_one(self, caplog):
        replication = client(Sink())
        session = replication.session("peer")
        session.greeting()
        session.refused("TLS: unknown ca")
        session.close("TLS: unknown ca")
        assert replication.progress.state is State.FAILING
        assert replication.progress.failures == 1
        assert "localhost:8100: cannot connect (TLS: unknown ca)" in caplog.text

    def test_delays_grow_until_a_transaction_is_applied(self):
        replication = client(Sink(), reconnect_delay=(1, 100))
        for _ in range(6):
            replication.connection_failed("refused")
        assert replication.retry_delay() > 20
        session = replication.session("peer")
        session.greeting()
        assert replication.retry_delay() > 20
        session.receive_data(stream(WHOLE))
        assert replication.retry_delay() < 2

    def test_a_session_that_brought_nothing_counts_as_a_failure(self):
        replication = client(Sink(), reconnect_delay=(1, 100))
        for _ in range(6):
            session = replication.session("peer")
            session.greeting()
            session.close("refused")
        assert replication.retry_delay() > 20


class TestAfterAnErrorOfTheSink:
    """What could not be written must not be claimed: nothing is flushed, and all is aborted."""

    @pytest.mark.parametrize("failing", [Store, Commit])
    def test_nothing_is_flushed(self, failing):
        class Counting(Sink):
            flushes = 0

            def flush(self):
                self.flushes += 1

        sink = Counting(failing=failing)
        session = greeted_session(sink)
        session.receive_data(stream(WHOLE))
        assert session.finished
        assert sink.flushes == 0
        assert session._client.progress.transactions == 0
        session.close("gone")
        assert sink.aborts == 1
        assert sink.flushes == 0

    def test_nothing_that_was_held_back_is_flushed_either(self):
        sink = Sink()
        sink.flush = lambda: pytest.fail("it has failed")
        session = greeted_session(sink)
        first, both = stream(transactions(1, 1)), stream(transactions(1, 2))
        session.receive_data(first, lambda: True)
        sink._failing = Store
        session.receive_data(both[len(first) :])
        session.close("gone")
        assert sink.aborts == 1

    def test_what_came_whole_before_a_mistake_of_the_primary_counts(self):
        session = greeted_session(Sink())
        session.receive_data(stream(WHOLE) + b"\0\0\0\1x")
        assert session.finished
        assert session._client.progress.transactions == 1
        session.close("gone")


class TestOneThatHasNoTurn:
    """The sink belongs to the session before it, which may be in the midst of it."""

    @pytest.fixture
    def sink(self):
        return Counting()

    @pytest.fixture
    def second(self, sink):
        client_ = client(sink)
        first = client_.session("first")
        first.greeting()
        first.receive_data(stream(WHOLE[:2]))
        second = client_.session("second")
        sink.calls.clear()
        yield second
        assert sink.calls == []
        first.close("over")
        second.close("over")

    def test_leaves_the_sink_alone_when_the_connection_ends(self, second):
        second.receive_eof()

    def test_leaves_the_sink_alone_when_the_primary_speaks_too_early(self, second):
        second.receive_data(stream(WHOLE))
        assert second.finished


class Counting(Sink):
    """One that tells what it was called for."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def apply(self, message):
        self.calls.append("apply")
        super().apply(message)

    def flush(self):
        self.calls.append("flush")
        super().flush()

    def abort(self):
        self.calls.append("abort")
        super().abort()


def test_a_level_that_nobody_listens_to_costs_nothing():
    def position():
        raise AssertionError("nobody asked")

    logger = logging.Logger("nobody", logging.WARNING)
    PeerLog(logger, "peer", position).debug("keep-alive", extra=event("keep-alive"))

"""The secondary's session, driven by hand."""

from __future__ import annotations

import logging
import ssl

import pytest
from zope.interface import implementer
from zope.interface.verify import verifyObject

from zrs_core.errors import NotComparable, NotWritten
from zrs_core.interfaces import IComparableSink, IReplicationClient, ISession
from zrs_core.messages import NO_TID, Commit, Store, Transaction
from zrs_core.progress import State
from zrs_core.sessions import SECONDARY_DEADLINES, ReplicationClient, SecondaryTimes
from zrs_core.sessions.secondary import EARLY_ENDS
from zrs_core.testing import WHOLE, Sink, greeting, stream

from .helpers import ADDRESS, TID, connect, greeted_session, make_client, transactions

TIMES = SecondaryTimes()
PEER = str(ADDRESS)
KEEP_ALIVE = b"\0" * 4


@implementer(IComparableSink)
class Held(Sink):
    """One whose last transaction is too large to be compared."""

    def last_transaction(self, limit):
        raise NotComparable("it is too large")


class Unreadable(Held):
    def __init__(self, held):
        super().__init__()
        self.applied = list(held)

    def last_transaction(self, limit):
        raise OSError("Input/output error")


class Counting(Sink):
    """A sink that counts how often it is flushed, and notes how much was applied by then."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.flushed = []

    def flush(self):
        self.flushed.append(len(self.applied))


@pytest.fixture(autouse=True)
def _log_level(caplog):
    caplog.set_level(logging.DEBUG, "zrs_core")


def errors(caplog):
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR]


def test_the_interfaces_are_provided():
    assert verifyObject(IReplicationClient, make_client(Sink()))
    assert verifyObject(ISession, greeted_session(Sink()).session)


def test_each_deadline_of_the_table_has_a_handler():
    session = greeted_session(Sink()).session
    assert set(session._timers._handlers) == set(SECONDARY_DEADLINES)


class TestTheStart:
    def test_it_greets_with_its_word_and_its_start(self):
        assert greeted_session(Sink()).take() == greeting("zrs2.1")
        sink = Sink()
        sink.blobs = False
        sink.applied = list(WHOLE)
        assert greeted_session(sink).take() == greeting("zrs2.0", TID)

    def test_what_is_held_cannot_be_read(self, caplog):
        client = make_client(Unreadable(WHOLE))
        session = connect(client)
        assert session.take() == b""
        assert session.end
        assert f"{PEER}: cannot read what is held: Input/output error" in caplog.messages
        assert client.progress.state is State.FAILING
        assert not client.progress.connected

    def test_what_is_held_is_not_compared(self, caplog):
        """Where it cannot be, or is not to be."""
        for sink, options in (
            (Held(), {}),
            (Sink(), {}),
            (Unreadable(WHOLE), {"max_compared_size": 0}),
        ):
            sink.applied = list(WHOLE)
            client = make_client(sink, **options)
            connect(client)
            assert client.progress.state is State.REPLICATING
        assert sum("not compared: it is too large" in each for each in caplog.messages) == 1

    def test_a_connection_that_ends_before_the_start_is_no_refusal(self):
        client = make_client(Sink())
        session = connect(client)
        again = connect(make_client(Sink()), now=1.0)
        assert session.end is None
        assert again.end is None
        pending = []

        class Later(type(session)):
            def work(self, work):
                pending.append(work)

        later = Later(lambda now, notify: client.session(now, notify))
        later.receive_eof()
        later.session.done(pending.pop().call(), 0.0)
        later.act()
        assert later.take() == b""
        assert later.end == "closed by the other end"
        assert client.progress.refusals == 0

    def test_while_the_files_are_gone_nothing_is_asked_for(self):
        client = ReplicationClient(Sink(), ADDRESS, check_files=lambda: "the file is gone")
        session = connect(client)
        assert (session.take(), session.end) == (b"", "closed here")
        assert client.progress.state is State.FAILING
        assert client.retry_delay() == TIMES.lost


class TestApplying:
    def test_what_comes_is_applied(self):
        sink = Sink()
        session = greeted_session(sink)
        data = stream(WHOLE)
        session.receive(data[:50])
        session.receive(data[50:])
        assert sink.applied == WHOLE
        assert session.end is None

    def test_progress_is_counted(self):
        client = make_client(Sink())
        assert not client.progress.connected
        session = connect(client)
        assert client.progress.connected
        data = stream(WHOLE)
        session.receive(data)
        progress = client.progress
        assert (progress.bytes, progress.transactions, progress.tid) == (len(data), 1, TID)
        session.lose("gone")
        assert not progress.connected
        assert progress.last_error == "gone"

    def test_an_empty_read_means_nothing(self):
        sink = Counting()
        session = greeted_session(sink)
        session.receive(b"")
        assert sink.flushed == []
        session.advance(TIMES.refusal / 2)
        session.receive_eof()
        assert session.session._silent

    def test_nothing_is_read_while_something_is_applied(self):
        sink = Sink()
        client = make_client(sink)
        session = connect(client)
        work = []
        session.work = work.append
        session.receive(stream(WHOLE))
        assert not session.session.wants_data
        # A driver may have read it already.
        session.receive(stream([*WHOLE, *transactions(2, 1)])[len(stream(WHOLE)) :])
        assert len(work) == 1
        while work:
            session.session.done(work.pop().call(), session.now)
            session.act()
        assert session.session.wants_data
        assert client.progress.transactions == 2

    def test_a_record_that_is_larger_than_it_takes(self, caplog):
        """What came before it is applied, and the error has the remedy."""
        sink = Sink()
        small = [Transaction(bytes(7) + b"\1"), Commit()]
        tid = bytes(7) + b"\2"
        large = [Transaction(tid), Store(bytes(8), tid, b"x" * 6), Commit()]
        session = greeted_session(sink, max_record_size=5)
        session.receive(stream([*small, *large]))
        assert session.end
        assert sink.applied[:2] == small
        (told,) = errors(caplog)
        assert "a message of 6 bytes, where at most 5 are allowed" in told
        assert "in transaction 0x0000000000000002" in told
        assert "raise max_record_size" in told

    def test_a_broken_stream_ends_it(self, caplog):
        client = make_client(Sink())
        session = connect(client)
        session.receive(stream(WHOLE) + b"\0\0\0\1x")
        assert session.end
        assert client.sink.applied == WHOLE
        assert client.progress.transactions == 1
        (told,) = errors(caplog)
        assert "byte" in told
        session.receive(b"more")
        session.receive_eof()
        assert errors(caplog) == [told]

    def test_an_empty_message_between_transactions_is_an_error(self, caplog):
        session = greeted_session(Sink())
        session.receive(bytes(4096))
        assert session.end
        assert len(errors(caplog)) == 1

    def test_a_sink_that_fails_ends_it(self, caplog):
        sink = Sink(failing=Store)
        session = greeted_session(sink)
        session.receive(stream(WHOLE))
        assert session.end
        assert sink.applied == WHOLE[:1]
        assert (
            f"{PEER}: cannot apply what was received: No space left on device (transaction "
            "0x0000000000000001 (1900-01-01 00:00:00.000000))"
        ) in caplog.messages

    def test_a_disk_that_does_not_take_it_ends_it_for_good(self, caplog):
        sink = Sink(failing=Store, error=NotWritten(OSError("I/O error")))
        client = make_client(sink)
        connect(client).receive(stream(WHOLE))
        assert isinstance(client.progress.stopped, NotWritten)
        assert f"{PEER}: stopped for good: the disk did not take" in caplog.text
        assert client.retry_delay() == 3600
        again = connect(client)
        assert (again.take(), again.end) == (b"", "closed here")
        assert sink.applied == WHOLE[:1]

    def test_the_primary_speaks_tls(self, caplog):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        connection = context.wrap_bio(incoming, outgoing, server_side=True)
        session = greeted_session(Sink())
        incoming.write(session.take())
        with pytest.raises(ssl.SSLError):
            connection.do_handshake()
        # Some versions of OpenSSL say nothing to what is no TLS at all.
        session.receive(outgoing.read() or b"\x15\x03\x03\x00\x02\x02\x46")
        assert session.end
        assert errors(caplog) == [f"{PEER}: the primary speaks TLS, and this secondary does not"]

    def test_the_same_bytes_later_are_none(self, caplog):
        session = greeted_session(Sink())
        session.receive(stream(WHOLE))
        session.receive(b"\x15\x03\x03\x00")
        assert session.end
        assert "TLS" not in caplog.text


class TestHoldingBack:
    def test_what_was_applied_is_held_back_while_more_is_there(self):
        sink, more = Counting(), [True]
        session = connect(make_client(sink), lambda: more[0])
        data = stream(transactions(1, 5))
        size = len(data) // 5
        parts = [data[place : place + size] for place in range(0, len(data), size)]
        session.receive(parts[0])
        session.advance(0.09)
        session.receive(parts[1])
        assert sink.flushed == []
        session.advance(0.02)
        assert sink.flushed == [6]
        session.receive(parts[2])
        session.receive(parts[3])
        assert sink.flushed == [6]
        more[0] = False
        session.receive(parts[4])
        assert sink.flushed == [6, 15]
        session.advance(1)
        assert sink.flushed == [6, 15]

    def test_the_longest_time_counts_from_the_first(self):
        sink = Counting()
        session = connect(make_client(sink), lambda: True)
        data = stream(transactions(1, 100))
        for place in range(0, len(data), len(data) // 50):
            session.receive(data[place : place + len(data) // 50])
            session.advance(0.01)
        assert len(sink.flushed) >= 4

    def test_what_is_held_back_counts_when_the_connection_ends(self):
        sink = Counting()
        session = connect(make_client(sink), lambda: True)
        session.receive(stream(WHOLE))
        assert sink.flushed == []
        session.lose("gone")
        assert sink.flushed == [len(WHOLE)]
        assert sink.aborts == 1

    def test_and_when_it_is_stopped(self):
        sink = Counting()
        client = make_client(sink)
        session = connect(client, lambda: True)
        session.receive(stream(WHOLE))
        session.stop()
        assert session.end == "closed here"
        assert sink.flushed == [len(WHOLE)]
        assert client.progress.transactions == 1

    @pytest.mark.parametrize("failing", [Store, Commit])
    def test_nothing_is_flushed_after_an_error_of_the_sink(self, failing):
        sink = Counting(failing=failing)
        client = make_client(sink)
        session = connect(client)
        session.receive(stream(WHOLE))
        assert session.end
        assert sink.flushed == []
        assert client.progress.transactions == 0
        assert sink.aborts == 1

    def test_nothing_that_was_held_back_is_flushed_after_it_either(self):
        sink = Counting()
        session = connect(make_client(sink), lambda: True)
        first, both = stream(transactions(1, 1)), stream(transactions(1, 2))
        session.receive(first)
        sink._failing = Store
        session.receive(both[len(first) :])
        assert sink.flushed == []
        assert sink.aborts == 1


class TestKeepAlive:
    def test_it_says_that_it_is_there(self):
        session = greeted_session(Sink(), keep_alive_delay=1)
        session.take()
        session.advance(5.5)
        assert session.take() == 5 * KEEP_ALIVE

    def test_it_need_not(self):
        session = greeted_session(Sink(), keep_alive_delay=0)
        session.take()
        session.advance(1000)
        assert session.take() == b""

    def test_to_one_that_takes_nothing_it_says_nothing_more(self):
        session = connect(make_client(Sink(), keep_alive_delay=1), accepts=False)
        size = len(session.unsent)
        session.advance(100)
        assert len(session.unsent) == size


class TestAMessageThatDoesNotBecomeComplete:
    def test_it_ends_the_connection(self, caplog):
        client = make_client(Sink(), peer_timeout=60)
        session = connect(client)
        session.receive(stream(WHOLE)[:-2])
        session.advance(59)
        assert session.end is None
        session.advance(1)
        assert session.end
        (told,) = errors(caplog)
        assert "is not complete after 60 s" in told

    def test_the_same_again_is_waited_for(self):
        sink = Sink()
        client = make_client(sink, peer_timeout=60)
        first = connect(client)
        first.receive(stream(WHOLE)[:-2])
        first.advance(60)
        assert first.end
        sink.applied.clear()
        second = connect(client)
        second.receive(stream(WHOLE)[:-2])
        second.advance(119)
        assert second.end is None
        second.advance(10_000)
        assert second.end is None

    def test_a_stream_that_goes_on_is_not_left(self):
        session = greeted_session(Sink(), peer_timeout=60)
        data = stream(transactions(1, 100))
        for place in range(0, len(data), 50):
            session.receive(data[place : place + 50])
            session.advance(50)
        assert session.end is None

    def test_what_is_applied_meanwhile_is_not_late(self):
        session = greeted_session(Sink(), peer_timeout=60)
        session.receive(stream(WHOLE)[:-2])
        work = []
        session.work = work.append
        session.receive(stream(WHOLE)[-2:-1])
        session.advance(1000)
        assert session.end is None
        session.session.done(work.pop().call(), session.now)
        session.act()
        session.advance(1)
        assert session.end


class TestTheEnd:
    def test_an_end_in_mid_transaction_ends_it_with_an_error(self, caplog):
        sink = Sink()
        session = greeted_session(sink)
        session.receive(stream(WHOLE[:2]))
        session.receive_eof()
        assert sink.aborts == 1
        assert "ended in the middle of a transaction" in caplog.text

    def test_an_end_between_transactions_is_no_error(self, caplog):
        session = greeted_session(Sink())
        session.receive(stream(WHOLE))
        session.receive_eof()
        assert session.end == "closed by the other end"
        assert errors(caplog) == []

    def test_it_aborts_once(self, caplog):
        sink = Sink()
        session = greeted_session(sink)
        session.receive(stream(WHOLE[:1]))
        session.lose("gone")
        session.lose("gone")
        assert sink.aborts == 1
        session.receive(stream(WHOLE))
        assert len(sink.applied) == 1
        assert sum("Disconnected (gone)" in each for each in caplog.messages) == 1

    def test_a_session_is_over_when_its_work_is_done(self):
        sink = Sink()
        session = greeted_session(sink)
        work = []
        session.work = work.append
        session.receive(stream(WHOLE))
        session.lose("gone")
        assert not session.session.over
        assert session.session.next_deadline() is None
        while work:
            session.session.done(work.pop().call(), 0.0)
            session.act()
        assert session.session.over
        assert sink.applied == WHOLE
        assert sink.aborts == 1

    @pytest.mark.parametrize("error", [OSError("disk"), SystemExit()])
    def test_a_failing_abort_does_not_keep_it_from_connecting_again(self, error, caplog):
        client = make_client(Sink(abort_error=error))
        connect(client).lose("gone")
        assert f"{PEER}: cannot clean up after an unfinished transaction" in caplog.messages
        assert not client.progress.connected
        assert client.progress.last_error == "gone"
        assert connect(client).take()

    @pytest.mark.parametrize("raises", ["last_tid", "flush"])
    def test_whatever_a_sink_raises_in_the_end_it_connects_again(self, raises):
        sink = Sink()
        client = make_client(sink)
        session = connect(client, lambda: True)
        session.receive(stream(WHOLE))

        def fail():
            raise SystemExit

        setattr(sink, raises, fail)
        session.lose("gone")
        assert sink.aborts == 1
        assert not client.progress.connected
        delattr(sink, raises)
        assert connect(client).take()

    def test_what_was_visible_before_a_failure_is_known_after_it(self):
        sink, told = Sink(), []
        client = ReplicationClient(sink, ADDRESS, committed=lambda: told.append(sink.last_tid()))
        session = connect(client)

        def fail():
            assert client.progress.tid == NO_TID
            raise OSError("Input/output error")

        sink.flush = fail
        session.receive(stream(WHOLE))
        assert session.end
        assert (client.progress.tid, told) == (TID, [TID])

    def test_the_primary_refuses_the_certificate(self, caplog):
        client = make_client(Sink())
        session = connect(client)
        session.session.refused("TLS: unknown ca", 0.0)
        session.act()
        assert session.end == "TLS: unknown ca"
        assert client.progress.state is State.FAILING
        assert client.progress.failures == 1
        assert f"{PEER}: cannot connect (TLS: unknown ca)" in caplog.text


class TestAPrimaryThatEndsEarly:
    def ended(self, client, data=b"", after=0.0):
        session = connect(client)
        if data:
            session.receive(data)
        session.advance(after)
        session.receive_eof()
        return session

    def test_some_in_a_row_are_a_failure(self, caplog):
        client = make_client(Sink())
        self.ended(client, stream(WHOLE))
        assert client.early_ends == 0
        for number in range(1, EARLY_ENDS + 2):
            # It has been connected for longer than a refusal takes.
            self.ended(client, after=TIMES.refusal + 0.1)
            assert client.early_ends == number
            assert (client.progress.state is State.FAILING) == (number >= EARLY_ENDS)
        assert "it cannot send what follows" in client.progress.failure
        assert [each.levelname for each in caplog.records].count("ERROR") == 1
        assert client.retry_delay() > 0.6

    def test_something_new_ends_the_row(self):
        client = make_client(Sink())
        client.early_ends = EARLY_ENDS
        self.ended(client, stream(WHOLE))
        assert client.early_ends == 0

    def test_one_that_lasted_ends_the_row(self):
        client = make_client(Sink())
        client.early_ends = EARLY_ENDS - 1
        self.ended(client, after=TIMES.early + 1)
        assert client.early_ends == 0
        assert client.progress.failure is None

    def test_one_that_lasts_ends_the_failure(self):
        client = make_client(Sink())
        client.early_ends = EARLY_ENDS
        client.session_failed("why")
        session = connect(client)
        session.advance(TIMES.early - 1)
        assert client.progress.state is State.FAILING
        session.advance(1)
        assert client.progress.state is State.REPLICATING
        assert client.early_ends == 0


class TestAPrimaryThatRefuses:
    def test_it_is_told_from_one_that_is_lost_later(self):
        client = make_client(Sink())
        client.sink.applied = list(WHOLE)
        session = connect(client)
        session.advance(TIMES.refusal)
        session.lose("reset")
        assert client.progress.state is State.REFUSED
        assert client.progress.refusals == 1
        session = connect(client)
        session.advance(TIMES.refusal + 0.1)
        assert client.progress.state is State.REPLICATING
        session.lose("reset")
        assert client.progress.refusals == 0

    def test_one_that_is_empty_is_a_warning(self, caplog):
        client = make_client(Sink())
        connect(client).receive_eof()
        assert client.progress.state is State.FAILING
        assert [each.levelname for each in caplog.records].count("WARNING") == 1
        assert "its log tells why" in client.progress.failure


class TestRetrying:
    def test_only_the_first_failure_is_news(self, caplog):
        client = make_client(Sink(), reconnect_delay=5)
        for _ in range(3):
            client.connection_failed("refused")
        assert [record.levelname for record in caplog.records] == ["WARNING", "DEBUG", "DEBUG"]
        assert "localhost:8100: cannot connect (refused)" in caplog.text
        assert client.retry_delay() == 5

    def test_delays_grow_until_a_transaction_is_applied(self):
        client = make_client(Sink(), reconnect_delay=(1, 100))
        for _ in range(6):
            client.connection_failed("refused")
        assert client.retry_delay() > 20
        session = connect(client)
        assert client.retry_delay() > 20
        session.receive(stream(WHOLE))
        assert client.retry_delay() < 2

    def test_a_session_that_brought_nothing_counts_as_a_failure(self):
        client = make_client(Sink(), reconnect_delay=(1, 100))
        for _ in range(6):
            connect(client).lose("refused")
        assert client.retry_delay() > 20

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import deque
from types import SimpleNamespace

import pytest
from twisted.internet.error import ConnectionDone
from twisted.internet.pollreactor import PollReactor
from twisted.python.failure import Failure

from zrs_core import Primary, Secondary
from zrs_core.actions import Abort, Close, HalfClose, Send, Work
from zrs_core.addresses import TCPAddress
from zrs_core.sessions import ReplicationClient, ReplicationService
from zrs_core.testing import WHOLE, Sink, Source, greeting, stream
from zrs_core.testing.environments import DEADLINE
from zrs_core.transports.reactors import Loop, acquire
from zrs_core.transports.twisted_driver import Connection
from zrs_core.transports.twisted_tcp import Connector, Listener

from ..conditions import wait_for
from ..databases import contents, open_file_storage, traffic
from .network import (
    OftenOverTCP,
    OftenOverTLS,
    OverTCP,
    OverTLS,
    OverTLSAndUnixSockets,
    OverUnixSockets,
)
from .test_reactors import reactor  # noqa: F401

LOOPBACK = TCPAddress("127.0.0.1", 0)
NOWHERE = TCPAddress("127.0.0.1", 1)
TIMEOUT = 60


class TestTCP(OverTCP):
    transport = "twisted-tcp"


@pytest.mark.long
class TestUnixSockets(OverUnixSockets):
    transport = "twisted-tcp"


@pytest.mark.long
class TestTLS(OverTLS):
    transport = "twisted-tcp"


@pytest.mark.long
class TestTLSAndUnixSockets(OverTLSAndUnixSockets):
    transport = "twisted-tcp"


class TestOftenOverTCP(OftenOverTCP):
    transport = "twisted-tcp"


class TestOftenOverTLS(OftenOverTLS):
    transport = "twisted-tcp"


class Session:
    """A session that a test drives: it notes its inputs, and `act` gives it actions."""

    def __init__(self):
        self.inputs = []
        self.actions = deque()
        self.deadline = None
        self.wants_data = True
        self.working = self.over = self._lost = False

    def receive_data(self, data, now):
        self.inputs.append(("data", data))

    def receive_eof(self, now):
        self.inputs.append(("eof",))

    def sent(self, count, now):
        self.inputs.append(("sent", count))

    def wake(self, now):
        self.inputs.append(("wake",))

    def done(self, result, now):
        self._outcome(result)

    def failed(self, error, now):
        self._outcome(error)

    def _outcome(self, outcome):
        self.inputs.append(("outcome", outcome))
        self.working = False
        self.over = self._lost

    def handle_timeout(self, now):
        self.inputs.append(("timeout",))
        self.deadline = None

    def stop(self, now, timeout):
        self.inputs.append(("stop", timeout))
        self.actions.append(Abort("closed here"))

    def lost(self, reason, now):
        self.inputs.append(("lost", reason))
        self._lost = True
        self.over = not self.working
        self.actions.clear()

    def next_action(self):
        action = self.actions.popleft() if self.actions else None
        self.working = self.working or isinstance(action, Work)
        return action

    def next_deadline(self):
        return None if self.over else self.deadline

    def all(self, kind):
        return [each for each in self.inputs if each[0] == kind]


class Pair:
    """A connection over Twisted, the session at its end, and the socket of its peer."""

    def __init__(self, loop):
        self.loop = loop
        self.session = Session()
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.peer = socket.create_connection(server.getsockname())
            accepted, _ = server.accept()
        self.peer.settimeout(TIMEOUT)
        with accepted:
            accepted.setblocking(False)
            self.connection = loop.call(self._adopt, accepted)

    def _adopt(self, accepted):
        connection = Connection(self.loop, 60.0)
        connection.accepted = self.session
        factory = SimpleNamespace(
            doStart=lambda: None, doStop=lambda: None, buildProtocol=lambda addr: connection
        )
        adopt = self.loop.reactor.adoptStreamConnection
        adopt(accepted.fileno(), accepted.family, factory)
        return connection

    def act(self, *actions, **attributes):
        """Have the session ask for actions, with other attributes."""
        self.loop.call(self._act, actions, attributes)

    def _act(self, actions, attributes):
        vars(self.session).update(attributes)
        self.session.actions.extend(actions)
        self.connection.act()

    def wait_for(self, *wanted):
        wait_for(lambda: wanted in self.session.inputs, wanted)

    def close(self):
        self.peer.close()
        if not self.session.over:
            self.loop.call(self.connection.connectionLost, Failure(ConnectionDone()))
            self.loop.call(self.connection.transport.connectionLost, Failure(ConnectionDone()))


@pytest.fixture(params=["background", "given"])
def loop(request):
    given = request.param == "given"
    loop = acquire(request.getfixturevalue("reactor") if given else None)
    yield loop
    loop.close()


@pytest.fixture
def pair(loop):
    pair = Pair(loop)
    yield pair
    pair.close()


class TestConnection:
    def test_it_writes_pieces_and_reports_each(self, pair):
        data = bytes(range(256)) * 4096
        chunks = [data[:10], data[10:700_000], b"", data[700_000:700_001], data[700_001:]]
        pair.act(Send(chunks), Send([b"end"]))
        received = b""
        while len(received) < len(data) + 3:
            received += pair.peer.recv(1 << 20)
        assert received == data + b"end"
        reports = lambda: [count for _, count in pair.session.all("sent")]  # noqa: E731
        wait_for(lambda: sum(reports()) == len(received), "reports")
        assert all(0 < each <= 128 * 1024 for each in reports())

    def test_it_closes_though_the_socket_cannot_be_written_to(self, pair):
        def fill():
            with contextlib.suppress(BlockingIOError):
                while True:
                    pair.connection.handle.send(bytes(1 << 16))

        pair.loop.call(fill)
        pair.act(Close("enough"))
        wait_for(lambda: pair.session.over, "the end")
        assert pair.session.inputs == [("lost", "enough")]

    def test_it_half_closes_and_reads_on(self, pair):
        pair.act(Send([b"last"]))
        pair.wait_for("sent", 4)
        pair.act(HalfClose())
        assert pair.peer.recv(100) == b"last"
        assert pair.peer.recv(100) == b""
        pair.peer.sendall(b"more")
        pair.wait_for("data", b"more")
        assert not pair.session.over

    def test_it_can_still_send_when_the_peer_has_half_closed(self, pair):
        pair.peer.shutdown(socket.SHUT_WR)
        pair.wait_for("eof")
        # Neither is the end read again.
        pair.act(wants_data=False)
        pair.act(wants_data=True)
        pair.act(Send([b"answer"]))
        assert pair.peer.recv(100) == b"answer"
        pair.wait_for("sent", 6)
        assert pair.session.inputs == [("eof",), ("sent", 6)]

    def test_aborting_drops_what_is_on_its_way(self, pair):
        pair.act(Send([bytes(1 << 26)]))
        pair.act(Abort("no more"))
        wait_for(lambda: pair.session.over, "the end")
        assert pair.session.inputs[-1] == ("lost", "no more")
        with pytest.raises(ConnectionResetError):
            deque(iter(lambda: pair.peer.recv(1 << 20), b""), maxlen=0)

    def test_what_has_come_is_received_before_a_deadline_that_has_passed(self, pair):
        def be_late():
            pair.session.deadline = time.monotonic()
            pair.connection.act()
            pair.peer.sendall(b"in time")
            assert pair.connection.readable()

        pair.loop.call(be_late)
        pair.wait_for("timeout")
        assert pair.session.inputs == [("data", b"in time"), ("timeout",)]

    def test_an_earlier_deadline_comes_first_and_the_other_in_its_time(self, pair):
        begun = time.monotonic()
        pair.act(deadline=begun + 0.2)
        pair.act(deadline=begun + 0.05)
        pair.wait_for("timeout")
        assert begun + 0.05 <= time.monotonic()
        pair.act(deadline=begun + 0.2)
        wait_for(lambda: len(pair.session.all("timeout")) >= 2, "the other")
        assert begun + 0.2 <= time.monotonic()

    def test_deadlines_that_move_on_are_no_calls_of_their_own(self, pair):
        for each in range(100):
            pair.act(deadline=time.monotonic() + 60 + each)
        calls = lambda: len(pair.connection._timers)  # noqa: E731
        assert calls() == 1
        pair.act(Abort("no more"))
        wait_for(lambda: pair.session.over, "the end")
        assert calls() == 0

    def test_many_notifications_are_one_wake(self, pair):
        def notify():
            for _ in range(10):
                pair.connection.notify()

        pair.loop.call(notify)
        pair.wait_for("wake")
        pair.loop.call(lambda: None)
        assert pair.session.inputs == [("wake",)]

    def test_a_notification_after_the_end_is_none(self, pair):
        pair.act(Abort("no more"))
        wait_for(lambda: pair.session.over, "the end")
        pair.connection.notify()
        pair.loop.call(lambda: None)
        assert pair.session.inputs == [("lost", "no more")]

    def test_nearby_work_is_done_in_the_reactor_s_thread_and_other_work_in_another(self, pair):
        for nearby in (True, False):
            pair.act(Work(threading.current_thread, nearby))
        wait_for(lambda: len(pair.session.all("outcome")) == 2, "both")
        near, far = (thread for _, thread in pair.session.inputs)
        assert near is pair.loop.call(threading.current_thread)
        assert far not in (near, threading.current_thread())

    @pytest.mark.parametrize("nearby", [True, False])
    @pytest.mark.parametrize("error", [ValueError("no"), SystemExit("enough")])
    def test_an_exception_of_work_is_reported(self, pair, nearby, error):
        def work():
            raise error

        pair.act(Work(work, nearby))
        pair.wait_for("outcome", error)

    def test_without_threads_the_reactor_does_the_work(self, pair):
        def no_thread(*args, **kwargs):
            raise RuntimeError("can't start new thread")

        pair.loop.reactor.getThreadPool().threadFactory = no_thread
        pair.act(Work(threading.current_thread))
        pair.wait_for("outcome", pair.loop.call(threading.current_thread))

    def test_it_is_over_when_the_work_is_that_was_under_way_when_the_connection_was_lost(
        self, pair
    ):
        gate = threading.Event()
        pair.act(Work(lambda: gate.wait(TIMEOUT)))
        pair.peer.close()
        pair.wait_for("eof")
        pair.act(Close("closed there"))
        pair.wait_for("lost", "closed there")
        assert not pair.connection.over.called
        gate.set()
        wait_for(lambda: pair.connection.over.called, "the end")
        assert pair.session.inputs[-1] == ("outcome", True)


class TestEndOfTheReactor:
    """An application may end its reactor before it closes its storages."""

    @pytest.fixture
    def ending(self):
        ended = PollReactor()
        running = threading.Event()
        ended.callWhenRunning(running.set)
        thread = threading.Thread(target=ended.run, args=(False,))
        thread.start()
        assert running.wait(TIMEOUT)
        pair = Pair(acquire(ended))

        def end():
            ended.callFromThread(ended.stop)
            thread.join(TIMEOUT)

        pair.end = end
        yield pair
        if ended.running:
            end()
        pair.loop.close()
        pair.peer.close()
        ended.waker.connectionLost(None)

    def test_the_session_hears_of_it(self, ending):
        ending.end()
        assert ending.session.over
        assert [kind for kind, _ in ending.session.inputs] == ["lost"]

    def test_work_that_is_under_way_is_reported(self, ending):
        gate, begun = threading.Event(), threading.Event()

        def work():
            begun.set()
            return gate.wait(TIMEOUT)

        # Before the reactor waits for its threads, which it does not have yet.
        ended = ending.loop.reactor
        ending.loop.call(ended.addSystemEventTrigger, "during", "shutdown", gate.set)
        ending.act(Work(work))
        assert begun.wait(TIMEOUT)
        ending.end()
        assert ending.session.over
        assert ending.session.inputs[-1] == ("outcome", True)

    def test_work_whose_report_was_not_heard_is_reported_when_it_is_stopped(self, ending):
        ended = ending.loop.reactor

        def end():
            ending._act([Work(lambda: "done")], {})
            wait_for(lambda: ending.connection._outcomes, "the outcome")
            ended.stop()

        ended.callFromThread(end)
        wait_for(lambda: not ended.running, "the end of the reactor")
        assert not ending.session.over
        ending.connection.stop(0.0)
        assert ending.session.over
        assert ending.session.inputs[-1] == ("outcome", "done")

    def test_a_commit_does_not_do_its_work(self, ending):
        ended = ending.loop.reactor
        ended.addSystemEventTrigger("during", "shutdown", ending.connection.notify)
        ending.end()
        ending.connection.notify()
        assert ending.session.all("wake") == []


class TestListener:
    def test_a_connection_for_which_no_session_can_be_made_is_closed(self, caplog):
        class Failing(ReplicationService):
            failures = 1

            def accept(self, *args):
                self.failures -= 1
                if self.failures >= 0:
                    raise ValueError("a mistake")
                return super().accept(*args)

        listener = Listener(Failing(Source(WHOLE), LOOPBACK))
        listener.start()
        try:
            address = (listener.address.host, listener.address.port)
            with socket.create_connection(address, TIMEOUT) as peer:
                assert peer.recv(1) == b""
            with socket.create_connection(address, TIMEOUT) as peer:
                peer.sendall(greeting())
                assert peer.recv(1) == stream(WHOLE)[:1]
        finally:
            listener.stop(0)
        assert "ValueError: a mistake" in caplog.text

    def test_a_session_is_over_if_its_connection_could_not_be_set_up(self):
        """Twisted tells its protocol nothing of it."""
        service = ReplicationService(Source(), LOOPBACK)
        listener = Listener(service)
        listener.start()
        connection = listener._loop.call(listener._accept, SimpleNamespace(host="::1", port=1))
        wait_for(lambda: connection.session is not None and connection.session.over, "the end")
        listener.stop(TIMEOUT)


class TestConnector:
    def test_a_place_that_does_not_answer_is_given_up_in_time(self, caplog):
        # What waits to be accepted is more than the system takes.
        with contextlib.ExitStack() as opened:
            server = opened.enter_context(socket.socket())
            server.bind(("127.0.0.1", 0))
            server.listen(0)
            for _ in range(4):
                filling = opened.enter_context(socket.socket())
                filling.setblocking(False)
                filling.connect_ex(server.getsockname())
            client = ReplicationClient(Sink(), TCPAddress(*server.getsockname()))
            client.connect_timeout = 0.1
            connector = Connector(client)
            connector.start()
            wait_for(lambda: "timed out" in caplog.text, "the failure")
            connector.stop()

    def test_it_stops_while_it_connects(self):
        with contextlib.ExitStack() as opened:
            server = opened.enter_context(socket.socket())
            server.bind(("127.0.0.1", 0))
            server.listen(0)
            for _ in range(4):
                filling = opened.enter_context(socket.socket())
                filling.setblocking(False)
                filling.connect_ex(server.getsockname())
            client = ReplicationClient(Sink(), TCPAddress(*server.getsockname()))
            connector = Connector(client)
            connector.start()
            connector.stop()


def test_the_reactor_is_given_up_though_stopping_fails(monkeypatch):
    listener = Listener(ReplicationService(Source(), LOOPBACK))
    connector = Connector(ReplicationClient(Sink(), NOWHERE))
    for each, stop in ((listener, lambda: listener.stop(0)), (connector, connector.stop)):
        each.start()
        end = each._stop

        def failing(*args, end=end):
            end(*args)
            raise RuntimeError("a mistake")

        monkeypatch.setattr(each, "_stop", failing)
        with pytest.raises(RuntimeError, match="a mistake"):
            stop()
        assert not each._loop.reactor.running


def test_a_reactor_serves_who_reconnects_while_the_last_other_user_leaves(monkeypatch):
    connector = Connector(ReplicationClient(Sink(), NOWHERE))
    connector.start()
    begun, gate, call, errors = threading.Event(), threading.Event(), Loop.call, []

    def late(loop, function, *args):
        if function == connector._leave:
            begun.set()
            assert gate.wait(DEADLINE)
        return call(loop, function, *args)

    def reconnect():
        try:
            connector.reconnect()
        except BaseException as error:
            errors.append(error)

    monkeypatch.setattr(Loop, "call", late)
    thread = threading.Thread(target=reconnect)
    thread.start()
    assert begun.wait(DEADLINE)
    connector.stop()
    gate.set()
    thread.join()
    assert errors == []


class TestReactor:
    def test_on_a_reactor_that_the_application_runs(self, tmp_path, reactor):  # noqa: F811
        primary = Primary(open_file_storage(tmp_path / "db"), LOOPBACK, reactor)
        secondary = Secondary(
            open_file_storage(tmp_path / "other"), primary.replication_address, reactor
        )
        with traffic(primary) as commits:
            commits.commit(20)
            wait_for(lambda: secondary.progress.tid == primary.lastTransaction(), "catching up")
            assert contents(secondary) == contents(primary)
            secondary.close()

    def test_it_goes_on_when_the_system_s_clock_was_set_back(self, reactor):  # noqa: F811
        """The connector waits between its attempts."""
        loop = acquire(reactor)
        client = ReplicationClient(Sink(), NOWHERE, reactor)
        attempts = []
        client.connection_failed = attempts.append
        client.retry_delay = lambda: 0.2
        connector = Connector(client)
        connector.start()
        wait_for(lambda: attempts, "the first attempt")
        loop.call(setattr, reactor, "offset", -3600)
        seen = len(attempts)
        wait_for(lambda: len(attempts) > seen + 1, "another attempt")
        connector.stop()
        assert loop.call(reactor.getDelayedCalls) == []
        loop.close()

    def test_opened_and_closed_in_the_reactors_thread(self, tmp_path, reactor):  # noqa: F811
        results = []
        done = threading.Event()

        def in_reactor():
            primary = Primary(open_file_storage(tmp_path / "db"), LOOPBACK, reactor)
            secondary = Secondary(
                open_file_storage(tmp_path / "other"), primary.replication_address, reactor
            )
            secondary.close()
            primary.close()
            results.append(primary.replication_address.port)
            done.set()

        reactor.callFromThread(in_reactor)
        assert done.wait(TIMEOUT)
        assert results[0] != 0

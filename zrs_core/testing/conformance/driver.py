"""Tests of what a driver does for a session, whichever session it is."""
# ruff: noqa: S101

from __future__ import annotations

import functools
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import pytest
from zope.interface import implementer

from ...actions import Abort, Action, Close, HalfClose, Send, Work
from ...interfaces import ISession
from ...messages import PrimaryMessage
from ...sessions.tls import ServerLayer
from ..environments import End, Environment, Server
from ..fakes import WHOLE, Sink, Source
from .storages import Copy, is_whole
from .suite import GREETING, STREAM, Connect, Listen, Stillness, Suite, closed_at_once
from .watch import WatchedService


@implementer(ISession)
class Script:
    """A session that does what a test tells it to.

    :param notify: has the driver call `wake`.
    """

    def __init__(self, notify: Callable[[], None]) -> None:
        self.notify = notify
        self.actions: deque[Action] = deque()
        self.received = bytearray()
        self.at_eof = self.over = False
        self.wakes = 0
        #: The outcomes of work.
        self.outcomes: list[object] = []
        self.pieces: list[int] = []
        self.reason: str | None = None
        self.wants_data = True
        #: True if the peer's end is this end's too.
        self.closes_at_eof = True
        self.on_wake: Callable[[], None] = lambda: None
        #: Seconds between ticks, each of which is a byte for the peer; 0 for none.
        self.ticks = 0.0
        self._due: float | None = None

    def receive_data(self, data: bytes, now: float) -> None:
        self.received += data

    def receive_eof(self, now: float) -> None:
        self.at_eof = True
        if self.closes_at_eof:
            self.actions.append(Close("closed by the other end"))

    def sent(self, count: int, now: float) -> None:
        self.pieces.append(count)

    def wake(self, now: float) -> None:
        self.wakes += 1
        self.on_wake()
        if self.ticks:
            self._due = now + self.ticks

    def done(self, result: object, now: float) -> None:
        self.outcomes.append(result)

    def failed(self, error: BaseException, now: float) -> None:
        self.outcomes.append(error)

    def handle_timeout(self, now: float) -> None:
        if self._due is not None and self._due <= now:
            self._due = now + self.ticks
            self.send([b"."])

    def stop(self, now: float, timeout: float) -> None:
        self.actions.append(Abort("closed here"))

    def lost(self, reason: str, now: float) -> None:
        self.reason, self.over = reason, True
        self.actions.clear()

    def next_action(self) -> Action | None:
        return self.actions.popleft() if self.actions else None

    def next_deadline(self) -> float | None:
        return None if self.over else self._due

    def send(self, chunks: Sequence[bytes]) -> None:
        """Have the driver send something."""
        self.actions.append(Send(chunks))

    def do(self, step: Callable[[], None]) -> None:
        """Have the driver wake this session, and take a step then."""
        self.on_wake = step
        self.notify()


#: More than a network holds on its way.
_MUCH = 32_000_000


class DriverTests(Suite):
    """A driver and a session that a test writes."""

    #: Functions that return the system's time, which a test sets back.
    clocks: Sequence[str] = ("time.time",)

    def begin(self, env: Environment, listen: Listen) -> tuple[End, Script]:
        """Return a peer, and the script of its session."""
        scripts: list[Script] = []

        class ScriptService(WatchedService):
            def accept(self, peer: str, now: float, notify: Callable[[], None]) -> ISession:
                scripts.append(Script(notify))
                return self.watch.over(self._with_tls(scripts[-1], peer, now))

            def _with_tls(self, script: Script, peer: str, now: float) -> ISession:
                if self.tls is None:
                    return script
                return ServerLayer(self, peer, now, lambda now, **options: script)

        peer = env.dial(listen(Source(), kind=ScriptService).address)
        peer.send(b"x")
        env.wait_for(lambda: scripts, "a session")
        [script] = scripts
        env.wait_for(lambda: script.received == b"x", "the session")
        return peer, script

    def test_a_deadline_passes_on_a_silent_connection(
        self, env: Environment, listen: Listen
    ) -> None:
        peer, script = self.begin(env, listen)
        script.ticks = 0.01
        script.notify()
        assert peer.receive(3) == b"..."

    def test_what_the_network_accepts_is_reported_piece_by_piece(
        self, env: Environment, listen: Listen
    ) -> None:
        peer, script = self.begin(env, listen)
        script.do(lambda: script.send([bytes(_MUCH)]))
        env.wait_for(lambda: script.pieces, "the first piece")
        Stillness(env, lambda: sum(script.pieces)).wait_for()
        before = sum(script.pieces)
        assert before < _MUCH
        assert peer.receive(_MUCH // 2) == bytes(_MUCH // 2)
        env.wait_for(lambda: sum(script.pieces) > before, "the next piece")
        assert peer.receive(_MUCH // 2) == bytes(_MUCH // 2)
        env.wait_for(lambda: sum(script.pieces) == _MUCH, "all of it")

    def test_many_chunks_are_sent_in_order(self, env: Environment, listen: Listen) -> None:
        peer, script = self.begin(env, listen)
        chunks = [b"%d," % number for number in range(5000)]

        def send() -> None:
            script.send(chunks[:-1])
            script.send([b"", chunks[-1]])

        script.do(send)
        assert peer.receive(len(b"".join(chunks))) == b"".join(chunks)

    def test_nothing_is_received_that_is_not_wanted(self, env: Environment, listen: Listen) -> None:
        peer, script = self.begin(env, listen)
        found: list[bytes] = []

        def stop_reading() -> None:
            script.wants_data = False

        def read_again() -> None:
            found.append(bytes(script.received))
            script.wants_data = True
            script.on_wake = lambda: None

        script.do(stop_reading)
        env.wait_for(lambda: not script.wants_data, "the session to be woken")
        peer.send(b"data")
        for _ in range(10):
            env.turn()
        script.do(read_again)
        env.wait_for(lambda: script.received == b"xdata", "the data")
        assert found == [b"x"]

    def test_the_outcome_of_work_is_reported(self, env: Environment, listen: Listen) -> None:
        _, script = self.begin(env, listen)
        error = OSError("a full disk")

        def fail() -> None:
            raise error

        expected: list[object] = []
        for work, outcome in (
            (Work(lambda: 1), 1),
            (Work(lambda: 2, nearby=True), 2),
            (Work(fail), error),
        ):
            expected.append(outcome)
            script.do(functools.partial(script.actions.append, work))
            env.wait_for(lambda: script.outcomes == expected, "the outcome")

    def test_a_wake_during_work_is_not_missed(self, env: Environment, listen: Listen) -> None:
        _, script = self.begin(env, listen)

        def begin() -> None:
            script.on_wake = lambda: None
            script.actions.append(Work(script.notify))

        script.do(begin)
        env.wait_for(lambda: script.outcomes, "the work")
        env.wait_for(lambda: script.wakes == 2, "the second wake")

    def test_no_wake_is_missed_whichever_thread_it_comes_from(
        self, env: Environment, listen: Listen
    ) -> None:
        _, script = self.begin(env, listen)
        asked: list[int] = []
        seen: list[int] = []
        script.on_wake = lambda: seen.append(len(asked))

        def ask() -> None:
            for number in range(100):
                asked.append(number)
                script.notify()

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        env.wait_for(lambda: seen and seen[-1] == 400, "the last wake")
        assert script.wakes <= 400

    def test_a_wake_after_the_end_does_nothing(self, env: Environment, listen: Listen) -> None:
        peer, script = self.begin(env, listen)
        peer.close()
        env.wait_for(lambda: script.over, "the end")
        wakes = script.wakes
        for _ in range(3):
            script.notify()
            env.turn()
        assert script.wakes == wakes

    def test_what_was_not_sent_is_dropped_when_it_aborts(
        self, env: Environment, listen: Listen
    ) -> None:
        peer, script = self.begin(env, listen)
        script.do(lambda: script.send([bytes(_MUCH)]))
        env.wait_for(lambda: script.pieces, "the first piece")
        script.do(lambda: script.actions.append(Abort("enough")))
        env.wait_for(lambda: script.over, "the end")
        assert script.reason == "enough"
        assert len(peer.receive(_MUCH)) < _MUCH

    def test_a_session_is_told_why_the_connection_was_closed(
        self, env: Environment, listen: Listen
    ) -> None:
        peer, script = self.begin(env, listen)
        script.do(lambda: script.actions.append(Close("enough")))
        env.wait_for(lambda: script.over, "the end")
        assert script.reason == "enough"
        assert peer.receive(1) == b""

    def test_a_connection_that_is_half_closed_goes_on_the_other_way(
        self, env: Environment, listen: Listen
    ) -> None:
        peer, script = self.begin(env, listen)
        script.do(lambda: script.actions.append(HalfClose()))
        assert peer.receive(1) == b""
        script.on_wake = lambda: None
        peer.send(b"more")
        env.wait_for(lambda: script.received == b"xmore", "what came after")
        peer.close()
        env.wait_for(lambda: script.at_eof, "the end")

    def test_a_session_may_go_on_after_the_end_of_the_data(
        self, env: Environment, listen: Listen
    ) -> None:
        peer, script = self.begin(env, listen)
        script.closes_at_eof = False
        peer.finish_sending()
        env.wait_for(lambda: script.at_eof, "the end of the data")
        script.do(lambda: script.send([b"y"]))
        assert peer.receive(1) == b"y"
        script.do(lambda: script.actions.append(Close("enough")))
        assert peer.receive(1) == b""

    def test_a_connection_that_is_lost_is_reported(self, env: Environment, listen: Listen) -> None:
        peer, script = self.begin(env, listen)
        peer.cut()
        env.wait_for(lambda: script.over, "the end")
        assert script.reason

    @pytest.mark.parametrize("where", ["open", "read", "wait"])
    def test_a_source_with_a_bug_ends_its_connection_alone(
        self, where: str, env: Environment, listen: Listen, caplog: pytest.LogCaptureFixture
    ) -> None:
        source = Source()

        def raising(*args: object) -> None:
            delattr(source, where)
            raise RuntimeError("a mistake")

        setattr(source, where, raising)
        address = listen(source).address
        peer = env.dial(address)
        peer.send(GREETING)
        assert peer.receive(1) == b""
        env.wait_for(lambda: "Disconnected" in caplog.text, "the end of the session")
        assert "a mistake" in caplog.text
        source.batches.append(WHOLE)
        peer = env.dial(address)
        peer.send(GREETING)
        assert peer.receive(len(STREAM)) == STREAM

    def test_a_sink_with_a_bug_loses_its_connection_and_comes_again(
        self,
        env: Environment,
        connect: Connect,
        server: Server,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        copy = Copy()

        def raising(message: PrimaryMessage) -> None:
            del copy.apply
            raise RuntimeError("a mistake")

        copy.apply = raising  # type: ignore[method-assign]
        connect(copy, server.address)
        peer = server.accept()
        peer.receive(len(GREETING))
        peer.send(STREAM)
        while peer.receive(1):
            pass
        env.wait_for(lambda: "a mistake" in caplog.text, "the log")
        again = server.accept()
        again.receive(len(GREETING))
        again.send(STREAM)
        env.wait_for(lambda: is_whole(copy), "what was sent to be applied")

    def test_a_session_that_cannot_be_made_ends_its_connection_alone(
        self, env: Environment, listen: Listen, caplog: pytest.LogCaptureFixture
    ) -> None:
        mistakes = [LookupError("a mistake")]

        class Mistaken(WatchedService):
            def accept(self, peer: str, now: float, notify: Callable[[], None]) -> ISession | None:
                if mistakes:
                    raise mistakes.pop()
                return super().accept(peer, now, notify)

        address = listen(Source(WHOLE), kind=Mistaken).address
        closed_at_once(env, address)
        env.wait_for(lambda: "a mistake" in caplog.text, "the log")
        peer = env.dial(address)
        peer.send(GREETING)
        assert peer.receive(len(STREAM)) == STREAM

    @pytest.fixture
    def set_back(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
        """Sets the system's clock back by an hour."""
        offset, real = [0.0], time.time

        def now() -> float:
            return real() + offset[0]

        for each in self.clocks:
            monkeypatch.setattr(each, staticmethod(now) if each != "time.time" else now)

        def set_back() -> None:
            offset[0] -= 3600

        return set_back

    def test_a_clock_that_is_set_back_delays_no_listener(
        self, env: Environment, listen: Listen, set_back: Callable[[], None]
    ) -> None:
        peer, script = self.begin(env, listen)
        script.ticks = 0.01
        script.notify()
        for _ in range(3):
            assert peer.receive(1) == b"."
            set_back()

    def test_a_clock_that_is_set_back_delays_no_connector(
        self,
        env: Environment,
        connect: Connect,
        set_back: Callable[[], None],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        address = env.unused_address()
        connect(Sink(), address, reconnect_delay=0.2, keep_alive_delay=0.2)
        env.wait_for(lambda: "cannot connect (" in caplog.text, "the first attempt")
        set_back()
        server = env.listen(address)
        peer = server.accept()
        assert peer.receive(len(GREETING)) == GREETING
        set_back()
        assert peer.receive(4) == bytes(4)
        server.close()

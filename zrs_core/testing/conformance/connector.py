"""Tests of every connector."""
# ruff: noqa: S101

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
from typing import Any

import pytest
from zope.interface.verify import verifyObject

from ...interfaces import IConnector, ISession
from ...sessions.patience import Patience
from ...sessions.times import SecondaryTimes
from ..environments import DEADLINE, Environment, Server
from ..fakes import WHOLE, Sink, greeting
from .storages import Copy, Holding, is_whole
from .suite import GREETING, STREAM, TID, Connect, Suite, open_files
from .watch import WatchedClient


class ConnectorTests(Suite):
    """Connecting, applying, and connecting again."""

    def test_a_connector_provides_its_interface(self, connect: Connect, server: Server) -> None:
        assert verifyObject(IConnector, connect(Sink(), server.address).connector)

    def test_it_greets_and_applies(
        self, env: Environment, connect: Connect, server: Server
    ) -> None:
        copy = Copy()
        connect(copy, server.address)
        peer = server.accept()
        assert peer.receive(len(GREETING)) == GREETING
        peer.send(STREAM)
        env.wait_for(lambda: copy.finished == WHOLE, "what was sent to be applied")

    def test_a_stream_may_come_byte_by_byte(
        self, env: Environment, connect: Connect, server: Server
    ) -> None:
        copy = Copy()
        connect(copy, server.address)
        peer = server.accept()
        assert peer.receive(len(GREETING)) == GREETING
        for number in range(len(STREAM)):
            peer.send(STREAM[number : number + 1])
        env.wait_for(lambda: copy.finished == WHOLE, "what was sent to be applied")

    def test_a_stream_may_be_cut_at_any_byte(
        self, env: Environment, connect: Connect, server: Server
    ) -> None:
        copy = Copy()
        connect(copy, server.address)
        # With TLS each takes a handshake, and the bytes are not those of the stream.
        for size in range(0, len(STREAM), 5 if self.tls else 1):
            peer = server.accept()
            assert peer.receive(len(GREETING)) == GREETING
            # The session before this one is closed.
            assert (copy.unfinished, copy.finished) == ([], [])
            peer.send(STREAM[:size])
            if size % 2:
                peer.close()
            else:
                peer.cut()
        peer = server.accept()
        assert peer.receive(len(GREETING)) == GREETING
        peer.send(STREAM)
        env.wait_for(lambda: copy.finished == WHOLE, "what was sent to be applied")

    @pytest.mark.parametrize("how", ["close", "cut", "finish_sending"])
    @pytest.mark.parametrize(
        "sent", [b"", STREAM, STREAM[:-9], b"\0\0\0\1x"], ids=["none", "whole", "part", "broken"]
    )
    def test_it_comes_again_when_the_connection_ends(
        self, sent: bytes, how: str, connect: Connect, server: Server
    ) -> None:
        copy = Copy()
        connect(copy, server.address)
        for _ in range(3):
            peer = server.accept()
            assert len(peer.receive(len(GREETING))) == len(GREETING)
            if sent:
                peer.send(sent)
            getattr(peer, how)()
            copy.finished.clear()

    def test_a_broken_stream_is_closed_from_here(self, connect: Connect, server: Server) -> None:
        connect(Sink(), server.address)
        peer = server.accept()
        peer.receive(len(GREETING))
        peer.send(b"\0\0\0\1x")
        assert peer.receive(1) == b""
        assert server.accept().receive(len(GREETING)) == GREETING

    def test_a_failure_and_the_recovery_are_a_line_of_the_log_each(
        self, env: Environment, connect: Connect, caplog: pytest.LogCaptureFixture
    ) -> None:
        address = env.unused_address()
        connect(Sink(), address)
        env.wait_for(lambda: caplog.text.count("cannot connect") > 3, "attempts")
        server = env.listen(address)
        assert server.accept().receive(len(GREETING)) == GREETING
        server.close()
        lines = [
            each
            for each in caplog.records
            if each.levelno >= logging.INFO and "connect" in each.getMessage()
        ]
        assert [each.levelname for each in lines] == ["WARNING", "INFO"]
        assert lines[0].getMessage().startswith(f"{address}: cannot connect (")
        assert lines[1].getMessage().startswith(f"{address}: connected again after ")

    def test_a_session_that_cannot_be_made_is_a_failed_attempt(
        self,
        env: Environment,
        connect: Connect,
        server: Server,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        mistakes = [LookupError("a mistake"), TypeError("another mistake")]

        class Mistaken(WatchedClient):
            def session(self, *args: Any, **options: Any) -> ISession:
                if mistakes:
                    raise mistakes.pop()
                return super().session(*args, **options)

        connect(Sink(), server.address, kind=Mistaken)
        greeted = False
        while not greeted:
            # The first ones are closed, maybe within the handshake of TLS.
            with contextlib.suppress(OSError):
                greeted = server.accept().receive(len(GREETING)) == GREETING
        env.wait_for(lambda: "connected again after 2 failed" in caplog.text, "the log")
        assert "cannot connect (" in caplog.text

    def test_it_waits_between_attempts_as_long_as_it_is_told(
        self, env: Environment, connect: Connect
    ) -> None:
        delays, attempts = [0.01, 0.04, 0.16], []

        class Steady(WatchedClient):
            def connection_failed(self, reason: str) -> None:
                attempts.append(env.now())

            def retry_delay(self) -> float:
                return delays[len(attempts) - 1] if len(attempts) <= len(delays) else DEADLINE

        connect(Sink(), env.unused_address(), kind=Steady)
        env.wait_for(lambda: len(attempts) == 4, "four attempts")
        waited = [later - before for before, later in itertools.pairwise(attempts)]
        # Clocks are not all as fine.
        assert all(real > told - 0.002 for real, told in zip(waited, delays, strict=True))

    def test_it_waits_after_a_connection_that_was_closed_too(
        self, env: Environment, connect: Connect, server: Server
    ) -> None:
        lost = []

        class Steady(WatchedClient):
            def retry_delay(self) -> float:
                lost.append(env.now())
                return 0.05

        connect(Sink(), server.address, kind=Steady)
        server.accept().close()
        server.accept()
        assert lost
        assert env.now() - lost[0] > 0.048

    def test_it_says_that_it_is_there(self, connect: Connect, server: Server) -> None:
        connect(Sink(), server.address, keep_alive_delay=0.01)
        peer = server.accept()
        assert peer.receive(len(GREETING) + 12) == GREETING + b"\0" * 12

    def test_one_that_is_not_answered_is_closed_from_here(
        self, connect: Connect, server: Server
    ) -> None:
        connect(Holding(), server.address, times=SecondaryTimes(answer=0.02))
        peer = server.accept()
        assert peer.receive(len(GREETING)) == GREETING
        while peer.receive(1):
            pass
        assert server.accept().receive(len(GREETING)) == greeting(start=TID)

    def test_a_message_that_does_not_become_complete_is_asked_for_again(
        self, connect: Connect, server: Server, env: Environment
    ) -> None:
        """The length of a record is damaged on the way, and nothing follows."""

        class Impatient(WatchedClient):
            def __init__(self, *args: Any, **options: Any) -> None:
                super().__init__(*args, **options)
                self.patience = Patience(0.02)

        copy = Copy()
        connect(copy, server.address, kind=Impatient)
        length = STREAM.index(b"\0\0\0\6record")
        peer = server.accept()
        assert peer.receive(len(GREETING)) == GREETING
        peer.send(STREAM[:length] + b"\0\4" + STREAM[length + 2 :])
        while peer.receive(1):
            pass
        peer = server.accept()
        assert peer.receive(len(GREETING)) == GREETING
        peer.send(STREAM)
        env.wait_for(lambda: is_whole(copy), "the transaction")

    def test_stopping_aborts_what_is_unfinished(
        self, env: Environment, connect: Connect, server: Server, caplog: pytest.LogCaptureFixture
    ) -> None:
        copy = Copy()
        started = connect(copy, server.address)
        peer = server.accept()
        peer.receive(len(GREETING))
        peer.send(STREAM[:-1])
        env.wait_for(lambda: len(copy.unfinished) == 2, "the first messages")
        started.connector.stop()
        assert (copy.unfinished, copy.finished) == ([], [])
        assert peer.receive(1) == b""
        assert not [each for each in caplog.records if each.levelno >= logging.ERROR]

    def test_it_stays_away_once_stopped(self, connect: Connect, server: Server) -> None:
        started = connect(Sink(), server.address)
        peer = server.accept()
        peer.receive(len(GREETING))
        started.connector.stop()
        assert peer.receive(1) == b""
        started.connector.stop()
        started.connector.reconnect()
        assert not server.has_waiting()
        assert not started.client.progress.connected

    def test_it_can_be_stopped_before_its_next_attempt(
        self, env: Environment, connect: Connect, caplog: pytest.LogCaptureFixture
    ) -> None:
        address = env.unused_address()
        started = connect(Sink(), address, reconnect_delay=10 * DEADLINE)
        env.wait_for(lambda: "cannot connect" in caplog.text, "an attempt")
        started.connector.stop()
        server = env.listen(address)
        env.turn()
        assert not server.has_waiting()
        server.close()

    def test_it_can_be_stopped_at_once(self, connect: Connect, server: Server) -> None:
        for _ in range(20):
            connect(Sink(), server.address).connector.stop()

    def test_it_leaves_its_primary_for_another(
        self, env: Environment, connect: Connect, server: Server
    ) -> None:
        copy = Copy()
        started = connect(copy, server.address, reconnect_delay=10 * DEADLINE)
        peer = server.accept()
        peer.receive(len(GREETING))
        peer.send(STREAM[:-1])
        env.wait_for(lambda: len(copy.unfinished) == 2, "the first messages")
        other = env.listen()
        started.client.address = other.address
        started.connector.reconnect()
        assert peer.receive(1) == b""
        successor = other.accept()
        assert successor.receive(len(GREETING)) == GREETING
        successor.send(STREAM)
        env.wait_for(lambda: copy.finished == WHOLE, "what was sent to be applied")
        assert not server.has_waiting()
        other.close()

    def test_it_goes_to_another_primary_without_waiting_for_its_next_attempt(
        self,
        env: Environment,
        connect: Connect,
        server: Server,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        started = connect(Sink(), env.unused_address(), reconnect_delay=10 * DEADLINE)
        env.wait_for(lambda: "cannot connect" in caplog.text, "an attempt")
        started.client.address = server.address
        started.connector.reconnect()
        assert server.accept().receive(len(GREETING)) == GREETING

    def test_connections_that_come_and_go_leave_nothing(
        self, env: Environment, connect: Connect, server: Server
    ) -> None:
        started = connect(Sink(), server.address)
        server.accept().close()
        threads, files = threading.active_count(), open_files()
        for number in range(self.cycles):
            peer = server.accept()
            if number % 3:
                peer.receive(number % len(GREETING))
            if number % 2:
                peer.close()
            else:
                peer.cut()
        started.connector.stop()
        env.wait_for(lambda: open_files() <= files, "files to be closed")
        env.wait_for(lambda: threading.active_count() <= threads, "threads to end")
        # Some are lost before they are any.
        assert started.client.progress.connections > self.cycles / 2

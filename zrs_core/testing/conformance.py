"""What every transport must show, as tests: for the transports of this package and for others'.

In a test module of your own::

    import pytest

    pytest.register_assert_rewrite("zrs_core.testing.conformance")

    from zrs_core.testing.conformance import TransportConformance

    class TestMyTransport(TransportConformance):
        transport = "my-transport"

A transport that does not listen on TCP's loopback, or whose peers are not plain sockets, says so by
overriding `environment`. pytest is needed for this module, and for nothing else of the package.
"""
# ruff: noqa: S101

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
import tempfile
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from zope.interface import implementer
from zope.interface.verify import verifyObject

from .. import transports
from ..addresses import Address
from ..errors import ListenError, TidTooHigh
from ..held import HeldTransaction
from ..interfaces import (
    IComparableSink,
    IConnector,
    IListener,
    ITransactionReader,
    ITransactionSink,
    ITransactionSource,
)
from ..messages import NO_TID, Commit, PrimaryMessage, Store, Transaction
from ..options import ClientOptions, ServiceOptions
from ..refusals import TOLD
from ..sessions import BATCH_SIZE, ReplicationClient, ReplicationService, primary, secondary
from ..sessions.allowance import AT_MOST
from ..sessions.patience import Patience
from .environments import DEADLINE, End, Environment, Server, SocketEnvironment
from .fakes import WHOLE, Sink, Source, greeting, stream

_TID = b"\0" * 7 + b"\1"
_STREAM = stream(WHOLE)
_GREETING = greeting()

# Seconds that a peer is given that will not use them.
_SOON = 0.1

Listen = Callable[..., Any]
Connect = Callable[..., Any]

_warmed_up: set[type] = set()


@implementer(IComparableSink)
class Holding(Sink):
    """One with a transaction to compare."""

    def last_tid(self) -> bytes:
        return _TID

    def last_transaction(self, limit: int) -> HeldTransaction:
        return HeldTransaction(NO_TID, False, Transaction(_TID), {}, lambda oid: None)


class TransportConformance:
    """The suite. A subclass gives the name of the transport."""

    #: Under which the transport is registered.
    transport: ClassVar[str]
    #: How many times the tests for leaks connect and disconnect.
    cycles: ClassVar[int] = 1000

    def environment(self) -> Environment:
        """Where it is tried out: TCP on loopback unless overridden."""
        return SocketEnvironment()

    # -- what the tests stand on

    def _warm_up(self) -> None:
        # What is made once and kept for ever, by a library for one, is no leak.
        if type(self) in _warmed_up:
            return
        _warmed_up.add(type(self))
        with contextlib.closing(self.environment()) as env:
            listener = self._listener(env, Source())
            listener.start()
            client = ReplicationClient(
                Sink(), listener.address, env.reactor, ClientOptions(tls=env.tls)
            )
            connector = transports.connector_factory(self.transport)(client)
            connector.start()
            env.wait_for(lambda: client.progress.connected, "a connection")
            connector.stop()
            listener.stop(0)

    @pytest.fixture
    def env(
        self, caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[Environment]:
        """The environment; in the end there are no more threads, files, temporary ones than before.

        The log is captured.
        """
        self._warm_up()
        caplog.set_level(logging.DEBUG, "zrs_core")
        env = self.environment()
        temporary = tmp_path / "temporary"
        temporary.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(temporary))
        threads, files = set(threading.enumerate()), open_files()
        yield env
        env.close()
        env.wait_for(lambda: set(threading.enumerate()) <= threads, "threads to end")
        env.wait_for(lambda: open_files() <= files, "files to be closed")
        assert list(temporary.iterdir()) == []

    def _listener(
        self, env: Environment, source: object, address: Address | None = None, **options: Any
    ) -> Any:
        service = ReplicationService(
            source,  # type: ignore[arg-type]
            address or env.address(),
            env.reactor,
            ServiceOptions(tls=env.tls, **options),
        )
        return transports.listener_factory(self.transport)(service)

    @pytest.fixture
    def listen(self, env: Environment) -> Iterator[Listen]:
        """Starts a listener for a source; it is stopped in the end."""
        listeners = []

        def start(source: object, address: Address | None = None, **options: Any) -> Any:
            listener = self._listener(env, source, address, **options)
            listener.start()
            listeners.append(listener)
            return listener

        yield start
        for listener in listeners:
            listener.stop(0)

    @pytest.fixture
    def connect(self, env: Environment) -> Iterator[Connect]:
        """Starts a connector for a sink; it is stopped in the end. Its client is `.client`."""
        connectors = []

        def start(sink: object, address: Address, **options: Any) -> Started:
            settings = ClientOptions(**{"reconnect_delay": 0.001, "tls": env.tls, **options})
            client = ReplicationClient(
                sink,  # type: ignore[arg-type]
                address,
                env.reactor,
                settings,
            )
            started = Started(client, transports.connector_factory(self.transport)(client))
            connectors.append(started.connector)
            started.connector.start()
            return started

        yield start
        for connector in connectors:
            connector.stop()

    @pytest.fixture
    def server(self, env: Environment) -> Iterator[Server]:
        """A primary by hand."""
        server = env.listen()
        yield server
        server.close()

    # -- a listener

    def test_a_listener_provides_its_interface(self, listen: Listen) -> None:
        assert verifyObject(IListener, listen(Source()))

    def test_an_address_in_use_is_an_error(self, listen: Listen) -> None:
        address = listen(Source()).address
        with pytest.raises(ListenError) as caught:
            listen(Source(), address)
        assert str(caught.value).startswith(f"cannot listen on {address}: ")

    def test_a_listener_has_the_storage_checked(
        self, env: Environment, listen: Listen, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without a connection and without a commit too, and again and again."""
        checks: list[None] = []
        monkeypatch.setattr(primary, "CHECK_DELAY", 0.01)
        monkeypatch.setattr(ReplicationService, "check", lambda service: checks.append(None))
        listen(Source())
        env.wait_for(lambda: len(checks) > 2, "checks of the storage")

    def test_a_secondary_is_served_what_was_committed(
        self, env: Environment, listen: Listen
    ) -> None:
        source = Source(WHOLE[:1], WHOLE[1:])
        peer = env.dial(listen(source).address)
        peer.send(_GREETING)
        assert peer.receive(len(_STREAM)) == _STREAM
        assert source.started == [NO_TID]

    def test_a_handshake_may_come_byte_by_byte(self, env: Environment, listen: Listen) -> None:
        peer = env.dial(listen(Source(WHOLE)).address)
        for number in range(len(_GREETING)):
            peer.send(_GREETING[number : number + 1])
        assert peer.receive(len(_STREAM)) == _STREAM

    def test_each_of_several_secondaries_gets_the_whole_stream(
        self, env: Environment, listen: Listen
    ) -> None:
        source = Flood(limit=8)
        address = listen(source).address
        peers = [env.dial(address) for _ in range(8)]
        for peer in peers:
            peer.send(_GREETING)
        expected = stream(source.messages())
        for peer in peers:
            assert peer.receive(len(expected)) == expected

    def test_what_is_committed_later_follows_when_it_wakes(
        self, env: Environment, listen: Listen
    ) -> None:
        source = Source()
        peer = env.dial(listen(source).address)
        peer.send(_GREETING)
        for batch in ([WHOLE[0]], WHOLE[1:]):
            env.wait_for(lambda: source.waiting, "the session to wait")
            source.batches.append(batch)
            source.waiting.pop()()
        assert peer.receive(len(_STREAM)) == _STREAM

    def test_a_wake_that_comes_at_once_is_not_missed(
        self, env: Environment, listen: Listen
    ) -> None:
        source = WakingAtOnce(*([message] for message in WHOLE))
        peer = env.dial(listen(source).address)
        peer.send(_GREETING)
        assert peer.receive(len(_STREAM)) == _STREAM

    @pytest.mark.parametrize(
        "said",
        [b"\0\0\0\x06zrs9.9", b"GET / HTTP/1.1\r\n\r\n", _GREETING + b"\0\0\0\x01x"],
        ids=["word", "http", "after the start"],
    )
    def test_a_refused_peer_is_closed_and_the_others_go_on(
        self, said: bytes, env: Environment, listen: Listen, caplog: pytest.LogCaptureFixture
    ) -> None:
        source = Source()
        address = listen(source).address
        other, refused = env.dial(address), env.dial(address)
        other.send(_GREETING)
        env.wait_for(lambda: source.waiting, "the session to wait")
        refused.send(said)
        assert refused.receive(1) == b""
        refused.close()
        env.wait_for(lambda: "Disconnected" in caplog.text, "the session to be closed")
        errors = [each for each in caplog.records if each.levelno >= logging.ERROR]
        assert len(errors) == 1
        source.batches.append(WHOLE)
        for wake in source.waiting:
            wake()
        assert other.receive(len(_STREAM)) == _STREAM

    @pytest.mark.parametrize(
        "error", [OSError("disk"), TidTooHigh(_TID, NO_TID)], ids=["damaged", "too high"]
    )
    def test_a_source_that_cannot_serve_closes_the_connection(
        self, error: Exception, env: Environment, listen: Listen
    ) -> None:
        peer = env.dial(listen(Source(error=error)).address)
        peer.send(_GREETING)
        assert peer.receive(1) == b""

    @pytest.mark.parametrize("how", ["close", "cut", "finish_sending"])
    def test_a_peer_that_leaves_frees_its_session(
        self, how: str, env: Environment, listen: Listen
    ) -> None:
        source = Source()
        peer = env.dial(listen(source).address)
        peer.send(_GREETING)
        env.wait_for(lambda: source.waiting, "the session to wait")
        getattr(peer, how)()
        env.wait_for(lambda: source.closed, "the reader to be closed")
        assert source.closed == 1

    def test_a_peer_that_floods_is_closed_and_the_others_go_on(
        self, env: Environment, listen: Listen, caplog: pytest.LogCaptureFixture
    ) -> None:
        source = Source()
        address = listen(source).address
        flood, other = env.dial(address), env.dial(address)
        for peer in (flood, other):
            peer.send(_GREETING)
        env.wait_for(lambda: len(source.waiting) == 2, "both sessions")

        with contextlib.suppress(OSError):
            for _ in range(16):
                flood.send(bytes(AT_MOST))
        assert flood.receive(1) == b""
        assert "it sends more than 200 empty messages a second" in caplog.text
        env.wait_for(lambda: source.closed == 1, "the end of the session")
        source.batches.append(WHOLE)
        for wake in source.waiting:
            wake()
        assert other.receive(len(_STREAM)) == _STREAM

    def test_a_peer_that_half_closes_is_closed(self, env: Environment, listen: Listen) -> None:
        peer = env.dial(listen(Source()).address)
        peer.send(_GREETING)
        peer.finish_sending()
        assert peer.receive(1) == b""

    def test_a_handshake_may_be_cut_at_any_byte(self, env: Environment, listen: Listen) -> None:
        source = Source()
        address = listen(source).address
        for size in range(len(_GREETING)):
            peer = env.dial(address)
            peer.send(_GREETING[:size])
            peer.cut()
        assert source.started == []
        peer = env.dial(address)
        source.batches.append(WHOLE)
        peer.send(_GREETING)
        assert peer.receive(len(_STREAM)) == _STREAM

    def test_a_peer_that_stops_reading_takes_no_memory_and_holds_back_nobody(
        self, env: Environment, listen: Listen
    ) -> None:
        source = Flood(limit=4096)
        address = listen(source).address
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            lazy = env.dial(address)
            lazy.send(_GREETING)
            env.wait_for(lambda: source.readers, "the session to start")
            (held,) = source.readers
            Stillness(env, lambda: held.batches).wait_for()
            taken = held.batches
            # What the system's buffers hold, and a few batches.
            assert taken * BATCH_SIZE < 100_000_000
            eager = env.dial(address)
            eager.send(_GREETING)
            for _ in range(32):
                assert len(eager.receive(1_000_000)) == 1_000_000
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert after - before < 16 * BATCH_SIZE
        assert held.batches == taken
        while held.batches == taken:
            assert lazy.receive(BATCH_SIZE)
        eager.close()
        lazy.close()

    @pytest.mark.parametrize("rests", [False, True])
    def test_stopping_lets_secondaries_catch_up(
        self, rests: bool, env: Environment, listen: Listen, caplog: pytest.LogCaptureFixture
    ) -> None:
        source = Source()
        # Then a session rests after what it has sent, and nobody wakes it.
        source.at_end = rests
        listener = listen(source)
        silent, peer = env.dial(listener.address), env.dial(listener.address)
        peer.send(_GREETING)
        env.wait_for(lambda: source.waiting, "the session to wait")
        # With TLS, that end may have finished the handshake before this one.
        env.wait_for(lambda: caplog.text.count(": Connected") == 2, "both sessions")
        source.batches += [[WHOLE[0]], WHOLE[1:]]
        stopped = env.beside(lambda: listener.stop(DEADLINE))
        assert peer.receive(len(_STREAM) + 1) == _STREAM
        assert silent.receive(1) == b""
        peer.close()
        silent.close()
        stopped()
        assert source.closed == 1
        assert caplog.text.count("Disconnected") == 2
        with pytest.raises(OSError):
            env.dial(listener.address)
        listener.stop(0)

    def test_stopping_sends_what_came_after_an_empty_batch(
        self, env: Environment, listen: Listen
    ) -> None:
        source = _Late()
        listener = listen(source)
        silent, peer = env.dial(listener.address), env.dial(listener.address)
        peer.send(_GREETING)
        env.wait_for(source.asked.is_set, "the session to ask")
        source.batches.append(WHOLE)
        stopped = env.beside(lambda: listener.stop(DEADLINE))
        assert silent.receive(1) == b""
        source.answer.set()
        assert peer.receive(len(_STREAM) + 1) == _STREAM
        peer.close()
        silent.close()
        stopped()

    def test_stopping_waits_for_no_peer_longer_than_it_may(
        self, env: Environment, listen: Listen
    ) -> None:
        source = Flood(limit=4096)
        listener = listen(source)
        lazy = env.dial(listener.address)
        lazy.send(_GREETING)
        env.wait_for(lambda: source.readers, "the session to start")
        listener.stop(0.01)
        assert source.closed == 1

    def test_a_stopped_listener_leaves_its_address_to_the_next(
        self, env: Environment, listen: Listen
    ) -> None:
        address = listen(Source()).address
        first = self._listener(env, Source(), env.address())
        first.start()
        first.stop(0)
        second = listen(Source(WHOLE), first.address)
        first.stop(0)
        peer = env.dial(second.address)
        peer.send(_GREETING)
        assert peer.receive(len(_STREAM)) == _STREAM
        assert second.address != address

    def test_peers_that_come_and_go_leave_nothing(self, env: Environment, listen: Listen) -> None:
        source = Source()
        address = listen(source).address
        threads, files = threading.active_count(), open_files()
        for number in range(self.cycles):
            peer = env.dial(address)
            said = _GREETING[: number % (len(_GREETING) + 1)]
            if said:
                peer.send(said)
            if number % 2:
                peer.close()
            else:
                peer.cut()
            if number % 16 == 15:
                # More than a listener's backlog would only wait for the system.
                env.wait_for(lambda: open_files() <= files + 8, "connections to be closed")
        env.wait_for(lambda: source.closed == len(source.started), "readers to be closed")
        env.wait_for(lambda: open_files() <= files, "files to be closed")
        # A pool of threads may have grown to its bound, and ends with the listener; and one waits
        # to tell how many were refused in the last minute.
        env.wait_for(lambda: threading.active_count() <= threads + 16 + 1, "threads to end")

    # -- what a listener does not take from its peers

    def test_a_connection_too_many_is_closed_and_the_others_go_on(
        self, env: Environment, listen: Listen, caplog: pytest.LogCaptureFixture
    ) -> None:
        source = Everyone(WHOLE)
        address = listen(source, max_peers=2).address
        peers = [env.dial(address), env.dial(address)]
        for peer in peers:
            peer.send(_GREETING)
            assert peer.receive(len(_STREAM)) == _STREAM
        closed_at_once(env, address)
        env.wait_for(lambda: "max_peers allows no more" in caplog.text, "the log")
        assert "refused (there are 2 connections already" in caplog.text
        assert caplog.text.count("Connected") == 2
        peers.pop().close()
        env.wait_for(lambda: "Disconnected" in caplog.text, "the session to be closed")

        def is_served() -> bool:
            with contextlib.suppress(OSError):
                peer = env.dial(address)
                peer.send(_GREETING)
                return peer.receive(len(_STREAM)) == _STREAM
            return False

        env.wait_for(is_served, "the place to be free")

    @pytest.mark.parametrize("said", [b"", _GREETING[:-1]], ids=["nothing", "too little"])
    def test_a_peer_that_does_not_greet_in_time_is_closed_and_the_others_stay(
        self, said: bytes, env: Environment, listen: Listen, caplog: pytest.LogCaptureFixture
    ) -> None:
        source = Source()
        address = listen(source, handshake_timeout=_SOON).address
        other = greeted_in_time(env, source, address, caplog)

        def is_closed() -> bool:
            with contextlib.suppress(OSError):
                peer = env.dial(address)
                if said:
                    peer.send(said)
                assert peer.receive(1) == b""
            return f"refused (it sent no valid greeting within {_SOON} seconds)" in caplog.text

        # On a busy machine TLS may not be over in time either.
        env.wait_for(is_closed, "a peer to be refused")
        source.batches.append(WHOLE)
        source.waiting.pop()()
        assert other.receive(len(_STREAM)) == _STREAM

    def test_a_peer_that_takes_nothing_is_left(
        self, env: Environment, listen: Listen, caplog: pytest.LogCaptureFixture
    ) -> None:
        source = Flood(limit=4096)
        peer = env.dial(listen(source, write_timeout=_SOON).address)
        peer.send(_GREETING)
        env.wait_for(lambda: source.closed, "the connection to be given up")
        reason = f"Disconnected (it took nothing of what it was sent for {_SOON} seconds)"
        env.wait_for(lambda: reason in caplog.text, "the log")
        assert caplog.text.count("Disconnected") == 1

    def test_stopping_does_not_wait_for_a_peer_that_takes_nothing(
        self, env: Environment, listen: Listen
    ) -> None:
        source = Flood(limit=4096)
        listener = listen(source, write_timeout=_SOON)
        peer = env.dial(listener.address)
        peer.send(_GREETING)
        env.wait_for(lambda: source.readers, "the session to start")
        before = env.now()
        listener.stop(DEADLINE)
        assert source.closed == 1
        assert env.now() - before < DEADLINE / 2

    @pytest.mark.long
    def test_a_peer_that_takes_little_by_little_stays(
        self, env: Environment, listen: Listen
    ) -> None:
        # One message that takes longer than the deadline, and never stands still for so long.
        record = Store(b"\0" * 8, _TID, b"x" * 50_000_000)
        messages: list[PrimaryMessage] = [Transaction(_TID), record, Commit()]
        expected = stream(messages)
        timeout, steady = 1.0, False
        address = listen(Everyone(messages), write_timeout=timeout).address
        while not steady:
            peer = env.dial(address)
            peer.send(_GREETING)
            received = bytearray()
            begin = last = env.now()
            steady = True
            while env.now() - begin < 2 * timeout:
                received += peer.receive(min(1_000_000, len(expected) - len(received)))
                pause = last + timeout / 20
                env.wait_for(lambda: env.now() >= pause, "a pause")  # noqa: B023
                # Otherwise the machine was busy elsewhere, and another attempt is due.
                steady = steady and env.now() - last < timeout / 2
                last = env.now()
            received += peer.receive(len(expected) - len(received))
            assert not steady or received == expected
            peer.close()

    def test_many_who_are_refused_make_a_few_lines_of_the_log(
        self, env: Environment, listen: Listen, caplog: pytest.LogCaptureFixture
    ) -> None:
        source = Source(WHOLE)
        listener = listen(source)
        for _ in range(2 * TOLD):
            peer = env.dial(listener.address)
            peer.send(b"GET / HTTP/1.1\r\n\r\n")
            assert peer.receive(1) == b""
            peer.close()
        env.wait_for(lambda: caplog.text.count("Disconnected") == 2 * TOLD, "all to be closed")
        errors = [each for each in caplog.records if each.levelno >= logging.ERROR]
        assert len(errors) == TOLD
        told = [each for each in caplog.records if each.levelno >= logging.INFO]
        # Connected, refused, Closed, Disconnected; and one that is still under way.
        assert len(told) <= 4 * (TOLD + 1)
        peer = env.dial(listener.address)
        peer.send(_GREETING)
        assert peer.receive(len(_STREAM)) == _STREAM
        peer.close()
        listener.stop(0)
        assert f"and {TOLD} more in the last minute" in caplog.text

    # -- a connector

    def test_a_connector_provides_its_interface(self, connect: Connect, server: Server) -> None:
        assert verifyObject(IConnector, connect(Sink(), server.address).connector)

    def test_it_greets_and_applies(
        self, env: Environment, connect: Connect, server: Server
    ) -> None:
        copy = Copy()
        connect(copy, server.address)
        peer = server.accept()
        assert peer.receive(len(_GREETING)) == _GREETING
        peer.send(_STREAM)
        env.wait_for(lambda: copy.finished == WHOLE, "what was sent to be applied")

    def test_a_stream_may_come_byte_by_byte(
        self, env: Environment, connect: Connect, server: Server
    ) -> None:
        copy = Copy()
        connect(copy, server.address)
        peer = server.accept()
        assert peer.receive(len(_GREETING)) == _GREETING
        for number in range(len(_STREAM)):
            peer.send(_STREAM[number : number + 1])
        env.wait_for(lambda: copy.finished == WHOLE, "what was sent to be applied")

    def test_a_stream_may_be_cut_at_any_byte(
        self, env: Environment, connect: Connect, server: Server
    ) -> None:
        copy = Copy()
        connect(copy, server.address)
        for size in range(len(_STREAM)):
            peer = server.accept()
            assert peer.receive(len(_GREETING)) == _GREETING
            # The session before this one is closed.
            assert (copy.unfinished, copy.finished) == ([], [])
            peer.send(_STREAM[:size])
            if size % 2:
                peer.close()
            else:
                peer.cut()
        peer = server.accept()
        assert peer.receive(len(_GREETING)) == _GREETING
        peer.send(_STREAM)
        env.wait_for(lambda: copy.finished == WHOLE, "what was sent to be applied")

    @pytest.mark.parametrize("how", ["close", "cut", "finish_sending"])
    @pytest.mark.parametrize(
        "sent", [b"", _STREAM, _STREAM[:-9], b"\0\0\0\1x"], ids=["none", "whole", "part", "broken"]
    )
    def test_it_comes_again_when_the_connection_ends(
        self, sent: bytes, how: str, connect: Connect, server: Server
    ) -> None:
        copy = Copy()
        connect(copy, server.address)
        for _ in range(3):
            peer = server.accept()
            assert len(peer.receive(len(_GREETING))) == len(_GREETING)
            if sent:
                peer.send(sent)
            getattr(peer, how)()
            copy.finished.clear()

    def test_a_broken_stream_is_closed_from_here(self, connect: Connect, server: Server) -> None:
        connect(Sink(), server.address)
        peer = server.accept()
        peer.receive(len(_GREETING))
        peer.send(b"\0\0\0\1x")
        assert peer.receive(1) == b""
        assert server.accept().receive(len(_GREETING)) == _GREETING

    def test_a_failure_and_the_recovery_are_a_line_of_the_log_each(
        self, env: Environment, connect: Connect, caplog: pytest.LogCaptureFixture
    ) -> None:
        address = env.unused_address()
        connect(Sink(), address)
        env.wait_for(lambda: caplog.text.count("cannot connect") > 3, "attempts")
        server = env.listen(address)
        assert server.accept().receive(len(_GREETING)) == _GREETING
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
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        make = ReplicationClient.session
        mistakes = [LookupError("a mistake"), TypeError("another mistake")]

        def session(*args: Any) -> Any:
            if mistakes:
                raise mistakes.pop()
            return make(*args)

        monkeypatch.setattr(ReplicationClient, "session", session)
        connect(Sink(), server.address)
        greeted = False
        while not greeted:
            # The first ones are closed, maybe within the handshake of TLS.
            with contextlib.suppress(OSError):
                greeted = server.accept().receive(len(_GREETING)) == _GREETING
        env.wait_for(lambda: "connected again after 2 failed" in caplog.text, "the log")
        assert "cannot connect (" in caplog.text

    def test_it_waits_between_attempts_as_long_as_it_is_told(
        self, env: Environment, connect: Connect, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        delays, attempts = [0.01, 0.04, 0.16], []

        def failed(client: ReplicationClient, reason: str) -> None:
            attempts.append(env.now())

        def delay(client: ReplicationClient) -> float:
            return delays[len(attempts) - 1] if len(attempts) <= len(delays) else DEADLINE

        monkeypatch.setattr(ReplicationClient, "connection_failed", failed)
        monkeypatch.setattr(ReplicationClient, "retry_delay", delay)
        connect(Sink(), env.unused_address())
        env.wait_for(lambda: len(attempts) == 4, "four attempts")
        waited = [later - before for before, later in itertools.pairwise(attempts)]
        # Clocks are not all as fine.
        assert all(real > told - 0.002 for real, told in zip(waited, delays, strict=True))

    def test_it_waits_after_a_connection_that_was_closed_too(
        self, env: Environment, connect: Connect, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lost = []

        def delay(client: ReplicationClient) -> float:
            lost.append(env.now())
            return 0.05

        monkeypatch.setattr(ReplicationClient, "retry_delay", delay)
        connect(Sink(), server.address)
        server.accept().close()
        server.accept()
        assert lost
        assert env.now() - lost[0] > 0.048

    def test_it_says_that_it_is_there(self, connect: Connect, server: Server) -> None:
        connect(Sink(), server.address, keep_alive_delay=0.01)
        peer = server.accept()
        assert peer.receive(len(_GREETING) + 12) == _GREETING + b"\0" * 12

    def test_one_that_is_not_answered_is_closed_from_here(
        self, connect: Connect, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The session finds out when it is asked whether there is something to say."""
        monkeypatch.setattr(secondary, "ANSWER_TIME", 0.02)
        connect(Holding(), server.address, keep_alive_delay=0.01)
        peer = server.accept()
        assert peer.receive(len(_GREETING)) == _GREETING
        while peer.receive(1):
            pass
        assert server.accept().receive(len(_GREETING)) == greeting(start=_TID)

    def test_a_message_that_does_not_become_complete_is_asked_for_again(
        self, connect: Connect, server: Server, env: Environment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The length of a record is damaged on the way, and nothing follows."""
        monkeypatch.setattr("zrs_core.sessions.client.Patience", lambda limit: Patience(0.02))
        copy = Copy()
        connect(copy, server.address, keep_alive_delay=0.01)
        length = _STREAM.index(b"\0\0\0\6record")
        peer = server.accept()
        assert peer.receive(len(_GREETING)) == _GREETING
        peer.send(_STREAM[:length] + b"\0\4" + _STREAM[length + 2 :])
        while peer.receive(1):
            pass
        peer = server.accept()
        assert peer.receive(len(_GREETING)) == _GREETING
        peer.send(_STREAM)
        env.wait_for(lambda: _is_whole(copy), "the transaction")

    def test_stopping_aborts_what_is_unfinished(
        self, env: Environment, connect: Connect, server: Server, caplog: pytest.LogCaptureFixture
    ) -> None:
        copy = Copy()
        started = connect(copy, server.address)
        peer = server.accept()
        peer.receive(len(_GREETING))
        peer.send(_STREAM[:-1])
        env.wait_for(lambda: len(copy.unfinished) == 2, "the first messages")
        started.connector.stop()
        assert (copy.unfinished, copy.finished) == ([], [])
        assert peer.receive(1) == b""
        assert not [each for each in caplog.records if each.levelno >= logging.ERROR]

    def test_it_stays_away_once_stopped(self, connect: Connect, server: Server) -> None:
        started = connect(Sink(), server.address)
        peer = server.accept()
        peer.receive(len(_GREETING))
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
        peer.receive(len(_GREETING))
        peer.send(_STREAM[:-1])
        env.wait_for(lambda: len(copy.unfinished) == 2, "the first messages")
        other = env.listen()
        started.client.address = other.address
        started.connector.reconnect()
        assert peer.receive(1) == b""
        successor = other.accept()
        assert successor.receive(len(_GREETING)) == _GREETING
        successor.send(_STREAM)
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
        assert server.accept().receive(len(_GREETING)) == _GREETING

    def test_connections_that_come_and_go_leave_nothing(
        self, env: Environment, connect: Connect, server: Server
    ) -> None:
        started = connect(Sink(), server.address)
        server.accept().close()
        threads, files = threading.active_count(), open_files()
        for number in range(self.cycles):
            peer = server.accept()
            if number % 3:
                peer.receive(number % len(_GREETING))
            if number % 2:
                peer.close()
            else:
                peer.cut()
        started.connector.stop()
        env.wait_for(lambda: open_files() <= files, "files to be closed")
        env.wait_for(lambda: threading.active_count() <= threads, "threads to end")
        # Some are lost before they are any.
        assert started.client.progress.connections > self.cycles / 2

    # -- both

    def test_a_listener_and_a_connector_understand_each_other(
        self, env: Environment, listen: Listen, connect: Connect
    ) -> None:
        source, copy = Flood(limit=16), Copy()
        connect(copy, listen(source).address)
        env.wait_for(lambda: copy.count == 18, "the stream to be applied")
        assert copy.finished == list(source.messages())

    def test_they_find_each_other_again_whoever_goes_first(
        self, env: Environment, listen: Listen, connect: Connect
    ) -> None:
        copies = [Copy() for _ in range(4)]
        first = listen(Source())
        for copy in copies:
            connect(copy, first.address)
        for round_number in range(3):
            source = Everyone(WHOLE)
            first.stop(DEADLINE)
            first = listen(source, first.address)
            for copy in copies:
                env.wait_for(functools.partial(_is_whole, copy), f"round {round_number}")
                copy.finished.clear()


def closed_at_once(env: Environment, address: Address) -> None:
    """Connect, and be sent away without a word; TLS may find out itself."""
    with contextlib.suppress(OSError):
        assert env.dial(address).receive(1) == b""


def greeted_in_time(
    env: Environment, source: Source, address: Address, caplog: pytest.LogCaptureFixture
) -> End:
    """A peer whose session has started; tried again where the machine was too busy for that."""
    while True:
        refused = caplog.text.count("refused (")
        with contextlib.suppress(OSError):
            peer = env.dial(address)
            peer.send(_GREETING)
        env.wait_for(
            lambda: source.waiting or caplog.text.count("refused (") > refused,  # noqa: B023
            "one or the other",
        )
        if source.waiting:
            return peer


class Started:
    """A connector that was started, and its client."""

    def __init__(self, client: ReplicationClient, connector: Any) -> None:
        self.client = client
        self.connector = connector


@implementer(ITransactionSource)
class Everyone:
    """A source that gives the same messages to everyone, then nothing."""

    blobs = True

    def __init__(self, messages: list[PrimaryMessage]) -> None:
        self._messages = messages

    def open(self, start: bytes) -> Source:
        return Source(list(self._messages))


class WakingAtOnce(Source):
    """It says that there is more before `wait` has returned."""

    def wait(self, wake: Callable[[], None]) -> None:
        if self.batches:
            wake()

    def read(self, budget: int) -> list[PrimaryMessage]:
        self._empty = not getattr(self, "_empty", False)
        return [] if self._empty else super().read(budget)


@implementer(ITransactionSource)
class Flood:
    """A source of `limit` batches that cost it no memory, for each reader; then a commit."""

    blobs = True

    def __init__(self, limit: int) -> None:
        self.readers: list[_FloodReader] = []
        self.limit = limit
        self.closed = 0

    def open(self, start: bytes) -> _FloodReader:
        self.readers.append(_FloodReader(self))
        return self.readers[-1]

    def messages(self) -> Iterator[PrimaryMessage]:
        """All that a reader gives."""
        yield Transaction(_TID)
        for _ in range(self.limit):
            yield _BULK
        yield Commit()


_BULK = Store(b"\0" * 8, _TID, b"x" * BATCH_SIZE)


@implementer(ITransactionReader)
class _FloodReader:
    at_end = False

    def __init__(self, source: Flood) -> None:
        self.batches = 0
        self._source = source
        self._messages = source.messages()

    def read(self, budget: int) -> list[PrimaryMessage]:
        self.batches += 1
        return [message for message in [next(self._messages, None)] if message is not None]

    def wait(self, wake: Callable[[], None]) -> None:
        pass

    def close(self) -> None:
        self._source.closed += 1


@implementer(ITransactionSink)
class Copy:
    """A sink that keeps finished transactions and forgets what is aborted."""

    blobs = True

    def __init__(self) -> None:
        self.finished: list[PrimaryMessage] = []
        self.unfinished: list[PrimaryMessage] = []
        #: Messages that were applied.
        self.count = 0

    def last_tid(self) -> bytes:
        return max((m.tid for m in self.finished if isinstance(m, Transaction)), default=NO_TID)

    def apply(self, message: PrimaryMessage) -> None:
        self.unfinished.append(message)
        if isinstance(message, Commit):
            self.finished += self.unfinished
            self.unfinished.clear()
        self.count += 1

    def flush(self) -> None:
        """Nothing is held back."""

    def abort(self) -> None:
        self.unfinished.clear()


def _is_whole(copy: Copy) -> bool:
    return copy.finished == WHOLE


class _Late(Source):
    """Says that it has nothing only when it is told to, and may have something by then."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()
        self.answer = threading.Event()
        self._tester = threading.current_thread()

    def read(self, budget: int) -> list[PrimaryMessage]:
        batch = super().read(budget)
        if not batch:
            self.asked.set()
            # Where all is done in the thread of the test, nothing happens meanwhile.
            if threading.current_thread() is not self._tester:
                self.answer.wait(DEADLINE)
        return batch


class Stillness:
    """Whether a value has not changed for a while."""

    def __init__(self, env: Environment, value: Callable[[], int]) -> None:
        self._env = env
        self._value = value
        self._last = value()
        self._turns = 0

    def wait_for(self) -> None:
        """Until it is still."""
        self._env.wait_for(self._still, "stillness")

    def _still(self) -> bool:
        value = self._value()
        self._turns = self._turns + 1 if value == self._last else 0
        self._last = value
        return self._turns > 50


def open_files() -> int:
    """How many file descriptors this process has open."""
    return len(os.listdir("/dev/fd"))

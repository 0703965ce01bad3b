"""Tests of what one peer can take from a listener."""
# ruff: noqa: S101

from __future__ import annotations

import contextlib
import logging
import tracemalloc

import pytest

from ...messages import Commit, PrimaryMessage, Store, Transaction
from ...refusals import TOLD
from ...sessions import BATCH_SIZE
from ...sessions.allowance import AT_MOST
from ..environments import DEADLINE, Environment
from ..fakes import WHOLE, Source, stream
from .storages import Everyone, Flood
from .suite import (
    GREETING,
    SOON,
    STREAM,
    TID,
    Listen,
    Stillness,
    Suite,
    closed_at_once,
    greeted_in_time,
)


class LimitTests(Suite):
    """Peers that are too many, too late, too slow, or that send too much."""

    def test_a_connection_too_many_is_closed_and_the_others_go_on(
        self, env: Environment, listen: Listen, caplog: pytest.LogCaptureFixture
    ) -> None:
        source = Everyone(WHOLE)
        address = listen(source, max_peers=2).address
        peers = [env.dial(address), env.dial(address)]
        for peer in peers:
            peer.send(GREETING)
            assert peer.receive(len(STREAM)) == STREAM
        closed_at_once(env, address)
        env.wait_for(lambda: "max_peers allows no more" in caplog.text, "the log")
        assert "refused (there are 2 connections already" in caplog.text
        assert caplog.text.count("Connected") == 2
        peers.pop().close()
        env.wait_for(lambda: "Disconnected" in caplog.text, "the session to be closed")

        def is_served() -> bool:
            with contextlib.suppress(OSError):
                peer = env.dial(address)
                peer.send(GREETING)
                return peer.receive(len(STREAM)) == STREAM
            return False

        env.wait_for(is_served, "the place to be free")

    @pytest.mark.parametrize("said", [b"", GREETING[:-1]], ids=["nothing", "too little"])
    def test_a_peer_that_does_not_greet_in_time_is_closed_and_the_others_stay(
        self, said: bytes, env: Environment, listen: Listen, caplog: pytest.LogCaptureFixture
    ) -> None:
        source = Source()
        address = listen(source, handshake_timeout=SOON).address
        other = greeted_in_time(env, source, address, caplog)

        def is_closed() -> bool:
            with contextlib.suppress(OSError):
                peer = env.dial(address)
                if said:
                    peer.send(said)
                assert peer.receive(1) == b""
            return f"refused (it sent no valid greeting within {SOON} seconds)" in caplog.text

        # On a busy machine TLS may not be over in time either.
        env.wait_for(is_closed, "a peer to be refused")
        source.batches.append(WHOLE)
        source.waiting.pop()()
        assert other.receive(len(STREAM)) == STREAM

    def test_a_peer_that_takes_nothing_is_left(
        self, env: Environment, listen: Listen, caplog: pytest.LogCaptureFixture
    ) -> None:
        source = Flood(limit=4096)
        peer = env.dial(listen(source, write_timeout=SOON).address)
        peer.send(GREETING)
        env.wait_for(lambda: source.closed, "the connection to be given up")
        reason = f"Disconnected (it took nothing of what it was sent for {SOON} seconds)"
        env.wait_for(lambda: reason in caplog.text, "the log")
        assert caplog.text.count("Disconnected") == 1

    def test_stopping_does_not_wait_for_a_peer_that_takes_nothing(
        self, env: Environment, listen: Listen
    ) -> None:
        source = Flood(limit=4096)
        listener = listen(source, write_timeout=SOON)
        peer = env.dial(listener.address)
        peer.send(GREETING)
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
        record = Store(b"\0" * 8, TID, b"x" * 50_000_000)
        messages: list[PrimaryMessage] = [Transaction(TID), record, Commit()]
        expected = stream(messages)
        timeout, steady = 1.0, False
        address = listen(Everyone(messages), write_timeout=timeout).address
        while not steady:
            peer = env.dial(address)
            peer.send(GREETING)
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
        peer.send(GREETING)
        assert peer.receive(len(STREAM)) == STREAM
        peer.close()
        listener.stop(0)
        assert f"and {TOLD} more in the last minute" in caplog.text

    def test_a_peer_that_floods_is_closed_and_the_others_go_on(
        self, env: Environment, listen: Listen, caplog: pytest.LogCaptureFixture
    ) -> None:
        source = Source()
        address = listen(source).address
        flood, other = env.dial(address), env.dial(address)
        for peer in (flood, other):
            peer.send(GREETING)
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
        assert other.receive(len(STREAM)) == STREAM

    def test_a_peer_that_stops_reading_takes_no_memory_and_holds_back_nobody(
        self, env: Environment, listen: Listen
    ) -> None:
        source = Flood(limit=4096)
        address = listen(source).address
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            lazy = env.dial(address)
            lazy.send(GREETING)
            env.wait_for(lambda: source.readers, "the session to start")
            (held,) = source.readers
            Stillness(env, lambda: held.batches).wait_for()
            taken = held.batches
            # What the system's buffers hold, and a few batches.
            assert taken * BATCH_SIZE < 100_000_000
            eager = env.dial(address)
            eager.send(GREETING)
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

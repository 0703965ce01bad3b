"""Tests of every listener."""
# ruff: noqa: S101

from __future__ import annotations

import logging
import threading

import pytest
from zope.interface.verify import verifyObject

from ...errors import ListenError, TidTooHigh
from ...interfaces import IListener
from ...messages import NO_TID
from ...sessions.times import PrimaryTimes
from ..environments import DEADLINE, Environment
from ..fakes import WHOLE, Source, stream
from .storages import Flood, Late, WakingAtOnce
from .suite import GREETING, STREAM, TID, Listen, Suite, open_files
from .watch import Watch


class ListenerTests(Suite):
    """Listening, serving, and stopping."""

    def test_a_listener_provides_its_interface(self, listen: Listen) -> None:
        assert verifyObject(IListener, listen(Source()))

    def test_an_address_in_use_is_an_error(self, listen: Listen) -> None:
        address = listen(Source()).address
        with pytest.raises(ListenError) as caught:
            listen(Source(), address)
        assert str(caught.value).startswith(f"cannot listen on {address}: ")

    def test_a_listener_has_the_storage_checked(self, env: Environment, listen: Listen) -> None:
        """Without a connection and without a commit too, and again and again."""
        checks: list[None] = []
        listen(Source(), check=lambda: checks.append(None), times=PrimaryTimes(check=0.01))
        env.wait_for(lambda: len(checks) > 2, "checks of the storage")

    def test_a_secondary_is_served_what_was_committed(
        self, env: Environment, listen: Listen
    ) -> None:
        source = Source(WHOLE[:1], WHOLE[1:])
        peer = env.dial(listen(source).address)
        peer.send(GREETING)
        assert peer.receive(len(STREAM)) == STREAM
        assert source.started == [NO_TID]

    def test_a_handshake_may_come_byte_by_byte(self, env: Environment, listen: Listen) -> None:
        peer = env.dial(listen(Source(WHOLE)).address)
        for number in range(len(GREETING)):
            peer.send(GREETING[number : number + 1])
        assert peer.receive(len(STREAM)) == STREAM

    def test_each_of_several_secondaries_gets_the_whole_stream(
        self, env: Environment, listen: Listen
    ) -> None:
        source = Flood(limit=8)
        address = listen(source).address
        peers = [env.dial(address) for _ in range(8)]
        for peer in peers:
            peer.send(GREETING)
        expected = stream(source.messages())
        for peer in peers:
            assert peer.receive(len(expected)) == expected

    def test_what_is_committed_later_follows_when_it_wakes(
        self, env: Environment, listen: Listen
    ) -> None:
        source = Source()
        peer = env.dial(listen(source).address)
        peer.send(GREETING)
        for batch in ([WHOLE[0]], WHOLE[1:]):
            env.wait_for(lambda: source.waiting, "the session to wait")
            source.batches.append(batch)
            source.waiting.pop()()
        assert peer.receive(len(STREAM)) == STREAM

    def test_a_wake_that_comes_at_once_is_not_missed(
        self, env: Environment, listen: Listen
    ) -> None:
        source = WakingAtOnce(*([message] for message in WHOLE))
        peer = env.dial(listen(source).address)
        peer.send(GREETING)
        assert peer.receive(len(STREAM)) == STREAM

    @pytest.mark.parametrize(
        "said",
        [b"\0\0\0\x06zrs9.9", b"GET / HTTP/1.1\r\n\r\n", GREETING + b"\0\0\0\x01x"],
        ids=["word", "http", "after the start"],
    )
    def test_a_refused_peer_is_closed_and_the_others_go_on(
        self, said: bytes, env: Environment, listen: Listen, caplog: pytest.LogCaptureFixture
    ) -> None:
        source = Source()
        address = listen(source).address
        other, refused = env.dial(address), env.dial(address)
        other.send(GREETING)
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
        assert other.receive(len(STREAM)) == STREAM

    @pytest.mark.parametrize(
        "error", [OSError("disk"), TidTooHigh(TID, NO_TID)], ids=["damaged", "too high"]
    )
    def test_a_source_that_cannot_serve_closes_the_connection(
        self, error: Exception, env: Environment, listen: Listen
    ) -> None:
        peer = env.dial(listen(Source(error=error)).address)
        peer.send(GREETING)
        assert peer.receive(1) == b""

    @pytest.mark.parametrize("how", ["close", "cut", "finish_sending"])
    def test_a_peer_that_leaves_frees_its_session(
        self, how: str, env: Environment, listen: Listen
    ) -> None:
        source = Source()
        peer = env.dial(listen(source).address)
        peer.send(GREETING)
        env.wait_for(lambda: source.waiting, "the session to wait")
        getattr(peer, how)()
        env.wait_for(lambda: source.closed, "the reader to be closed")
        assert source.closed == 1

    def test_a_peer_that_half_closes_is_closed(self, env: Environment, listen: Listen) -> None:
        peer = env.dial(listen(Source()).address)
        peer.send(GREETING)
        peer.finish_sending()
        assert peer.receive(1) == b""

    def test_a_handshake_may_be_cut_at_any_byte(self, env: Environment, listen: Listen) -> None:
        source = Source()
        address = listen(source).address
        for size in range(len(GREETING)):
            peer = env.dial(address)
            peer.send(GREETING[:size])
            peer.cut()
        assert source.started == []
        peer = env.dial(address)
        source.batches.append(WHOLE)
        peer.send(GREETING)
        assert peer.receive(len(STREAM)) == STREAM

    @pytest.mark.parametrize("rests", [False, True])
    def test_stopping_lets_secondaries_catch_up(
        self, rests: bool, env: Environment, listen: Listen, caplog: pytest.LogCaptureFixture
    ) -> None:
        source = Source()
        # Then a session rests after what it has sent, and nobody wakes it.
        source.at_end = rests
        listener = listen(source)
        silent, peer = env.dial(listener.address), env.dial(listener.address)
        peer.send(GREETING)
        env.wait_for(lambda: source.waiting, "the session to wait")
        # With TLS, that end may have finished the handshake before this one.
        env.wait_for(lambda: caplog.text.count(": Connected") == 2, "both sessions")
        source.batches += [[WHOLE[0]], WHOLE[1:]]
        stopped = env.beside(lambda: listener.stop(DEADLINE))
        assert peer.receive(len(STREAM) + 1) == STREAM
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
        source = Late()
        listener = listen(source)
        silent, peer = env.dial(listener.address), env.dial(listener.address)
        peer.send(GREETING)
        env.wait_for(source.asked.is_set, "the session to ask")
        source.batches.append(WHOLE)
        stopped = env.beside(lambda: listener.stop(DEADLINE))
        assert silent.receive(1) == b""
        source.answer.set()
        assert peer.receive(len(STREAM) + 1) == STREAM
        peer.close()
        silent.close()
        stopped()

    def test_stopping_waits_for_no_peer_longer_than_it_may(
        self, env: Environment, listen: Listen
    ) -> None:
        source = Flood(limit=4096)
        listener = listen(source)
        lazy = env.dial(listener.address)
        lazy.send(GREETING)
        env.wait_for(lambda: source.readers, "the session to start")
        listener.stop(0.01)
        assert source.closed == 1

    def test_a_stopped_listener_leaves_its_address_to_the_next(
        self, env: Environment, listen: Listen, watch: Watch
    ) -> None:
        address = listen(Source()).address
        first = self.make_listener(env, watch, Source())
        first.start()
        first.stop(0)
        second = listen(Source(WHOLE), first.address)
        first.stop(0)
        peer = env.dial(second.address)
        peer.send(GREETING)
        assert peer.receive(len(STREAM)) == STREAM
        assert second.address != address

    def test_peers_that_come_and_go_leave_nothing(self, env: Environment, listen: Listen) -> None:
        source = Source()
        address = listen(source).address
        threads, files = threading.active_count(), open_files()
        for number in range(self.cycles):
            peer = env.dial(address)
            said = GREETING[: number % (len(GREETING) + 1)]
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
        # A pool of threads may have grown to its bound, and ends with the listener.
        env.wait_for(lambda: threading.active_count() <= threads + 16, "threads to end")

"""Tests of the look-up of host names, for transports that look them up."""
# ruff: noqa: S101

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ...addresses import TCPAddress
from ..environments import DEADLINE, Environment, Server
from ..fakes import WHOLE, Sink, Source
from .storages import Copy, is_whole
from .suite import GREETING, Connect, Listen, Suite


class SlowNames:
    """Name servers that do not answer: for each name in `.example`, until `gate` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gate = threading.Event()
        #: The names that are being looked up, or were.
        self.asked: set[str] = set()
        self._real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._look_up)

    def _look_up(self, host: Any, *args: Any, **options: Any) -> Any:
        if isinstance(host, str) and host.endswith(".example"):
            self.asked.add(host)
            self.gate.wait(DEADLINE)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return self._real(host, *args, **options)


class NameTests(Suite):
    """Names that cannot be looked up, or not soon."""

    @pytest.fixture
    def slow_names(self, env: Environment, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowNames]:
        """Name servers that do not answer before the end of the test."""
        if not env.looks_names_up:
            pytest.skip("no names are looked up")
        names = SlowNames(monkeypatch)
        yield names
        names.gate.set()

    def test_a_name_that_cannot_be_looked_up_is_a_failed_attempt(
        self,
        env: Environment,
        connect: Connect,
        server: Server,
        slow_names: SlowNames,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        slow_names.gate.set()
        started = connect(Sink(), TCPAddress("nowhere.example", 1), reconnect_delay=10 * DEADLINE)
        env.wait_for(lambda: "cannot connect (" in caplog.text, "the attempt")
        assert "Temporary failure in name resolution" in caplog.text
        started.client.address = server.address
        started.connector.reconnect()
        assert server.accept().receive(len(GREETING)) == GREETING

    def test_look_ups_keep_nothing_else_waiting(
        self, env: Environment, listen: Listen, connect: Connect, slow_names: SlowNames
    ) -> None:
        waiting = [connect(Sink(), TCPAddress(f"{n}.example", 1)) for n in range(20)]
        env.wait_for(lambda: slow_names.asked, "the look-ups")
        copy = Copy()
        connect(copy, listen(Source(WHOLE)).address)
        env.wait_for(lambda: is_whole(copy), "what was sent to be applied")
        for each in waiting:
            each.connector.stop()
        assert not [each for each in waiting if each.client.progress.last_error]

    @pytest.mark.parametrize("how", ["stop", "reconnect"])
    def test_a_look_up_can_be_given_up(
        self,
        how: str,
        env: Environment,
        connect: Connect,
        server: Server,
        slow_names: SlowNames,
    ) -> None:
        started = connect(Sink(), TCPAddress("slow.example", 1))
        env.wait_for(lambda: slow_names.asked, "the look-up")
        if how == "stop":
            started.connector.stop()
        else:
            started.client.address = server.address
            started.connector.reconnect()
            with contextlib.closing(server.accept()) as peer:
                assert peer.receive(len(GREETING)) == GREETING

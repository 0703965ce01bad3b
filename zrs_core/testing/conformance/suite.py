"""What the tests of the suite stand on."""
# ruff: noqa: S101

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ... import transports
from ...addresses import Address
from ...options import ClientOptions, ServiceOptions
from ...sessions.times import PrimaryTimes, SecondaryTimes
from ...tls import TLSOptions
from ..certificates import both_ends
from ..environments import End, Environment, Server, SocketEnvironment
from ..fakes import WHOLE, Sink, Source, greeting, stream
from .watch import Watch, WatchedClient, WatchedService

TID = b"\0" * 7 + b"\1"
STREAM = stream(WHOLE)
GREETING = greeting()

#: Seconds that a peer is given that will not use them.
SOON = 0.1

Listen = Callable[..., Any]
Connect = Callable[..., Any]

_warmed_up: set[type] = set()


class Suite:
    """The fixtures of the suite. They use the attributes that `TransportConformance` documents."""

    transport: ClassVar[str]
    tls: ClassVar[bool] = False
    cycles: ClassVar[int] = 1000

    def environment(self) -> Environment:
        """Where it is tried out: TCP on loopback unless overridden."""
        return SocketEnvironment(self.tls_options())

    def tls_options(self) -> TLSOptions | None:
        """Return the options of all ends: those of a test certificate if `tls` is true."""
        return both_ends() if self.tls else None

    def _warm_up(self) -> None:
        # A first connection may create objects that are kept, such as those of a library.
        if type(self) in _warmed_up:
            return
        _warmed_up.add(type(self))
        with contextlib.closing(self.environment()) as env:
            watch = Watch(env.now)
            listener = self.make_listener(env, watch, Source())
            listener.start()
            started = self.make_connector(env, watch, Sink(), listener.address)
            started.connector.start()
            env.wait_for(lambda: started.client.progress.connected, "a connection")
            started.connector.stop()
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

    @pytest.fixture
    def watch(self, env: Environment) -> Iterator[Watch]:
        """The watch over all sessions; in the end all are over, and there was no mistake."""
        watch = Watch(env.now)
        yield watch
        watch.finish()

    def make_listener(
        self,
        env: Environment,
        watch: Watch,
        source: object,
        address: Address | None = None,
        *,
        kind: type[WatchedService] = WatchedService,
        check: Callable[[], object] = lambda: None,
        times: PrimaryTimes | None = None,
        **options: Any,
    ) -> Any:
        """Return a listener; `options` are those of a `Primary`."""
        service = kind(
            source,  # type: ignore[arg-type]
            address or env.address(),
            env.reactor,
            ServiceOptions(tls=env.tls, **options),
            check,
            times,
        )
        service.watch = watch
        return transports.listener_factory(self.transport)(service)

    def make_connector(
        self,
        env: Environment,
        watch: Watch,
        sink: object,
        address: Address,
        *,
        kind: type[WatchedClient] = WatchedClient,
        times: SecondaryTimes | None = None,
        **options: Any,
    ) -> Started:
        """Return a connector, with its client; `options` are those of a `Secondary`."""
        client = kind(
            sink,  # type: ignore[arg-type]
            address,
            env.reactor,
            ClientOptions(**{"reconnect_delay": 0.001, "tls": env.tls, **options}),
            times=times,
        )
        client.watch = watch
        return Started(client, transports.connector_factory(self.transport)(client))

    @pytest.fixture
    def listen(self, env: Environment, watch: Watch) -> Iterator[Listen]:
        """Starts a listener for a source, as `make_listener`; it is stopped in the end."""
        listeners = []

        def start(source: object, address: Address | None = None, **options: Any) -> Any:
            listener = self.make_listener(env, watch, source, address, **options)
            listener.start()
            listeners.append(listener)
            return listener

        yield start
        for listener in listeners:
            listener.stop(0)

    @pytest.fixture
    def connect(self, env: Environment, watch: Watch) -> Iterator[Connect]:
        """Starts a connector for a sink, as `make_connector`; it is stopped in the end."""
        connectors = []

        def start(sink: object, address: Address, **options: Any) -> Started:
            started = self.make_connector(env, watch, sink, address, **options)
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
            peer.send(GREETING)
        env.wait_for(
            lambda: source.waiting or caplog.text.count("refused (") > refused,  # noqa: B023
            "one or the other",
        )
        if source.waiting:
            return peer


class Started:
    """A connector that was started, and its client."""

    def __init__(self, client: WatchedClient, connector: Any) -> None:
        self.client = client
        self.connector = connector


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

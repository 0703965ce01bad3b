"""The driver of one connection over Twisted: a protocol for both ends."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IPullProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from ..actions import Work
from ..interfaces import ISession
from .driver import Driver
from .reactors import Loop, Timer
from .sockets import FIRST_READ_SIZE, is_readable, next_read_size, tune

# Bytes that are handed to Twisted at a time, which are what it writes in one call. The session
# hears when the system has accepted them, and so that a slow peer makes progress.
_PIECE = 128 * 1024


@implementer(IHalfCloseableProtocol, IPullProducer)
class Connection(Protocol, Driver):
    """One end of a connection.

    The session is called in the reactor's thread, under a lock: when an application's reactor ends,
    its threads report what they have done by themselves.

    :param loop: the reactor.
    :param peer_timeout: seconds after which a peer that has vanished must be noticed.
    """

    transport: Any
    # None before `begin`.
    session: Any = None

    def __init__(self, loop: Loop, peer_timeout: float) -> None:
        self._loop = loop
        self._peer_timeout = peer_timeout
        #: The session to drive as soon as there is a transport; None if `begin` is called with it.
        self.accepted: ISession | None = None
        #: The socket.
        self.handle: Any = None
        #: Fires, with None, when the session is over.
        self.over: Deferred[None] = Deferred()
        self._lock = threading.RLock()
        # What Twisted has not got yet, and the bytes of the piece that it is writing.
        self._unsent: deque[bytes | memoryview] = deque()
        self._writing = 0
        self._paused = self._eof = self._is_over = False
        self._reason: str | None = None
        self._woken = False
        # Results of work, until the session has them.
        self._outcomes: deque[tuple[Any, BaseException | None]] = deque()
        # The earliest last. There may be some that no deadline needs any more.
        self._timers: list[tuple[float, Timer]] = []

    # -- called by the listener and the connector

    def begin(self, session: ISession) -> None:
        """Drive a session on this connection, until `over` fires."""
        Driver.__init__(self, session)
        self.transport.registerProducer(self, False)
        self.act()

    def check_made(self) -> None:
        """End the session if Twisted has failed to set up the connection: it reports nothing."""
        if self.session is None and self.accepted is not None:
            Driver.__init__(self, self.accepted)
            self._paused = True
            self._call(self.accepted.lost, "it could not be set up")

    def stop(self, timeout: float) -> None:
        """Have the session end within `timeout` seconds."""
        # In a reactor that has ended, what its threads have reported last was not heard.
        self._report()
        if self.session is not None:
            stop = self.session.stop
            self._call(lambda now: stop(now, timeout))

    def notify(self) -> None:
        """Have the session called soon. For any thread."""
        # When the reactor ends, a commit must not do its work.
        if not self._woken and self._loop.reactor.running:
            self._woken = True
            self._loop.reactor.callFromThread(self._wake)

    def readable(self) -> bool:
        """Return True if there is more to read at once. For any thread."""
        return is_readable(self.handle)

    # -- called by Twisted

    def connectionMade(self) -> None:
        self.transport.bufferSize = FIRST_READ_SIZE
        self.handle = self.transport.getHandle()
        # A peer that has left already has no settings any more; its end follows.
        with contextlib.suppress(OSError):
            tune(self.handle, self._peer_timeout)
        if self.accepted is not None:
            self.begin(self.accepted)

    def dataReceived(self, data: bytes) -> None:
        self.transport.bufferSize = next_read_size(len(data))
        if self.session is not None:
            self._call(self.session.receive_data, data)

    def readConnectionLost(self) -> None:
        """The peer sends nothing more (IHalfCloseableProtocol)."""
        self._eof = True
        if self.session is not None:
            self._call(self.session.receive_eof)

    def writeConnectionLost(self) -> None:
        """This end sends nothing more (IHalfCloseableProtocol)."""

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._unsent.clear()
        if self.session is not None:
            self._call(self.session.lost, self._reason or reason.getErrorMessage())

    def resumeProducing(self) -> None:
        """The system has accepted all that was written (IPullProducer)."""
        written, self._writing = self._writing, 0
        self._write()
        if written and self.session is not None:
            self._call(self.session.sent, written)

    def stopProducing(self) -> None:
        """The connection is lost (IPullProducer); `connectionLost` follows."""

    # -- called by `act`

    def send(self, chunks: Sequence[bytes]) -> None:
        self._unsent.extend(chunks)
        if not self._writing:
            self._write()

    def work(self, work: Work) -> None:
        if work.nearby:
            self._do(work.call, self._report)
        else:
            self._loop.start(partial(self._do, work.call, partial(self._loop.soon, self._report)))

    def half_close(self) -> None:
        self.transport.unregisterProducer()
        self.transport.loseWriteConnection()

    def close(self, reason: str) -> None:
        self._reason = reason
        self.transport.unregisterProducer()
        # `loseConnection` would wait until the socket can be written to, which a peer that reads
        # nothing prevents. Not within what Twisted does with the connection now.
        lost = Failure(ConnectionDone())  # type: ignore[no-untyped-call]
        self._loop.soon(self.transport.connectionLost, lost)

    def abort(self, reason: str) -> None:
        self._reason = reason
        self._unsent.clear()
        self.transport.unregisterProducer()
        self.transport.abortConnection()

    def settle(self) -> None:
        if self._is_over:
            return
        session = self.session
        if session.over:
            self._is_over = True
            for _, timer in self._timers:
                if timer.active():
                    timer.cancel()
            self._timers.clear()
            # Not within this: it may be what waits for the next connection.
            self._loop.soon(self.over.callback, None)
            return
        if session.wants_data is self._paused and not self._eof:
            self._paused = not self._paused
            if self._paused:
                self.transport.pauseProducing()
            else:
                self.transport.resumeProducing()
        deadline = session.next_deadline()
        # A timer that rings too early costs less than one that is set again each time.
        if deadline is not None and (not self._timers or deadline < self._timers[-1][0]):
            left = max(deadline - time.monotonic(), 0.0)
            self._timers.append((deadline, self._loop.callLater(left, self._ring)))

    # -- inside

    def _call(self, function: Callable[..., None], *args: object) -> None:
        with self._lock:
            if not self._is_over:
                function(*args, time.monotonic())
                self.act()

    def _wake(self) -> None:
        self._woken = False
        if self.session is not None:
            self._call(self.session.wake)

    def _write(self) -> None:
        """Hand over the next piece, if there is one."""
        piece, room = [], _PIECE
        while self._unsent and room:
            chunk = self._unsent.popleft()
            if len(chunk) > room:
                view = memoryview(chunk)
                self._unsent.appendleft(view[room:])
                chunk = view[:room]
            room -= len(chunk)
            piece.append(bytes(chunk))
        self._writing = _PIECE - room
        self.transport.writeSequence(piece)

    def _do(self, call: Callable[[], object], report: Callable[[], object]) -> None:
        try:
            outcome: tuple[Any, BaseException | None] = call(), None
        except BaseException as error:  # noqa: BLE001
            outcome = None, error
        self._outcomes.append(outcome)
        report()

    def _report(self) -> None:
        with self._lock:
            if self._outcomes:
                result, error = self._outcomes.popleft()
                if error is None:
                    self._call(self.session.done, result)
                else:
                    self._call(self.session.failed, error)

    def _ring(self) -> None:
        self._timers = [each for each in self._timers if each[1].active()]
        if not self._paused and not self._eof and self.readable():
            # What the peer has sent counts, though it is read late.
            self._loop.soon(self._pass_time)
        else:
            self._pass_time()

    def _pass_time(self) -> None:
        self._call(self._handle_timeout)

    def _handle_timeout(self, now: float) -> None:
        deadline = self.session.next_deadline()
        if deadline is not None and deadline <= now:
            self.session.handle_timeout(now)


class ConnectionFactory(Factory):
    """Makes a connection for an address with a function."""

    noisy = False

    def __init__(self, make: Callable[[Any], Connection | None]) -> None:
        self._make = make

    def buildProtocol(self, addr: object) -> Connection | None:
        return self._make(addr)

"""Which Twisted reactor a transport runs on, and how to reach it from any thread.

A storage may be given a reactor, by an application that runs one. All others share one that runs
in a background thread, from the time when the first of them is opened until the last is closed.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import maybeDeferred
from twisted.python.failure import Failure
from twisted.python.threadable import isInIOThread

from ..forks import inheritable

_Reactor: Any
try:
    # It waits to the microsecond; the one of poll() spins for the last millisecond of each delay.
    from twisted.internet.epollreactor import EPollReactor as _Reactor
except ImportError:
    from twisted.internet.pollreactor import PollReactor as _Reactor

#: Threads that read and apply for all storages on the background reactor. Each is busy for a
#: batch at a time; the number only bounds how many disks are waited for at once.
BACKGROUND_WORKERS = 16

# Seconds by which a call is late, at most, when the system's clock was set back.
_TICK = 0.5


class Timer(Protocol):
    """A delayed call, as `Deferred.addTimeout` and others expect of a clock."""

    def active(self) -> bool:
        """Return True if it is still to come."""

    def cancel(self) -> None:
        """Take it back, which must be active."""


class Loop:
    """A reactor in use. Thread-safe, but for `callLater`."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor

    def close(self) -> None:
        """Release the reactor."""

    def must_not_wait(self) -> bool:
        """Return True if waiting for the reactor here would take forever."""
        return not self.reactor.running or bool(isInIOThread())  # type: ignore[no-untyped-call]

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """The result of a call in the reactor's thread, waited for if it is a Deferred.

        In that very thread, before the reactor runs and when it is stopped meanwhile, a Deferred
        that has not fired is left to go on by itself, and the result is None.
        """
        outcome: list[Any] = []
        if self.must_not_wait():
            maybeDeferred(function, *args).addBoth(outcome.append)
        else:
            done = threading.Event()

            def finished(result: Any) -> None:
                outcome.append(result)
                done.set()

            self.reactor.callFromThread(lambda: maybeDeferred(function, *args).addBoth(finished))
            # A reactor that is stopped meanwhile does not say so to those who wait for it.
            while not done.wait(1.0) and self.reactor.running:
                pass
        if not outcome:
            return None
        if isinstance(outcome[0], Failure):
            outcome[0].raiseException()
        return outcome[0]

    def soon(self, function: Callable[..., object], *args: Any) -> None:
        """Call `function` in the reactor's thread, after what that does now.

        If the reactor does not run, `function` is called here: the reactor has ended.
        """
        if self.reactor.running:
            self.reactor.callFromThread(function, *args)
        else:
            function(*args)

    def start(self, function: Callable[[], object]) -> None:
        """Call `function` in a thread that may wait for the disk.

        If the reactor does not run, its threads have ended too, and `function` is called here.
        """
        reactor = self.reactor
        if not reactor.running:
            function()
            return
        try:
            reactor.getThreadPool().callInThread(function)
        except RuntimeError:
            # The system gives no more threads. Then the reactor waits for the disk.
            reactor.callFromThread(function)

    def callLater(self, seconds: float, function: Callable[..., object], *args: Any) -> Timer:
        """Call `function` in so many seconds, in the reactor's thread, from which this is called.

        The system's clock may be set meanwhile. The name is that of `IReactorTime`.
        """
        timer: Timer = self.reactor.callLater(seconds, function, *args)
        return timer


class _PoolThread(threading.Thread):
    """One that the system did not start stays in the pool, which waits for all in the end."""

    def join(self, timeout: float | None = None) -> None:
        if self.ident is not None:
            super().join(timeout)


# Collecting a reactor of the parent would have effects in the child.
_abandoned: list[Any] = []


class _MonotonicReactor(_Reactor):  # type: ignore[misc]
    """A reactor whose delayed calls do not depend on the system's clock, which may be set back."""

    def seconds(self) -> float:
        return time.monotonic()


class _Background:
    """The background reactor and its thread, while anybody uses them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._reactor: Any = None
        self._thread: threading.Thread | None = None

    def acquire(self) -> _BackgroundLoop:
        with self._lock:
            if self._thread is None:
                self._start()
            self._users += 1
            return _BackgroundLoop(self._reactor, self._thread, self)

    def _start(self) -> None:
        reactor: Any = _MonotonicReactor()
        # The application may run a reactor of its own, whose thread is *the* I/O thread.
        reactor._registerAsIOThread = False
        pool = reactor.getThreadPool()
        # A storage that nobody closed must not keep the process from ending.
        pool.threadFactory = functools.partial(_PoolThread, daemon=True)
        pool.adjustPoolsize(0, BACKGROUND_WORKERS)
        running = threading.Event()
        reactor.callWhenRunning(running.set)
        thread = threading.Thread(
            target=reactor.run, args=(False,), name="zrs_core reactor", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:
            _close(reactor)
            raise
        running.wait()
        self._reactor, self._thread = reactor, thread
        inheritable(self)

    def abandon(self) -> None:
        """Start over in the child of a fork, which has no thread and shares the descriptors.

        Closing the epoll descriptor has no effect on the parent. Unregistering descriptors from it
        would have.
        """
        reactor, self._reactor, self._thread = self._reactor, None, None
        self._lock, self._users = threading.Lock(), 0
        if reactor is None:
            return
        _abandoned.append(reactor)
        _close(reactor)
        for each in reactor._selectables.values():
            with contextlib.suppress(AttributeError):
                each.socket.close()

    def release(self) -> None:
        with self._lock:
            self._users -= 1
            reactor, thread = self._reactor, self._thread
            # Its own thread cannot wait for its end: then it stays, for the next who needs it.
            if self._users or thread is None or thread is threading.current_thread():
                return
            self._reactor = self._thread = None
        # The end may have to wait for a disk; another reactor can begin meanwhile.
        reactor.callFromThread(reactor.stop)
        thread.join()
        _close(reactor)


def _close(reactor: Any) -> None:
    # A reactor closes neither the pipe that wakes it nor what it waits with.
    reactor.waker.connectionLost(None)
    with contextlib.suppress(AttributeError):
        reactor._poller.close()


class _BackgroundLoop(Loop):
    def __init__(
        self, reactor: Any, thread: threading.Thread | None, background: _Background
    ) -> None:
        super().__init__(reactor)
        self._thread = thread
        self._background = background

    def close(self) -> None:
        self._background.release()

    def must_not_wait(self) -> bool:
        return self._thread is threading.current_thread()


_background = _Background()


class _GivenTimer:
    """A call by a reactor that follows the system's clock.

    :param timers: those of the loop that are still to come.
    """

    def __init__(
        self, reactor: Any, timers: set[_GivenTimer], seconds: float, function: Callable[[], object]
    ) -> None:
        self.due = time.monotonic() + seconds
        self._reactor = reactor
        self._timers = timers
        self._function = function
        self._call = reactor.callLater(seconds, self.ring)
        timers.add(self)

    def active(self) -> bool:
        return self in self._timers

    def cancel(self) -> None:
        self._timers.remove(self)
        if self._call.active():
            self._call.cancel()

    def ring(self) -> None:
        """Make the call if it is due; it is not if the clock was set forward."""
        left = self.due - time.monotonic()
        if left > 0:
            self._call = self._reactor.callLater(left, self.ring)
        else:
            self.cancel()
            self._function()


class _GivenLoop(Loop):
    """The loop of an application's reactor, which schedules calls by the system's clock.

    When that clock is set back, calls would be late by as much. So the background reactor has the
    given one look for calls that are due, twice a second while there are any to come.
    """

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor)
        self._timers: set[_GivenTimer] = set()
        self._closed = False
        self._clock = _background.acquire()
        self._clock.soon(self._tick)

    def close(self) -> None:
        self._closed = True
        self._clock.close()

    def callLater(self, seconds: float, function: Callable[..., object], *args: Any) -> Timer:
        call = functools.partial(function, *args)
        return _GivenTimer(self.reactor, self._timers, seconds, call)

    def _tick(self) -> None:
        """Have the given reactor look at its calls. In the thread of the background reactor."""
        if self._closed:
            return
        if self._timers and self.reactor.running:
            self.reactor.callFromThread(self._ring_overdue)
        self._clock.callLater(_TICK, self._tick)

    def _ring_overdue(self) -> None:
        now = time.monotonic()
        overdue = [each for each in self._timers if each.due <= now]
        for each in sorted(overdue, key=lambda each: each.due):
            # The one before may have taken it back.
            if each.active():
                each.ring()


def acquire(reactor: object) -> Loop:
    """Return the loop of a given reactor, or of the background one for None, to be closed.

    :raises RuntimeError: the system gives no thread.
    """
    return _background.acquire() if reactor is None else _GivenLoop(reactor)

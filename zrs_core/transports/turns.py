"""The calls of one session, one after the other, in the thread pool of a Twisted reactor."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from .reactors import Loop


class _Call(NamedTuple):
    function: Callable[[], Any]
    done: Callable[[Any], object]
    failed: Callable[[Failure], object]


class Turns:
    """Calls that may wait for the disk: each begins when the one before has returned. Thread-safe.

    A lock of Deferreds around `deferToThread` would do the same, for calls that begin in the
    reactor's thread. Here they begin wherever there is something to do: a commit need not go by way
    of the reactor to have itself sent.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        # Guards what follows.
        self._lock = threading.Lock()
        self._calls: deque[_Call] = deque()
        self._running = False

    def call(
        self,
        function: Callable[[], Any],
        done: Callable[[Any], object],
        failed: Callable[[Failure], object],
    ) -> None:
        """Call `function` in its turn, and with what becomes of it, in the reactor's thread, one of
        the others.

        :param done: called with its result.
        :param failed: called with what it raised.
        """
        with self._lock:
            self._calls.append(_Call(function, done, failed))
            if self._running:
                return
            self._running = True
        self._loop.start(self._run)

    def deferred(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """The result of a call in its turn. In the reactor's thread."""
        result: Deferred[Any] = Deferred()
        self.call(lambda: function(*args), result.callback, result.errback)
        return result

    def _run(self, tell: Callable[..., object]) -> None:
        while (call := self._next()) is not None:
            try:
                result = call.function()
            except BaseException:  # noqa: BLE001
                tell(call.failed, Failure())  # type: ignore[no-untyped-call]
            else:
                tell(call.done, result)

    def _next(self) -> _Call | None:
        with self._lock:
            if self._calls:
                return self._calls.popleft()
            self._running = False
            return None

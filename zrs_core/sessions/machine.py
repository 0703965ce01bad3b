"""The machine under every session: actions, deadlines, back-pressure, and the end."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from ..actions import Abort, Action, Close, HalfClose, Send, Work
from ..logs import event
from .deadlines import Deadline, Timers

log = logging.getLogger("zrs_core.transport")

_Failed: TypeAlias = Callable[[BaseException, float], None]

#: The reason for the end of a connection that this end has closed.
CLOSED_HERE: Final = "closed here"

#: The reason for the end of a connection that the peer has closed.
CLOSED_THERE: Final = "closed by the other end"

CLOSE = Deadline(
    "close",
    "the session closes while the network has not accepted all that was sent, for 10 seconds",
    "the connection is aborted",
)


class Machine(ABC):
    """One end of one connection, without I/O and without a clock (see `interfaces.ISession`).

    A subclass implements the `_on_...` methods. An exception that one of them raises is a bug: it
    is logged, and the connection is aborted.

    :param peer: the name of the other end in the log.
    :param handlers: the deadlines of the subclass, with their handlers.
    :param close_time: seconds that the peer has to take what was sent before a close.
    """

    def __init__(
        self,
        peer: str,
        handlers: Mapping[Deadline, Callable[[float], None]],
        close_time: float,
    ) -> None:
        self._peer = peer
        self._close_time = close_time
        self._timers = Timers({CLOSE: self._close_due, **handlers})
        self._actions: deque[Action] = deque()
        # Work that was not handed out yet, and the continuations of the one that was.
        self._work: deque[tuple[Work, Callable[[Any, float], None], _Failed]] = deque()
        self._current: tuple[Callable[[Any, float], None], _Failed] | None = None
        # Bytes that were sent and that the network has not accepted.
        self._unsent = 0
        # The action that ends the connection, once all that was sent is accepted.
        self._last: Close | HalfClose | None = None
        self._half_closed = False
        # True once the session has asked for the end of the connection.
        self._closing = False
        self._lost = False
        self._reason = CLOSED_HERE
        self._told_lost = False
        #: True when nothing is left to do: the driver forgets the session.
        self.over = False

    # -- inputs

    def receive_data(self, data: bytes, now: float) -> None:
        """Take bytes from the peer."""
        if not (self._closing or self._lost):
            self._call(self._on_data, data, now)

    def receive_eof(self, now: float) -> None:
        """Note that the peer sends nothing more."""
        if not (self._closing or self._lost):
            self._call(self._on_eof, now)

    def sent(self, count: int, now: float) -> None:
        """Note that the network has accepted so many bytes of those that were sent."""
        self._unsent = max(self._unsent - count, 0)
        if not self._lost:
            self._call(self._on_sent, now)
            self._end_if_drained()

    def wake(self, now: float) -> None:
        """Note that the source may have more."""
        if not (self._closing or self._lost):
            self._call(self._on_wake, now)

    def done(self, result: Any, now: float) -> None:
        """Take the result of the last `Work`."""
        (then, _), self._current = self._take_current(), None
        self._call(then, result, now)
        self._finish_if_lost(now)

    def failed(self, error: BaseException, now: float) -> None:
        """Take the exception that the last `Work` has raised."""
        (_, otherwise), self._current = self._take_current(), None
        self._call(otherwise, error, now)
        self._finish_if_lost(now)

    def handle_timeout(self, now: float) -> None:
        """Do what falls due at `now`."""
        if not self._lost:
            self._call(self._timers.pass_time, now)

    def stop(self, now: float, timeout: float = 0.0) -> None:
        """End the connection; a primary lets its secondary catch up for `timeout` seconds."""
        if not (self._closing or self._lost):
            self._call(self._on_stop, now, timeout)

    def lost(self, reason: str, now: float) -> None:
        """Note that the connection is gone; further calls do nothing."""
        if self._lost:
            return
        self._lost = True
        self._actions.clear()
        self._timers.clear_all()
        self._unsent = 0
        self._reason = reason
        self._finish_if_lost(now)

    # -- outputs

    def next_action(self) -> Action | None:
        """Return the next action to carry out, None if there is none now."""
        if self._actions:
            return self._actions.popleft()
        if self._work and self._current is None:
            work, then, otherwise = self._work.popleft()
            self._current = then, otherwise
            return work
        return None

    def next_deadline(self) -> float | None:
        """Return the time at which to call `handle_timeout`, None for never."""
        return None if self._lost else self._timers.next()

    @property
    def wants_data(self) -> bool:
        """False while the driver should not read from the peer."""
        return not (self._closing or self._lost)

    # -- for subclasses

    @abstractmethod
    def _on_data(self, data: bytes, now: float) -> None: ...

    @abstractmethod
    def _on_eof(self, now: float) -> None: ...

    def _on_sent(self, now: float) -> None:  # noqa: B027
        """Some bytes were accepted."""

    def _on_wake(self, now: float) -> None:  # noqa: B027
        """The source may have more."""

    def _on_stop(self, now: float, timeout: float) -> None:
        self._close(now)

    @abstractmethod
    def _on_lost(self, reason: str, now: float) -> None:
        """Note the end, of which `_finish` is the last part. Called once, while no work runs."""

    @property
    def _working(self) -> bool:
        return self._current is not None or bool(self._work)

    def _send(self, chunks: Sequence[bytes]) -> None:
        if not (self._lost or self._closing or self._half_closed):
            self._unsent += sum(map(len, chunks))
            self._actions.append(Send(chunks))

    def _do(
        self,
        call: Callable[[], Any],
        then: Callable[[Any, float], None],
        otherwise: _Failed | None = None,
        *,
        nearby: bool = False,
    ) -> None:
        """Have `call` made, and `then` called with its result."""
        self._work.append((Work(call, nearby), then, otherwise or self._work_failed))

    def _half_close(self) -> None:
        """Send nothing more; the session goes on until the peer closes, or a deadline passes."""
        self._half_closed = True
        self._last = HalfClose()
        self._end_if_drained()

    def _close(self, now: float, reason: str = CLOSED_HERE) -> None:
        """Close the connection when the network has accepted all that was sent."""
        if self._closing or self._lost:
            return
        self._closing = True
        self._timers.clear_all()
        self._timers.set(CLOSE, now + self._close_time)
        self._last = Close(reason)
        self._end_if_drained()

    def _abort(self, reason: str = CLOSED_HERE) -> None:
        """Drop the connection at once."""
        if not self._lost:
            self._closing = True
            self._timers.clear_all()
            self._last = None
            self._actions.clear()
            self._actions.append(Abort(reason))

    def _finish(self) -> None:
        """Nothing is left to do."""
        self._timers.clear_all()
        self.over = True

    # -- inside

    def _end_if_drained(self) -> None:
        if self._last is not None and not self._unsent:
            if isinstance(self._last, Close):
                self._timers.clear(CLOSE)
            self._actions.append(self._last)
            self._last = None

    def _close_due(self, now: float) -> None:
        self._abort(self._last.reason if isinstance(self._last, Close) else CLOSED_HERE)

    def _take_current(self) -> tuple[Callable[[Any, float], None], _Failed]:
        if self._current is None:
            raise RuntimeError("the outcome of no work is expected")
        return self._current

    def _finish_if_lost(self, now: float) -> None:
        if self._lost and not (self._working or self._told_lost):
            self._told_lost = True
            self._call(self._on_lost, self._reason, now)

    def _work_failed(self, error: BaseException, now: float) -> None:
        self._unexpected(error)

    def _unexpected(self, error: BaseException) -> None:
        fields = event("unexpected", peer=self._peer)
        log.error("%s: closing", self._peer, exc_info=error, extra=fields)
        self._abort(repr(error))
        if self._lost:
            self._finish()

    def _call(self, function: Callable[..., None], *args: Any) -> None:
        try:
            function(*args)
        except Exception as error:  # noqa: BLE001
            self._unexpected(error)

"""A check of what a driver does to its sessions, in every test of the suite."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from zope.interface import implementer

from ...actions import Action, Send, Work
from ...interfaces import ISession
from ...sessions import ReplicationClient, ReplicationService


class Watch:
    """The sessions of one test, and the mistakes of their drivers.

    :param clock: returns the time that the transport goes by.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        #: A line for each mistake.
        self.mistakes: list[str] = []
        self.sessions: list[WatchedSession] = []

    def over(self, session: ISession) -> WatchedSession:
        """Return a session that passes everything on to this one."""
        self.sessions.append(WatchedSession(session, self))
        return self.sessions[-1]

    def finish(self) -> None:
        """Check that all is over, and that there was no mistake.

        :raises AssertionError: something is wrong.
        """
        self.mistakes += ["a session is not over" for each in self.sessions if not each.over]
        if self.mistakes:
            raise AssertionError("\n".join(dict.fromkeys(self.mistakes)))


@implementer(ISession)
class WatchedSession:
    """A session that notes what its driver must not do.

    :param session: the session that does the work.
    """

    def __init__(self, session: ISession, watch: Watch) -> None:
        self._session = session
        self._watch = watch
        # Held while a call is under way, and while work is.
        self._calling = threading.Lock()
        self._working = threading.Lock()
        # True while work has returned whose outcome was not reported.
        self._returned = False
        self._last = 0.0
        self._sent = self._accepted = 0
        self._at_eof = self._lost = False

    def receive_data(self, data: bytes, now: float) -> None:
        self._check(not self._at_eof, "data came after the end")
        self._check(not self._lost, "data came after the connection was lost")
        with self._input("receive_data", now):
            self._session.receive_data(data, now)

    def receive_eof(self, now: float) -> None:
        self._check(not self._at_eof, "the end came twice")
        self._check(not self._lost, "the end came after the connection was lost")
        self._at_eof = True
        with self._input("receive_eof", now):
            self._session.receive_eof(now)

    def sent(self, count: int, now: float) -> None:
        self._accepted += count
        self._check(0 < self._accepted <= self._sent, "more was accepted than was sent")
        with self._input("sent", now):
            self._session.sent(count, now)

    def wake(self, now: float) -> None:
        with self._input("wake", now):
            self._session.wake(now)

    def done(self, result: object, now: float) -> None:
        self._report()
        with self._input("done", now):
            self._session.done(result, now)

    def failed(self, error: BaseException, now: float) -> None:
        self._report()
        with self._input("failed", now):
            self._session.failed(error, now)

    def handle_timeout(self, now: float) -> None:
        with self._input("handle_timeout", now):
            self._session.handle_timeout(now)

    def stop(self, now: float, timeout: float) -> None:
        with self._input("stop", now):
            self._session.stop(now, timeout)

    def lost(self, reason: str, now: float) -> None:
        self._check(not self._lost, "the connection was lost twice")
        self._lost = True
        with self._input("lost", now):
            self._session.lost(reason, now)

    def next_action(self) -> Action | None:
        with self._call("next_action"):
            action = self._session.next_action()
        if isinstance(action, Send):
            self._sent += sum(map(len, action.chunks))
        elif isinstance(action, Work):
            return Work(partial(self._work, action.call), action.nearby)
        return action

    def next_deadline(self) -> float | None:
        return self._session.next_deadline()

    @property
    def wants_data(self) -> bool:
        return self._session.wants_data

    @property
    def over(self) -> bool:
        return self._session.over

    # -- inside

    def _check(self, right: bool, mistake: str) -> None:
        if not right:
            self._watch.mistakes.append(mistake)

    @contextlib.contextmanager
    def _call(self, name: str) -> Iterator[None]:
        if not self._calling.acquire(blocking=False):
            self._check(False, f"{name} was called during another call")
            yield
            return
        try:
            yield
        finally:
            self._calling.release()

    @contextlib.contextmanager
    def _input(self, name: str, now: float) -> Iterator[None]:
        with self._call(name):
            self._check(not self.over, f"{name} was called when the session was over")
            self._check(now >= self._last, f"the time of {name} lies before that of another call")
            # A clock of another kind is far away, and so is one that is read once and kept.
            age = self._watch.clock() - now
            self._check(0 <= age < 60, f"the time of {name} is that of no monotonic clock")
            self._last = now
            yield

    def _work(self, call: Callable[[], Any]) -> Any:
        if not self._working.acquire(blocking=False):
            self._check(False, "work was done while other work was under way")
            return call()
        try:
            self._check(not self._returned, "work was done before the outcome of other work")
            return call()
        finally:
            self._returned = True
            self._working.release()

    def _report(self) -> None:
        self._check(self._returned, "the outcome of no work was reported")
        self._returned = False


class WatchedService(ReplicationService):
    """A service whose sessions are watched."""

    watch: Watch

    def accept(self, peer: str, now: float, notify: Callable[[], None]) -> ISession | None:
        session = super().accept(peer, now, notify)
        return None if session is None else self.watch.over(session)


class WatchedClient(ReplicationClient):
    """A client whose sessions are watched."""

    watch: Watch
    _watched: WatchedSession | None = None

    def session(
        self,
        now: float,
        notify: Callable[[], None],
        local_address: str | None = None,
        readable: Callable[[], bool] = lambda: False,
    ) -> ISession:
        if self._watched is not None and not self._watched.over:
            self.watch.mistakes.append("a session was asked for before the last one was over")
        session = super().session(now, notify, local_address, readable)
        self._watched = self.watch.over(session)
        return self._watched
